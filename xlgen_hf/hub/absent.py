"""Stand-ins for what a repository's copy of the code leaves out; `code_copy` puts this module into every copy."""

from __future__ import annotations

from typing import NoReturn

__all__ = ["absent"]


class _Absent(type):
    """Type of the stand-ins: whatever is asked of one ends in an `ImportError` that says what to install."""

    package: str

    def __call__(cls, *args: object, **kwargs: object) -> NoReturn:
        raise _error(cls)

    def __getattr__(cls, name: str) -> NoReturn:
        # Python looks for special names in any class; only what the program asks for is an error.
        raise AttributeError(name) if name.startswith("__") else _error(cls)


def absent(name: str, package: str = "xlgen-hf") -> _Absent:
    """A stand-in for a class or function: nothing is an instance of it, and using it raises.

    Args:
        name: what is missing.
        package: what pip installs it with.

    Returns:
        A class without instances. Calling it, or reading an attribute of it, raises an `ImportError` that names the
        package.
    """
    stand_in = _Absent(name, (), {})
    stand_in.package = package
    return stand_in


def _error(missing: _Absent) -> ImportError:
    return ImportError(
        f"{missing.__name__.lstrip('_')} is not part of the code in this model's repository; run "
        f"`pip install {missing.package}`."
    )
