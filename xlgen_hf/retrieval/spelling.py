"""How texts resemble training texts and label names by spelling: of all, or of what is likely to be near."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from scipy.sparse import csr_matrix

from ..ranking.sources import TextBatch
from .hashing import HashedTexts
from .lexical import LexicalIndex, hash_texts
from .search import Found, Names, VectorSearch, best_first, nearest_above_0

__all__ = ["Spelling", "encoded_texts", "hashed_texts", "nearest_texts"]

_LIKELY_TEXTS = 300  # those nearest by embedding, whose spelling is compared where search is approximate


class Spelling:
    """Similarity by spelling of a few texts.

    Args:
        lexical: training texts and names by their spelling.
        names: the names of the `L` labels.
        encoded: `Q` texts as [`LexicalIndex.encode`] gives them.
    """

    def __init__(self, lexical: LexicalIndex, names: Names, encoded: csr_matrix) -> None:
        self._lexical = lexical
        self._names = names
        self._encoded = encoded

    @cached_property
    def of_labels(self) -> np.ndarray:
        """Similarities of all labels, `(Q, L)`."""
        return self._names.of_labels(self._lexical.name_similarity(self._encoded))

    def nearest_labels(self, count: int) -> Found:
        """Nearly all of the labels with the names that are most like each text; a label may come more than once."""
        rows, values = self._lexical.nearest_names(self._encoded, self._names.rows_for(count))
        return self._names.labels_of(rows), values

    def of_pairs(self, text: np.ndarray, labels: np.ndarray) -> np.ndarray:
        """Similarities of some pairs of a text and a label, `(P,)`; texts ascending."""
        if "of_labels" in self.__dict__:
            return np.asarray(self.of_labels[text, labels])
        entry, rows = self._names.rows(labels)
        return self._names.best_of_labels(entry, self._lexical.pair_similarity(self._encoded, text[entry], rows))

    def nearest_documents(self, count: int, hidden: csr_matrix | None) -> Found:
        """The training texts most like each text, of all; see [`nearest_above_0`]."""
        return nearest_above_0(self._lexical.document_similarity(self._encoded), self._encoded.shape[0], count, hidden)

    def nearest_of(self, documents: Found, count: int) -> Found:
        """The training texts most like each text, of some that its embedding found."""
        rows, similarity = documents
        text, place = np.nonzero(similarity > -np.inf)
        values = np.full(rows.shape, -np.inf, dtype=np.float32)
        values[text, place] = self._lexical.document_pairs(self._encoded, text, rows[text, place])
        values[values == 0] = -np.inf
        return best_first(rows, values, count)


def encoded_texts(lexical: LexicalIndex, texts: Sequence[str], block: slice = slice(None)) -> csr_matrix:
    """What [`LexicalIndex.encode`] gives for a block of texts; a [`TextBatch`] is encoded once, whoever asks."""
    if not isinstance(texts, TextBatch):
        return lexical.encode(texts[block])
    given = hashed_texts(lexical, texts) if texts.explained else texts.texts
    return texts.once(lexical, "encoded", lambda: lexical.encode(given))[block]


def hashed_texts(lexical: LexicalIndex, batch: TextBatch) -> HashedTexts:
    """The n-grams of a batch that is to be explained, hashed once."""
    return batch.once(lexical, "hashed", lambda: hash_texts(batch.texts))


def nearest_texts(
    search: VectorSearch,
    queries: np.ndarray,
    count: int,
    hidden: csr_matrix | None,
    spelling: Spelling | None,
    *,
    approximate: bool,
) -> list[Found]:
    """The nearest training texts by embedding and, where it counts, by spelling.

    Args:
        search: finds them by embedding.
        queries: embeddings, `(Q, H)`, float32.
        count: texts of each query, and of each kind.
        hidden: training texts that must not count, `(Q, N)`, sparse; none if None.
        spelling: of the same texts; None where it does not count.
        approximate: look at the spelling of those texts alone that are near by embedding.
    """
    if spelling is None:
        return [search.nearest(queries, count, hidden)]
    if not approximate:
        return [search.nearest(queries, count, hidden), spelling.nearest_documents(count, hidden)]
    rows, similarity = search.nearest(queries, max(count, _LIKELY_TEXTS), hidden)
    return [(rows[:, :count], similarity[:, :count]), spelling.nearest_of((rows, similarity), count)]
