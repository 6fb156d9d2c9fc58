"""The form of JSON files: declared once, checked when they are read, written with their format version.

    class _Content(TypedDict):
        names: list[str]
        seed: int

    _FORM = Fields[_Content](
        {"names": strings(min_length=1), "seed": integer(minimum=0)},
        format_version=2,
        made_by="xlgen train",
    )
    _FORM.write(path, {"names": [...], "seed": 0})
    content = _FORM.read(path)  # a _Content

Every error is a `ModelFolderError` that names the file, the field, the value (shortened) and what is allowed. The same
for safetensors files: `tensor_schema`.
"""

from __future__ import annotations

import math
import reprlib
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Generic, Protocol, TypeGuard, TypeVar, cast

from ..errors import ConfigurationError, DataError, LabelSpaceError, ModelFolderError
from .serialization import JSON, read_json, write_json

__all__ = [
    "FORMAT_VERSION_FIELD",
    "Check",
    "Fields",
    "anything",
    "boolean",
    "check_format_version",
    "choice",
    "either",
    "integer",
    "list_of",
    "mapping_of",
    "named_after",
    "number",
    "optional",
    "read_object",
    "read_strings",
    "shown",
    "string",
    "strings",
]

FORMAT_VERSION_FIELD = "format_version"
_LONGEST_SHOWN = 80
_GREATEST = sys.float_info.max

Content = TypeVar("Content", bound=Mapping[str, object])
_Item = TypeVar("_Item", float, str)

_repr = reprlib.Repr()
_repr.maxstring = _repr.maxother = _LONGEST_SHOWN
_repr.maxlong = 40
_repr.maxlist = _repr.maxdict = _repr.maxtuple = 4


def shown(value: object) -> str:
    """A value as it stands in a message: its `repr`, shortened to about 80 characters."""
    text = _repr.repr(value)
    return text if len(text) <= 2 * _LONGEST_SHOWN else f"{text[: 2 * _LONGEST_SHOWN]}..."


@contextmanager
def named_after(path: str | Path) -> Iterator[None]:
    """Turn what a class says of its arguments into a `ModelFolderError` that names the file which held them.

    Args:
        path: the file.
    """
    try:
        yield
    except (ConfigurationError, DataError, LabelSpaceError, OverflowError) as err:
        raise ModelFolderError(f"{path}: {err}") from err


# ---------------------------------------------------------------------------------------------------- JSON values


class Check(Protocol):
    """What a JSON value must be.

    Attributes:
        allowed: what is allowed, as it follows "must be" in a message.
    """

    @property
    def allowed(self) -> str:
        """What is allowed."""

    def problem(self, value: object, place: str) -> str | None:
        """Say what is wrong with a value, if anything.

        Args:
            value: the parsed value.
            place: where it stands in the file, e.g. `maps[2].x`.
        """


@dataclass(frozen=True)
class _Scalar:
    """A value without parts."""

    allowed: str
    accepts: Callable[[object], bool]

    def problem(self, value: object, place: str) -> str | None:
        return None if self.accepts(value) else _message(value, place, self.allowed)


def _message(value: object, place: str, allowed: str) -> str:
    return f"'{place}' is {shown(value)}; it must be {allowed}."


def integer(*, minimum: int | None = None, maximum: int | None = None) -> Check:
    """An integer within bounds, both included; `true` and `1.0` are not integers."""
    low, high = -math.inf if minimum is None else minimum, math.inf if maximum is None else maximum
    return _Scalar(f"an integer{_range(minimum, maximum)}", lambda value: type(value) is int and low <= value <= high)


def number(*, minimum: float | None = None, maximum: float | None = None, below: float | None = None) -> Check:
    """A number that a float can hold, within bounds: `minimum` and `maximum` included, `below` not."""
    low, high = -_GREATEST if minimum is None else minimum, _GREATEST if maximum is None else maximum

    def accepts(value: object) -> bool:
        if not isinstance(value, int | float) or isinstance(value, bool):
            return False
        return low <= value <= high and (below is None or value < below)

    return _Scalar(f"a number{_range(minimum, maximum, below)}", accepts)


def _range(minimum: float | None, maximum: float | None, below: float | None = None) -> str:
    bounds = {">=": minimum, "<=": maximum, "<": below}
    given = " and ".join(f"{sign} {bound}" for sign, bound in bounds.items() if bound is not None)
    return f" {given}" if given else ""


def boolean() -> Check:
    """`true` or `false`."""
    return _Scalar("true or false", lambda value: type(value) is bool)


def string(*, visible: bool = False) -> Check:
    """A string that UTF-8 can hold (JSON has halves of characters that it cannot).

    Args:
        visible: whether it must hold something besides white space.
    """
    allowed = "a string with visible text" if visible else "a string of valid Unicode"
    return _Scalar(allowed, lambda value: _is_text(value) and (not visible or bool(value.strip())))


