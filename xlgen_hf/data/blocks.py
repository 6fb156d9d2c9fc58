"""What readers hand on: some rows as columns, with the place of each row."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias, TypeVar

from .options import RowOptions

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

__all__ = ["BLOCK_ROWS", "MISSING", "Block", "Column", "Missing", "Splits", "batches", "block_of_rows", "each_value"]

BLOCK_ROWS = 10_000  # rows that are Python objects at once

T = TypeVar("T")


class Missing:
    """The value of a column that a row does not have; only JSON rows and dictionaries may lack one."""

    def __repr__(self) -> str:
        """As it would read in a message."""
        return "missing"


MISSING = Missing()

Column: TypeAlias = "Sequence[object] | pa.Array"


class Block(NamedTuple):
    """Some rows of a source.

    Attributes:
        file: the file, or what to call the source.
        numbers: the number of each row, from 1. Lines count in JSON Lines and plain text, records after the header in
            CSV and Excel.
        columns: name -> values of the rows, as Python objects or as an Arrow array.
        classes: names of the class numbers in the column of labels, where its metadata have them.
        ready: whether the source is a layout with columns of its own, `text`, `labels` and perhaps `id`, whatever the
            reading options call theirs.
    """

    file: str
    numbers: Sequence[int]
    columns: Mapping[str, Column]
    classes: Sequence[str] | None = None
    ready: bool = False


Splits: TypeAlias = "dict[str, Callable[[], Iterator[Block]]]"


def batches(items: Iterable[T], size: int | None = None) -> Iterator[list[T]]:
    """Lists of up to `size` items, by default as many as a block has rows."""
    iterator = iter(items)
    while chunk := list(islice(iterator, size or BLOCK_ROWS)):
        yield chunk


def each_value(rows: Dataset, column: str) -> Iterator[Any]:
    """The values of a column, a block of rows at a time; `rows[column]` reads them one by one, which takes longer.

    Args:
        rows: a data set.
        column: the column.
    """
    for batch in rows.select_columns([column]).iter(BLOCK_ROWS):
        yield from batch[column]


def block_of_rows(
    file: str, numbers: Sequence[int], rows: Sequence[Mapping[str, object]], options: RowOptions
) -> Block:
    """A block of the needed columns of rows that are dictionaries, each with the keys it has."""
    names: dict[str, None] = {}
    for row in rows:
        names.update(dict.fromkeys(row))
    return Block(
        file, numbers, {name: [row.get(name, MISSING) for row in rows] for name in options.needed(list(names))}
    )
