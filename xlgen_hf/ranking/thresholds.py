"""Thresholds and rules, chosen on validation texts without decoding again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import get_args

import numpy as np

from ..errors import ConfigurationError
from .decisions import DecisionRule, Objective
from .scored_labels import ScoredLabels

__all__ = [
    "MICRO_F1_TOLERANCE",
    "RuleScores",
    "balanced_weights",
    "best_within",
    "bucket_weights",
    "minimums_to_try",
    "often_without_labels",
    "score_rules",
    "threshold_curves",
    "tune_threshold",
    "tune_thresholds",
    "tuned_threshold",
]

_WITHOUT_LABELS = 0.05  # see `often_without_labels`
_ROUNDING = 1e-6  # by which the score of a text may differ between two computations of it
MICRO_F1_TOLERANCE = 0.03
"""Maximum fraction of the best micro F1 on validation rows that experiments and hybrids give up for macro F1."""


def tuned_threshold(value: float, min_labels: int = 1) -> DecisionRule:
    """The rule of a threshold that was tuned here.

    A tuned threshold is the score of a candidate. Once the model is loaded from its folder, sums may be taken in
    another order, and that candidate must still pass.

    Args:
        value: the threshold.
        min_labels: labels that a text keeps whatever their scores, as the threshold was tuned with.
    """
    return DecisionRule("threshold", max(value - _ROUNDING, 0.0), min_labels=min_labels)


def often_without_labels(numbers: Sequence[int] | np.ndarray) -> bool:
    """Whether it is an answer of its own that a text has no label: at least 5 % of the texts have none.

    Fewer are gaps in the data, or have labels outside the label space alone, and who asks for labels is then better
    served by the best one.

    Args:
        numbers: how many labels each text has.
    """
    without = int((np.asarray(numbers) == 0).sum())
    return without > 0 and without >= _WITHOUT_LABELS * len(numbers)


def minimums_to_try(references: Sequence[Sequence[int]]) -> tuple[int, ...]:
    """Minimum numbers of labels that are tried with each threshold: 1, and 0 for texts that are often without labels.

    Args:
        references: label ids of the validation texts.
    """
    return (1, 0) if often_without_labels([*map(len, references)]) else (1,)


def tune_threshold(
    scored: ScoredLabels,
    references: Sequence[Sequence[int]],
    objective: Objective = "micro",
    min_labels: int = 1,
) -> tuple[float, float]:
    """Find the threshold with the best F1 in one pass over the sorted candidates.

    Args:
        scored: candidates of `N` validation texts.
        references: each text's label ids.
        objective: `micro` (over all decisions), `macro` (mean over the labels that the references hold) or `example`
            (mean over the texts).
        min_labels: labels that a text keeps whatever their scores, 0 or more.

    Returns:
        The threshold, and the F1 that the rule `threshold` has with it.

    Raises:
        ConfigurationError: if the objective is unknown.
        DataError: if the references are those of other texts.
    """
    if objective not in get_args(Objective):
        raise ConfigurationError(f"objective={objective!r}; choose one of {sorted(get_args(Objective))}.")
    thresholds, f1 = threshold_curves(scored, references, (objective,), min_labels=min_labels)
    if not len(thresholds):
        return 1.0, 0.0
    best = int(np.argmax(f1[0]))
    return float(thresholds[best]), float(f1[0][best])


def threshold_curves(
    scored: ScoredLabels,
    references: Sequence[Sequence[int]],
    objectives: Sequence[Objective],
    label_weights: np.ndarray | None = None,
    *,
    min_labels: int = 1,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """F1 of the rule `threshold` for all thresholds that differ in what they choose.

    Args:
        scored: candidates of `N` validation texts.
        references: each text's label ids.
        objectives: which F1, see [`tune_threshold`].
        label_weights: what a label counts in macro F1, by label id; all alike if None.
        min_labels: labels that a text keeps whatever their scores, 0 or more.

    Returns:
        The thresholds, falling, `(T,)`, and for each objective the F1 with each of them, `(T,)`.
    """
    key = np.where(scored.rank < min_labels, np.inf, scored.scores)  # the best labels stay whatever the threshold
    order = np.argsort(-key, kind="stable")
    key = key[order]
    cut = np.append(key[1:] != key[:-1], True)[: len(key)]  # equal scores are decided alike
    cut &= np.isfinite(key) | ~(key == 1.0).any()  # no threshold leaves out a further label with the score 1
    thresholds = np.minimum(key[cut], 1.0)
    return thresholds, [
        _f1_along(scored, order, references, objective, label_weights)[cut] for objective in objectives
    ]


def _f1_along(
    scored: ScoredLabels,
    order: np.ndarray,
    references: Sequence[Sequence[int]],
    objective: Objective,
    label_weights: np.ndarray | None = None,
) -> np.ndarray:
    """F1 of the first candidates in an order, after each of them, `(M,)`; see [`threshold_curves`]."""
    correct = scored.correct(references)[order]
    if objective == "micro":
        gold = sum(map(len, references))
        return 2 * np.cumsum(correct) / (np.arange(1, len(order) + 1) + gold)
    if objective == "example":
        sizes = np.array([len(ids) for ids in references])
        return _mean_of_groups(scored.text[order], correct, sizes, np.ones(len(sizes)))
    labels, sizes = np.unique([label for ids in references for label in ids], return_counts=True)
    most = max(int(scored.labels.max(initial=0)), int(labels.max(initial=0))) + 1
    gold_of, weights = np.zeros(most, dtype=np.int64), np.zeros(most)
    gold_of[labels.astype(np.int64)] = sizes
    weights[labels.astype(np.int64)] = 1.0 if label_weights is None else label_weights[labels.astype(np.int64)]
    return _mean_of_groups(scored.labels[order], correct, gold_of, weights)


def _mean_of_groups(group: np.ndarray, correct: np.ndarray, gold: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Weighted mean F1 over groups after each candidate, in the order of the candidates.

    Args:
        group: group of each candidate, `(M,)`.
        correct: whether each candidate is right, `(M,)`.
        gold: right answers of each group, `(G,)`.
        weights: what each group counts, `(G,)`.
    """
    order = np.argsort(group, kind="stable")
    first = np.flatnonzero(np.append(True, np.diff(group[order]) != 0)) if len(order) else np.zeros(0, np.int64)
    size = np.diff(np.append(first, len(order)))
    opened = np.repeat(first, size)
    hits = np.cumsum(correct[order])
    hits = hits - np.repeat(hits[first] - correct[order][first], size)
    after = 2 * hits / (np.arange(len(order)) - opened + 1 + gold[group[order]])
    before = np.where(np.arange(len(order)) == opened, 0.0, np.roll(after, 1))
    gain = np.empty(len(order))
    gain[order] = (after - before) * weights[group[order]]
    return np.cumsum(gain) / max(weights.sum(), 1e-12)


