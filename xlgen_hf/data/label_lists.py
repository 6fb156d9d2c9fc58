"""Label lists of many rows as arrays, so that they are checked and changed as a whole and not row by row."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

__all__ = ["LabelLists", "column_batches", "label_lists", "lists_of_lengths"]


class LabelLists(NamedTuple):
    """The labels of `N` rows.

    Attributes:
        offsets: where the labels of a row begin and end, shape `(N + 1,)`, int64.
        names: the labels of all rows, one after another: an Arrow array of strings.
    """

    offsets: np.ndarray
    names: pa.Array

    @property
    def lengths(self) -> np.ndarray:
        """Labels of each row, shape `(N,)`."""
        return np.diff(self.offsets)

    def row_of(self, entry: int) -> int:
        """The row that an entry of `names` belongs to."""
        return int(np.searchsorted(self.offsets, entry, side="right")) - 1

    def rows(self) -> np.ndarray:
        """The row of each entry of `names`, shape `(entries,)`."""
        return np.repeat(np.arange(len(self.offsets) - 1), self.lengths)

    def select(self, keep: np.ndarray) -> LabelLists:
        """The entries that are kept, `keep` a boolean for each of them, shape `(entries,)`."""
        import pyarrow as pa

        lengths = np.bincount(self.rows()[keep], minlength=len(self.lengths))
        return lists_of_lengths(lengths, self.names.filter(pa.array(keep, pa.bool_())))

    def each_once(self) -> LabelLists:
        """The labels of each row without those that it repeats; the first of equal ones stays."""
        encoded = self.names.dictionary_encode()
        keys = self.rows() * np.int64(max(len(encoded.dictionary), 1)) + encoded.indices.to_numpy(zero_copy_only=False)
        _, first = np.unique(keys, return_index=True)
        if len(first) == len(keys):
            return self
        keep = np.zeros(len(keys), dtype=bool)
        keep[first] = True
        return self.select(keep)

    def to_array(self) -> pa.Array:
        """An Arrow array of lists of strings."""
        import pyarrow as pa

        return pa.ListArray.from_arrays(pa.array(self.offsets, pa.int32()), self.names)


def lists_of_lengths(lengths: np.ndarray, names: pa.Array) -> LabelLists:
    """Label lists from the number of labels of each row, and all labels one after another."""
    offsets = np.zeros(len(lengths) + 1, dtype=np.int64)
    np.cumsum(lengths, out=offsets[1:])
    return LabelLists(offsets, names)


def label_lists(array: pa.Array) -> LabelLists:
    """Label lists of an Arrow array of lists; null is an empty list."""
    import pyarrow.compute as pc

    lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy(zero_copy_only=False).astype(np.int64)
    return lists_of_lengths(lengths, pc.list_flatten(array))


def column_batches(rows: Dataset, *names: str, size: int = 10_000) -> Iterator[tuple[pa.Array, ...]]:
    """Columns of a data set as Arrow arrays, `size` rows at a time, so that memory does not grow with the rows."""
    selected = rows.select_columns(list(names)).with_format("arrow")
    for table in selected.iter(batch_size=size):
        columns = (table.column(name) for name in names)
        yield tuple(column.combine_chunks() if column.num_chunks != 1 else column.chunk(0) for column in columns)
