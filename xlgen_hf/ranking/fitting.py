"""What validation rows teach: calibration curves, and the weights of a fusion. Needs scikit-learn's estimators."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import get_args

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ..errors import ConfigurationError, DataError
from ..labels.space import LabelSpace
from .calibration import FREQUENCY_BOUNDS, Calibration, Curve, ScoreCalibrator, apply_curve, logit
from .confidence import ConfidenceModel, promised_f1
from .decisions import DecisionRule
from .fusion import Fusion, feature_names, feature_values
from .reliability import expected_calibration_error
from .score_model import ScoreModel
from .scored_labels import ScoredLabels
from .sources import PARTS, union
from .thresholds import (
    MICRO_F1_TOLERANCE,
    best_within,
    bucket_weights,
    minimums_to_try,
    score_rules,
    threshold_curves,
    tune_thresholds,
    tuned_threshold,
)

__all__ = [
    "MIN_RIGHT_CANDIDATES",
    "Adjustment",
    "calibrated_model",
    "choose_adjustment",
    "decided_sets",
    "encode_references",
    "fit_calibrator",
    "fit_confidence",
    "fit_fusion",
    "ranked_model",
    "weighed_model",
    "with_confidence",
]

logger = logging.getLogger(__name__)

MIN_RIGHT_CANDIDATES = 100
"""Right candidates of validation texts from which the parts of a source are weighed: some six for each feature."""
_MIN_CANDIDATES, _MIN_CORRECT = 200, 20  # of a bucket that gets a map of its own
_PLACE = "_rank"  # ends the names of the places among the candidates of each source
# Features are divided by their standard deviation, or by these where it is less: a feature that hardly differs among
# the candidates would get a weight so great that the rounding of bfloat16, 0.4 % of a value, decides.
_LEAST_SPREAD, _SPREAD_OF_DERIVED = 0.01, 5  # the second times the first for logarithms and fractions
_ADJUSTMENTS = tuple(round(0.05 * step, 2) for step in range(21))


def encode_references(space: LabelSpace, lists: Iterable[Iterable[str]]) -> list[list[int]]:
    """Label names of validation texts -> ids of the known ones, or `[L]` where a text has unknown ones alone.

    So it still counts as a text that has labels: thresholds leave texts without any where many have none.

    Args:
        space: the `L` labels.
        lists: the labels of each text.
    """
    found = (space.encode_known(labels) for labels in lists)
    return [known or [len(space)] * bool(unknown) for known, unknown in found]


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
    thresholds = model.thresholds
    if model.calibrator is not None and rule.kind == "threshold" and rule.min_labels != 1:
        thresholds = tune_thresholds(calibrated, references, rule.min_labels)
    logger.info("%s has the best micro F1 on the validation rows: %.4f.", rule, rules.micro.max())
    ruled = ScoreModel(calibrator=model.calibrator, thresholds=thresholds, rule=rule)
    return with_confidence(ruled, calibrated, references)


def weighed_model(
    scored: ScoredLabels, references: Sequence[Sequence[int]], train_counts: np.ndarray, name: str
) -> ScoreModel:
    """What turns the ranking of a source whose scores have parts into predictions: a fusion weighs the parts anew.

    It favours rare labels and decides by the rule that hybrids have, see [`fit_fusion`]. Where less than
    [`MIN_RIGHT_CANDIDATES`] candidates are right, it would learn too little, and the model is that of
    [`ranked_model`]; so it is for a source without parts.

    Args:
        scored: what the source finds for `N` validation texts.
        references: each text's label ids.
        train_counts: training documents of each label id, `(L,)`.
        name: what the fusion calls the score of the source, see `union`.
    """
    right = int(scored.correct(references).sum())
    if not scored.parts or not MIN_RIGHT_CANDIDATES <= right < len(scored.labels):
        return ranked_model(scored, references, train_counts)
    candidates, values = union({name: scored})
    depth = int(np.diff(scored.start).max())
    fusion, rule, thresholds = fit_fusion(candidates, values, references, train_counts, depth)
    fused = fusion.fuse(candidates, values, train_counts)
    return with_confidence(ScoreModel(fusion=fusion, rule=rule, thresholds=thresholds), fused, references)


def decided_sets(model: ScoreModel, scored: ScoredLabels, train_counts: np.ndarray, name: str) -> list[list[int]]:
    """The label ids that a score model of one source decides on, for each text.

    Args:
        model: what [`weighed_model`] made.
        scored: what the source finds, with its parts.
        train_counts: training documents of each label id, `(L,)`.
        name: what the fusion calls the score of the source.
    """
    if model.fusion is None:
        final = model.calibrate(scored, train_counts)
    else:
        final = model.fusion.fuse(*union({name: scored}), train_counts)
    return [labels for labels, _ in model.rule.apply(final).sets()]


def with_confidence(model: ScoreModel, scored: ScoredLabels, references: Sequence[Sequence[int]]) -> ScoreModel:
    """A score model that also says how far the prediction for a text can be trusted.

    Args:
        model: decides by its rule.
        scored: what it decides from for `N` validation texts: candidates with final scores, its own set chosen.
        references: each text's label ids.

    Returns:
        The model as it is, and a warning, where the rows teach nothing.
    """
    try:
        confidence = fit_confidence(model.rule.apply(scored), references, chosen_alone=model.rule.kind == "own")
    except DataError as err:
        logger.warning("The model cannot say how far a prediction can be trusted: %s", err)
        return model
    return replace(model, confidence=confidence)


def fit_confidence(
    decided: ScoredLabels, references: Sequence[Sequence[int]], *, chosen_alone: bool = False
) -> ConfidenceModel:
    """Learn from validation rows how far predictions can be trusted.

    Args:
        decided: candidates of `N` texts with final scores, the predicted ones chosen.
        references: each text's label ids.
        chosen_alone: see [`ConfidenceModel`].

    Raises:
        DataError: if no text has a label.
    """
    correct = decided.correct(references)
    size, right = (
        np.bincount(decided.text, values, len(decided)) for values in (decided.chosen, decided.chosen & correct)
    )
    f1 = 2 * right / np.maximum(size + np.array([len(ids) for ids in references]), 1)
    best = np.zeros(len(decided), dtype=bool)
    best[decided.text[decided.chosen][::-1]] = correct[decided.chosen][::-1]  # the first one, written last, stays
    predicted = size > 0
    if not predicted.any():
        raise DataError(f"None of {len(decided)} texts has a label.")
    promised = promised_f1(decided, chosen_alone=chosen_alone)[predicted]
    of_sets, of_best = (_fit_fractions(promised, values[predicted]) for values in (f1, best.astype(np.float64)))
    logger.info(
        "Expected F1 of a text's labels: calibration error %.4f on the validation rows.",
        expected_calibration_error(apply_curve(of_sets, promised), f1[predicted]),
    )
    return ConfidenceModel(of_sets, of_best, chosen_alone)


def _fit_fractions(scores: np.ndarray, fractions: np.ndarray) -> Curve:
    """The rising logistic curve nearest to values from 0 to 1: each row counts for both outcomes, by its part.

    One more row of each outcome is shared out among all, as Platt does it, so that few rows never give certainty.
    """
    wanted = (fractions * len(fractions) + 1) / (len(fractions) + 2)
    inputs, outcomes = np.tile(logit(scores), 2)[:, None], np.repeat([1, 0], len(scores))
    fitted = LogisticRegression(C=1e3).fit(inputs, outcomes, np.concatenate([wanted, 1 - wanted]))
    slope = float(fitted.coef_[0, 0])
    if slope < 0:  # the least bad rising curve is a constant
        return {"slope": 0.0, "intercept": float(logit(wanted.mean()))}
    return {"slope": slope, "intercept": float(fitted.intercept_[0])}


def fit_fusion(
    candidates: ScoredLabels,
    values: Mapping[str, np.ndarray],
    references: Sequence[Sequence[int]],
    train_counts: np.ndarray,
    candidates_per_source: int,
) -> tuple[Fusion, DecisionRule, dict[str, float]]:
    """Learn the weights of a fusion, the strength of its logit adjustment, and thresholds on validation rows.

    See [`choose_adjustment`] for strength and threshold. Of labels that training never saw, or saw once, the fusion is
    to find no less than the best of its sources does alone. Then a logistic curve over the adjusted logits, which
    keeps the order of the labels, makes probabilities of them again (Platt, 1999).

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
    fusion = _regression(candidates, values, correct, candidates_per_source)
    floors = _floors(candidates, values, references, train_counts)
    chosen = choose_adjustment(_tried(fusion, candidates, values, train_counts), references, train_counts, floors)
    logger.info(
        "Fusion: micro F1 %.4f, macro F1 of labels never, once and more often seen %.4f, %.4f, %.4f on the validation "
        "rows with logit adjustment %g, threshold %.3f.",
        *(chosen.micro, *chosen.macro, chosen.strength, chosen.threshold),
    )
    adjusted, threshold = replace(fusion, logit_adjustment=chosen.strength), chosen.threshold
    fused = adjusted.fuse(candidates, values, train_counts)
    curve = _fit_map(fused.scores, fused.correct(references), "platt")
    if curve["slope"] > 0:  # else the order of the labels would be lost
        adjusted = replace(adjusted, slope=curve["slope"], shift=curve["intercept"])
        threshold = float(apply_curve(curve, np.array(threshold)))
        fused = adjusted.fuse(candidates, values, train_counts)
    else:
        logger.warning(
            "Fused scores are not probabilities: on the validation rows higher ones are not right more often."
        )
    logger.info(
        "Weights of the fusion: %s.", ", ".join(f"{name} {weight:.2f}" for name, weight in fusion.weights.items())
    )
    rule = tuned_threshold(threshold, chosen.min_labels)
    return adjusted, rule, tune_thresholds(fused, references, chosen.min_labels)