def tune_thresholds(
    scored: ScoredLabels, references: Sequence[Sequence[int]], min_labels: int = 1
) -> dict[str, float]:
    """The best threshold for each objective; see [`tune_threshold`]."""
    return {name: tune_threshold(scored, references, name, min_labels)[0] for name in get_args(Objective)}


def bucket_weights(references: Sequence[Sequence[int]], counts: np.ndarray) -> np.ndarray:
    """What labels count in the macro F1 of those that training never saw, saw once, and saw more often.

    Args:
        references: label ids of the validation texts; ids from `L` on stand for labels outside the label
            space, which training never saw either.
        counts: training documents of each label, `(L,)`.

    Returns:
        Weights of all `L` labels, also of those that no text holds, and of the ids from `L` on, `(3, L')`. The macro
        F1 of a bucket of which the texts hold no label is 0.
    """
    held = np.unique(np.fromiter((label for ids in references for label in ids), dtype=np.int64))
    bucket = np.minimum(np.pad(counts, (0, max(0, held.max(initial=-1) + 1 - len(counts)))), 2)
    return (bucket == np.arange(3)[:, None]) / np.maximum(np.bincount(bucket[held], minlength=3), 1)[:, None]


def balanced_weights(references: Sequence[Sequence[int]], counts: np.ndarray) -> np.ndarray:
    """What labels count in macro F1 if those that training never saw, saw once, and saw more often count a third each.

    Plain macro F1 of few validation texts is that of the labels that they happen to hold, nearly all seen often.

    Args:
        references, counts: see [`bucket_weights`], as for the labels that have a weight.
    """
    weights: np.ndarray = bucket_weights(references, counts).sum(axis=0)
    return weights


