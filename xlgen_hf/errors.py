"""Errors that xlgen_hf raises on purpose.

Every class also derives from the builtin exception that a caller would catch, so `except ValueError` keeps working.
"""

from __future__ import annotations

from pathlib import Path

__all__ = [
    "CheckpointError",
    "ConfigurationError",
    "DataError",
    "HubError",
    "LabelSpaceError",
    "MissingExtraError",
    "ModelFolderError",
    "SaveError",
    "Terminated",
    "XLGenError",
]


class XLGenError(Exception):
    """Base of all errors that xlgen_hf raises on purpose; the command line prints it without a traceback."""


class DataError(XLGenError, ValueError):
    """A row or a file of user data cannot be used.

    Args:
        message: what was given, what is allowed, what to do.
        file: the file, where there is one.
        row: the row in that file, counted from 1, where there is one.
    """

    def __init__(self, message: str, *, file: str | Path | None = None, row: int | None = None) -> None:
        self.file = None if file is None else str(file)
        self.row = row
        place = self.file or ""
        if row is not None:
            place = f"{place}, row {row}" if place else f"row {row}"
        super().__init__(f"{place}: {message}" if place else message)


class LabelSpaceError(XLGenError, ValueError):
    """A label name or a label space cannot be used."""


class ConfigurationError(XLGenError, ValueError):
    """Settings contradict each other or the data they are used with."""


class CheckpointError(XLGenError, OSError):
    """A checkpoint name leads nowhere, or to something that is not a checkpoint."""


class HubError(XLGenError, OSError):
    """The Hub refused something, or could not be reached."""


class ModelFolderError(XLGenError, ValueError):
    """A model folder lacks a file, or a file in it does not fit the others."""


class SaveError(XLGenError, OSError):
    """A file or folder cannot be written; what stood there before is as it was.

    Args:
        target: the file or folder.
        reason: what the system says, e.g. "No space left on device".
    """

    def __init__(self, target: str | Path, reason: str) -> None:
        self.target = Path(target)
        self.reason = reason
        super().__init__(
            f"Nothing was saved to {target}: {reason}. What stood there before is as it was. Free some space or "
            "choose another place, and save again."
        )


class MissingExtraError(XLGenError, ImportError):
    """An optional dependency is not installed.

    Args:
        package: the package that is missing.
        extra: the extra of xlgen-hf that brings it; "" where none does.
        advice: what to do, where that is not to install the extra.
    """

    def __init__(self, package: str, extra: str, *, advice: str | None = None) -> None:
        advice = advice or f"Install it with: pip install 'xlgen-hf[{extra}]'"
        super().__init__(f"`{package}` is not installed. {advice}")


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM; handled as Ctrl-C is, but for the exit code."""
