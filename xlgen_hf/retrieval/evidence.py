"""Why retrieval scores a label as it does: the names that match words of the text, and the training texts like it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, TypeAlias

import numpy as np

from ..ranking.sources import PARTS, TextBatch
from ..ranking.words import Span, strongest_words, weights_of_words, words_of
from .retriever import LabelRetriever
from .spelling import encoded_texts, hashed_texts
from .weighing import Neighbors, neighbor_weights

__all__ = ["By", "DocumentEvidence", "NameEvidence", "RetrievalEvidence", "retrieval_evidence"]

By: TypeAlias = Literal["embedding", "lexical"]
"""How a similarity is measured: by embeddings, or by character n-grams."""

_SIDES: tuple[Literal["left", "right"], ...] = ("left", "right")
_KINDS: tuple[By, By] = ("embedding", "lexical")
_LEAST_SHARE = 0.05  # of a label's score, from which on a part of it is evidence
_MOST_DOCUMENTS = 3  # of a label
_READ = 20_000  # characters of a text that are searched for matching words
_STRONG = {"embedding": 0.5, "lexical": 0.25}  # fraction of the strongest word's weight that other words need


@dataclass(frozen=True)
class NameEvidence:
    """A name of a label that resembles the text.

    Attributes:
        name: the label's name, an alias, its name in another language, or its definition.
        by: what the similarity is one of: embeddings, or character n-grams.
        similarity: in [0, 1].
        share: fraction of the label's retrieval score that comes from it, in [0, 1].
        spans: where the words that match begin and end in the text, in characters; empty where that is not known.
        words: these words.
    """

    name: str
    by: By
    similarity: float
    share: float
    spans: list[Span]
    words: list[str]


@dataclass(frozen=True)
class DocumentEvidence:
    """A training text with the label that is near to the text.

    Attributes:
        id: its id, see [`DocumentNames`]; its place in the index, from 1, where the index keeps none.
        similarity: cosine, by each kind that found it, `embedding` and `lexical`.
        share: fraction of the label's retrieval score that comes from it, in [0, 1].
        beginning: its first characters, where the index keeps them.
    """

    id: str
    similarity: dict[str, float]
    share: float
    beginning: str | None = None


@dataclass(frozen=True)
class RetrievalEvidence:
    """What retrieval says of a label of a text.

    Attributes:
        scores: its score (`retrieval`), and the parts of that, see `PARTS`, in [0, 1].
        names: the names that resemble the text, those with the greatest share first.
        documents: the training texts that count most, at most 3.
    """

    scores: dict[str, float]
    names: list[NameEvidence]
    documents: list[DocumentEvidence]


def retrieval_evidence(
    retriever: LabelRetriever, batch: TextBatch, text: np.ndarray, labels: np.ndarray, name_of: Callable[[int], str]
) -> list[RetrievalEvidence]:
    """What retrieval says of labels of texts, whoever found them; without a further search.

    Args:
        retriever: the retriever.
        batch: the texts, to be explained.
        text: text of each of `M` labels, ascending, `(M,)`.
        labels: their ids, `(M,)`.
        name_of: the name in a row of `retriever.names`.
    """
    if not len(labels):
        return []
    matches = _Names(retriever, batch, text, labels)
    neighbors = [_Neighbors(retriever, near, batch.given, text, labels) for near in retriever.searched(batch).near]
    parts = {name: np.zeros(len(labels)) for name in PARTS}
    for prefix, of_kind, near in zip(("", "lexical_"), matches.similarity, neighbors, strict=False):
        parts[f"{prefix}neighbors"], parts[f"{prefix}names"] = near.parts, of_kind
    added, total = retriever.settings.weigh_parts(parts, lexical=len(neighbors) > 1)
    scores = added.sum(axis=0) / total
    shares = added / np.maximum(added.sum(axis=0), 1e-12)
    of_names = matches.evidence(shares[1::2], name_of)
    return [
        RetrievalEvidence(
            {"retrieval": float(scores[entry]), **{name: float(parts[name][entry]) for name in parts}},
            sorted(of_names[entry], key=lambda one: -one.share),
            _documents(retriever, neighbors, shares[::2, entry], entry),
        )
        for entry in range(len(labels))
    ]


class _Neighbors:
    """The near training texts, of one kind, that have the labels.

    Attributes:
        parts: their weight among those near to the text, of each label, `(M,)`.
    """

    def __init__(
        self,
        retriever: LabelRetriever,
        near: Neighbors,
        given: Sequence[Sequence[int]],
        text: np.ndarray,
        labels: np.ndarray,
    ) -> None:
        self._documents, self._similarity = (values.reshape(-1) for values in near)
        weights = neighbor_weights(near, retriever.settings.temperature, retriever.labels, given)
        self._weights = weights.reshape(-1)
        of_near, span = retriever.labels[self._documents], retriever.labels.shape[1]
        place = np.repeat(np.arange(len(self._documents)), np.diff(of_near.indptr))
        keys = place // near[0].shape[1] * span + of_near.indices
        order = np.argsort(keys, kind="stable")
        self._places = place[order]
        self._first, self._last = (np.searchsorted(keys[order], text * span + labels, side) for side in _SIDES)
        before = np.concatenate([[0.0], np.cumsum(self._weights[self._places])])
        self.parts = (before[self._last] - before[self._first]).clip(0, 1)

    def of(self, entry: int) -> Iterator[tuple[int, float, float]]:
        """Number, similarity and fraction of the label's part, of each text that counts for a label."""
        for place in self._places[self._first[entry] : self._last[entry]].tolist():
            if self._weights[place] > 0:
                fraction = float(self._weights[place] / self.parts[entry])
                yield int(self._documents[place]), float(self._similarity[place]), fraction


