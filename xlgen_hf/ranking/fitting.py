"""What validation rows teach: calibration curves, and the weights of a fusion. Needs scikit-learn's estimators."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import get_args

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ..errors import ConfigurationError, DataError
from .calibration import FREQUENCY_BOUNDS, Calibration, Curve, ScoreCalibrator, logit
from .decisions import DecisionRule
from .fusion import Fusion, feature_names, feature_values
from .reliability import expected_calibration_error
from .score_model import ScoreModel
from .scored_labels import ScoredLabels
from .thresholds import (
    MICRO_F1_TOLERANCE,
    balanced_weights,
    best_within,
    score_rules,
    threshold_curves,
    tune_thresholds,
    tuned_threshold,
)

__all__ = ["calibrated_model", "choose_adjustment", "fit_calibrator", "fit_fusion", "ranked_model"]

logger = logging.getLogger(__name__)

_MIN_CANDIDATES, _MIN_CORRECT = 200, 20  # of a bucket that gets a map of its own
_ADJUSTMENTS = tuple(round(0.05 * step, 2) for step in range(21))


def fit_calibrator(
    scored: ScoredLabels,
    references: Sequence[Sequence[int]],
    train_counts: np.ndarray,
    method: Calibration = "isotonic",
) -> ScoreCalibrator:
    """Fit the maps of a calibrator on rows that training did not see.

    Args:
        scored: candidates of `N` texts.
        references: each text's label ids.
        train_counts: training documents of each label id, `(L,)`.
        method: see [`ScoreCalibrator`].

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
    bucket = np.searchsorted(FREQUENCY_BOUNDS, train_counts[scored.labels])
    maps = []
    for number in range(len(FREQUENCY_BOUNDS) + 1):
        mine = bucket == number
        hits = correct[mine].sum()
        enough = mine.sum() >= max(_MIN_CANDIDATES, hits + 1) and hits >= _MIN_CORRECT
        maps.append(_fit_map(scored.scores[mine], correct[mine], method) if enough else pooled)
    return ScoreCalibrator(method, maps)


def _fit_map(scores: np.ndarray, correct: np.ndarray, method: Calibration) -> Curve:
    if method == "platt":
        curve = LogisticRegression(C=1e6).fit(logit(scores)[:, None], correct)
        return {"slope": max(float(curve.coef_[0, 0]), 0.0), "intercept": float(curve.intercept_[0])}
    curve = IsotonicRegression(y_min=0, y_max=1, out_of_bounds="clip").fit(scores, correct)
    return {"x": curve.X_thresholds_.tolist(), "y": curve.y_thresholds_.tolist()}


def calibrated_model(
    scored: ScoredLabels, references: Sequence[Sequence[int]], train_counts: np.ndarray
) -> ScoreModel:
    """Calibrator and thresholds for the scores of one source; without either, and a warning, where rows teach nothing.

    Args:
        scored: what the source finds for `N` validation texts.
        references: each text's label ids.
        train_counts: training documents of each label id, `(L,)`.
    """
    try:
        calibrator = fit_calibrator(scored, references, train_counts)
    except DataError as err:
        logger.warning("Scores stay uncalibrated: %s", err)
        return ScoreModel()
    calibrated = calibrator.transform(scored, train_counts)
    thresholds = tune_thresholds(calibrated, references)
    logger.info(
        "Calibration error of the scores: %.4f before, %.4f after; thresholds %s.",
        expected_calibration_error(scored.scores, scored.correct(references)),
        expected_calibration_error(calibrated.scores, calibrated.correct(references)),
        {name: round(value, 3) for name, value in thresholds.items()},
    )
    return ScoreModel(calibrator=calibrator, thresholds=thresholds)


