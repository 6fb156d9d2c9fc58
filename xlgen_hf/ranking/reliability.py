"""How far scores are from probabilities."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from ..errors import ConfigurationError, DataError

__all__ = ["ReliabilityTable", "expected_calibration_error", "reliability_table", "table_calibration_error"]


class ReliabilityTable(TypedDict):
    """Bins of scored decisions, rising in score; arrays of shape `(bins,)`, bins of nothing left out.

    Attributes:
        low: lowest score in the bin.
        high: highest score in the bin.
        mean_score: mean of its scores.
        accuracy: share of its decisions that are true.
        count: number of its decisions.
    """

    low: np.ndarray
    high: np.ndarray
    mean_score: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray


def reliability_table(
    scores: np.ndarray, correct: np.ndarray, bins: int = 15, *, equal_mass: bool = True
) -> ReliabilityTable:
    """Compare scores with how often they come true.

    Args:
        scores: probabilities of `n` decisions, shape `(n,)`, in [0, 1], in any order.
        correct: whether each is true, shape `(n,)`.
        bins: the most bins to make.
        equal_mass: bins that hold equally many decisions, as far as equal scores, which stay together, allow it;
            otherwise bins of equal width in score.

    Raises:
        ConfigurationError: if `bins` is below 1.
        DataError: if there are no decisions, shapes differ or a score is outside [0, 1].
    """
    scores, correct = np.asarray(scores, dtype=np.float64), np.asarray(correct, dtype=np.float64)
    if bins < 1:
        raise ConfigurationError(f"bins={bins}; there must be at least 1.")
    if scores.ndim != 1 or scores.shape != correct.shape or not len(scores):
        raise DataError(
            f"Scores of shape {scores.shape} for {correct.shape} outcomes; give one for each, at least one."
        )
    if not ((scores >= 0) & (scores <= 1)).all():
        raise DataError("Scores are outside [0, 1]; reliability is one of probabilities.")
    if equal_mass:
        _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
        middle = np.cumsum(sizes) - sizes / 2  # a group of equal scores goes where its middle one belongs
        place = np.floor(middle / len(scores) * bins).astype(np.int64)[group]
    else:
        place = np.minimum((scores * bins).astype(np.int64), bins - 1)
    _, place, count = np.unique(place, return_inverse=True, return_counts=True)
    low, high = np.ones(len(count)), np.zeros(len(count))
    np.minimum.at(low, place, scores)
    np.maximum.at(high, place, scores)
    means = [np.bincount(place, values) / count for values in (scores, correct)]
    return {"low": low, "high": high, "mean_score": means[0], "accuracy": means[1], "count": count}


def expected_calibration_error(
    scores: np.ndarray, correct: np.ndarray, bins: int = 15, *, equal_mass: bool = True
) -> float:
    """Mean over the decisions of |mean score - share of true ones| of their bin: in [0, 1], 0 is perfect.

    Args:
        scores: see `reliability_table`, as all others, and the errors.
        correct: whether each decision is true.
        bins: the most bins to make.
        equal_mass: bins of equally many decisions rather than of equal width.

    Source: Naeini, Cooper and Hauskrecht, "Obtaining Well Calibrated Probabilities Using Bayesian Binning", AAAI 2015
    (with bins of equal width).
    """
    return table_calibration_error(reliability_table(scores, correct, bins, equal_mass=equal_mass))


def table_calibration_error(table: ReliabilityTable) -> float:
    """The expected calibration error of a table, see `expected_calibration_error`."""
    gaps = np.abs(table["mean_score"] - table["accuracy"])
    return float(gaps @ table["count"] / table["count"].sum())
