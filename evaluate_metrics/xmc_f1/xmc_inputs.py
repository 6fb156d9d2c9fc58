"""From what callers have (label lists, id lists, sparse matrices) to rows of label ids, with every row checked.

Labels are numbered by dictionaries and iterators that run in C; Python code touches a row only to explain an error.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import chain, count
from typing import Any

import numpy as np
import scipy.sparse as sp

from .xmc_scores import LabelRows

__all__ = ["LabelIndex", "check_label_counts", "check_label_lists", "count_labels", "id_rows"]

_ROW_TYPES = (list, tuple, np.ndarray)


def _place(field: str, row: int) -> str:
    return f"{field}, row {row + 1} (index {row})"


def _check_row_types(rows: Sequence[Any], field: str, first_row: int) -> None:
    if isinstance(rows, (str, bytes, Mapping)) or not hasattr(rows, "__len__") or not hasattr(rows, "__iter__"):
        raise ValueError(f"{field} must be a list with one list of labels for each document, got {_shown(rows)}.")
    wrong = {kind for kind in set(map(type, rows)) if not issubclass(kind, _ROW_TYPES)}
    for number, row in enumerate(rows if wrong else ()):
        if type(row) in wrong:
            raise ValueError(
                f"{_place(field, first_row + number)}: expected a list of labels, got {_shown(row)}; write a document"
                " with one label as a list of one, a document without labels as an empty list."
            )


def _check_element_types(
    rows: Sequence[Any], allowed: tuple[type, ...], what: str, field: str, first_row: int
) -> None:
    kinds = set(map(type, chain.from_iterable(rows)))
    wrong = {kind for kind in kinds if not issubclass(kind, allowed) or issubclass(kind, (bool, np.bool_))}
    for number, row in enumerate(rows if wrong else ()):
        for element in row:
            if type(element) in wrong:
                raise ValueError(f"{_place(field, first_row + number)}: expected {what}, got {_shown(element)}.")


def _shown(value: Any) -> str:
    text = repr(value)
    return f"{text[:60]}{'...' if len(text) > 60 else ''} ({type(value).__name__})"


def check_label_lists(rows: Sequence[Sequence[str]], field: str, first_row: int = 0) -> None:
    """Check that each row is a list of strings. That none is empty is seen when labels are numbered.

    Args:
        rows: a list of labels for each document.
        field: how to call the rows in an error.
        first_row: index of the first row, where these rows follow others.

    Raises:
        ValueError: naming the first row that is none.
    """
    if _is_arrow(rows):
        _check_arrow(rows, field)
        return
    _check_row_types(rows, field, first_row)
    _check_element_types(rows, (str,), "labels that are strings", field, first_row)


def check_label_counts(counts: Mapping[str, int]) -> None:
    """Check that labels are strings that are not empty, and counts whole numbers of at least 0.

    Raises:
        ValueError: naming the first label or count that is none.
    """
    if not isinstance(counts, Mapping):
        raise ValueError(f"train_label_counts is a {type(counts).__name__}; a dictionary of label to count is needed.")
    kinds = set(zip(map(type, counts), map(type, counts.values()), strict=True))
    right = all(issubclass(name, str) and issubclass(value, (int, np.integer)) for name, value in kinds)
    if right and min(counts.values(), default=0) >= 0 and "" not in counts:
        return
    for name, value in counts.items():
        if not isinstance(name, str) or not name or not isinstance(value, (int, np.integer)) or value < 0:
            raise ValueError(f"train_label_counts: {name!r}: {value!r} is not a label with a count >= 0.")


def _is_arrow(rows: Any) -> bool:
    """Whether the rows are a chunked array of pyarrow, as `datasets` hands out in its arrow format."""
    return hasattr(rows, "chunks") and hasattr(rows, "null_count")


def _check_arrow(column: Any, field: str) -> None:
    first_row = 0
    for chunk in column.chunks:
        if chunk.null_count or chunk.flatten().null_count:
            check_label_lists(chunk.to_pylist(), field, first_row)
        first_row += len(chunk)


def _row_bounds(rows: Sequence[Sequence[Any]]) -> np.ndarray:
    lengths = np.fromiter(map(len, rows), dtype=np.int64, count=len(rows))
    return np.concatenate(([0], np.cumsum(lengths)))


class LabelIndex:
    """Numbers labels in the order in which they come.

    Its methods take labels that were checked, and raise ValueError for a label that is the empty string.

    Args:
        known: labels that have their numbers, from 0 without gaps.
    """

    def __init__(self, known: Mapping[str, int] | None = None) -> None:
        known = known or {}
        self._ids: defaultdict[str, int] = defaultdict(count(len(known)).__next__, known)  # a look-up numbers a label

    def __len__(self) -> int:
        return len(self._ids)

    @property
    def names(self) -> list[str]:
        """The labels in the order of their ids."""
        return list(self._ids)

    def ids(self, labels: Sequence[str]) -> np.ndarray:
        """Ids of labels, numbering new ones; shape `(len(labels),)`."""
        return np.fromiter(map(self._ids.__getitem__, labels), dtype=np.int64, count=len(labels))

    def rows(self, label_lists: Any, field: str) -> LabelRows:
        """Label lists, or an arrow column of them, -> rows of ids; `field` is how to call them in an error."""
        if _is_arrow(label_lists):
            rows = self._arrow_rows(label_lists)
        else:
            rows = LabelRows(_row_bounds(label_lists), self.ids(list(chain.from_iterable(label_lists))))
        if "" in self._ids:
            entry = int(np.flatnonzero(rows.indices == self._ids[""])[0])
            place = _place(field, int(np.searchsorted(rows.indptr, entry, side="right")) - 1)
            raise ValueError(f"{place}: a label is the empty string; leave it out.")
        return rows

    def _arrow_rows(self, column: Any) -> LabelRows:
        """Only the distinct labels of a chunk become Python strings."""
        lengths, ids = [np.zeros(1, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
        for chunk in column.chunks:
            labels = chunk.flatten().dictionary_encode()
            lengths.append(chunk.value_lengths().to_numpy(zero_copy_only=False))
            ids.append(self.ids(labels.dictionary.to_pylist())[labels.indices.to_numpy()])
        return LabelRows(np.cumsum(np.concatenate(lengths)), np.concatenate(ids))


def count_labels(label_lists: Sequence[Sequence[str]]) -> tuple[list[str], np.ndarray]:
    """Labels and the number of documents of each; a label counts once a document.

    Raises:
        ValueError: naming the first row that is not a list of labels.
    """
    check_label_lists(label_lists, "train_references")
    index = LabelIndex()
    rows = index.rows(label_lists, "train_references")
    matrix = sp.csr_array(
        (np.ones(len(rows.indices), np.int32), rows.indices, rows.indptr), shape=(len(label_lists), max(len(index), 1))
    )
    matrix.sum_duplicates()
    return index.names, np.bincount(matrix.indices, minlength=len(index))


def id_rows(rows: Any, field: str) -> LabelRows:
    """Read rows of label ids.

    Args:
        rows: one of: a list of id lists, best first; the pair `(indptr, indices)` of a CSR matrix as numpy arrays,
            best first within a row; a scipy sparse matrix of shape `(D, L)`, whose values that are not 0 are the
            labels, the greatest first (equal values: lowest id first).
        field: how to call the rows in an error.

    Raises:
        ValueError: naming the first row that cannot be read.
    """
    if sp.issparse(rows):
        return _matrix_rows(rows)
    if isinstance(rows, tuple) and len(rows) == 2 and all(isinstance(part, np.ndarray) for part in rows):
        return _pair_rows(*rows, field)
    _check_row_types(rows, field, 0)
    _check_element_types(rows, (int, np.integer), "label ids that are integers", field, 0)
    bounds = _row_bounds(rows)
    return LabelRows(bounds, np.fromiter(chain.from_iterable(rows), dtype=np.int64, count=int(bounds[-1])))


def _pair_rows(indptr: np.ndarray, indices: np.ndarray, field: str) -> LabelRows:
    integer = np.issubdtype(indptr.dtype, np.integer) and np.issubdtype(indices.dtype, np.integer)
    if not integer or indptr.ndim != 1 or indices.ndim != 1:
        raise ValueError(f"{field}: indptr and indices must be one-dimensional arrays of integers.")
    indptr = indptr.astype(np.int64)  # differences of unsigned numbers are not negative
    if not len(indptr) or indptr[0] != 0 or indptr[-1] != len(indices) or np.any(np.diff(indptr) < 0):
        raise ValueError(f"{field}: indptr must rise from 0 to the {len(indices)} entries of indices.")
    return LabelRows(indptr, indices)


def _matrix_rows(matrix: sp.sparray | sp.spmatrix) -> LabelRows:
    matrix = sp.csr_array(matrix, copy=True)
    matrix.sum_duplicates()
    matrix.eliminate_zeros()
    if len(matrix.data) and np.any(matrix.data != matrix.data[0]):
        documents = np.repeat(np.arange(matrix.shape[0]), np.diff(matrix.indptr))
        order = np.lexsort((matrix.indices, -matrix.data.astype(np.float64), documents))
        return LabelRows(matrix.indptr, matrix.indices[order])
    return LabelRows(matrix.indptr, matrix.indices)