def _regression(
    candidates: ScoredLabels, values: Mapping[str, np.ndarray], correct: np.ndarray, candidates_per_source: int
) -> Fusion:
    """A fusion that favours no labels yet."""
    names = feature_names(values)
    features = feature_values(values, names, candidates)
    scaler = StandardScaler().fit(features)
    least = [_LEAST_SPREAD * (1 if name in values else _SPREAD_OF_DERIVED) for name in names]
    scaler.scale_ = np.maximum(np.sqrt(scaler.var_), least)
    regression = LogisticRegression(max_iter=1000).fit(scaler.transform(features), correct)
    weights = regression.coef_[0] / scaler.scale_
    intercept = float(regression.intercept_[0] - weights @ scaler.mean_)
    return Fusion(candidates_per_source, dict(zip(names, weights.tolist(), strict=True)), intercept, 0.0)


def _tried(
    fusion: Fusion, candidates: ScoredLabels, values: Mapping[str, np.ndarray], train_counts: np.ndarray
) -> Iterable[tuple[float, ScoredLabels]]:
    """Strengths of the adjustment, each with what the fusion makes of the candidates."""
    for strength in _ADJUSTMENTS:
        yield strength, replace(fusion, logit_adjustment=strength).fuse(candidates, values, train_counts)


def _floors(
    candidates: ScoredLabels,
    values: Mapping[str, np.ndarray],
    references: Sequence[Sequence[int]],
    train_counts: np.ndarray,
) -> tuple[float, float]:
    """The best macro F1 of labels never and once seen that one of several sources has alone, decided likewise."""
    sources = [name.removesuffix(_PLACE) for name in values if name.endswith(_PLACE)]
    best = np.zeros(2)
    for source in sources if len(sources) > 1 else []:
        own = values[source + _PLACE] > 0
        names = [name for name in (source, *(PARTS if source == "retrieval" else ())) if name in values]
        found, of_source = candidates.kept(own), {name: values[name][own] for name in names}
        correct = found.correct(references)
        if len(np.unique(correct)) == 2:
            alone = _regression(found, of_source, correct, 1)
            chosen = choose_adjustment(_tried(alone, found, of_source, train_counts), references, train_counts)
            best = np.maximum(best, chosen.macro[:2])
    return float(best[0]), float(best[1])


