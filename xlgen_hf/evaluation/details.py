"""What scores hold besides numbers, so that their pictures can be drawn again, such as on the card of a model."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ..files.score_details import ScoreDetails
from ..ranking.reliability import ReliabilityTable
from ..ranking.risk_coverage import RiskCoverage

__all__ = ["score_details"]

_MOST_POINTS = 200  # of a curve; a picture shows no more
_DIGITS = 5


def score_details(reliability: ReliabilityTable | None, curves: Mapping[str, RiskCoverage]) -> ScoreDetails:
    """Tables and curves as JSON holds them.

    Args:
        reliability: how often scores come true; None where there are none.
        curves: risk against coverage, by quality.
    """
    details: ScoreDetails = {}
    if reliability is not None:
        details["reliability"] = {
            "low": _numbers(reliability["low"]),
            "high": _numbers(reliability["high"]),
            "mean_score": _numbers(reliability["mean_score"]),
            "accuracy": _numbers(reliability["accuracy"]),
            "count": [int(count) for count in reliability["count"]],
        }
    if curves:
        details["risk_coverage"] = {
            name: {
                "coverage": _numbers(curve["coverage"]),
                "risk": _numbers(curve["risk"]),
                "best": _numbers(curve["best"]),
                "area": curve["area"],
                "best_area": curve["best_area"],
            }
            for name, curve in curves.items()
        }
    return details


def _numbers(values: np.ndarray) -> list[float]:
    """Rounded numbers of a curve: its ends, and at most 198 between them."""
    chosen = np.linspace(0, len(values) - 1, min(len(values), _MOST_POINTS)).round().astype(np.int64)
    return [round(float(value), _DIGITS) for value in values[chosen]]
