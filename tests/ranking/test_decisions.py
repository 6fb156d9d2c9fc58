"""Decisions on scored candidates, and thresholds tuned for them, against brute force."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.errors import ConfigurationError
from xlgen_hf.evaluation.scoring import score_ids
from xlgen_hf.ranking.decisions import DecisionRule, expected_f1_sizes
from xlgen_hf.ranking.scored_labels import ScoredLabels
from xlgen_hf.ranking.thresholds import (
    best_within,
    minimums_to_try,
    score_rules,
    threshold_curves,
    tune_threshold,
    tune_thresholds,
    tuned_threshold,
)

LABELS = 6
SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.9, 1.0])
ROW = st.dictionaries(st.integers(0, LABELS - 1), st.tuples(SCORES, st.booleans()), max_size=LABELS)
ROWS = st.lists(ROW, min_size=1, max_size=6)
REFERENCE = st.lists(st.integers(0, LABELS - 1), unique=True, min_size=1, max_size=4)
SOME_OR_NONE = st.lists(st.integers(0, LABELS - 1), unique=True, max_size=4)
THRESHOLDS = (0.0, 0.1, 0.2, 0.25, 0.4, 0.5, 0.7, 0.9, 0.95, 1.0)


def _scored(rows):
    return ScoredLabels.from_rows(
        (list(row), [score for score, _ in row.values()], [chosen for _, chosen in row.values()]) for row in rows
    )


def _f1(objective, sets, references):
    if objective == "example":
        pairs = zip(sets, references, strict=True)
        return np.mean([2 * len({*a} & {*b}) / max(len(a) + len(b), 1) for a, b in pairs])
    if objective == "micro":
        hits = sum(len({*a} & {*b}) for a, b in zip(sets, references, strict=True))
        return 2 * hits / max(sum(map(len, sets)) + sum(map(len, references)), 1)
    values = []
    for label in {label for ids in references for label in ids}:
        hits = sum(label in a and label in b for a, b in zip(sets, references, strict=True))
        values.append(2 * hits / sum((label in a) + (label in b) for a, b in zip(sets, references, strict=True)))
    return np.mean(values) if values else 0.0


def _chosen(rule, scored):
    return [labels for labels, _ in rule.apply(scored).sets()]


# ------------------------------------------------------------------------------------------------ rules


@given(ROWS, st.sampled_from(THRESHOLDS))
def test_a_threshold_is_strict(rows, threshold):
    """Just the labels with at least that score, be it none."""
    scored = _scored(rows)
    for row, (labels, scores) in zip(rows, DecisionRule("threshold", threshold).apply(scored).sets(), strict=True):
        assert set(labels) == {label for label, (score, _) in row.items() if score >= threshold}
        assert scores == sorted(scores, reverse=True)


@given(ROWS, st.sampled_from(THRESHOLDS), st.integers(1, 3))
def test_a_threshold_may_keep_the_best_labels(rows, threshold, keep):
    scored = _scored(rows)
    for row, labels in zip(rows, _chosen(DecisionRule("threshold", threshold, min_labels=keep), scored), strict=True):
        above = {label for label, (score, _) in row.items() if score >= threshold}
        assert above <= set(labels)
        assert len(labels) == max(len(above), min(keep, len(row)))


def test_a_tuned_threshold_keeps_the_best_label_and_those_that_rounding_has_moved():
    rule = tuned_threshold(0.4)
    assert (rule.kind, rule.value, rule.min_labels) == ("threshold", pytest.approx(0.4, abs=1e-5), 1)
    rows = [
        ([1, 2, 3], [0.9, 0.4 - 1e-8, 0.4 - 1e-5], [True] * 3)
    ]  # the second was the candidate that it was tuned to
    assert _chosen(rule, ScoredLabels.from_rows(rows)) == [[1, 2]]
    assert tuned_threshold(0.0).value == 0
    assert _chosen(tuned_threshold(1.0), ScoredLabels.from_rows([([1, 2], [0.1, 0.2], [True, True])])) == [[2]]


@given(ROWS)
def test_every_rule_but_a_strict_threshold_keeps_the_best_label(rows):
    scored = _scored(rows)
    for rule in (DecisionRule("top_k", 2), tuned_threshold(0.95), DecisionRule("expected_f1")):
        for row, (labels, scores) in zip(rows, rule.apply(scored).sets(), strict=True):
            assert bool(labels) == bool(row)
            assert scores == sorted(scores, reverse=True)
            if row:
                assert scores[0] == max(score for score, _ in row.values())
    assert [len(labels) for labels in _chosen(DecisionRule("top_k", 2), scored)] == [min(2, len(row)) for row in rows]
    assert DecisionRule().apply(scored) is scored


@given(ROWS, st.integers(1, 7), st.integers(1, 7))
def test_the_labels_of_a_smaller_k_are_the_first_of_a_larger_one(rows, first, second):
    low, high = sorted((first, second))
    scored = _scored(rows)
    pairs = zip(_chosen(DecisionRule("top_k", low), scored), _chosen(DecisionRule("top_k", high), scored), strict=True)
    assert all(few == many[:low] for few, many in pairs)


def test_rules_that_go_by_scores_choose_from_the_same_candidates():
    rules = (DecisionRule("top_k", 1), DecisionRule("top_k", 99), DecisionRule("threshold", 0.5))
    wanted = {rule.min_candidates for rule in (*rules, tuned_threshold(0.1), DecisionRule("expected_f1"))}
    assert len(wanted) == 1 and wanted.pop() > 1
    assert DecisionRule().min_candidates == 0
    assert [rule.num_labels for rule in (*rules, DecisionRule())] == [1, 99, 0, 0]


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
        (("top_k", 0), "top_k=0; it must be an integer >= 1"),
        (("top_k", -1), "top_k=-1"),
        (("top_k", 1.5), r"top_k=1\.5"),
        (("top_k", float("nan")), "top_k=nan"),
        (("top_k", float("inf")), "top_k=inf"),
        (("top_k", "3"), "top_k='3'"),
        (("own", 3), "'own' with the value 3"),
        (("expected_f1", 0.5), r"'expected_f1' with the value 0\.5"),
        (("threshold", None), "'threshold' with the value None"),
        (("threshold", float("nan")), "threshold=nan; it must be a number from 0 to 1"),
        (("threshold", -1), "threshold=-1; it must be a number from 0 to 1"),
        (("threshold", 1.5), r"threshold=1\.5; it must be a number from 0 to 1"),
        (("threshold", "0.5"), r"threshold='0\.5'"),
        (("threshold", True), "threshold=True"),
        (("threshold", 0.5, -1), "min_labels=-1"),
        (("threshold", 0.5, 0.5), r"min_labels=0\.5"),
        (("top_k", 2, 1), "min_labels=1 with decision='top_k'"),
    ],
)
def test_impossible_rules_are_refused(rule, message):
    with pytest.raises(ConfigurationError, match=message):
        DecisionRule(*rule)


def test_numbers_of_numpy_will_do():
    assert DecisionRule("threshold", np.float32(0.5)).value == 0.5
    assert DecisionRule("top_k", np.int64(3)).num_labels == 3


# ------------------------------------------------------------------------------------------------ tuning


@settings(deadline=None, max_examples=150)
@given(st.data(), ROWS, st.sampled_from(["micro", "macro", "example"]), st.integers(0, 2))
def test_the_tuned_threshold_is_the_best_of_all(data, rows, objective, least):
    references = data.draw(st.lists(SOME_OR_NONE, min_size=len(rows), max_size=len(rows)))
    scored = _scored(rows)
    threshold, value = tune_threshold(scored, references, objective, least)
    assert value == pytest.approx(_f1(objective, _chosen(tuned_threshold(threshold, least), scored), references))
    for other in THRESHOLDS:
        assert _f1(objective, _chosen(tuned_threshold(other, least), scored), references) <= value + 1e-12
    assert tune_thresholds(scored, references, least)[objective] == threshold


def test_macro_f1_is_weighted_by_label():
    scored = ScoredLabels.from_rows([([0, 1], [0.9, 0.2], [False] * 2), ([2, 0], [0.8, 0.7], [False] * 2)])
    thresholds, (f1,) = threshold_curves(scored, [[0], [1, 2]], ("macro",), np.array([1.0, 2.0, 5.0]))
    assert thresholds.tolist() == [1.0, 0.7, 0.2]
    of_first, of_second = [1, 2 / 3, 2 / 3], [0, 0, 0]
    expected = [(a + 2 * b + 5 * 1) / 8 for a, b in zip(of_first, of_second, strict=True)]
    assert f1.tolist() == pytest.approx(expected)


@settings(deadline=None)
@given(ROWS, st.data())
def test_every_threshold_of_a_curve_is_a_rule_that_can_be_made(rows, data):
    """Thresholds lie in [0, 1], and each has on the rows the F1 that the curve says."""
    references = data.draw(st.lists(REFERENCE, min_size=len(rows), max_size=len(rows)))
    scored = _scored(rows)
    thresholds, (micro,) = threshold_curves(scored, references, ("micro",))
    assert (np.diff(thresholds) < 0).all()
    for threshold, value in zip(thresholds.tolist(), micro.tolist(), strict=True):
        assert _f1("micro", _chosen(tuned_threshold(threshold), scored), references) == pytest.approx(value)


@settings(max_examples=60, deadline=None)
@given(ROWS, st.data(), st.sampled_from([0.0, 0.1, 0.5]))
def test_the_chosen_rule_is_the_best_of_all(rows, data, tolerance):
    scored = _scored(rows)
    references = [data.draw(SOME_OR_NONE) for _ in rows]
    found = score_rules(scored, references, max_k=4)
    best = best_within(found.micro, found.macro, tolerance)
    rule, f1 = found.rule(best), found.micro[best]

    def average(one, objective):
        return _f1(objective, _chosen(one, scored), references)

    least_of_all = (1, 0) if [] in references else (1,)
    rules = [DecisionRule("top_k", k) for k in range(1, 5)]
    rules += [tuned_threshold(value, least) for value in THRESHOLDS for least in least_of_all]
    assert average(rule, "micro") == pytest.approx(f1)
    least = (1 - tolerance) * max(average(one, "micro") for one in rules)
    assert f1 >= least - 1e-12
    near = [one for one in rules if average(one, "micro") >= least + 1e-9]
    assert all(average(rule, "macro") >= average(one, "macro") - 1e-12 for one in near)


def test_texts_may_be_left_without_labels_where_that_is_right():
    """Of data with many rows without labels, such as comments of which few are toxic, none may be the right answer."""
    right, wrong = ([0], [0.9], [False]), ([1], [0.3], [False])
    scored = ScoredLabels.from_rows([right] * 10 + [wrong] * 10)
    found = score_rules(scored, [[0]] * 10 + [[]] * 10)
    best = best_within(found.micro, found.macro, 0.0)
    assert found.rule(best) == tuned_threshold(0.9, 0) and found.micro[best] == 1.0
    assert _chosen(found.rule(best), scored) == [[0]] * 10 + [[]] * 10


@pytest.mark.parametrize(("without", "tried"), [(0, (1,)), (4, (1,)), (5, (1, 0)), (100, (1, 0))])
def test_few_rows_without_labels_are_gaps(without, tried):
    assert minimums_to_try([[]] * without + [[1]] * (100 - without)) == tried


def test_labels_outside_the_candidates_count_as_missed():
    scored = ScoredLabels.from_rows([([0, 1], [0.9, 0.2], [False] * 2), ([2, 0], [0.8, 0.7], [False] * 2)])
    found = score_rules(scored, [[0], [2, 0, 10_000]])
    best = best_within(found.micro, found.macro, 0.0)
    assert found.rule(best) == tuned_threshold(0.7)
    assert found.micro[best] == pytest.approx(2 * 3 / (3 + 4))


def test_a_rule_needs_texts_to_choose_on():
    with pytest.raises(ConfigurationError, match="no validation texts"):
        score_rules(ScoredLabels.from_rows([]), [])
    with pytest.raises(ConfigurationError, match="max_k=0; it must be an integer >= 1"):
        score_rules(ScoredLabels.from_rows([([1], [0.5], [True])]), [[1]], max_k=0)


def test_tuned_micro_f1_is_that_of_the_metric():
    random = np.random.default_rng(0)
    rows = [(random.permutation(50)[:8].tolist(), random.random(8).tolist(), [False] * 8) for _ in range(200)]
    references = [random.permutation(50)[:3].tolist() for _ in range(200)]
    scored = ScoredLabels.from_rows(rows)
    threshold, value = tune_threshold(scored, references, "micro")
    sets = _chosen(tuned_threshold(threshold), scored)
    assert score_ids(sets, references, num_labels=50, k=())["micro_f1"] == pytest.approx(value)


def test_an_unknown_objective_is_refused():
    with pytest.raises(ConfigurationError, match="objective='weighted'"):
        tune_threshold(ScoredLabels.from_rows([([1], [0.5], [True])]), [[1]], "weighted")