def _is_text(value: object) -> TypeGuard[str]:
    if not isinstance(value, str) or value.isascii():
        return isinstance(value, str)
    try:
        value.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def choice(*values: str) -> Check:
    """One of some strings."""
    return _Scalar(f"one of {sorted(values)}", lambda value: isinstance(value, str) and value in values)


def anything() -> Check:
    """What JSON can hold, all of it."""
    return _Scalar("any value", lambda _: True)


@dataclass(frozen=True)
class _Either:
    """A value that fits one of several checks."""

    checks: tuple[Check, ...]

    @property
    def allowed(self) -> str:
        return " or ".join(check.allowed for check in self.checks)

    def problem(self, value: object, place: str) -> str | None:
        problems = [check.problem(value, place) for check in self.checks]
        if None in problems:
            return None
        deeper = [text for text in problems if text and not text.startswith(f"'{place}' is ")]
        return deeper[0] if len(deeper) == 1 else _message(value, place, self.allowed)


def either(*checks: Check) -> Check:
    """What fits one of some checks."""
    return _Either(checks)


def optional(check: Check) -> Check:
    """What fits a check, or `null`."""
    return _Either((check, _Scalar("null", lambda value: value is None)))


@dataclass(frozen=True)
class _ListOf:
    """A list whose items all fit one check."""

    item: Check
    min_length: int
    max_length: int | None
    unique: bool
    ascending: bool

    @property
    def allowed(self) -> str:
        longest = math.inf if self.max_length is None else self.max_length
        if self.min_length == longest:
            return f"a list of {self.min_length} items"
        if longest < math.inf:
            return f"a list of {self.min_length} to {longest} items"
        return f"a list of at least {self.min_length} items" if self.min_length else "a list"

    def problem(self, value: object, place: str) -> str | None:
        if not isinstance(value, list):
            return _message(value, place, self.allowed)
        if len(value) < self.min_length or (self.max_length is not None and len(value) > self.max_length):
            return f"'{place}' has {len(value)} items; it must be {self.allowed}."
        # Lists may have millions of items: places are put into words for those that are looked at closely alone.
        accepts = self.item.accepts if isinstance(self.item, _Scalar) else None
        for position, item in enumerate(value):
            if accepts is None or not accepts(item):
                found = self.item.problem(item, f"{place}[{position}]")
                if found:
                    return found
        return self._order_problem(value, place)

    def _order_problem(self, value: list[_Item], place: str) -> str | None:
        if self.ascending:
            for before, after in pairwise(value):
                if after < before:
                    return f"'{place}' has {shown(after)} after {shown(before)}; it must be ascending."
        if self.unique and len(set(value)) < len(value):
            seen = set()
            for item in value:
                if item in seen:
                    return f"'{place}' has {shown(item)} more than once; its items must be different."
                seen.add(item)
        return None


def list_of(
    item: Check, *, min_length: int = 0, max_length: int | None = None, unique: bool = False, ascending: bool = False
) -> Check:
    """A list.

    Args:
        item: what each item must be.
        min_length: minimum number of items.
        max_length: maximum number of items; any number if None.
        unique: whether the items (numbers or strings) must be different.
        ascending: whether no item (numbers or strings) may be less than the one before it.
    """
    return _ListOf(item, min_length, max_length, unique, ascending)


def strings(
    *, min_length: int = 0, max_length: int | None = None, unique: bool = False, visible: bool = False
) -> Check:
    """A list of strings; see [`list_of`] and [`string`]."""
    return list_of(string(visible=visible), min_length=min_length, max_length=max_length, unique=unique)


@dataclass(frozen=True)
class _MappingOf:
    """An object with any names, or some of those that are known, whose values all fit one check."""

    value: Check
    names: frozenset[str] | None

    @property
    def allowed(self) -> str:
        return "an object" if self.names is None else f"an object with names out of {sorted(self.names)}"

    def problem(self, value: object, place: str) -> str | None:
        if not isinstance(value, dict) or (self.names is not None and not set(value) <= self.names):
            return _message(value, place, self.allowed)
        for name, item in value.items():
            found = self.value.problem(item, f"{place}[{shown(name)}]")
            if found:
                return found
        return None


def mapping_of(value: Check, *, names: Collection[str] | None = None) -> Check:
    """An object that is used as a mapping.

    Args:
        value: what each value must be.
        names: the names that it may hold; any if None.
    """
    return _MappingOf(value, None if names is None else frozenset(names))


# ---------------------------------------------------------------------------------------------------- JSON objects


