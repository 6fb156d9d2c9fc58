"""Calibration: scores that are probabilities, with a map for each bucket of label frequency."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, get_args

import numpy as np

from ..errors import ConfigurationError
from ..files.schema import Fields, choice, either, integer, list_of, number
from .scored_labels import ScoredLabels

__all__ = [
    "FREQUENCY_BOUNDS",
    "Calibration",
    "CalibratorContent",
    "Curve",
    "ScoreCalibrator",
    "apply_curve",
    "logit",
]

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


class CalibratorContent(TypedDict):
    """A [`ScoreCalibrator`] as JSON holds it."""

    method: Calibration
    bounds: list[int]
    maps: list[Curve]


_POINTS = list_of(number(), min_length=1, ascending=True)
_CALIBRATOR_FORM = Fields[CalibratorContent](
    {
        "method": choice(*get_args(Calibration)),
        "bounds": list_of(integer(), unique=True, ascending=True),
        "maps": list_of(
            either(Fields({"slope": number(minimum=0), "intercept": number()}), Fields({"x": _POINTS, "y": _POINTS}))
        ),
    }
)


@dataclass(frozen=True)
class ScoreCalibrator:
    """Maps scores to probabilities, with a map for each bucket of labels by training frequency.

    Generators give rare labels less than they deserve, so one map for all would not do. A bucket with few candidates
    on the validation rows has the map of all.

    Attributes:
        method: `isotonic` (a rising curve of straight lines) or `platt` (a logistic curve over the score's logit).
        maps: the curve of each bucket.
        bounds: maximum training count of each bucket but the last.

    Raises:
        ConfigurationError: if a bucket has no curve, or the points of a curve are not pairs.

    Source: Zadrozny and Elkan, KDD 2002 (isotonic); Platt, 1999.
    """

    method: Calibration
    maps: list[Curve]
    bounds: tuple[int, ...] = FREQUENCY_BOUNDS

    def __post_init__(self) -> None:
        """Check that the parts fit each other."""
        if len(self.maps) != len(self.bounds) + 1:
            raise ConfigurationError(
                f"'maps' holds {len(self.maps)} curves; one for each of the {len(self.bounds) + 1} buckets is needed."
            )
        for place, curve in enumerate(self.maps):
            if len(curve.get("x", ())) != len(curve.get("y", ())):
                raise ConfigurationError(f"'maps[{place}]' must have as many values in 'x' as in 'y'.")

    def transform(self, scored: ScoredLabels, train_counts: np.ndarray) -> ScoredLabels:
        """The candidates with calibrated scores, sorted by them.

        Args:
            scored: the candidates.
            train_counts: training documents of each label id, `(L,)`.
        """
        bucket = np.searchsorted(self.bounds, train_counts[scored.labels])
        scores = np.empty_like(scored.scores)
        for place, curve in enumerate(self.maps):
            mine = bucket == place
            scores[mine] = apply_curve(curve, scored.scores[mine])
        return scored.with_scores(scores)

    def to_dict(self) -> CalibratorContent:
        """As JSON holds it; [`from_dict`] makes it again."""
        return {"method": self.method, "bounds": list(self.bounds), "maps": self.maps}

    @classmethod
    def from_dict(cls, given: object, path: str | Path) -> ScoreCalibrator:
        """Check and read what [`to_dict`] gave.

        Args:
            given: a parsed JSON value.
            path: where it is from, for messages.

        Raises:
            ModelFolderError: if it is not of that form.
        """
        content = _CALIBRATOR_FORM.check(given, path, "calibrator")
        return cls(content["method"], content["maps"], tuple(content["bounds"]))


def logit(scores: np.ndarray) -> np.ndarray:
    """Logits of probabilities, finite for 0 and 1 too."""
    clipped = scores.clip(_TINY, 1 - _TINY)
    return np.log(clipped / (1 - clipped))


def apply_curve(curve: Curve, scores: np.ndarray) -> np.ndarray:
    """Scores -> probabilities."""
    if "slope" in curve:
        exponent = curve["slope"] * logit(scores) + curve["intercept"]
        return 1 / (1 + np.exp(-exponent.clip(-500, 500)))
    return np.interp(scores, curve["x"], curve["y"]).clip(0, 1)
