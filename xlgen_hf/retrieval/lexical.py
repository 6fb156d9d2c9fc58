"""Lexical similarity of texts, and of texts and label names, by their character n-grams."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from functools import cached_property
from itertools import pairwise

import numpy as np
from scipy.sparse import csc_matrix, csr_matrix

from .hashing import HashedTexts, count_runs
from .packed_rows import PackedRows, Postings
from .search import Found, best_first, nearest_above_0

__all__ = ["LexicalIndex", "hash_texts"]

logger = logging.getLogger(__name__)

_BUCKETS = 2**20  # of hashed n-grams; 2**18 to 2**22 found the same
_RUNS = (2, 5)  # lengths; two characters are a word in Chinese or Japanese
_MOST_NAMES = 0.03  # runs in more of the names say little, and cost most of the time
_FEW_NAMES = 20  # with fewer names than this a run is never too frequent
_MOST_RUNS = 256  # of a training text, those of the greatest weight
_TELLING_RUNS = 8  # of a name, those of the greatest weight; a text that holds the name holds them
_SCORED_AGAIN = 10  # times as many names as are wanted
_TEXTS_AT_ONCE = 2_000


class LexicalIndex:
    """Training texts and label names as TF-IDF weights of the n-grams of 2 to 5 characters within their words.

    It finds what an encoder misses that does not know the language or the terms: runs, unlike words, match across
    inflections and compounds. Frequencies come from the label names, and a run that no name has counts for nothing.
    Runs are hashed, so that no vocabulary has to be kept.

    Args:
        idf: weight of each hashed run, 0 for those that count for nothing, `(2**20,)`.
        documents: weights of the `N` training texts, rows of length 1 or 0, `(N, 2**20)`.
        names: weights of the label names, further names included, rows of length 1 or 0, `(L, 2**20)`.

    Source: character n-grams as terms, McNamee and Mayfield, "Character N-Gram Tokenization for European Language Text
    Retrieval", Information Retrieval 7, 2004.
    """

    def __init__(self, idf: np.ndarray, documents: PackedRows, names: PackedRows) -> None:
        self.idf = np.asarray(idf, dtype=np.float16).astype(np.float32)  # loaded, it is the same
        self.documents = documents
        self.names = names

    @cached_property
    def _of_documents(self) -> Postings:
        return Postings(self.documents)

    @cached_property
    def _of_names(self) -> Postings:
        return Postings(self.names)

    @cached_property
    def _of_telling_runs(self) -> Postings:
        names = self.names.matrix()
        starts = range(0, len(self.names), _TEXTS_AT_ONCE)
        blocks = (_heaviest(names[i : i + _TEXTS_AT_ONCE], _TELLING_RUNS) for i in starts)
        return Postings(PackedRows.joined(map(PackedRows.of, blocks), self.names.width))

    @classmethod
    def fit(cls, texts: Sequence[str], names: Sequence[str]) -> LexicalIndex:
        """Index training texts and label names."""
        hashed = _hashed(names)
        frequency = np.bincount(hashed.indices, minlength=_BUCKETS)
        counts = (frequency > 0) & (frequency <= max(_FEW_NAMES, _MOST_NAMES * len(names)))
        idf = np.where(counts, np.log((1 + len(names)) / (1 + frequency)) + 1, 0).astype(np.float32)
        documents = _packed_texts(texts, idf)
        full = int((np.diff(documents.start) == _MOST_RUNS).sum())
        if full:
            logger.info(
                "Lexical matching keeps %d character n-grams of a text, those of greatest weight; training texts with "
                "more: %d of %d.",
                *(_MOST_RUNS, full, len(texts)),
            )
        return cls(idf, documents, PackedRows.of(_weighted(hashed, idf)))

    def encode(self, texts: Sequence[str] | HashedTexts) -> csr_matrix:
        """Weights of texts, rows of length 1 (0 where nothing counts), `(Q, 2**20)`, sparse."""
        return _weighted(_hashed(texts) if isinstance(texts, Sequence) else texts.counts(), self.idf)

    def document_similarity(self, queries: csr_matrix) -> Iterator[np.ndarray]:
        """Cosines of each encoded text and the training texts, `(N,)`, in [0, 1]."""
        for runs, weights in _rows(queries):
            cosine = self._of_documents.sums(runs, weights)
            yield cosine.clip(0, 1, out=cosine)

    def document_pairs(self, queries: csr_matrix, text: np.ndarray, documents: np.ndarray) -> np.ndarray:
        """Cosines of some encoded texts and training texts, pair by pair, `(P,)`, in [0, 1].

        Args:
            queries: encoded texts, `(Q, 2**20)`.
            text: the encoded text of each pair, ascending, `(P,)`.
            documents: the training text of each pair, `(P,)`.
        """
        found = _products(*_pairs(queries, self.documents, text, documents))
        return found.clip(0, 1, out=found)

    def name_similarity(self, queries: csr_matrix) -> np.ndarray:
        """Cosines of encoded texts and label names, each times the share of the name that the text holds, `(Q, L)`.

        The cosine alone is low for every name where a text is long; the share alone is high for every short name.
        """
        found = np.zeros((queries.shape[0], len(self.names)), dtype=np.float32)
        for row, similarity in enumerate(_name_similarities(self._of_names, queries)):
            found[row] = similarity
        return found.clip(0, 1, out=found)

    def nearest_names(self, queries: csr_matrix, count: int) -> Found:
        """Nearly all of the names that are most like each encoded text by [`name_similarity`], best first.

        Names are found by their eight n-grams of the greatest weight, and ten times as many as are wanted are scored
        by all of theirs: frequent n-grams, which most names have, are not looked up.
        """
        count = min(count, len(self.names))
        likely = _name_similarities(self._of_telling_runs, queries)
        rows, first = nearest_above_0(likely, queries.shape[0], min(count * _SCORED_AGAIN, len(self.names)))
        text, place = np.nonzero(first > -np.inf)
        values = np.full(rows.shape, -np.inf, dtype=np.float32)
        values[text, place] = self.pair_similarity(queries, text, rows[text, place])
        return best_first(rows, values, count)

    def pair_similarity(self, queries: csr_matrix, text: np.ndarray, names: np.ndarray) -> np.ndarray:
        """What [`name_similarity`] says of some pairs, `(P,)`.

        Args:
            queries: encoded texts, `(Q, 2**20)`.
            text: the encoded text of each pair, ascending, `(P,)`.
            names: the name of each pair, a row of `names`, `(P,)`.
        """
        rows, weights = _pairs(queries, self.names, text, names)
        cosine = _products(rows, weights)
        shares = PackedRows(rows.start, rows.runs, rows.weights.astype(np.float32) ** 2, rows.width)
        found = cosine * _products(shares, (weights > 0).astype(np.float32))
        return found.clip(0, 1, out=found)

    def run_weights(self, hashed: np.ndarray, names: np.ndarray) -> np.ndarray:
        """How much n-grams count for the similarity of a text with some names, `(n, G)`; 0 where a name lacks one.

        Args:
            hashed: the n-grams, hashed, see [`HashedTexts.runs`], `(G,)`.
            names: rows of `names`, `(n,)`.
        """
        weights = np.zeros((len(names), len(hashed)))
        for row, name in enumerate(names.tolist()):
            first, last = self.names.start[name : name + 2]
            runs = self.names.runs[first:last]
            order = np.argsort(runs)
            place = order[np.searchsorted(runs[order], hashed).clip(max=max(len(runs) - 1, 0))] if len(runs) else []
            if len(runs):
                known = runs[place] == hashed
                weights[row, known] = (self.names.weights[first:last][place] * self.idf[hashed])[known]
        return weights

    def with_names(self, kept: np.ndarray, names: Sequence[str], present: Sequence[str]) -> LexicalIndex:
        """An index of other names; the weights of those that stay do not change.

        Args:
            kept: number of the present name that each of the names is, `(L,)`; -1 for new ones.
            names: the new names, in the order of their places.
            present: the names that the index has; their runs of weight 0 are too frequent and stay so.
        """
        hashed = _hashed(names)
        idf = self.idf.copy()
        if len(names):
            new = np.setdiff1d(hashed.indices, np.flatnonzero(idf))
            idf[np.setdiff1d(new, _hashed(present).indices)] = self.idf.max(initial=1.0)
        order = np.where(kept >= 0, kept, len(self.names) + np.cumsum(kept < 0) - 1)
        return LexicalIndex(idf, self.documents, (self.names + PackedRows.of(_weighted(hashed, idf))).take(order))

    def with_documents(self, kept: np.ndarray, texts: Sequence[str]) -> LexicalIndex:
        """An index of other training texts.

        Args:
            kept: numbers of the present texts that stay, in their order.
            texts: further ones, which come after them.
        """
        present = self.documents if len(kept) == len(self.documents) else self.documents.take(kept)
        documents = present + _packed_texts(texts, self.idf) if len(texts) else present
        return LexicalIndex(self.idf, documents, self.names)

    # ------------------------------------------------------------------------------------------------ saving

    def tensors(self) -> dict[str, np.ndarray]:
        """What [`from_tensors`] takes, weights in 16 bits."""
        rows = self.documents.tensors("lexical_documents") | self.names.tensors("lexical_names")
        return {"lexical_idf": self.idf.astype(np.float16), **rows}

    @classmethod
    def from_tensors(cls, tensors: dict[str, np.ndarray], num_documents: int, num_names: int) -> LexicalIndex | None:
        """Check and take what [`tensors`] gave; None if there is nothing of it.

        Raises:
            ValueError: if something is missing, or does not fit; the message says what.
        """
        if not any(name.startswith("lexical_") for name in tensors):
            return None
        idf = tensors.get("lexical_idf")
        if idf is None or idf.dtype != np.float16 or idf.shape != (_BUCKETS,) or not _are_weights(idf):
            raise ValueError(f"'lexical_idf' must be {_BUCKETS} finite float16 from 0 on.")
        rows = (("documents", num_documents), ("names", num_names))
        return cls(
            idf, *(PackedRows.from_tensors(tensors, f"lexical_{name}", number, _BUCKETS) for name, number in rows)
        )


def _packed_texts(texts: Sequence[str], idf: np.ndarray) -> PackedRows:
    """Weights of training texts, made in blocks of rows."""
    starts = range(0, len(texts), _TEXTS_AT_ONCE)
    blocks = (_heaviest(_weighted(_hashed(texts[i : i + _TEXTS_AT_ONCE]), idf), _MOST_RUNS) for i in starts)
    return PackedRows.joined(map(PackedRows.of, blocks), len(idf))


def _hashed(texts: Sequence[str]) -> csr_matrix:
    """How often each hashed run is in each text, `(Q, 2**20)`."""
    return count_runs(texts, _RUNS, _BUCKETS)


def hash_texts(texts: Sequence[str]) -> HashedTexts:
    """The n-grams of texts as an index has them, hashed once for [`LexicalIndex.encode`] and for where they stand."""
    return HashedTexts(texts, _RUNS, _BUCKETS)


def _weighted(hashed: csr_matrix, idf: np.ndarray) -> csr_matrix:
    """(1 + log frequency) * idf, rows of length 1."""
    weights = csr_matrix(
        ((np.log(hashed.data) + 1) * idf[hashed.indices], hashed.indices, hashed.indptr), hashed.shape
    )
    weights.eliminate_zeros()
    return _unit_rows(weights)


def _unit_rows(weights: csr_matrix) -> csr_matrix:
    """Rows of length 1; those without entries stay."""
    length = np.sqrt(np.asarray(weights.power(2).sum(axis=1))).reshape(-1)
    row = np.repeat(np.arange(weights.shape[0]), np.diff(weights.indptr))
    return csr_matrix(
        ((weights.data / length[row]).astype(weights.dtype), weights.indices, weights.indptr), weights.shape
    )


def _heaviest(weights: csr_matrix, most: int) -> csr_matrix:
    """The greatest weights of each of at most 2,048 rows, rows of length 1; of equal ones the first."""
    sizes = np.diff(weights.indptr)
    if sizes.max(initial=0) <= most:
        return weights
    row = np.repeat(np.arange(len(sizes), dtype=np.int64), sizes)
    # Row, weight and n-gram as one number of 11, 31 and 20 bits: it is sorted in a fifth of the time of three arrays.
    falling = np.iinfo(np.int32).max - weights.data.astype(np.float32).view(np.int32)
    order = np.argsort((row << 31 | falling) << 20 | weights.indices)
    kept = order[np.arange(len(order)) - weights.indptr[row[order]] < most]
    return _unit_rows(csr_matrix((weights.data[kept], (row[kept], weights.indices[kept])), weights.shape))


def _rows(queries: csr_matrix) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The n-grams of each text, and their weights."""
    for first, last in pairwise(queries.indptr.tolist()):
        yield queries.indices[first:last], queries.data[first:last]


