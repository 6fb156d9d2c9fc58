"""What it is worth to leave the least sure texts to people: risk of the others against how many they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, TypedDict

import numpy as np

from ..data.predictions import Predictions
from ..errors import DataError
from ..ranking.reliability import expected_calibration_error

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["RiskCoverage", "confidence_scores", "risk_coverage", "risk_curves", "score_at_coverage"]

_COVERAGES = (50, 80)  # percent of the texts


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


def risk_curves(given: Predictions, true: pa.ChunkedArray) -> dict[str, RiskCoverage]:
    """Risk against coverage for the F1 of texts (`example_f1`) and for their best labels (`best_label`).

    Args:
        given: predictions; those with the greatest best score count as surest where nothing better is said.
        true: the true labels of the same texts, an Arrow column.

    Returns:
        None of both where nothing says how sure a prediction is.
    """
    best = None if given.scores is None else [max(scores, default=0.0) for scores in given.scores]
    curves = {}
    for name, (field, quality) in _qualities(given, true).items():
        confidence = given.confidence.get(field, best)
        if confidence is not None:
            curves[name] = risk_coverage(np.array(confidence), quality)
    return curves


def confidence_scores(
    given: Predictions, true: pa.ChunkedArray, curves: Mapping[str, RiskCoverage]
) -> dict[str, float]:
    """Areas under the curves, qualities of the surest texts, and how far what predictions promise comes true.

    Args:
        given, true: see [`risk_curves`].
        curves: what that gave.
    """
    scores: dict[str, float] = {}
    for name, curve in curves.items():
        scores |= {f"{name}_at_coverage_{part}": score_at_coverage(curve, part / 100) for part in _COVERAGES}
        scores |= {f"{name}_risk_coverage_area": curve["area"], f"{name}_least_risk_coverage_area": curve["best_area"]}
    for field, quality in _qualities(given, true).values():
        if field in given.confidence:
            promised = np.array(given.confidence[field])
            scores[f"{field}_calibration_error"] = expected_calibration_error(promised, quality)
    return scores


def _qualities(given: Predictions, true: pa.ChunkedArray) -> dict[str, tuple[str, np.ndarray]]:
    """Name of a quality -> the field that promises it, and what it is for each text, in [0, 1]."""
    pairs = list(zip(given.labels, true.to_pylist(), strict=True))
    f1 = [2 * len(set(some) & set(others)) / max(len(set(some)) + len(others), 1) for some, others in pairs]
    first_is_right = [float(bool(some) and some[0] in others) for some, others in pairs]
    return {
        "example_f1": ("expected_f1", np.array(f1)),
        "best_label": ("best_label_probability", np.array(first_is_right)),
    }
