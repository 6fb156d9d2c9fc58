"""Scored candidate labels of many texts in flat arrays, and the fusion of several such predictions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Literal, TypeAlias, get_args

import numpy as np

from ..errors import ConfigurationError, DataError

__all__ = ["Combination", "Row", "ScoredLabels", "combine"]

Combination = Literal["average", "vote", "union"]
Row: TypeAlias = "tuple[Sequence[int] | np.ndarray, Sequence[float] | np.ndarray, Sequence[bool] | np.ndarray]"
"""Label ids, scores and choices of one text."""
_DIGITS = 12  # of sums of shares, whose rounding must not make half of the members a majority


@dataclass(frozen=True)
class ScoredLabels:
    """Candidate labels of `N` texts, each text's sorted by falling score, none twice.

    Attributes:
        start: text `i` has the entries `start[i]:start[i + 1]`, `(N + 1,)`, int64.
        labels: label ids, `(M,)`, int64.
        scores: probabilities, in [0, 1], `(M,)`, float64.
        chosen: whether a label is in the set that the model itself decided on, `(M,)`, bool.
        parts: what the scores were made of, by name, `(M,)` each; empty where that is not known.
    """

    start: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    chosen: np.ndarray
    parts: Mapping[str, np.ndarray] = field(default_factory=dict)

    @classmethod
    def from_rows(cls, rows: Iterable[Row]) -> ScoredLabels:
        """Gather (label ids, scores, chosen) of each text, in any order.

        Raises:
            DataError: if a row's parts differ in length, a label occurs twice in it, or a score is outside [0, 1].
        """
        parts = list(rows)
        for number, row in enumerate(parts, start=1):
            if len({len(part) for part in row}) > 1:
                sizes = [len(part) for part in row]
                raise DataError(f"Labels, scores and choices differ in number: {sizes}.", row=number)
        text = np.repeat(np.arange(len(parts)), [len(labels) for labels, _, _ in parts])
        labels, scores, chosen = (np.array([value for row in parts for value in row[i]]) for i in range(3))
        return cls.from_entries(text, labels, scores, chosen, len(parts))

    @classmethod
    def from_entries(
        cls,
        text: np.ndarray,
        labels: np.ndarray,
        scores: np.ndarray,
        chosen: np.ndarray,
        texts: int,
        parts: Mapping[str, np.ndarray] | None = None,
    ) -> ScoredLabels:
        """Sort entries, each of one text, in any order.

        Args:
            text: text of each entry, `(M,)`.
            labels: label ids, `(M,)`.
            scores: probabilities, `(M,)`.
            chosen: whether each entry is in the model's own set, `(M,)`.
            texts: number of texts `N`.
            parts: see the class.

        Raises:
            DataError: if a label occurs twice in a text, or a score is outside [0, 1].
        """
        scores = scores.astype(np.float64)
        if not ((scores >= 0) & (scores <= 1)).all():
            wrong = int(np.flatnonzero(~((scores >= 0) & (scores <= 1)))[0])
            raise DataError(f"A score is {scores[wrong]}; probabilities lie in [0, 1].", row=int(text[wrong]) + 1)
        labels = labels.astype(np.int64)
        by_label = np.lexsort((labels, text))
        twice = (np.diff(labels[by_label]) == 0) & (np.diff(text[by_label]) == 0)
        if twice.any():
            wrong = int(by_label[np.flatnonzero(twice)[0]])
            raise DataError(f"Duplicate label id {labels[wrong]}.", row=int(text[wrong]) + 1)
        order = np.lexsort((-scores, text))  # stable: equal scores keep their order
        start = np.concatenate([[0], np.cumsum(np.bincount(text, minlength=texts))]).astype(np.int64)
        kept = {name: values[order] for name, values in (parts or {}).items()}
        return cls(start, labels[order], scores[order], chosen.astype(bool)[order], kept)

    @classmethod
    def concatenated(cls, blocks: Sequence[ScoredLabels]) -> ScoredLabels:
        """The candidates of several blocks of texts, one block after the other; parts that all of them have."""
        if not blocks:
            return cls.from_rows([])
        before = np.cumsum([0, *(block.start[-1] for block in blocks)])
        start = np.concatenate([[0], *(block.start[1:] + first for block, first in zip(blocks, before, strict=False))])
        names = set.intersection(*(set(block.parts) for block in blocks))
        return cls(
            start.astype(np.int64),
            np.concatenate([block.labels for block in blocks]),
            np.concatenate([block.scores for block in blocks]),
            np.concatenate([block.chosen for block in blocks]),
            {name: np.concatenate([block.parts[name] for block in blocks]) for name in sorted(names)},
        )

    def take(self, texts: Sequence[int] | np.ndarray) -> ScoredLabels:
        """The candidates of some texts, in the given order."""
        rows = np.asarray(texts, dtype=np.int64)
        sizes = np.diff(self.start)[rows]
        start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        entry = np.repeat(self.start[rows] - start[:-1], sizes) + np.arange(start[-1])
        parts = {name: values[entry] for name, values in self.parts.items()}
        return ScoredLabels(start, self.labels[entry], self.scores[entry], self.chosen[entry], parts)

    def followed_by(self, other: ScoredLabels, k: int) -> ScoredLabels:
        """These candidates and, where a text has fewer than `k`, the best further ones of another ranking, up to `k`.

        The further ones come after those at hand, in their own order: their scores are at most the lowest at hand, and
        none is chosen. Parts are those at hand; 0 where the other ranking lacks one.

        Args:
            other: candidates of the same texts.
            k: labels of a text up to which further ones are added.
        """
        span = int(max(self.labels.max(initial=0), other.labels.max(initial=0))) + 1
        new = ~np.isin(other.text * span + other.labels, self.text * span + self.labels)
        text, sizes = other.text[new], np.diff(self.start)
        place = np.arange(len(text)) - np.searchsorted(text, text)
        new[new] = place < (k - sizes)[text]
        text, lowest = other.text[new], np.ones(len(self))
        lowest[sizes > 0] = self.scores[self.start[1:][sizes > 0] - 1]
        nothing = np.zeros(len(other.labels))
        parts = {name: np.append(own, other.parts.get(name, nothing)[new]) for name, own in self.parts.items()}
        return self.from_entries(
            np.concatenate([self.text, text]),
            np.concatenate([self.labels, other.labels[new]]),
            np.concatenate([self.scores, np.minimum(other.scores[new], lowest[text])]),
            np.concatenate([self.chosen, np.zeros(len(text), dtype=bool)]),
            len(self),
            parts,
        )

    def __len__(self) -> int:
        """The number of texts `N`."""
        return len(self.start) - 1

    @property
    def text(self) -> np.ndarray:
        """Text of each entry, `(M,)`."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    @property
    def rank(self) -> np.ndarray:
        """Place of each entry in its text, from 0, `(M,)`."""
        return np.arange(len(self.labels)) - np.repeat(self.start[:-1], np.diff(self.start))

    def with_scores(self, scores: np.ndarray) -> ScoredLabels:
        """The same candidates with other scores; among equal ones those that were better stay first."""
        return self.from_entries(self.text, self.labels, scores, self.chosen, len(self), self.parts)

    def without(self, labels: Sequence[Sequence[int]]) -> ScoredLabels:
        """The candidates without some labels of each text.

        Args:
            labels: label ids of each text.
        """
        return self.kept(~self._are_in(labels))

    def first(self, k: int) -> ScoredLabels:
        """The `k` best candidates of each text, or as many as there are."""
        return self.kept(self.rank < k)

    def kept(self, kept: np.ndarray) -> ScoredLabels:
        """Some of the candidates, `(M,)`."""
        sizes = np.bincount(self.text[kept], minlength=len(self))
        start = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
        parts = {name: values[kept] for name, values in self.parts.items()}
        return ScoredLabels(start, self.labels[kept], self.scores[kept], self.chosen[kept], parts)

    def choose(self, chosen: np.ndarray) -> ScoredLabels:
        """The same candidates with another choice among them, `(M,)`."""
        return replace(self, chosen=chosen)

    def sets(self) -> list[tuple[list[int], list[float]]]:
        """Chosen label ids of each text with their scores, best first."""
        labels, scores = self.labels[self.chosen], self.scores[self.chosen]
        ends = np.concatenate([[0], np.cumsum(np.bincount(self.text[self.chosen], minlength=len(self)))])
        return [(labels[begin:end].tolist(), scores[begin:end].tolist()) for begin, end in pairwise(ends)]

    def correct(self, references: Sequence[Sequence[int]]) -> np.ndarray:
        """Whether each entry is among its text's reference label ids, `(M,)`, bool.

        Raises:
            DataError: if the references are those of other texts.
        """
        if len(references) != len(self):
            raise DataError(f"{len(self)} texts come with {len(references)} references.")
        return self._are_in(references)

    def _are_in(self, labels: Sequence[Sequence[int]]) -> np.ndarray:
        """Whether each entry is among the given label ids of its text, `(M,)`, bool."""
        text = np.repeat(np.arange(len(labels)), [len(ids) for ids in labels])
        ids = np.array([label for row in labels for label in row], dtype=np.int64)
        span = max(int(self.labels.max(initial=0)), int(ids.max(initial=0))) + 1
        return np.isin(self.text * span + self.labels, text * span + ids)