def _name_similarities(names: Postings, queries: csr_matrix) -> Iterator[np.ndarray]:
    """Of each text, cosine times share of each name, `(L,)`."""
    for runs, weights in _rows(queries):
        yield _likeness(names.of(runs), weights)


def _likeness(of_names: csc_matrix, weights: np.ndarray) -> np.ndarray:
    """Cosine of a text and each name, times the share of the name that the text holds, `(L,)`; changes `of_names`."""
    cosine = of_names @ weights
    of_names.data **= 2  # shares of n-grams in the name, which add up to 1
    return np.asarray(cosine * (of_names @ (weights > 0).astype(np.float32)))


def _pairs(
    queries: csr_matrix, rows: PackedRows, text: np.ndarray, chosen: np.ndarray
) -> tuple[PackedRows, np.ndarray]:
    """The rows of pairs of a text and a row, and what the text has of each of their n-grams, `(entries,)`."""
    taken = rows.take(chosen)
    of_text, found = np.zeros(rows.width, dtype=np.float32), np.zeros(len(taken.runs), dtype=np.float32)
    ends = taken.start[np.searchsorted(text, np.arange(queries.shape[0] + 1))].tolist()
    for (runs, weights), (first, last) in zip(_rows(queries), pairwise(ends), strict=True):
        of_text[runs] = weights
        found[first:last] = of_text[taken.runs[first:last]]
        of_text[runs] = 0
    return taken, found


def _products(rows: PackedRows, values: np.ndarray) -> np.ndarray:
    """Of each row the sum of its weights times values, one for each entry, `(N,)`."""
    entries = np.arange(len(values), dtype=np.int32)
    return np.asarray(
        csr_matrix((rows.weights.astype(np.float32), entries, rows.start), (len(rows), len(values))) @ values
    )


def _are_weights(values: np.ndarray) -> bool:
    return bool(np.isfinite(values).all() and (values >= 0).all())
