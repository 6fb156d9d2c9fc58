"""Scored candidate labels of many texts in flat arrays, and the fusion of several such predictions."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal, get_args

import numpy as np

from ..errors import ConfigurationError, DataError

__all__ = ["Combination", "ScoredLabels", "combine"]

Combination = Literal["average", "vote", "union"]


@dataclass(frozen=True)
class ScoredLabels:
    """Candidate labels of `N` texts, each text's sorted by falling score, none twice.

    Attributes:
        start: text `i` has the entries `start[i]:start[i + 1]`, `(N + 1,)`, int64.
        labels: label ids, `(M,)`, int64.
        scores: probabilities, in [0, 1], `(M,)`, float64.
        chosen: whether a label is in the set that the model itself decided on, `(M,)`, bool.
    """

    start: np.ndarray
    labels: np.ndarray
    scores: np.ndarray
    chosen: np.ndarray

    @classmethod
    def from_rows(cls, rows: Iterable[tuple[Sequence[int], Sequence[float], Sequence[bool]]]) -> ScoredLabels:
        """Gather (label ids, scores, chosen) of each text, in any order.

        Raises:
            DataError: if a row's parts differ in length, a label stands twice in it, or a score is outside of [0, 1].
        """
        parts = list(rows)
        for number, row in enumerate(parts, start=1):
            if len({len(part) for part in row}) > 1:
                sizes = [len(part) for part in row]
                raise DataError(f"Labels, scores and choices differ in number: {sizes}.", row=number)
        text = np.repeat(np.arange(len(parts)), [len(labels) for labels, _, _ in parts])
        labels, scores, chosen = (np.array([value for row in parts for value in row[i]]) for i in range(3))
        return cls._sorted(text, labels, scores, chosen, len(parts))

    @classmethod
    def _sorted(
        cls, text: np.ndarray, labels: np.ndarray, scores: np.ndarray, chosen: np.ndarray, texts: int
    ) -> ScoredLabels:
        scores = scores.astype(np.float64)
        if not ((scores >= 0) & (scores <= 1)).all():
            wrong = int(np.flatnonzero(~((scores >= 0) & (scores <= 1)))[0])
            raise DataError(f"A score is {scores[wrong]}; probabilities lie in [0, 1].", row=int(text[wrong]) + 1)
        labels = labels.astype(np.int64)
        by_label = np.lexsort((labels, text))
        twice = (np.diff(labels[by_label]) == 0) & (np.diff(text[by_label]) == 0)
        if twice.any():
            wrong = int(by_label[np.flatnonzero(twice)[0]])
            raise DataError(f"Label id {labels[wrong]} stands twice.", row=int(text[wrong]) + 1)
        order = np.lexsort((-scores, text))  # stable: equal scores keep their order
        start = np.concatenate([[0], np.cumsum(np.bincount(text, minlength=texts))]).astype(np.int64)
        return cls(start, labels[order], scores[order], chosen.astype(bool)[order])

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
        return self._sorted(self.text, self.labels, scores, self.chosen, len(self))

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
        text = np.repeat(np.arange(len(references)), [len(ids) for ids in references])
        ids = np.array([label for row in references for label in row], dtype=np.int64)
        span = max(int(self.labels.max(initial=0)), int(ids.max(initial=0))) + 1
        return np.isin(self.text * span + self.labels, text * span + ids)


def combine(
    members: Sequence[ScoredLabels], how: Combination = "average", weights: Sequence[float] | None = None
) -> ScoredLabels:
    """Fuse predictions for the same texts.

    Args:
        members: predictions of several models, label orders, or searches.
        how: `average` takes the mean probability, 0 where a member lacks the label, and chooses as many labels as the
            members chose on average; `vote` scores a label by the share of members that chose it (their mean
            probability breaks ties) and chooses those of more than half; `union` takes the greatest probability and
            chooses what any member chose.
        weights: of the members, not negative, not all 0; all alike if None. `union` has no use for them.

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
        raise ConfigurationError(f"weights={weights}; {len(members)} numbers from 0 on are needed, not all 0.")
    weight = weight / weight.sum()
    span = max(int(one.labels.max(initial=0)) for one in members) + 1
    keys, entry = np.unique(np.concatenate([one.text * span + one.labels for one in members]), return_inverse=True)
    share = np.repeat(weight, [len(one.labels) for one in members])
    scores = np.concatenate([one.scores for one in members])
    chosen = np.concatenate([one.chosen for one in members])
    mean = np.bincount(entry, weights=share * scores, minlength=len(keys)).clip(0, 1)
    votes = np.bincount(entry, weights=share * chosen, minlength=len(keys)).clip(0, 1)
    text, labels, texts = keys // span, keys % span, len(members[0])
    if how == "union":
        greatest = np.zeros(len(keys))
        np.maximum.at(greatest, entry, scores)
        return ScoredLabels._sorted(text, labels, greatest, votes > 0, texts)
    if how == "vote":
        by_mean = np.lexsort((-mean, text))
        return ScoredLabels._sorted(text[by_mean], labels[by_mean], votes[by_mean], votes[by_mean] > 0.5, texts)
    fused = ScoredLabels._sorted(text, labels, mean, votes > 0, texts)
    size = np.rint(np.bincount(text, weights=votes, minlength=texts))  # expected number of chosen labels
    return fused.choose(fused.rank < size[fused.text])