def combine(
    members: Sequence[ScoredLabels],
    how: Combination = "average",
    weights: Sequence[float] | None = None,
    present: np.ndarray | None = None,
) -> ScoredLabels:
    """Fuse predictions for the same texts.

    Args:
        members: predictions of several models, label orders, or searches.
        how: `average` takes the mean probability, 0 where a member lacks the label, and chooses as many labels as the
            members chose on average; `vote` scores a label by the share of members that chose it (their mean
            probability breaks ties) and chooses those of more than half; `union` takes the greatest probability and
            chooses what any member chose.
        weights: of the members, at least 0 and not all 0; equal if None. `union` does not use them.
        present: which members have an answer for which text, `(members, N)`, bool; all if None. A beam that does not
            exist neither votes nor lowers a mean.

    Raises:
        ConfigurationError: if the members are for different numbers of texts, or weights do not fit.
    """
    if how not in get_args(Combination):
        raise ConfigurationError(f"combine={how!r}; choose one of {sorted(get_args(Combination))}.")
    if not members or len({len(one) for one in members}) != 1:
        sizes = [len(one) for one in members]
        raise ConfigurationError(f"Predictions for {sizes} texts; all must be for the same texts.")
    weight = np.ones(len(members)) if weights is None else np.asarray(weights, dtype=np.float64)
    if weight.shape != (len(members),) or (weight < 0).any() or weight.sum() <= 0:
        raise ConfigurationError(f"weights={weights}; {len(members)} numbers >= 0 are needed, not all 0.")
    share_of = np.repeat(weight[:, None], len(members[0]), axis=1)  # (members, N)
    if present is not None:
        share_of = share_of * present
    share_of = share_of / share_of.sum(axis=0).clip(1e-300)
    span = max(int(one.labels.max(initial=0)) for one in members) + 1
    keys, entry = np.unique(np.concatenate([one.text * span + one.labels for one in members]), return_inverse=True)
    share = np.concatenate([share_of[number][one.text] for number, one in enumerate(members)])
    scores = np.concatenate([one.scores for one in members])
    chosen = np.concatenate([one.chosen for one in members])
    mean = np.bincount(entry, weights=share * scores, minlength=len(keys)).clip(0, 1)
    votes = np.bincount(entry, weights=share * chosen, minlength=len(keys)).clip(0, 1)
    text, labels, texts = keys // span, keys % span, len(members[0])
    if how == "union":
        greatest = np.zeros(len(keys))
        np.maximum.at(greatest, entry, scores)
        return ScoredLabels.from_entries(text, labels, greatest, votes > 0, texts)
    votes = votes.round(_DIGITS)
    if how == "vote":
        by_mean = np.lexsort((-mean, text))
        return ScoredLabels.from_entries(text[by_mean], labels[by_mean], votes[by_mean], votes[by_mean] > 0.5, texts)
    fused = ScoredLabels.from_entries(text, labels, mean, votes > 0, texts)
    size = np.rint(np.bincount(text, weights=votes, minlength=texts).round(_DIGITS))  # expected number
    return fused.choose(fused.rank < size[fused.text])