def ranked_model(scored: ScoredLabels, references: Sequence[Sequence[int]], train_counts: np.ndarray) -> ScoreModel:
    """What turns the ranking of a source without label sets of its own into predictions: also a rule.

    Args:
        scored: see [`calibrated_model`], as the others.
        references: each text's label ids.
        train_counts: training documents of each label id, `(L,)`.

    Returns:
        The rule is the number of labels, or the threshold on calibrated scores, with the best micro F1.
    """
    model = calibrated_model(scored, references, train_counts)
    calibrated = model.calibrate(scored, train_counts)
    rules = score_rules(calibrated, references)
    rule = rules.rule(int(np.argmax(rules.micro)))
    logger.info("%s has the best micro F1 on the validation rows: %.4f.", rule, rules.micro.max())
    return ScoreModel(calibrator=model.calibrator, thresholds=model.thresholds, rule=rule)


def fit_fusion(
    candidates: ScoredLabels,
    values: Mapping[str, np.ndarray],
    references: Sequence[Sequence[int]],
    train_counts: np.ndarray,
    candidates_per_source: int,
) -> tuple[Fusion, DecisionRule, dict[str, float]]:
    """Learn the weights of a fusion, the strength of its logit adjustment, and thresholds on validation rows.

    Of the thresholds and strengths that cost at most [`MICRO_F1_TOLERANCE`] of the best micro F1, those with the best
    macro F1 are taken, see [`balanced_weights`].

    Args:
        candidates: `M` candidates of the validation texts, see `union`.
        values: what sources and scorers say of them, by name, `(M,)` each.
        references: each text's label ids.
        train_counts: training documents of each label, `(L,)`.
        candidates_per_source: see [`Fusion`].

    Returns:
        The fusion, its decision rule, and a threshold for each measure of quality.

    Raises:
        ConfigurationError: if the candidates are all right or all wrong, so that nothing can be learned.
    """
    correct = candidates.correct(references)
    if len(np.unique(correct)) < 2:
        raise ConfigurationError(
            f"All of {len(correct)} candidates are {'right' if correct.all() else 'wrong'}; a fusion learns from "
            "validation rows of which some labels are found and some candidates are wrong."
        )
    names = feature_names(values)
    features = feature_values(values, names, candidates)
    scaler = StandardScaler().fit(features)
    regression = LogisticRegression(max_iter=1000).fit(scaler.transform(features), correct)
    weights = regression.coef_[0] / scaler.scale_
    intercept = float(regression.intercept_[0] - weights @ scaler.mean_)
    of_features = dict(zip(names, weights.tolist(), strict=True))
    fusions = [Fusion(candidates_per_source, of_features, intercept, strength) for strength in _ADJUSTMENTS]
    tried = ((one.logit_adjustment, one.fuse(candidates, values, train_counts)) for one in fusions)
    strength, threshold = choose_adjustment(tried, references, train_counts)
    fusion = Fusion(candidates_per_source, of_features, intercept, strength)
    logger.info(
        "Weights of the fusion: %s.", ", ".join(f"{name} {weight:.2f}" for name, weight in of_features.items())
    )
    fused = fusion.fuse(candidates, values, train_counts)
    return fusion, tuned_threshold(threshold), tune_thresholds(fused, references)


def choose_adjustment(
    fused: Iterable[tuple[float, ScoredLabels]], references: Sequence[Sequence[int]], train_counts: np.ndarray
) -> tuple[float, float]:
    """The strength of the logit adjustment and the threshold that go together best.

    Args:
        fused: strengths, each with the fused scores of the validation texts.
        references: each text's label ids.
        train_counts: training documents of each label, `(L,)`.
    """
    weights = balanced_weights(references, train_counts)
    tried = []
    for strength, scored in fused:
        thresholds, f1 = threshold_curves(scored, references, ("micro", "macro"), weights)
        tried.append(np.stack([np.full(len(thresholds), strength), thresholds, *f1]))
    strengths, thresholds, micro, macro = np.concatenate(tried, axis=1)
    best = best_within(micro, macro, MICRO_F1_TOLERANCE)
    logger.info(
        "Fusion: micro F1 %.4f, mean macro F1 of labels never, once and more often seen %.4f on the validation rows "
        "with logit adjustment %g, threshold %.3f.",
        *(micro[best], macro[best], strengths[best], thresholds[best]),
    )
    return float(strengths[best]), float(thresholds[best])