@dataclass(frozen=True)
class Adjustment:
    """How a fusion favours rare labels, and what that gives on the validation rows.

    Attributes:
        strength: of the logit adjustment.
        threshold: on the adjusted scores.
        min_labels: labels that a text keeps whatever their scores, see `minimums_to_try`.
        micro: micro F1.
        macro: macro F1 of the labels that training never saw, saw once, and saw more often.
    """

    strength: float
    threshold: float
    min_labels: int
    micro: float
    macro: tuple[float, float, float]


def choose_adjustment(
    fused: Iterable[tuple[float, ScoredLabels]],
    references: Sequence[Sequence[int]],
    train_counts: np.ndarray,
    floors: tuple[float, float] = (0.0, 0.0),
) -> Adjustment:
    """The strength of the logit adjustment and the threshold that go together best.

    Those with the best macro F1, in which labels that training never saw, saw once, and saw more often count a third
    each, of those that cost at most [`MICRO_F1_TOLERANCE`] of the best micro F1 and, as far as there are such, reach
    the floors.

    Args:
        fused: strengths, each with the fused scores of the validation texts.
        references: each text's label ids.
        train_counts: training documents of each label, `(L,)`.
        floors: macro F1 that labels never and once seen are to have.
    """
    buckets = bucket_weights(references, train_counts)
    tried = []
    for strength, scored in fused:
        for least in minimums_to_try(references):
            thresholds, (micro,) = threshold_curves(scored, references, ("micro",), min_labels=least)
            macro = [
                threshold_curves(scored, references, ("macro",), weights, min_labels=least)[1][0]
                for weights in buckets
            ]
            fixed = (np.full(len(thresholds), value) for value in (strength, least))
            tried.append(np.stack([*fixed, thresholds, micro, *macro]))
    strengths, minimums, thresholds, micro, *macro = np.concatenate(tried, axis=1)
    lacking = np.sum([np.maximum(floor - f1, 0) for floor, f1 in zip(floors, macro[:2], strict=True)], axis=0)
    best = best_within(micro, np.mean(macro, axis=0), MICRO_F1_TOLERANCE, lacking)
    of_buckets = (float(macro[0][best]), float(macro[1][best]), float(macro[2][best]))
    return Adjustment(
        float(strengths[best]), float(thresholds[best]), int(minimums[best]), float(micro[best]), of_buckets
    )
