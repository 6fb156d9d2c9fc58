"""Risk against coverage: how good the texts are that a system is surest of, for each number of them."""

from __future__ import annotations

from typing import TypedDict

import numpy as np

from ..errors import DataError

__all__ = ["RiskCoverage", "risk_coverage", "score_at_coverage"]


class RiskCoverage(TypedDict):
    """Mean loss of the texts that a system is surest of, for each number of them; arrays of shape `(N,)`.

    Attributes:
        coverage: fraction of the texts, rising from 1/N to 1.
        risk: mean of 1 - quality of the surest ones.
        best: the same in the order of true quality, which nobody knows.
        area: mean risk over all coverages, in [0, 1]: 0 is perfect, a random order has the risk of all texts.
        best_area: the least that any order could have.
    """

    coverage: np.ndarray
    risk: np.ndarray
    best: np.ndarray
    area: float
    best_area: float


def risk_coverage(confidence: np.ndarray, quality: np.ndarray) -> RiskCoverage:
    """Order texts by how sure a system is of them, and follow the quality of the surest ones.

    Args:
        confidence: of `N` texts, any numbers; texts of equal confidence count as their mean.
        quality: of what was predicted for them, in [0, 1], `(N,)`.

    Raises:
        DataError: if shapes differ, or there are no texts.

    Source: El-Yaniv and Wiener, "On the Foundations of Noise-free Selective Classification", JMLR 2010; its area:
    Geifman, Uziel and El-Yaniv, "Bias-Reduced Uncertainty Estimation for Deep Neural Classifiers", ICLR 2019.
    """
    confidence, quality = np.asarray(confidence, dtype=np.float64), np.asarray(quality, dtype=np.float64)
    if confidence.ndim != 1 or confidence.shape != quality.shape or not len(quality):
        raise DataError(
            f"Confidence of shape {confidence.shape} for qualities {quality.shape}; give one for each text, at least "
            "one."
        )
    _, group, sizes = np.unique(-confidence, return_inverse=True, return_counts=True)
    expected = (np.bincount(group, quality) / sizes)[np.sort(group)]
    number = np.arange(1, len(quality) + 1)
    risk = 1 - np.cumsum(expected) / number
    best = 1 - np.cumsum(-np.sort(-quality)) / number
    return {
        "coverage": number / len(quality),
        "risk": risk,
        "best": best,
        "area": float(risk.mean()),
        "best_area": float(best.mean()),
    }


def score_at_coverage(curve: RiskCoverage, coverage: float) -> float:
    """Mean quality of that fraction of the texts that a system is surest of.

    Args:
        curve: what [`risk_coverage`] gave.
        coverage: the fraction, above 0 and at most 1; rounded up to whole texts.
    """
    place = int(np.ceil(coverage * len(curve["risk"]) - 1e-9)) - 1
    return 1 - float(curve["risk"][max(place, 0)])
