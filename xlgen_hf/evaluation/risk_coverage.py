"""What it is worth to leave the least sure texts to people: risk of the others against how many they are."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ..data.predictions import Predictions
from ..ranking.reliability import expected_calibration_error
from ..ranking.risk_coverage import RiskCoverage, risk_coverage, score_at_coverage

if TYPE_CHECKING:
    import pyarrow as pa

__all__ = ["confidence_scores", "risk_curves"]

_COVERAGES = (50, 80)  # percent of the texts


def risk_curves(given: Predictions, true: pa.ChunkedArray) -> dict[str, RiskCoverage]:
    """Risk against coverage for the F1 of texts (`example_f1`) and for their best labels (`best_label`).

    Args:
        given: predictions; those with the greatest best score count as surest where nothing better is said.
        true: the true labels of the same texts, an Arrow column.

    Returns:
        None of both where nothing says how sure a prediction is.
    """
    # Scores may be logits: whatever they are, a text without a label is the least sure.
    best = None if given.scores is None else [max(scores, default=-np.inf) for scores in given.scores]
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
