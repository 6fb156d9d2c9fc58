"""One-hot tables: a column of 0 and 1 for each label."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from .blocks import Column
from .label_lists import LabelLists, lists_of_lengths
from .values import shown, to_list

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["NotBinaryError", "binary_columns", "one_hot_labels", "other_values"]

# Values that a cell may have. True is equal to 1 and 1.0, and None is an empty cell.
_BITS = {0: False, 1: True, None: False, "": False} | {
    word: bit for bit, words in ((False, "0 0.0 false"), (True, "1 1.0 true")) for word in words.split()
}
_SHOWN = 3  # columns that an error names


class NotBinaryError(ValueError):
    """A value of a one-hot column is neither 0 nor 1.

    Args:
        row: the row in the block, from 0.
        message: what is there.
    """

    def __init__(self, row: int, message: str) -> None:
        self.row = row
        super().__init__(message)


def binary_columns(columns: Mapping[str, Column]) -> list[str]:
    """The columns that hold 0 and 1 alone, at least one of them anything."""
    return [name for name, column in columns.items() if _is_binary(column)]


def _is_binary(column: Column) -> bool:
    try:
        bits, filled = _bits(column)
    except NotBinaryError:
        return False
    return filled and len(bits) > 0


def other_values(columns: Mapping[str, Column]) -> str:
    """What keeps columns from being labels: a value of each that is neither 0 nor 1, as the end of a sentence."""
    found = []
    for name, column in columns.items():
        try:
            _bits(column)
        except NotBinaryError as err:
            found.append(f"{name!r} holds {err}")
    if not found:
        return ""
    more = f", and {len(found) - _SHOWN} more hold other values" if len(found) > _SHOWN else ""
    return (
        f": {', '.join(found[:_SHOWN])}{more}. Where numbers are votes or shares, write 1 for the labels that apply, "
        "and 0 for the others"
    )


def one_hot_labels(columns: Mapping[str, Column]) -> LabelLists:
    """The labels of each row: the names of the columns that hold 1.

    Raises:
        NotBinaryError: if a value is something else.
    """
    import pyarrow as pa

    bits = []
    for name, column in columns.items():
        try:
            bits.append(_bits(column)[0])
        except NotBinaryError as err:
            raise NotBinaryError(err.row, f"The one-hot column {name!r} holds {err}; 0 or 1 is expected.") from err
    rows, labels = np.nonzero(np.column_stack(bits))
    names = pa.array(list(columns), pa.string()).take(pa.array(labels))
    return lists_of_lengths(np.bincount(rows, minlength=len(bits[0])), names)


def _bits(column: Column) -> tuple[np.ndarray, bool]:
    """Whether each value is 1, and whether any has a value at all."""
    fast = _arrow_bits(column)
    if fast is not None:
        return fast
    values = to_list(column)
    bits = np.zeros(len(values), dtype=bool)
    filled = False
    for row, value in enumerate(values):
        key = value.strip().lower() if isinstance(value, str) else value
        if isinstance(key, (list, dict)) or key not in _BITS:
            raise NotBinaryError(row, shown(value))
        bits[row] = _BITS[key]
        filled |= key is not None and key != ""
    return bits, filled


def _arrow_bits(column: Column) -> tuple[np.ndarray, bool] | None:
    """The same for Arrow columns of numbers without a null, as a whole; None for any other column."""
    import pyarrow as pa

    if not isinstance(column, pa.Array) or column.null_count:
        return None
    kind: pa.DataType = column.type
    if not (pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        return None
    values = column.to_numpy(zero_copy_only=False)
    wrong = (values != 0) & (values != 1)
    if wrong.any():
        row = int(wrong.argmax())
        raise NotBinaryError(row, shown(values[row].item()))
    return values == 1, True
