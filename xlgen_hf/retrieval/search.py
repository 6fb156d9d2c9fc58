"""Exact search: the greatest similarities of each query, of vectors that are taken a block at a time."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Literal, Protocol, TypeAlias

import numpy as np
from scipy.sparse import csr_matrix

__all__ = [
    "PRODUCTS_AT_ONCE",
    "VECTORS_AT_ONCE",
    "BestColumns",
    "ExactSearch",
    "Found",
    "Names",
    "VectorSearch",
    "best_first",
    "nearest",
    "nearest_above_0",
    "similarity_blocks",
    "similarity_of_pairs",
]

Found: TypeAlias = "tuple[np.ndarray, np.ndarray]"
"""Columns and values of the greatest values of each row, greatest first, `(Q, size)` each."""

_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
_PAIRS_AT_ONCE = 2_000  # of queries and names: 6 MB at 384 numbers each
VECTORS_AT_ONCE = 1024
"""Vectors of a block; of 384 numbers each they take 1.5 MB in 32 bits, which caches hold."""
PRODUCTS_AT_ONCE = 2**20
"""Products of queries and vectors that are held in memory together."""


class BestColumns:
    """The columns of the greatest values of each row, of a matrix that is seen a block of columns at a time.

    Of equal values the first columns are taken, whatever the blocks are. What cannot be among the greatest, since as
    many greater values were seen before, is left out in one comparison: sorting costs nearly nothing.

    Args:
        rows: number of rows `Q`.
        size: how many columns of each row are wanted.
    """

    def __init__(self, rows: int, size: int) -> None:
        self._rows = rows
        self._size = size
        self._entries: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
        self._new = 0  # entries since the last cut
        self._least = np.full(rows, -np.inf, dtype=np.float32)

    def add(self, values: np.ndarray, columns: np.ndarray) -> None:
        """Take up a block.

        Args:
            values: the values, `(Q, S)`, float32; minus infinity never counts.
            columns: their columns, ascending, and after those of blocks before, `(S,)`.
        """
        chosen = values > self._least[:, None]
        if self._size < values.shape[1] and np.count_nonzero(chosen) > 4 * self._rows * self._size:
            chosen &= values >= np.partition(values, -self._size, axis=1)[:, -self._size, None]
        place = np.flatnonzero(chosen)
        row, column = np.divmod(place, values.shape[1])
        self._take(row, columns[column], values[row, column])

    def add_entries(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
        """Take up some entries, `(M,)` each, of columns after those of blocks before."""
        chosen = values > self._least[rows]
        self._take(rows[chosen], columns[chosen], values[chosen])

    def _take(self, rows: np.ndarray, columns: np.ndarray, values: np.ndarray) -> None:
        if not self._size:
            return
        self._entries.append((rows, columns, values))
        self._new += len(rows)
        if self._new >= self._rows * self._size:
            self._cut()

    def _cut(self) -> None:
        """Keep the greatest values alone, by rows and greatest first."""
        rows, columns, values = (np.concatenate(parts) for parts in zip(*self._entries, strict=True))
        order = np.lexsort((columns, -values, rows))
        start = np.searchsorted(rows[order], np.arange(self._rows + 1))
        order = order[np.arange(len(order)) - start[rows[order]] < self._size]
        self._entries = [(rows[order], columns[order], values[order])]
        self._new = 0
        full = np.flatnonzero(np.diff(start) >= self._size)
        last = np.cumsum(np.minimum(np.diff(start), self._size)) - 1
        self._least[full] = values[order[last[full]]]

    def found(self) -> Found:
        """Columns and values; column 0 and minus infinity where a row has no more."""
        columns = np.zeros((self._rows, self._size), dtype=np.int64)
        values = np.full((self._rows, self._size), -np.inf, dtype=np.float32)
        if self._entries:
            self._cut()
            ((row, column, value),) = self._entries
            place = np.arange(len(row)) - np.searchsorted(row, np.arange(self._rows))[row]
            columns[row, place], values[row, place] = column, value
        return columns, values


def similarity_blocks(queries: np.ndarray, vectors: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    """Products of queries and vectors, computed in 32 bits, a block of vectors at a time.

    Args:
        queries: `(Q, H)`, float32.
        vectors: `(N, H)`, float16 or float32; may be mapped from a file.

    Yields:
        The number of the first vector of a block, and the products, `(Q, S)`, float32, which the next ones replace.
    """
    size = max(1, min(len(vectors), VECTORS_AT_ONCE))
    span = max(1, PRODUCTS_AT_ONCE // (max(1, len(queries)) * size)) * size
    # Memory that is asked for again costs more than the numbers in it. All products have one shape: in another one
    # equal vectors may differ in the last digit, and then not the first of them counts.
    products = np.empty((len(queries), min(span, len(vectors) + size)), dtype=np.float32)
    multiply = _multiplier(queries, np.zeros((size, queries.shape[1]), dtype=np.float32))
    for first in range(0, len(vectors), span):
        count = min(span, len(vectors) - first)
        for place in range(0, count, size):
            part = vectors[first + place : first + min(place + size, count)]
            multiply(part, products[:, place : place + size])
        yield first, products[:, :count]


def _multiplier(queries: np.ndarray, block: np.ndarray) -> Callable[[np.ndarray, np.ndarray], None]:
    """What writes the products of queries, `(Q, H)`, and some vectors, `(n, H)`, into an array, `(Q, S)`.

    It computes by torch where that is loaded, in as many threads as torch was told to use; importing torch alone takes
    longer than most searches.

    Args:
        queries: the queries, float32.
        block: is overwritten by vectors in 32 bits, `(S, H)`.
    """
    torch = sys.modules.get("torch")
    if torch is None:

        def multiply(vectors: np.ndarray, products: np.ndarray) -> None:
            _widen(vectors, block[: len(vectors)])
            np.matmul(queries, block.T, out=products)

        return multiply
    left, right = torch.from_numpy(queries), torch.from_numpy(block)

    def multiply_by_torch(vectors: np.ndarray, products: np.ndarray) -> None:
        right[: len(vectors)] = torch.from_numpy(vectors)
        torch.mm(left, right.T, out=torch.from_numpy(products))

    return multiply_by_torch


def _widen(vectors: np.ndarray, wide: np.ndarray) -> None:
    """Write vectors, float16 or float32, into an array of float32.

    NumPy takes 5 times as long for finite numbers of 16 bits. Their sign, exponent and mantissa are moved to where
    32 bits have them; the product makes up for the exponents' other zero, and is exact.
    """
    if vectors.dtype != np.float16:
        wide[:] = vectors
        return
    bits = wide.view(np.int32)
    bits[:] = vectors.view(np.int16)
    bits <<= 13
    bits &= np.int32(~0x70000000)  # copies of the sign
    wide *= np.float32(2.0**112)


def nearest(queries: np.ndarray, vectors: np.ndarray, size: int, hidden: csr_matrix | None = None) -> Found:
    """The vectors most similar to each query.

    Args:
        queries: `(Q, H)`, float32.
        vectors: `(N, H)`, float16 or float32.
        size: vectors of each query.
        hidden: vectors that do not count, `(Q, N)`, sparse; none if None.
    """
    best = BestColumns(len(queries), size)
    row, column = (np.zeros(0, int), np.zeros(0, int)) if hidden is None else hidden.nonzero()
    order = np.argsort(column, kind="stable")
    row, column = row[order], column[order]
    for first, similarity in similarity_blocks(queries, vectors):
        last = first + similarity.shape[1]
        inside = slice(*np.searchsorted(column, [first, last]))
        similarity[row[inside], column[inside] - first] = -np.inf
        best.add(similarity, np.arange(first, last))
    return best.found()


def nearest_above_0(rows: Iterator[np.ndarray], count: int, size: int, hidden: csr_matrix | None = None) -> Found:
    """What [`nearest`] finds among similarities that are above 0.

    Args:
        rows: the similarities of each query, `(N,)`.
        count: number of queries `Q`.
        size: vectors of each query.
        hidden: vectors that do not count, `(Q, N)`, sparse; none if None.
    """
    best = BestColumns(count, size)
    for row, values in enumerate(rows):
        if hidden is not None:
            values[hidden.indices[slice(*hidden.indptr[row : row + 2])]] = 0
        columns = np.flatnonzero(values > 0)
        if len(columns) > size:
            above = values[columns]
            columns = columns[above >= np.partition(above, -size)[-size]]
        best.add_entries(np.full(len(columns), row), columns, values[columns])
    return best.found()


def similarity_of_pairs(queries: np.ndarray, vectors: np.ndarray, query: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Products of queries and vectors, pair by pair, in 32 bits, `(P,)`.

    Args:
        queries: `(Q, H)`, float32.
        vectors: `(N, H)`, float16 or float32; may be mapped from a file.
        query: the query of each pair, `(P,)`.
        rows: the vector of each pair, `(P,)`.
    """
    found = np.empty(len(rows), dtype=np.float32)
    for begin in range(0, len(rows), _PAIRS_AT_ONCE):
        part = slice(begin, begin + _PAIRS_AT_ONCE)
        taken = vectors[rows[part]]
        those = np.empty(taken.shape, dtype=np.float32)
        _widen(taken, those)
        np.einsum("pd,pd->p", queries[query[part]], those, out=found[part])
    return found


