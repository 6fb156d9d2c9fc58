"""Calibration of scores, how it is fitted on rows, and how far scores are from probabilities."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.errors import ConfigurationError, DataError, ModelFolderError
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.ranking.calibration import ScoreCalibrator
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.fitting import calibrated_model, encode_references, fit_calibrator, ranked_model
from xlgen_hf.ranking.reliability import expected_calibration_error, reliability_table
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.ranking.scored_labels import ScoredLabels
from xlgen_hf.ranking.thresholds import score_rules, tune_thresholds


def _sample(texts=800, seed=0):
    """Labels whose scores say half of the truth; ids from 10 on are rare and scored still lower."""
    random = np.random.default_rng(seed)
    truth = random.random((texts, 20))
    right = random.random((texts, 20)) < truth
    scores = truth * np.where(np.arange(20) < 10, 0.5, 0.2)
    rows = [(list(range(20)), row.tolist(), [False] * 20) for row in scores]
    references = [np.flatnonzero(row).tolist() for row in right]
    return ScoredLabels.from_rows(rows), references, np.where(np.arange(20) < 10, 50, 1)


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_calibrated_scores_are_fractions_of_right_labels(method):
    scored, references, counts = _sample()
    calibrator = fit_calibrator(scored, references, counts, method)
    assert calibrator.method == method
    fresh, others, _ = _sample(seed=1)
    before = expected_calibration_error(fresh.scores, fresh.correct(others))
    calibrated = calibrator.transform(fresh, counts)
    after = expected_calibration_error(calibrated.scores, calibrated.correct(others))
    assert before > 0.25
    assert after < (0.03 if method == "isotonic" else 0.1)
    rare = calibrated.labels >= 10  # the buckets have curves of their own
    assert calibrated.scores[rare].mean() == pytest.approx(calibrated.correct(others)[rare].mean(), abs=0.05)


@pytest.mark.parametrize("method", ["isotonic", "platt"])
def test_calibrated_candidates_are_sorted_anew_and_keep_what_belongs_to_them(method):
    """Buckets have curves of their own, so a rare label may pass a frequent one; within a bucket nothing changes."""
    scored, references, counts = _sample()
    calibrated = fit_calibrator(scored, references, counts, method).transform(scored, counts)
    order = list(zip(scored.text.tolist(), scored.labels.tolist(), strict=True))
    again = list(zip(calibrated.text.tolist(), calibrated.labels.tolist(), strict=True))
    assert sorted(order) == sorted(again) and order != again
    before = dict(zip(order, scored.scores, strict=True))
    for rare in (False, True):
        of_bucket = [(text, label) for text, label in again if (label >= 10) == rare and text < 50]
        for (text, label), (next_text, next_label) in itertools.pairwise(of_bucket):
            assert text != next_text or before[text, label] >= before[text, next_label]


def test_a_bucket_with_few_candidates_has_the_curve_of_all():
    scored, references, counts = _sample(texts=15)  # 150 candidates of each bucket
    maps = fit_calibrator(scored, references, counts).maps
    assert len(maps) == 5 and all(curve == maps[0] for curve in maps)


def test_a_calibrator_is_as_its_content_says():
    scored, references, counts = _sample(50)
    calibrator = fit_calibrator(scored, references, counts)
    assert ScoreCalibrator.from_dict(calibrator.to_dict(), "score_model.json") == calibrator


def test_what_cannot_be_calibrated_is_refused():
    wrong, counts = ScoredLabels.from_rows([([1], [0.5], [True])]), np.ones(3, int)
    with pytest.raises(DataError, match="0 of 1 candidates are right; calibration needs some of each"):
        fit_calibrator(wrong, [[2]], counts)
    with pytest.raises(DataError, match="1 of 1 candidates are right"):
        fit_calibrator(wrong, [[1]], counts)
    with pytest.raises(ConfigurationError, match="calibration='beta'"):
        fit_calibrator(wrong, [[1]], counts, "beta")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "x"}, r"'calibrator.method' is 'x'; it must be one of"),
        ({"bounds": [3, 1]}, "'calibrator.bounds' has 1 after 3; it must be ascending"),
        ({"bounds": ["1"]}, r"'calibrator.bounds\[0\]' is '1'; it must be an integer"),
        ({"maps": []}, "'maps' holds 0 curves; one for each of the 5 buckets"),
        (
            {"maps": [{"x": [0, 1], "y": [1, 0]}] * 5},
            r"'calibrator.maps\[0\]' is .*; it must be an object with the fields",
        ),
        ({"maps": [{"x": [0, 1], "y": [1]}] * 5}, r"'maps\[0\]' must have as many values in 'x' as in 'y'"),
        (
            {"maps": [{"slope": -1, "intercept": 0}] * 5},
            r"'calibrator.maps\[0\]' is .*; it must be an object with the fields",
        ),
        ({"more": 1}, "'calibrator.more' is not a field"),
    ],
)
def test_impossible_content_is_refused(change, message):
    content = {**fit_calibrator(*_sample(50)).to_dict(), **change}
    with pytest.raises((ModelFolderError, ConfigurationError), match=message):
        ScoreCalibrator.from_dict(content, "score_model.json")


# ------------------------------------------------------------------------------------------------ score models


def test_rows_teach_calibrator_and_thresholds():
    scored, references, counts = _sample(100)
    model = calibrated_model(scored, references, counts)
    assert model.calibrator == fit_calibrator(scored, references, counts)
    assert model.rule == DecisionRule() and model.fusion is None
    assert model.thresholds == tune_thresholds(model.calibrate(scored, counts), references)


def test_a_ranking_learns_a_rule_too():
    scored, references, counts = _sample(100)
    model = ranked_model(scored, references, counts)
    rules = score_rules(model.calibrate(scored, counts), references)
    assert model.rule == rules.rule(int(np.argmax(rules.micro)))
    assert set(model.thresholds) == {"micro", "macro", "example"}


def test_thresholds_are_tuned_as_the_rule_is():
    """Half of the texts have no label, and their scores are low."""
    random, counts = np.random.default_rng(0), np.ones(1, int)
    scores = np.concatenate([0.6 + 0.3 * random.random(200), 0.5 * random.random(200)])
    scored = ScoredLabels.from_rows(([0], [one], [False]) for one in scores.tolist())
    references = [[0]] * 200 + [[]] * 200
    model = ranked_model(scored, references, counts)
    assert model.rule.kind == "threshold" and model.rule.min_labels == 0
    calibrated = model.calibrate(scored, counts)
    assert model.thresholds == tune_thresholds(calibrated, references, 0)
    assert [labels for labels, _ in model.rule.apply(calibrated).sets()] == references


def test_rows_without_a_right_label_leave_scores_as_they_are(caplog):
    scored = ScoredLabels.from_rows([([1], [0.5], [True])])
    assert calibrated_model(scored, [[2]], np.ones(3, int)) == ScoreModel()
    assert "Scores stay uncalibrated: 0 of 1 candidates are right" in caplog.text
    assert ScoreModel().calibrate(scored, np.ones(3, int)) is scored


# ------------------------------------------------------------------------------------------------ reliability


def test_calibration_error_by_hand():
    scores, correct = np.array([0.1, 0.3, 0.8, 1.0]), np.array([False, True, True, True])
    assert expected_calibration_error(scores, correct, bins=2) == pytest.approx((0.3 + 0.1) / 2)
    table = reliability_table(scores, correct, bins=2)
    assert {name: part.tolist() for name, part in table.items()} == {
        "low": [0.1, 0.8],
        "high": [0.3, 1.0],
        "mean_score": [pytest.approx(0.2), pytest.approx(0.9)],
        "accuracy": [0.5, 1.0],
        "count": [2, 2],
    }
    assert reliability_table(scores, correct, bins=2, equal_mass=False)["count"].tolist() == [2, 2]


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), min_size=1, max_size=40), st.integers(1, 20))
def test_bins_hold_every_decision_and_equal_scores_together(pairs, bins):
    scores, correct = (np.array(part) for part in zip(*((score / 4, true) for score, true in pairs), strict=True))
    table = reliability_table(scores, correct, bins)
    assert table["count"].sum() == len(pairs)
    assert len(table["count"]) <= bins
    assert (table["high"][:-1] < table["low"][1:]).all()
    assert (table["accuracy"] * table["count"]).sum() == pytest.approx(correct.sum())


def test_what_cannot_be_binned_is_refused():
    with pytest.raises(ConfigurationError, match="bins=0"):
        reliability_table(np.array([0.5]), np.array([True]), bins=0)
    with pytest.raises(DataError, match=r"Scores of shape \(0,\)"):
        reliability_table(np.zeros(0), np.zeros(0, bool))
    with pytest.raises(DataError, match=r"outside \[0, 1\]"):
        reliability_table(np.array([1.5]), np.array([True]))


def test_texts_with_unknown_labels_alone_still_have_labels():
    space = LabelSpace.from_label_lists([["organ", "art"], ["organ"]])
    assert encode_references(space, [["art", "x"], ["x", "y"], []]) == [[1], [2], []]
