"""Calibration: scores that are probabilities, label frequency by label frequency, and how far they are from it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression

from ..errors import ConfigurationError, DataError, ModelFolderError
from ..files.serialization import read_json, write_json
from .reliability import expected_calibration_error
from .scored_labels import ScoredLabels
from .thresholds import tune_thresholds

__all__ = ["CALIBRATION_FILE", "Calibration", "ScoreCalibrator", "fit_calibrator"]

logger = logging.getLogger(__name__)

CALIBRATION_FILE = "score_calibration.json"
_FORMAT_VERSION = 1
_BOUNDS = (0, 1, 5, 20)  # buckets by training documents of a label: 0, 1, 2-5, 6-20, more
_LEAST_CANDIDATES, _LEAST_CORRECT = 200, 20  # of a bucket that gets a map of its own
_TINY = 1e-12

Calibration = Literal["isotonic", "platt"]


@dataclass
class ScoreCalibrator:
    """Maps scores to probabilities, with a map for each bucket of labels by training frequency.

    Generators give rare labels less than they deserve, so one map for all would not do. A bucket with few candidates
    on the validation rows has the map of all.

    Attributes:
        method: `isotonic` (a rising curve of straight lines) or `platt` (a logistic curve over the score's logit).
        maps: for each bucket, the points `x` and `y` of its curve, or `slope` and `intercept`.
        bounds: greatest training count of each bucket but the last.
        thresholds: measure of quality -> the calibrated score from which on a label is predicted; see `decisions.py`.

    Source: Zadrozny and Elkan, KDD 2002 (isotonic); Platt, 1999.
    """

    method: Calibration
    maps: list[dict[str, Any]]
    bounds: tuple[int, ...] = _BOUNDS
    thresholds: dict[str, float] = field(default_factory=dict)

    @classmethod
    def fit(
        cls,
        scored: ScoredLabels,
        references: Sequence[Sequence[int]],
        train_counts: np.ndarray,
        method: Calibration = "isotonic",
    ) -> ScoreCalibrator:
        """Fit the maps on rows that training did not see.

        Args:
            scored: candidates of `N` texts.
            references: each text's label ids.
            train_counts: training documents of each label id, `(L,)`.
            method: see the class.

        Raises:
            ConfigurationError: if the method is unknown.
            DataError: if no candidate, or every one, is right: there is nothing to learn from.
        """
        if method not in get_args(Calibration):
            raise ConfigurationError(f"calibration={method!r}; choose one of {sorted(get_args(Calibration))}.")
        correct = scored.correct(references)
        if not correct.any() or correct.all():
            raise DataError(f"{correct.sum()} of {len(correct)} candidates are right; calibration needs some of each.")
        pooled = _fit_map(scored.scores, correct, method)
        bucket = np.searchsorted(_BOUNDS, train_counts[scored.labels])
        maps = []
        for number in range(len(_BOUNDS) + 1):
            mine = bucket == number
            hits = correct[mine].sum()
            enough = mine.sum() >= max(_LEAST_CANDIDATES, hits + 1) and hits >= _LEAST_CORRECT
            maps.append(_fit_map(scored.scores[mine], correct[mine], method) if enough else pooled)
        return cls(method, maps)

    def transform(self, scored: ScoredLabels, train_counts: np.ndarray) -> ScoredLabels:
        """The candidates with calibrated scores, sorted by them; `train_counts` as in [`fit`]."""
        bucket = np.searchsorted(self.bounds, train_counts[scored.labels])
        scores = np.empty_like(scored.scores)
        for number, curve in enumerate(self.maps):
            mine = bucket == number
            scores[mine] = _apply_map(curve, scored.scores[mine])
        return scored.with_scores(scores)

    def save(self, folder: str | Path) -> Path:
        """Write `score_calibration.json` into `folder` and return its path."""
        path = Path(folder) / CALIBRATION_FILE
        content = {"version": _FORMAT_VERSION, "method": self.method, "bounds": list(self.bounds)}
        write_json(path, {**content, "maps": self.maps, "thresholds": self.thresholds})
        return path

    @classmethod
    def load(cls, folder: str | Path) -> ScoreCalibrator:
        """Read what [`save`] wrote.

        Raises:
            ModelFolderError: if the file is missing, or no calibration.
        """
        path = Path(folder) / CALIBRATION_FILE
        content = read_json(path)
        problem = _content_problem(content)
        if problem:
            raise ModelFolderError(f"{path}: {problem}")
        return cls(content["method"], content["maps"], tuple(content["bounds"]), content["thresholds"])


def fit_calibrator(
    scored: ScoredLabels, references: Sequence[Sequence[int]], train_counts: np.ndarray
) -> ScoreCalibrator | None:
    """Fit a calibrator and tune thresholds on what it gives; None, with a warning, where the rows teach nothing."""
    try:
        calibrator = ScoreCalibrator.fit(scored, references, train_counts)
    except DataError as err:
        logger.warning("Scores stay uncalibrated: %s", err)
        return None
    calibrated = calibrator.transform(scored, train_counts)
    calibrator.thresholds = tune_thresholds(calibrated, references)
    logger.info(
        "Calibration error of the scores: %.4f before, %.4f after; thresholds %s.",
        expected_calibration_error(scored.scores, scored.correct(references)),
        expected_calibration_error(calibrated.scores, calibrated.correct(references)),
        {name: round(value, 3) for name, value in calibrator.thresholds.items()},
    )
    return calibrator


def _logit(scores: np.ndarray) -> np.ndarray:
    clipped = scores.clip(_TINY, 1 - _TINY)
    return np.log(clipped / (1 - clipped))


def _fit_map(scores: np.ndarray, correct: np.ndarray, method: Calibration) -> dict[str, Any]:
    if method == "platt":
        curve = LogisticRegression(C=1e6).fit(_logit(scores)[:, None], correct)
        return {"slope": max(float(curve.coef_[0, 0]), 0.0), "intercept": float(curve.intercept_[0])}
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, correct)
    return {"x": curve.X_thresholds_.tolist(), "y": curve.y_thresholds_.tolist()}


def _apply_map(curve: dict[str, Any], scores: np.ndarray) -> np.ndarray:
    if "slope" in curve:
        exponent = curve["slope"] * _logit(scores) + curve["intercept"]
        return 1 / (1 + np.exp(-exponent.clip(-500, 500)))
    return np.interp(scores, curve["x"], curve["y"]).clip(0, 1)


def _is_number(value: Any) -> bool:
    return type(value) in (int, float)


def _content_problem(content: Any) -> str | None:
    """What is wrong with the parsed file, if anything."""
    if not isinstance(content, dict) or content.get("version") != _FORMAT_VERSION:
        return f"a JSON object of version {_FORMAT_VERSION} is expected."
    if content.get("method") not in get_args(Calibration):
        return f"'method' is {content.get('method')!r}; it must be one of {sorted(get_args(Calibration))}."
    bounds, maps, thresholds = (content.get(key) for key in ("bounds", "maps", "thresholds"))
    whole = isinstance(bounds, list) and all(type(bound) is int for bound in bounds)
    if not isinstance(bounds, list) or not whole or bounds != sorted(set(bounds)):
        return "'bounds' must be a rising list of whole numbers."
    if not isinstance(maps, list) or len(maps) != len(bounds) + 1 or not all(_is_map(curve) for curve in maps):
        return f"'maps' must hold a curve for each of the {len(bounds) + 1} buckets."
    if not isinstance(thresholds, dict) or not all(_is_number(value) for value in thresholds.values()):
        return "'thresholds' must map names to numbers."
    return None


def _is_map(curve: Any) -> bool:
    if not isinstance(curve, dict):
        return False
    if set(curve) == {"slope", "intercept"}:
        return all(_is_number(value) for value in curve.values()) and curve["slope"] >= 0
    x, y = curve.get("x"), curve.get("y")
    if not isinstance(x, list) or not isinstance(y, list) or len(x) != len(y) or not x:
        return False
    return all(_is_number(value) for value in [*x, *y]) and x == sorted(x) and y == sorted(y)


# ---------------------------------------------------------------------------------------------------- quality