def best_first(columns: np.ndarray, values: np.ndarray, size: int) -> Found:
    """The greatest values of each row and their columns, `(Q, S)` -> `(Q, min(S, size))`; equal ones by column."""
    order = np.lexsort((columns, -values), axis=1)[:, :size]
    return np.take_along_axis(columns, order, axis=1), np.take_along_axis(values, order, axis=1)


class VectorSearch(Protocol):
    """Finds the vectors that are most similar to queries: exactly, or nearly all of them."""

    def nearest(self, queries: np.ndarray, size: int, hidden: csr_matrix | None = None) -> Found:
        """The most similar vectors of each query; column 0 and minus infinity where there are no more.

        Args:
            queries: `(Q, H)`, float32.
            size: vectors of each query.
            hidden: vectors that do not count, `(Q, N)`, sparse; none if None.
        """


class ExactSearch:
    """Search that looks at all vectors; see [`nearest`].

    Args:
        vectors: `(N, H)`, float16 or float32; may be mapped from a file.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        self._vectors = vectors

    def nearest(self, queries: np.ndarray, size: int, hidden: csr_matrix | None = None) -> Found:
        """See [`VectorSearch`]."""
        return nearest(queries, self._vectors, size, hidden)


class Names:
    """The names of labels, of which a label may have more than one: the one most like a query counts.

    Args:
        vectors: of the names of `L` labels and, after them, of further names, `(L + A, H)`, float16 or float32.
        further: label ids of the further names, ascending, `(A,)`.
    """

    def __init__(self, vectors: np.ndarray, further: np.ndarray) -> None:
        self._vectors = vectors
        self._further = further
        self._labels = len(vectors) - len(further)

    def __len__(self) -> int:
        """The number of labels `L`."""
        return self._labels

    def rows_for(self, labels: int) -> int:
        """How many names are those of a number of labels, where each has as many."""
        return -(-labels * len(self._vectors) // max(self._labels, 1))

    def of_labels(self, values: np.ndarray) -> np.ndarray:
        """Similarities of names, `(Q, L + A)` -> those of labels, `(Q, L)`, in the same memory."""
        found = values[:, : self._labels]
        _raise(found, self._further, values[:, self._labels :])
        return found

    def blocks(self, queries: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
        """Similarities of labels by embedding, a block of labels at a time.

        Args:
            queries: `(Q, H)`, float32.

        Yields:
            The first label of a block, and the similarities, `(Q, S)`, in [0, 1], which the next ones replace.
        """
        for first, similarity in similarity_blocks(queries, self._vectors[: self._labels]):
            low, high = np.searchsorted(self._further, [first, first + similarity.shape[1]]).tolist()
            for start in range(low, high, VECTORS_AT_ONCE):  # there may be several times as many as labels
                stop = min(start + VECTORS_AT_ONCE, high)
                more = self._vectors[self._labels + start : self._labels + stop].astype(np.float32)
                _raise(similarity, self._further[start:stop] - first, queries @ more.T)
            yield first, similarity.clip(0, 1, out=similarity)

    def rows(self, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Of each name of some labels the place of its label, ascending, and its row of the vectors, `(P,)` each."""
        first, last = (np.searchsorted(self._further, labels, side) for side in _SIDES)
        sizes = 1 + last - first
        entry = np.repeat(np.arange(len(labels)), sizes)
        place = np.arange(len(entry)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
        return entry, np.where(place == 0, labels[entry], self._labels + first[entry] + place - 1)

    def pairs(self, queries: np.ndarray, text: np.ndarray, rows: np.ndarray) -> np.ndarray:
        """Similarity of queries and names by embedding, pair by pair, `(P,)`, in [0, 1].

        Args:
            queries: `(Q, H)`, float32.
            text: the query of each pair, `(P,)`.
            rows: the name of each pair, a row of the vectors, `(P,)`.
        """
        found = similarity_of_pairs(queries, self._vectors, text, rows)
        return found.clip(0, 1, out=found)

    def best_of_labels(self, entry: np.ndarray, values: np.ndarray) -> np.ndarray:
        """Of values of names, `(P,)`, the greatest of each label; `entry` is what [`rows`] gave."""
        return np.maximum.reduceat(values, np.flatnonzero(np.diff(entry, prepend=-1)))

    def labels_of(self, rows: np.ndarray) -> np.ndarray:
        """The labels that names are of, by their rows of the vectors; of any shape."""
        if not len(self._further):
            return rows
        return np.where(rows < self._labels, rows, self._further[np.maximum(rows - self._labels, 0)])


def _raise(values: np.ndarray, columns: np.ndarray, others: np.ndarray) -> None:
    """Raise values, `(Q, S)`, to the greatest of others, `(Q, A)`, whose columns among them are given, ascending."""
    if len(columns):
        named, starts = np.unique(columns, return_index=True)
        values[:, named] = np.maximum(values[:, named], np.maximum.reduceat(others, starts, axis=1))