@dataclass(frozen=True)
class RuleScores:
    """F1 of rules on validation texts: 1 to `max_k` labels for every text, then all thresholds that differ.

    Attributes:
        values: labels of a text, then thresholds, `(R,)`.
        micro: micro F1 of each rule, `(R,)`.
        macro: macro F1 of each rule, `(R,)`.
        min_labels: of each rule, see [`minimums_to_try`], `(R,)`; 0 for numbers of labels.
        max_k: how many of the rules are numbers of labels.
    """

    values: np.ndarray
    micro: np.ndarray
    macro: np.ndarray
    min_labels: np.ndarray
    max_k: int

    def rule(self, place: int) -> DecisionRule:
        """The rule at a place."""
        value = float(self.values[place])
        is_number = place < self.max_k
        return DecisionRule("top_k", value) if is_number else tuned_threshold(value, int(self.min_labels[place]))


def score_rules(
    scored: ScoredLabels,
    references: Sequence[Sequence[int]],
    *,
    max_k: int = 10,
    label_weights: np.ndarray | None = None,
) -> RuleScores:
    """Score 1 to `max_k` labels for every text and all thresholds.

    Args:
        scored: candidates of `N` validation texts.
        references: each text's label ids; labels that are not candidates count as missed.
        max_k: most labels for every text that are tried, at least 1.
        label_weights: see [`threshold_curves`]; all ids are below its length.

    Raises:
        ConfigurationError: if `max_k` is below 1, or there are no texts.
        DataError: if the references are those of other texts.
    """
    if max_k < 1:
        raise ConfigurationError(f"max_k={max_k}; it must be an integer >= 1.")
    if not len(scored):
        raise ConfigurationError("There are no validation texts to choose a decision rule on.")
    order = np.argsort(scored.rank, kind="stable")
    size = np.searchsorted(scored.rank[order], np.arange(1, max_k + 1))  # candidates with a rank below 1 .. max_k
    objectives: tuple[Objective, ...] = ("micro", "macro")
    by_k = [np.append(0.0, _f1_along(scored, order, references, name, label_weights))[size] for name in objectives]
    values, least, curves = [np.arange(1, max_k + 1)], [np.zeros(max_k, dtype=np.int64)], [by_k]
    for min_labels in minimums_to_try(references):
        found, f1 = threshold_curves(scored, references, objectives, label_weights, min_labels=min_labels)
        values.append(found)
        least.append(np.full(len(found), min_labels))
        curves.append(f1)
    micro, macro = (np.concatenate(parts) for parts in zip(*curves, strict=True))
    return RuleScores(np.concatenate(values), micro, macro, np.concatenate(least), max_k)


def best_within(micro: np.ndarray, macro: np.ndarray, tolerance: float, lacking: np.ndarray | None = None) -> int:
    """The place with the best macro F1 where micro F1 is at least `1 - tolerance` of its best; of equals the first.

    Args:
        micro: micro F1, `(T,)`.
        macro: macro F1, `(T,)`.
        tolerance: see above.
        lacking: what each place lacks of something that counts more than macro F1, `(T,)`; nothing if None.
    """
    near = np.flatnonzero(micro >= (1 - tolerance) * micro.max())
    first = np.zeros(len(near)) if lacking is None else lacking[near]
    return int(near[np.lexsort((near, -micro[near], -macro[near], first))[0]])
