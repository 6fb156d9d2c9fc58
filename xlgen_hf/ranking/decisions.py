"""Decisions: which of a text's scored candidates are predicted, and thresholds tuned without decoding again."""

from __future__ import annotations

from dataclasses import dataclass
from numbers import Real
from typing import Literal, TypeGuard, get_args

import numpy as np

from ..errors import ConfigurationError
from .scored_labels import ScoredLabels

__all__ = ["DecisionRule", "Kind", "Objective", "expected_f1_sizes"]

_CANDIDATES = 12  # from which thresholds and expected F1 choose
_CELLS = 5_000_000  # candidates squared of the texts whose expected F1 is computed together: some 40 MB

Objective = Literal["micro", "macro", "example"]
Kind = Literal["own", "top_k", "threshold", "expected_f1"]


@dataclass(frozen=True)
class DecisionRule:
    """How the labels of a text are decided on.

    Attributes:
        kind: `own` keeps the set that the model itself decided on; `top_k` the `value` best labels; `threshold` those
            with a score of at least `value`; `expected_f1` as many of the best as promise the highest F1 of the text.
        value: number of labels (`top_k`, an integer >= 1) or score (`threshold`, in [0, 1]); None for the other kinds.
        min_labels: `threshold`: labels that a text keeps whatever their scores, an integer >= 0. With 0, the default,
            a threshold is strict and a text may be left without labels; thresholds that were tuned on validation rows
            were tuned with 1, or with 0 where many of those rows have none.

    `expected_f1` needs calibrated scores and keeps at least one label, see [`expected_f1_sizes`].

    Raises:
        ConfigurationError: if the kind is unknown, or a value is not allowed for it.
    """

    kind: Kind = "own"
    value: float | None = None
    min_labels: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if self.kind not in get_args(Kind):
            raise ConfigurationError(f"decision={self.kind!r}; choose one of {sorted(get_args(Kind))}.")
        if (self.value is not None) != (self.kind in ("top_k", "threshold")):
            raise ConfigurationError(f"decision={self.kind!r} with the value {self.value!r}.")
        if self.kind == "top_k" and not (_is_number(self.value) and self.value >= 1 and self.value % 1 == 0):
            raise ConfigurationError(f"top_k={self.value!r}; it must be an integer >= 1.")
        if self.kind == "threshold" and not (_is_number(self.value) and 0 <= self.value <= 1):
            raise ConfigurationError(f"threshold={self.value!r}; it must be a number from 0 to 1.")
        whole = type(self.min_labels) is int and self.min_labels >= 0
        if not whole or (self.min_labels and self.kind != "threshold"):
            raise ConfigurationError(
                f"min_labels={self.min_labels!r} with decision={self.kind!r}; it must be an integer >= 0, and above 0 "
                "with 'threshold' alone."
            )

    @property
    def num_labels(self) -> int:
        """Labels that every text gets, as far as there are so many to choose from."""
        return int(self.value or 0) if self.kind == "top_k" else 0

    @property
    def min_candidates(self) -> int:
        """Candidates of a text that the rule wants to choose from, where a greedy search would end before.

        All rules that go by scores choose from the same candidates, so that the labels of a smaller `top_k` are the
        first of a larger one, and those above a threshold too.
        """
        return 0 if self.kind == "own" else _CANDIDATES

    def apply(self, scored: ScoredLabels, given: np.ndarray | None = None, *, in_all: bool = False) -> ScoredLabels:
        """Choose among the candidates.

        Args:
            scored: the candidates of `N` texts.
            given: number of labels that each text has already, which are not among the candidates, `(N,)`; none if
                None. They count for `min_labels`.
            in_all: whether they also count for `top_k`, which then says how many labels a text has in all.
        """
        if self.kind == "own":
            return scored
        rank = scored.rank
        held = 0 if given is None else given[scored.text]
        if self.kind == "top_k":
            return scored.choose(rank < self.num_labels - (held if in_all else 0))
        if self.kind == "threshold":
            return scored.choose((rank < self.min_labels - held) | (scored.scores >= self.value))
        return scored.choose(rank < np.maximum(expected_f1_sizes(scored), 1)[scored.text])


def _is_number(value: object) -> TypeGuard[float]:
    return isinstance(value, Real) and not isinstance(value, bool)


def expected_f1_sizes(scored: ScoredLabels) -> np.ndarray:
    """Size of the set with the best expected F1 of each text, were its labels true independently with their scores.

    For each size the best set is that of the best scored candidates, and among the sizes the best is found exactly, in
    O(n^2) for a text: with S(i..j) the number of true ones among candidates i to j, the expected F1 of the first k is
    sum over t of 2 t P(S(1..k) = t) E[1 / (k + t + S(k+1..n))], and both factors follow by recurrences. Labels that
    are not candidates count as false; the F1 of an empty set is 0, as in the metric. Of equally good sizes the
    smallest is taken.

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
    end = len(scored)
    while end:
        width = int(lengths[by_length[end - 1]])
        begin = max(0, end - max(1, _CELLS // max(width, 1) ** 2))
        texts, end = by_length[begin:end], begin
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