class Fields(Generic[Content]):
    """A JSON object with known fields: a whole file, or a part of one.

    The type in `Fields[_Content]` is what the type checker knows of a checked object, most often a `TypedDict` with
    these fields.

    Args:
        fields: what each field must be.
        optional: fields that may be absent.
        others: whether further fields are allowed, for files that other libraries write as well.
        format_version: the version of the file's format that this release writes and reads, at least 1; None for an
            object inside of a file, and for files of other libraries.
        made_by: the command that makes such a file again, e.g. `xlgen train`.
    """

    def __init__(
        self,
        fields: Mapping[str, Check],
        *,
        optional: Collection[str] = (),
        others: bool = False,
        format_version: int | None = None,
        made_by: str = "xlgen train",
    ) -> None:
        self._fields = dict(fields)
        self._optional = frozenset(optional)
        self._others = others
        self._version = format_version
        self._made_by = made_by

    @property
    def allowed(self) -> str:
        """What is allowed."""
        return f"an object with the fields {sorted(self._fields)}"

    def problem(self, value: object, place: str) -> str | None:
        """Say what is wrong with a value, if anything; see [`Check`]. `place` is "" for a whole file."""
        if not isinstance(value, dict):
            return _message(value, place, self.allowed) if place else f"it must be {self.allowed}, not {shown(value)}."
        inside = f"{place}." if place else ""
        for name, check in self._fields.items():
            if name not in value:
                if name in self._optional:
                    continue
                return f"'{inside}{name}' is missing; it must be {check.allowed}."
            found = check.problem(value[name], f"{inside}{name}")
            if found:
                return found
        unknown = [name for name in value if name not in self._fields]
        if unknown and not self._others:
            return f"{shown(inside + unknown[0])} is not a field of it; allowed are {sorted(self._fields)}."
        return None

    def check(self, content: object, path: str | Path, place: str = "") -> Content:
        """Check a parsed file, or a part of one.

        Args:
            content: the parsed file.
            path: its name, for the message.
            place: name of the part.

        Returns:
            Its fields, without the version.

        Raises:
            ModelFolderError: if it is of another version, or a field is missing, unknown or not as it must be.
        """
        if self._version is not None and isinstance(content, dict):
            content = dict(content)
            check_format_version(content.pop(FORMAT_VERSION_FIELD, None), self._version, path, self._made_by)
        problem = self.problem(content, place)
        if problem or not isinstance(content, dict):
            raise ModelFolderError(f"{path}: {problem}")
        return cast("Content", content)

    def read(self, path: str | Path) -> Content:
        """Read and check a file; see [`check`].

        Raises:
            ModelFolderError: if it is missing, unreadable, not JSON, or not of this form.
        """
        return self.check(read_json(path), path)

    def write(self, path: str | Path, content: Content) -> None:
        """Write a file of this form, with its version.

        Raises:
            ModelFolderError: if the content is not of this form, which is a mistake of the caller.
        """
        versioned = {} if self._version is None else {FORMAT_VERSION_FIELD: self._version}
        self.check(versioned | dict(content), path)
        write_json(path, versioned | dict(content))


def read_strings(path: str | Path) -> list[str]:
    """Read a JSON list of strings.

    Raises:
        ModelFolderError: if it is missing, unreadable, not JSON, or not a list of strings.
    """
    content = read_json(path)
    if not isinstance(content, list):
        raise ModelFolderError(f"{path}: it must be a list of strings, not {shown(content)}.")
    found = [name for name in content if isinstance(name, str)]
    if len(found) < len(content):
        raise ModelFolderError(f"{path}: it must be a list of strings; {len(content) - len(found)} items are not.")
    return found


def read_object(path: str | Path) -> dict[str, JSON]:
    """Read a JSON object with any fields, such as the files of other libraries.

    Raises:
        ModelFolderError: if it is missing, unreadable, not JSON, or not an object.
    """
    content = read_json(path)
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path}: it must be a JSON object, not {shown(content)}.")
    return content


def check_format_version(found: object, wanted: int, path: str | Path, made_by: str) -> None:
    """Refuse a file of another version.

    Args:
        found: what the file says; None if it says nothing.
        wanted: what this release reads.
        path: the file.
        made_by: the command that makes it again.

    Raises:
        ModelFolderError: if they differ.
    """
    if type(found) is int and found == wanted:
        return
    given = f"{FORMAT_VERSION_FIELD} {'is missing' if found is None else shown(found)}"
    advice = f"Folders saved by an earlier layout are not read: make it again with `{made_by}`."
    if type(found) is int and found > wanted:
        advice = "It was saved by a later release of xlgen-hf: install that one."
    raise ModelFolderError(f"{path}: {given}; this release reads {wanted}. {advice}")
