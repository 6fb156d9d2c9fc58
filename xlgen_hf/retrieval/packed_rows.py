"""Sparse rows of weights as an index keeps them: in 16 bits, and mapped into memory where they come from a file."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix

__all__ = ["ENTRIES_AT_ONCE", "PackedRows", "Postings"]

ENTRIES_AT_ONCE = 2**22
"""Entries of columns that are copied at a time; 32 MB."""
_ROW_PARTS: dict[str, type] = {"start": np.int64, "runs": np.int32, "weights": np.float16}


class PackedRows:
    """A sparse matrix of weights from 0 to 1, by rows; scipy computes with no weights of 16 bits.

    Args:
        start: row `i` has the entries `start[i]:start[i + 1]`, `(N + 1,)`, int64.
        runs: the column of each entry, `(M,)`, int32.
        weights: of the entries, `(M,)`, float16.
        width: number of columns.
    """

    def __init__(self, start: np.ndarray, runs: np.ndarray, weights: np.ndarray, width: int) -> None:
        self.start, self.runs, self.weights, self.width = start, runs, weights, width

    @classmethod
    def of(cls, matrix: csr_matrix) -> PackedRows:
        """Pack a matrix."""
        start, runs = matrix.indptr.astype(np.int64), matrix.indices.astype(np.int32)
        return cls(start, runs, matrix.data.astype(np.float16), matrix.shape[1])

    def __len__(self) -> int:
        """The number of rows `N`."""
        return len(self.start) - 1

    @classmethod
    def joined(cls, blocks: Iterable[PackedRows], width: int) -> PackedRows:
        """Rows and then others, of one width."""
        starts, runs, weights = [np.zeros(1, np.int64)], bytearray(), bytearray()  # which grow where they are
        for block in blocks:
            starts.append(block.start[1:] + starts[-1][-1])
            runs += block.runs.tobytes()
            weights += block.weights.tobytes()
        parts = (np.frombuffer(runs, np.int32), np.frombuffer(weights, np.float16))
        return cls(np.concatenate(starts), *parts, width)

    def __add__(self, other: PackedRows) -> PackedRows:
        """These rows and then others."""
        return PackedRows.joined((self, other), self.width)

    def take(self, rows: np.ndarray) -> PackedRows:
        """The rows at some positions, in their order, `(n,)`."""
        sizes = np.diff(self.start)[rows]
        start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        places = np.repeat(self.start[rows] - start[:-1], sizes) + np.arange(start[-1])
        return PackedRows(start, self.runs[places], self.weights[places], self.width)

    def matrix(self) -> csr_matrix:
        """The rows as scipy has them, float32, `(N, width)`."""
        parts = (self.weights.astype(np.float32), self.runs, self.start)
        return csr_matrix(parts, shape=(len(self), self.width))

    def tensors(self, name: str) -> dict[str, np.ndarray]:
        """What [`from_tensors`] takes, under names that begin with `name`."""
        return {f"{name}_{part}": getattr(self, part) for part in _ROW_PARTS}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], name: str, number: int, width: int) -> PackedRows:
        """Check and take what [`tensors`] gave.

        Args:
            tensors: the tensors of an index.
            name: what their names begin with.
            number: how many rows there must be.
            width: number of columns.

        Raises:
            ValueError: if something is missing, or does not fit; the message says what.
        """
        found = []
        for part, kind in _ROW_PARTS.items():
            values = tensors.get(f"{name}_{part}")
            if values is None or values.dtype != kind or values.ndim != 1:
                raise ValueError(f"'{name}_{part}' must be there, as {np.dtype(kind).name}.")
            found.append(values)
        start, runs, weights = found
        if start.shape != (number + 1,) or start[0] != 0 or start[-1] != len(runs) or (np.diff(start) < 0).any():
            raise ValueError(f"'{name}_start' does not say where each of {number} rows begins.")
        if runs.size and not 0 <= int(runs.min()) <= int(runs.max()) < width:
            raise ValueError(f"'{name}_runs' leave the {width} hashed runs.")
        within = bool(np.isfinite(weights).all() and (weights >= 0).all() and weights.max(initial=0) <= 1)
        if weights.shape != runs.shape or not within:
            raise ValueError(f"'{name}_weights' must be numbers from 0 to 1, one for each run.")
        return cls(start, runs, weights, width)


class Postings:
    """The same by columns: what a few columns hold is read without a look at the others.

    Args:
        rows: the rows, `(N, width)`.
    """

    def __init__(self, rows: PackedRows) -> None:
        self._matrix = rows.matrix().tocsc()

    def sums(self, columns: np.ndarray, weights: np.ndarray) -> np.ndarray:
        """The sum of some columns, each times its weight, `(N,)`; few at a time, for a long text has most of them."""
        start = self._matrix.indptr
        part = np.cumsum(start[columns + 1] - start[columns], dtype=np.int64) // ENTRIES_AT_ONCE
        found = np.zeros(self._matrix.shape[0], dtype=np.float32)
        for places in np.split(np.arange(len(columns)), np.flatnonzero(np.diff(part)) + 1):
            found += self.of(columns[places]) @ weights[places]
        return found

    def of(self, columns: np.ndarray) -> csc_matrix:
        """Some columns, `(N, n)`, float32, which may be changed."""
        start, size = self._matrix.indptr, self._matrix.shape[0]
        places = [slice(first, last) for first, last in zip(start[columns], start[columns + 1], strict=True)]
        ends = np.cumsum([0, *(place.stop - place.start for place in places)])
        if not places:
            return csc_matrix((size, 0), dtype=np.float32)
        parts = (self._matrix.data, self._matrix.indices)
        data, indices = (np.concatenate([part[place] for place in places]) for part in parts)
        return csc_matrix((data, indices, ends), shape=(size, len(columns)))
