"""Calibration: scores that are probabilities, with a map for each bucket of label frequency."""

from __future__ import annotations

import logging
import math
from dataclasses import dataclass
from typing import Literal, TypedDict, get_args

import numpy as np

from ..errors import ConfigurationError
from .scored_labels import ScoredLabels

__all__ = ["FREQUENCY_BOUNDS", "Calibration", "Curve", "ScoreCalibrator", "logit"]

logger = logging.getLogger(__name__)

FREQUENCY_BOUNDS = (0, 1, 5, 20)  # buckets by training documents of a label: 0, 1, 2-5, 6-20, more
_TINY = 1e-12

Calibration = Literal["isotonic", "platt"]


class Curve(TypedDict, total=False):
    """A map from scores to probabilities: points `x` and `y`, or `slope` and `intercept` over the score's logit."""

    x: list[float]
    y: list[float]
    slope: float
    intercept: float


@dataclass(frozen=True)
class ScoreCalibrator:
    """Maps scores to probabilities, with a map for each bucket of labels by training frequency.

    Generators give rare labels less than they deserve, so one map for all would not do. A bucket with few candidates
    on the validation rows has the map of all.

    Attributes:
        method: `isotonic` (a rising curve of straight lines) or `platt` (a logistic curve over the score's logit).
        maps: the curve of each bucket.
        bounds: maximum training count of each bucket but the last.

    Source: Zadrozny and Elkan, KDD 2002 (isotonic); Platt, 1999.
    """

    method: Calibration
    maps: list[Curve]
    bounds: tuple[int, ...] = FREQUENCY_BOUNDS

    def transform(self, scored: ScoredLabels, train_counts: np.ndarray) -> ScoredLabels:
        """The candidates with calibrated scores, sorted by them.

        Args:
            scored: the candidates.
            train_counts: training documents of each label id, `(L,)`.
        """
        bucket = np.searchsorted(self.bounds, train_counts[scored.labels])
        scores = np.empty_like(scored.scores)
        for number, curve in enumerate(self.maps):
            mine = bucket == number
            scores[mine] = _apply_map(curve, scored.scores[mine])
        return scored.with_scores(scores)

    def to_dict(self) -> dict[str, object]:
        """As JSON holds it; [`from_dict`] makes it again."""
        return {"method": self.method, "bounds": list(self.bounds), "maps": self.maps}

    @classmethod
    def from_dict(cls, content: object) -> ScoreCalibrator:
        """Make it from what [`to_dict`] gave.

        Raises:
            ConfigurationError: if the content is not that of a calibrator.
        """
        problem = _content_problem(content)
        if problem or not isinstance(content, dict):
            raise ConfigurationError(problem)
        return cls(content["method"], content["maps"], tuple(content["bounds"]))


def logit(scores: np.ndarray) -> np.ndarray:
    """Logits of probabilities, finite for 0 and 1 too."""
    clipped = scores.clip(_TINY, 1 - _TINY)
    return np.log(clipped / (1 - clipped))


def _apply_map(curve: Curve, scores: np.ndarray) -> np.ndarray:
    if "slope" in curve:
        exponent = curve["slope"] * logit(scores) + curve["intercept"]
        return 1 / (1 + np.exp(-exponent.clip(-500, 500)))
    return np.interp(scores, curve["x"], curve["y"]).clip(0, 1)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _content_problem(content: object) -> str | None:
    """What is wrong with the parsed file, if anything."""
    if not isinstance(content, dict) or set(content) != {"method", "bounds", "maps"}:
        return "the calibrator must be an object with 'method', 'bounds' and 'maps'."
    if content.get("method") not in get_args(Calibration):
        return f"'method' is {content.get('method')!r}; it must be one of {sorted(get_args(Calibration))}."
    bounds, maps = content["bounds"], content["maps"]
    whole = isinstance(bounds, list) and all(type(bound) is int for bound in bounds)
    if not isinstance(bounds, list) or not whole or bounds != sorted(set(bounds)):
        return "'bounds' must be a rising list of integers."
    if not isinstance(maps, list) or len(maps) != len(bounds) + 1 or not all(_is_map(curve) for curve in maps):
        return f"'maps' must hold a curve for each of the {len(bounds) + 1} buckets."
    return None


def _is_map(curve: object) -> bool:
    if not isinstance(curve, dict):
        return False
    if set(curve) == {"slope", "intercept"}:
        return all(_is_number(value) for value in curve.values()) and curve["slope"] >= 0
    x, y = curve.get("x"), curve.get("y")
    if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y) or not x:
        return False
    return all(_is_number(value) for value in [*x, *y]) and x == sorted(x) and y == sorted(y)