def _documents(
    retriever: LabelRetriever, neighbors: Sequence[_Neighbors], shares: np.ndarray, entry: int
) -> list[DocumentEvidence]:
    """The training texts that count most for a label, whichever kind of similarity found them."""
    similarity: dict[int, dict[str, float]] = {}
    share: dict[int, float] = {}
    for by, near, part in zip(_KINDS, neighbors, shares.tolist(), strict=False):
        for document, value, fraction in near.of(entry) if part > 0 else ():
            similarity.setdefault(document, {})[by] = value
            share[document] = share.get(document, 0.0) + part * fraction
    best = sorted(share, key=lambda document: -share[document])[:_MOST_DOCUMENTS]
    names = retriever.document_names
    beginnings = None if names is None else names.beginnings
    return [
        DocumentEvidence(
            str(document + 1) if names is None else names.ids[document],
            similarity[document],
            share[document],
            None if beginnings is None else beginnings[document],
        )
        for document in best
    ]


class _Names:
    """The name of each label that is most like its text, by each kind of similarity.

    Attributes:
        similarity: of the labels, `(M,)` for each kind.
    """

    def __init__(self, retriever: LabelRetriever, batch: TextBatch, text: np.ndarray, labels: np.ndarray) -> None:
        self._retriever, self._batch, self._text = retriever, batch, text
        entry, rows = retriever.names_by_label.rows(labels)
        kinds = _pair_similarities(retriever, batch, text[entry], rows)
        best = [_first_of_each(entry, np.lexsort((-values, entry))) for values in kinds]
        self.similarity = [values[places] for values, places in zip(kinds, best, strict=True)]
        self._rows = [rows[places] for places in best]

    def evidence(self, shares: np.ndarray, name_of: Callable[[int], str]) -> list[list[NameEvidence]]:
        """The names that are evidence for each label.

        Args:
            shares: fraction of each label's score that comes from its name, by each kind, `(kinds, M)`.
            name_of: the name in a row of `retriever.names`.
        """
        found: list[list[NameEvidence]] = [[] for _ in self._text]
        bounds = np.flatnonzero(np.diff(self._text, prepend=-1, append=-1)).tolist()
        for first, last in pairwise(bounds):
            number = int(self._text[first])
            text = self._batch.texts[number]
            words = words_of(text[:_READ])
            for by, rows, similarity, share in zip(_KINDS, self._rows, self.similarity, shares, strict=False):
                entries = first + np.flatnonzero(share[first:last] >= _LEAST_SHARE)
                weights = self._weights(by, number, rows[entries], words) if len(entries) else ()
                for entry, of_words in zip(entries.tolist(), weights, strict=True):
                    spans = strongest_words(of_words, words, text, _STRONG[by])
                    matched = [text[begin:end] for begin, end in spans]
                    values = (float(similarity[entry]), float(share[entry]))
                    found[entry].append(NameEvidence(name_of(int(rows[entry])), by, *values, spans, matched))
        return found

    def _weights(self, by: By, number: int, rows: np.ndarray, words: np.ndarray) -> np.ndarray:
        """What each word of a text adds to the similarity of some names, `(n, W)`."""
        retriever = self._retriever
        if by == "lexical" and retriever.lexical is not None:
            runs, spans = hashed_texts(retriever.lexical, self._batch).runs(number, _READ)
            values = retriever.lexical.run_weights(runs, rows)
        else:
            # Less what a word has in common with names at large: what is left says why it is this one.
            vectors = retriever.names[rows] - retriever.mean_name
            values, spans = retriever.token_vectors(self._batch).products(number, vectors)
        return weights_of_words(spans, values, words)


def _pair_similarities(
    retriever: LabelRetriever, batch: TextBatch, text: np.ndarray, rows: np.ndarray
) -> list[np.ndarray]:
    """Similarity of texts and names, pair by pair, `(P,)` for each kind."""
    kinds, lexical = [retriever.names_by_label.pairs(retriever.queries(batch), text, rows)], retriever.lexical
    if lexical is not None:
        kinds.append(lexical.pair_similarity(encoded_texts(lexical, batch), text, rows))
    return kinds


def _first_of_each(groups: np.ndarray, order: np.ndarray) -> np.ndarray:
    """The first place of each group in an order that keeps groups together."""
    return order[np.flatnonzero(np.diff(groups[order], prepend=-1))]
