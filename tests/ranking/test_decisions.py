"""Scored candidates, their calibration, fusion and the decisions on them, against brute force."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.errors import ConfigurationError, DataError, ModelFolderError
from xlgen_hf.evaluation.scoring import score_ids
from xlgen_hf.ranking.calibration import CALIBRATION_FILE, ScoreCalibrator, fit_calibrator
from xlgen_hf.ranking.decisions import DecisionRule, expected_f1_sizes
from xlgen_hf.ranking.reliability import expected_calibration_error, reliability_table
from xlgen_hf.ranking.scored_labels import ScoredLabels, combine
from xlgen_hf.ranking.thresholds import best_within, score_rules, threshold_curves, tune_threshold

LABELS = 6
SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.9, 1.0])
ROW = st.dictionaries(st.integers(0, LABELS - 1), st.tuples(SCORES, st.booleans()), max_size=LABELS)
ROWS = st.lists(ROW, min_size=1, max_size=6)
REFERENCE = st.lists(st.integers(0, LABELS - 1), unique=True, min_size=1, max_size=4)


def _scored(rows):
    return ScoredLabels.from_rows(
        (list(row), [score for score, _ in row.values()], [chosen for _, chosen in row.values()]) for row in rows
    )


def test_rows_are_sorted_and_keep_what_belongs_together():
    scored = ScoredLabels.from_rows([([3, 1], [0.2, 0.7], [True, False]), ([], [], []), ([5], [1.0], [True])])
    assert len(scored) == 3
    assert scored.labels.tolist() == [1, 3, 5]
    assert scored.rank.tolist() == [0, 1, 0]
    assert scored.sets() == [([3], [0.2]), ([], []), ([5], [1.0])]
    assert scored.correct([[1, 2], [4], [5]]).tolist() == [True, False, True]
    assert scored.with_scores(np.array([0.1, 0.3, 0.0])).labels.tolist() == [3, 1, 5]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([([1], [0.5], [True]), ([1, 1], [0.5, 0.4], [True, True])], "row 2: Label id 1 stands twice"),
        ([([1], [1.5], [True])], r"row 1: A score is 1\.5"),
        ([([1], [float("nan")], [True])], "row 1: A score is nan"),
        ([([1, 2], [0.5], [True])], r"row 1: Labels, scores and choices differ in number: \[2, 1, 1\]"),
    ],
)
def test_impossible_candidates_are_refused(rows, message):
    with pytest.raises(DataError, match=message):
        ScoredLabels.from_rows(rows)


def test_references_of_other_texts_are_refused():
    with pytest.raises(DataError, match="1 texts come with 2 references"):
        ScoredLabels.from_rows([([1], [0.5], [True])]).correct([[1], [2]])


# ------------------------------------------------------------------------------------------------ decisions


def _f1(objective, sets, references):
    if objective == "example":
        return np.mean([2 * len({*a} & {*b}) / (len(a) + len(b)) for a, b in zip(sets, references, strict=True)])
    if objective == "micro":
        hits = sum(len({*a} & {*b}) for a, b in zip(sets, references, strict=True))
        return 2 * hits / (sum(map(len, sets)) + sum(map(len, references)))
    values = []
    for label in {label for ids in references for label in ids}:
        hits = sum(label in a and label in b for a, b in zip(sets, references, strict=True))
        values.append(2 * hits / sum((label in a) + (label in b) for a, b in zip(sets, references, strict=True)))
    return np.mean(values)


@settings(deadline=None, max_examples=150)
@given(st.data(), ROWS, st.sampled_from(["micro", "macro", "example"]))
def test_the_tuned_threshold_is_the_best_of_all(data, rows, objective):
    references = data.draw(st.lists(REFERENCE, min_size=len(rows), max_size=len(rows)))
    scored = _scored(rows)
    threshold, value = tune_threshold(scored, references, objective)
    chosen = [labels for labels, _ in DecisionRule("threshold", threshold).apply(scored).sets()]
    assert value == pytest.approx(_f1(objective, chosen, references))
    for other in (0.0, 0.1, 0.2, 0.25, 0.4, 0.5, 0.7, 0.9, 0.95, 1.0, 1.1):
        sets = [labels for labels, _ in DecisionRule("threshold", other).apply(scored).sets()]
        assert _f1(objective, sets, references) <= value + 1e-12


def test_macro_f1_is_weighted_by_label():
    scored = ScoredLabels.from_rows([([0, 1], [0.9, 0.2], [False] * 2), ([2, 0], [0.8, 0.7], [False] * 2)])
    thresholds, (f1,) = threshold_curves(scored, [[0], [1, 2]], ("macro",), np.array([1.0, 2.0, 5.0]))
    assert thresholds.tolist() == [np.nextafter(1.0, 2.0), 0.7, 0.2]
    of_first, of_second = [1, 2 / 3, 2 / 3], [0, 0, 0]
    expected = [(a + 2 * b + 5 * 1) / 8 for a, b in zip(of_first, of_second, strict=True)]
    assert f1.tolist() == pytest.approx(expected)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.data(), st.sampled_from([0.0, 0.1, 0.5]))
def test_the_chosen_rule_is_the_best_of_all(rows, data, price):
    scored = _scored(rows)
    references = [data.draw(REFERENCE) for _ in rows]
    found = score_rules(scored, references, max_k=4)
    best = best_within(found.micro, found.macro, price)
    rule, f1 = found.rule(best), found.micro[best]

    def average(one, objective):
        return _f1(objective, [set(labels) for labels, _ in one.apply(scored).sets()], references)

    rules = [DecisionRule("top_k", k) for k in range(1, 5)]
    rules += [DecisionRule("threshold", value) for value in (0.0, 0.1, 0.25, 0.5, 0.9, 1.0, 2.0)]
    assert average(rule, "micro") == pytest.approx(f1)
    least = (1 - price) * max(average(one, "micro") for one in rules)
    assert f1 >= least - 1e-12
    near = [one for one in rules if average(one, "micro") >= least + 1e-9]
    assert all(average(rule, "macro") >= average(one, "macro") - 1e-12 for one in near)


def test_labels_outside_the_candidates_count_as_missed():
    scored = ScoredLabels.from_rows([([0, 1], [0.9, 0.2], [False] * 2), ([2, 0], [0.8, 0.7], [False] * 2)])
    found = score_rules(scored, [[0], [2, 0, 10_000]])
    best = best_within(found.micro, found.macro, 0.0)
    assert found.rule(best) == DecisionRule("threshold", 0.7)
    assert found.micro[best] == pytest.approx(2 * 3 / (3 + 4))


def test_a_rule_needs_texts_to_choose_on():
    with pytest.raises(ConfigurationError, match="no validation texts"):
        score_rules(ScoredLabels.from_rows([]), [])
    with pytest.raises(ConfigurationError, match="max_k=0; a whole number"):
        score_rules(ScoredLabels.from_rows([([1], [0.5], [True])]), [[1]], max_k=0)


def test_tuned_micro_f1_is_that_of_the_metric():
    random = np.random.default_rng(0)
    rows = [(random.permutation(50)[:8].tolist(), random.random(8).tolist(), [False] * 8) for _ in range(200)]
    references = [random.permutation(50)[:3].tolist() for _ in range(200)]
    scored = ScoredLabels.from_rows(rows)
    threshold, value = tune_threshold(scored, references, "micro")
    sets = [labels for labels, _ in DecisionRule("threshold", threshold).apply(scored).sets()]
    assert score_ids(sets, references, num_labels=50, k=())["micro_f1"] == pytest.approx(value)


@given(ROWS)
def test_every_rule_keeps_the_best_label(rows):
    scored = _scored(rows)
    for rule in (DecisionRule("top_k", 2), DecisionRule("threshold", 0.95), DecisionRule("expected_f1")):
        for row, (labels, scores) in zip(rows, rule.apply(scored).sets(), strict=True):
            assert bool(labels) == bool(row)
            assert scores == sorted(scores, reverse=True)
            if row:
                assert scores[0] == max(score for score, _ in row.values())
    assert [len(labels) for labels, _ in DecisionRule("top_k", 2).apply(scored).sets()] == [
        min(2, len(row)) for row in rows
    ]
    assert DecisionRule().apply(scored) is scored


@settings(deadline=None)
@given(
    st.lists(st.lists(st.sampled_from([0.0, 0.1, 0.3, 0.5, 0.8, 1.0]), min_size=1, max_size=6), min_size=1, max_size=3)
)
def test_expected_f1_is_the_greatest_by_enumeration(rows):
    """Every outcome of independent labels, weighed by its probability."""
    scored = ScoredLabels.from_rows([(list(range(len(row))), row, [False] * len(row)) for row in rows])
    for row, size in zip(rows, expected_f1_sizes(scored), strict=True):
        ranked = sorted(row, reverse=True)
        expected = [0.0] * (len(row) + 1)
        for truth in itertools.product([0, 1], repeat=len(row)):
            chance = np.prod([p if hit else 1 - p for p, hit in zip(ranked, truth, strict=True)])
            for k in range(1, len(row) + 1):
                expected[k] += chance * 2 * sum(truth[:k]) / (k + sum(truth))
        assert expected[size] == pytest.approx(max(expected))


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (("best", None), "decision='best'"),
        (("top_k", 0), "top_k=0"),
        (("top_k", 1.5), r"top_k=1\.5"),
        (("own", 3), "'own' with the value 3"),
        (("threshold", None), "'threshold' with the value None"),
    ],
)
def test_impossible_rules_are_refused(rule, message):
    with pytest.raises(ConfigurationError, match=message):
        DecisionRule(*rule)


def test_an_unknown_objective_is_refused():
    with pytest.raises(ConfigurationError, match="objective='weighted'"):
        tune_threshold(ScoredLabels.from_rows([([1], [0.5], [True])]), [[1]], "weighted")


# ------------------------------------------------------------------------------------------------ fusion

A = ScoredLabels.from_rows([([0, 1], [0.8, 0.4], [True, True])])
B = ScoredLabels.from_rows([([1, 2], [0.6, 0.2], [True, False])])


@pytest.mark.parametrize(
    ("how", "labels", "scores", "chosen"),
    [
        ("average", [1, 0, 2], [0.5, 0.4, 0.1], [True, True, False]),  # 2 and 1 labels chosen: 1.5, rounded to even
        ("vote", [1, 0, 2], [1.0, 0.5, 0.0], [True, False, False]),
        ("union", [0, 1, 2], [0.8, 0.6, 0.2], [True, True, False]),
    ],
)
def test_members_are_fused(how, labels, scores, chosen):
    fused = combine([A, B], how)
    assert fused.labels.tolist() == labels
    assert fused.scores.tolist() == pytest.approx(scores)
    assert fused.chosen.tolist() == chosen


@given(ROWS)
def test_an_ensemble_of_one_is_that_one(rows):
    scored = _scored(rows)
    fused = combine([scored, scored])
    np.testing.assert_allclose(fused.scores, scored.scores)
    assert sorted(zip(fused.text, fused.labels, strict=False)) == sorted(zip(scored.text, scored.labels, strict=False))
    assert combine([scored], "union").sets() == [
        (labels, scores) for labels, scores in combine([scored, scored], "union").sets()
    ]


def test_a_weight_of_zero_silences_a_member():
    fused = combine([A, B], weights=[1, 0])
    assert fused.sets() == A.sets()


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        ([], {}, r"Predictions for \[\] texts"),
        ([A, ScoredLabels.from_rows([])], {}, r"Predictions for \[1, 0\] texts"),
        ([A, B], {"how": "best"}, "combine='best'"),
        ([A, B], {"weights": [1]}, "2 numbers from 0 on"),
        ([A, B], {"weights": [0, 0]}, "not all 0"),
    ],
)
def test_impossible_fusions_are_refused(members, options, message):
    with pytest.raises(ConfigurationError, match=message):
        combine(members, **options)


# ------------------------------------------------------------------------------------------------ calibration


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
def test_calibrated_scores_are_shares_of_right_labels(method):
    scored, references, counts = _sample()
    calibrator = ScoreCalibrator.fit(scored, references, counts, method)
    fresh, others, _ = _sample(seed=1)
    before = expected_calibration_error(fresh.scores, fresh.correct(others))
    calibrated = calibrator.transform(fresh, counts)
    after = expected_calibration_error(calibrated.scores, calibrated.correct(others))
    assert before > 0.25
    assert after < (0.03 if method == "isotonic" else 0.1)
    rare = calibrated.labels >= 10  # the buckets have curves of their own
    assert calibrated.scores[rare].mean() == pytest.approx(calibrated.correct(others)[rare].mean(), abs=0.05)


def test_a_calibrator_survives_a_reload(tmp_path):
    scored, references, counts = _sample()
    calibrator = fit_calibrator(scored, references, counts)
    assert set(calibrator.thresholds) == {"micro", "macro", "example"}
    calibrator.save(tmp_path)
    assert ScoreCalibrator.load(tmp_path) == calibrator


def test_rows_without_a_right_label_leave_scores_as_they_are(caplog):
    assert fit_calibrator(ScoredLabels.from_rows([([1], [0.5], [True])]), [[2]], np.ones(3, int)) is None
    assert "0 of 1 candidates are right" in caplog.text


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 9}, "of version 1 is expected"),
        ({"method": "x"}, "'method' is 'x'"),
        ({"bounds": [3, 1]}, "'bounds' must be a rising list"),
        ({"maps": []}, "'maps' must hold a curve for each of the 5 buckets"),
        ({"maps": [{"x": [0, 1], "y": [1, 0]}] * 5}, "'maps' must hold"),
        ({"maps": [{"slope": -1, "intercept": 0}] * 5}, "'maps' must hold"),
        ({"thresholds": {"micro": "0.5"}}, "'thresholds' must map names to numbers"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, change, message):
    scored, references, counts = _sample(50)
    ScoreCalibrator.fit(scored, references, counts).save(tmp_path)
    path = tmp_path / CALIBRATION_FILE
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelFolderError, match=rf"{CALIBRATION_FILE}: .*{message}"):
        ScoreCalibrator.load(tmp_path)


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
