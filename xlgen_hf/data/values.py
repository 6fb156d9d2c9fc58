"""Single values of rows: what they are, how a message shows them, and what is wrong with them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, NoReturn

from ..errors import DataError
from .blocks import MISSING, Block, Column
from .options import shown_names

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = [
    "MULTI_HOT_ADVICE",
    "encoded",
    "fail",
    "first_null",
    "half_pair_problem",
    "is_strings",
    "kind_of",
    "label_problem",
    "no_column",
    "shown",
    "text_problem",
    "to_list",
]

MULTI_HOT_ADVICE = (
    "as in a multi-hot vector. Give the numbers of its ones, and the names of the numbers: "
    "[number for number, bit in enumerate(row) if bit]."
)
"""What to do with label lists of 0 and 1, a bit for each label."""

_SHOWN = 80  # characters of a bad value that an error shows
_MANY_DIGITS = 40


def fail(block: Block, row: int, message: str, cause: Exception | None = None) -> NoReturn:
    """Raise the error of a row, `row` counted from 0 within the block."""
    raise DataError(message, file=block.file, row=int(block.numbers[row])) from cause


def no_column(block: Block, row: int | None, name: str, option: str, keyword: str, advice: str = "") -> NoReturn:
    """Raise the error of a column that is not there; names those that are.

    Args:
        block: the rows.
        row: the row that lacks it, from 0 within the block; None where all rows do.
        name: the column.
        option: how the command line calls the option that names it.
        keyword: how Python calls it.
        advice: what else may help, a sentence with a space before it.
    """
    there = [one for one, column in block.columns.items() if row is None or to_list(column)[row] is not MISSING]
    message = (
        f"There is no column {name!r}, only {shown_names(there)}. Name the one to read with {option} "
        f"({keyword}=... in Python)."
    )
    if block.file.endswith((".csv", ".tsv")):
        message += " The first line of a table names its columns."
    message += advice
    raise DataError(message, file=block.file, row=None if row is None else int(block.numbers[row]))


def is_strings(kind: pa.DataType) -> bool:
    """Whether an Arrow type is one of strings."""
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        kind = kind.value_type
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def first_null(array: pa.Array) -> int:
    """The first entry without a value."""
    return int(array.is_null().to_numpy(zero_copy_only=False).argmax())


def to_list(column: Column) -> Sequence[object]:
    """The values of a column as Python objects."""
    return column if isinstance(column, (list, tuple)) else column.to_pylist()  # type: ignore[union-attr]


def encoded(block: Block, values: Sequence[str], what: str, rows: Sequence[int] | None = None) -> pa.Array:
    """Strings as an Arrow array.

    Args:
        block: the rows that they are of.
        values: the strings.
        what: what to call one in an error.
        rows: the row of each, where that is not its position.

    Raises:
        DataError: if one holds half of a surrogate pair, which UTF-8 cannot hold.
    """
    import pyarrow as pa

    try:
        return pa.array(values, pa.string())
    except UnicodeEncodeError as err:
        number = next(i for i, value in enumerate(values) if not _is_encodable(value))
        fail(block, number if rows is None else rows[number], half_pair_problem(what, values[number]), err)


def half_pair_problem(what: str, value: object) -> str:
    """What is wrong with a value that UTF-8, and so Arrow, cannot hold."""
    return f"The {what} holds half of a surrogate pair, which is not a character: {shown(value)}."


def kind_of(value: object) -> str:
    """The type of a value, with its article."""
    name = type(value).__name__
    return f"{'an' if name[0] in 'aeiou' else 'a'} {name}"


def text_problem(name: str, text: object) -> str:
    """What is wrong with a text that is not a string."""
    if text is None:
        return f"The column {name!r} is null; a text is expected."
    return f"The column {name!r} is {kind_of(text)}, {shown(text)}; a string is expected."


def label_problem(label: object) -> str:
    """What is wrong with a label that is not a string."""
    advice = "write it as a string"
    if isinstance(label, (bool, float)) and label in (0, 1):
        return f"The label {shown(label)} is {kind_of(label)}, {MULTI_HOT_ADVICE}"
    if isinstance(label, int):
        advice += ", or, if it is an id, give a file with the names of the ids (label_names=..., --label-names)"
    return f"The label {shown(label)} is {kind_of(label)}; {advice}."


def shown(value: object) -> str:
    """A value for an error message: one line, not too long, printable."""
    if isinstance(value, int) and value.bit_length() > 4 * _MANY_DIGITS:  # Python refuses to print the longest
        return f"an integer of about {int(value.bit_length() * 0.30103):,} digits"
    text = ascii(value) if isinstance(value, str) and not _is_encodable(value) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def _is_encodable(text: str) -> bool:
    """Whether UTF-8, and so Arrow, can hold the text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True
