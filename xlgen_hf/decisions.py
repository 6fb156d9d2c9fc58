"""Decisions: which of a text's scored candidates are predicted, and thresholds tuned without decoding again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np

from .errors import ConfigurationError
from .scored_labels import ScoredLabels

__all__ = [
    "PRICE",
    "DecisionRule",
    "Objective",
    "RuleScores",
    "balanced_weights",
    "best_within",
    "expected_f1_sizes",
    "score_rules",
    "threshold_curves",
    "tune_threshold",
    "tune_thresholds",
]

PRICE = 0.03
"""Share of the best micro F1 on validation rows that experiments and hybrids give for macro F1, at most."""
_CHUNK = 512  # texts whose expected F1 is computed together: some 40 MB at 100 candidates

Objective = Literal["micro", "macro", "example"]
Kind = Literal["own", "top_k", "threshold", "expected_f1"]


@dataclass(frozen=True)
class DecisionRule:
    """How the labels of a text are decided on.

    Attributes:
        kind: `own` keeps the set that the model generated; `top_k` the `value` best labels; `threshold` those with a
            score of at least `value`; `expected_f1` as many of the best as promise the greatest F1 of the text.
        value: number of labels (`top_k`, at least 1) or score (`threshold`); None for the other kinds.

    Every text keeps its best label. `expected_f1` needs calibrated scores, see [`expected_f1_sizes`].

    Raises:
        ConfigurationError: if the kind is unknown, or the value is none for it.
    """

    kind: Kind = "own"
    value: float | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        if self.kind not in get_args(Kind):
            raise ConfigurationError(f"decision={self.kind!r}; choose one of {sorted(get_args(Kind))}.")
        if (self.value is not None) != (self.kind in ("top_k", "threshold")):
            raise ConfigurationError(f"decision={self.kind!r} with the value {self.value!r}.")
        if self.kind == "top_k" and (self.value is None or self.value < 1 or self.value != int(self.value)):
            raise ConfigurationError(f"top_k={self.value}; a whole number from 1 on is needed.")

    @property
    def num_candidates(self) -> int:
        """Candidates of a text that the rule wants to choose from, where its set holds fewer."""
        return {"own": 0, "top_k": int(self.value or 0)}.get(self.kind, 12)

    def apply(self, scored: ScoredLabels) -> ScoredLabels:
        """Choose among the candidates."""
        if self.kind == "own":
            return scored
        rank = scored.rank
        if self.kind == "top_k":
            return scored.choose(rank < self.value)
        if self.kind == "threshold":
            return scored.choose((rank == 0) | (scored.scores >= self.value))
        return scored.choose(rank < np.maximum(expected_f1_sizes(scored), 1)[scored.text])


def expected_f1_sizes(scored: ScoredLabels) -> np.ndarray:
    """Size of the set with the best expected F1 of each text, were its labels true independently with their scores.

    For each size the best set is that of the best scored candidates, and among the sizes the best is found exactly, in
    O(n^2) for a text: with S(i..j) the number of true ones among candidates i to j, the expected F1 of the first k is
    sum over t of 2 t P(S(1..k) = t) E[1 / (k + t + S(k+1..n))], and both factors follow by recurrences. Labels that
    are no candidates count as false; the F1 of an empty set is 0, as in the metric. Of sizes that are equally good the
    least is taken.

    Args:
        scored: candidates of `N` texts; scores should be calibrated.

    Returns:
        Shape `(N,)`, int64: 0 only where no candidate has a score above 0.

    Source: Ye, Chai, Lee and Chieu, "Optimizing F-Measures: A Tale of Two Approaches", ICML 2012; that the best sets
    are those of the best scored: Lewis, "Evaluating and Optimizing Autonomous Text Classification Systems",
    SIGIR 1995.
    """
    lengths = np.diff(scored.start)
    by_length = np.argsort(lengths, kind="stable")  # texts of about one length together need little padding
    sizes = np.zeros(len(scored), dtype=np.int64)
    for begin in range(0, len(scored), _CHUNK):
        texts = by_length[begin : begin + _CHUNK]
        width = int(lengths[texts[-1]])
        if width:
            inside = np.arange(width)[:, None] < lengths[texts]
            places = np.minimum(scored.start[texts] + np.arange(width)[:, None], len(scored.scores) - 1)
            expected = _expected_f1(np.where(inside, scored.scores[places], 0.0))
            # Values that differ by rounding errors only are equal; the first, of the least size, wins.
            sizes[texts] = np.argmax(expected >= expected.max(axis=0) * (1 - 1e-12), axis=0)
    return sizes


def _expected_f1(scores: np.ndarray) -> np.ndarray:
    """Expected F1 of the first k candidates of each text for each k.

    Args:
        scores: shape `(n, texts)`, not increasing along the first axis; 0 where a text has no more candidates.

    Returns:
        Shape `(n + 1, texts)`.
    """
    n, texts = scores.shape
    true_among_first = [np.ones((1, texts))]  # item k: P(S(1..k) = t), shape (k + 1, texts)
    for score in scores:
        last = true_among_first[-1]
        longer = np.zeros((len(last) + 1, texts))
        longer[:-1] = last * (1 - score)
        longer[1:] += last * score
        true_among_first.append(longer)
    expected = np.zeros((n + 1, texts))
    # Row a: E[1 / (a + S(k+1..n))] for the present k, which needs a up to 2k only. Row 0 is of no use.
    inverse = np.repeat(1.0 / np.maximum(np.arange(2 * n + 1), 1)[:, None], texts, axis=1)
    for k in range(n, 0, -1):
        found = np.arange(1, k + 1)[:, None]
        expected[k] = (2 * found * true_among_first[k][1:] * inverse[k + 1 : 2 * k + 1]).sum(axis=0)
        score = scores[k - 1]
        inverse = score * inverse[1 : 2 * k] + (1 - score) * inverse[: 2 * k - 1]
    return expected


def tune_threshold(
    scored: ScoredLabels, references: Sequence[Sequence[int]], objective: Objective = "micro"
) -> tuple[float, float]:
    """Find the threshold with the best F1 in one pass over the sorted candidates.

    Args:
        scored: candidates of `N` validation texts.
        references: each text's label ids.
        objective: `micro` (over all decisions), `macro` (mean over the labels that the references hold) or `example`
            (mean over the texts).

    Returns:
        The threshold, and the F1 that the rule `threshold` has with it.

    Raises:
        ConfigurationError: if the objective is unknown.
        DataError: if the references are those of other texts.
    """
    if objective not in get_args(Objective):
        raise ConfigurationError(f"objective={objective!r}; choose one of {sorted(get_args(Objective))}.")
    thresholds, f1 = threshold_curves(scored, references, (objective,))
    if not len(thresholds):
        return 1.0, 0.0
    best = int(np.argmax(f1[0]))
    return float(thresholds[best]), float(f1[0][best])


def threshold_curves(
    scored: ScoredLabels,
    references: Sequence[Sequence[int]],
    objectives: Sequence[Objective],
    label_weights: np.ndarray | None = None,
) -> tuple[np.ndarray, list[np.ndarray]]:
    """F1 of the rule `threshold` for all thresholds that differ in what they choose.

    Args:
        scored: candidates of `N` validation texts.
        references: each text's label ids.
        objectives: which F1, see [`tune_threshold`].
        label_weights: what a label counts in macro F1, by label id; all alike if None.

    Returns:
        The thresholds, falling, `(T,)`, and for each objective the F1 with each of them, `(T,)`.
    """
    key = np.where(scored.rank == 0, np.inf, scored.scores)  # the best label stays whatever the threshold
    order = np.argsort(-key, kind="stable")
    key = key[order]
    cut = np.append(key[1:] != key[:-1], True)[: len(key)]  # equal scores are decided alike
    thresholds = np.where(np.isfinite(key[cut]), key[cut], np.nextafter(1.0, 2.0))
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


def tune_thresholds(scored: ScoredLabels, references: Sequence[Sequence[int]]) -> dict[str, float]:
    """The best threshold for each objective."""
    return {objective: tune_threshold(scored, references, objective)[0] for objective in get_args(Objective)}


def balanced_weights(references: Sequence[Sequence[int]], counts: np.ndarray) -> np.ndarray:
    """What labels count in macro F1 if those that training never saw, saw once, and saw more often count a third each.

    Plain macro F1 of few validation texts is that of the labels that they happen to hold, nearly all seen often.

    Args:
        references: label ids of the validation texts.
        counts: training documents of each label, `(L,)`.

    Returns:
        Weights, `(L,)`; of labels that no text holds too.
    """
    bucket = np.minimum(counts, 2)
    held = np.unique(np.fromiter((label for ids in references for label in ids), dtype=np.int64))
    return 1 / np.maximum(np.bincount(bucket[held], minlength=3), 1)[bucket]


@dataclass(frozen=True)
class RuleScores:
    """F1 of rules on validation texts: 1 to `max_k` labels for every text, then all thresholds that differ.

    Attributes:
        values: labels of a text, then thresholds, `(R,)`.
        micro: micro F1 of each rule, `(R,)`.
        macro: macro F1 of each rule, `(R,)`.
        max_k: how many of the rules are numbers of labels.
    """

    values: np.ndarray
    micro: np.ndarray
    macro: np.ndarray
    max_k: int

    def rule(self, place: int) -> DecisionRule:
        """The rule at a place."""
        return DecisionRule("top_k" if place < self.max_k else "threshold", float(self.values[place]))


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
        references: each text's label ids; labels that are no candidates count as missed.
        max_k: most labels for every text that are tried, at least 1.
        label_weights: see [`threshold_curves`]; all ids are below its length.

    Raises:
        ConfigurationError: if `max_k` is below 1, or there are no texts.
        DataError: if the references are those of other texts.
    """
    if max_k < 1:
        raise ConfigurationError(f"max_k={max_k}; a whole number from 1 on is needed.")
    if not len(scored):
        raise ConfigurationError("There are no validation texts to choose a decision rule on.")
    order = np.argsort(scored.rank, kind="stable")
    size = np.searchsorted(scored.rank[order], np.arange(1, max_k + 1))  # candidates with a rank below 1 .. max_k
    objectives: tuple[Objective, ...] = ("micro", "macro")
    by_k = [np.append(0.0, _f1_along(scored, order, references, name, label_weights))[size] for name in objectives]
    thresholds, by_threshold = threshold_curves(scored, references, objectives, label_weights)
    micro, macro = (np.concatenate(pair) for pair in zip(by_k, by_threshold, strict=True))
    return RuleScores(np.concatenate([np.arange(1, max_k + 1), thresholds]), micro, macro, max_k)


def best_within(micro: np.ndarray, macro: np.ndarray, price: float) -> int:
    """The place with the best macro F1 where micro F1 is at least `1 - price` of its best; of equals the first."""
    near = np.flatnonzero(micro >= (1 - price) * micro.max())
    return int(near[np.lexsort((near, -micro[near], -macro[near]))[0]])
