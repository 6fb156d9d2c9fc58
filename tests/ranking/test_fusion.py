"""Fusion: one score out of what sources and scorers say of a candidate, learned on rows, with rare labels favoured."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import expit

from xlgen_hf.errors import ConfigurationError
from xlgen_hf.ranking.calibration import logit
from xlgen_hf.ranking.fitting import (
    MIN_RIGHT_CANDIDATES,
    choose_adjustment,
    fit_fusion,
    ranked_model,
    weighed_model,
)
from xlgen_hf.ranking.fusion import Fusion
from xlgen_hf.ranking.reliability import expected_calibration_error
from xlgen_hf.ranking.scored_labels import ScoredLabels
from xlgen_hf.ranking.sources import union
from xlgen_hf.ranking.thresholds import MICRO_F1_TOLERANCE, threshold_curves, tuned_threshold

COUNTS = np.array([9, 5, 3, 2, 1, 0])


def _candidates(texts, labels):
    """Each of the labels for each of the texts, not scored yet."""
    entries = texts * labels
    start = np.arange(0, entries + 1, labels)
    ids = np.tile(np.arange(labels), texts)
    return ScoredLabels(start, ids, np.zeros(entries), np.ones(entries, dtype=bool))


def test_a_fused_score_is_that_of_the_definition():
    retrieval = ScoredLabels.from_rows([([0, 2], [0.8, 0.2], [False] * 2), ([5], [0.4], [False])])
    generated = ScoredLabels.from_rows([([2, 4], [0.5, 0.25], [True, False]), ([5], [1.0], [True])])
    candidates, values = union({"retrieval": retrieval, "generated": generated})
    weights = {"retrieval": 2.0, "log_generated": 0.5, "relative_retrieval": -1.0, "retrieval_rank": 3.0}
    fused = Fusion(20, weights, 0.25, 0.1).fuse(candidates, values, COUNTS)
    of_retrieval = {(0, 0): 0.8, (0, 2): 0.2, (0, 4): 0.0, (1, 5): 0.4}
    of_generator = {(0, 0): 0.0, (0, 2): 0.5, (0, 4): 0.25, (1, 5): 1.0}
    rank = {(0, 0): 1.0, (0, 2): 0.5, (0, 4): 0.0, (1, 5): 1.0}
    best = {0: 0.8, 1: 0.4}
    expected = {
        (text, label): expit(
            2 * value
            + 0.5 * np.log(of_generator[text, label] + 1e-6)
            - value / best[text]
            + 3 * rank[text, label]
            + 0.25
            - 0.1 * np.log1p(COUNTS[label])
        )
        for (text, label), value in of_retrieval.items()
    }
    found = dict(zip(zip(fused.text.tolist(), fused.labels.tolist(), strict=True), fused.scores, strict=True))
    assert found == pytest.approx(expected)
    assert (np.diff(fused.scores[:3]) <= 0).all()
    np.testing.assert_allclose(fused.parts["retrieval"], [of_retrieval[key] for key in found])


@pytest.mark.parametrize("counts", [[0, 9, 9, 9, 9, 9], [9, 9, 9, 9, 9, 0]])
def test_the_adjustment_lowers_what_training_saw_often(counts):
    candidates = _candidates(1, 6)
    fused = Fusion(4, {"generated": 0.0}, 0.0, 0.3).fuse(candidates, {"generated": np.zeros(6)}, np.array(counts))
    assert fused.labels[0] == counts.index(0)
    logit = np.log(fused.scores / (1 - fused.scores))
    np.testing.assert_allclose(logit[0] - logit[1:], 0.3 * np.log(10))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"candidates_per_source": 0}, "candidates_per_source=0; it must be an integer from 1 to 1000"),
        ({"candidates_per_source": 2.0}, r"candidates_per_source=2\.0"),
        ({"weights": {}}, "finite numbers are needed, at least one"),
        ({"weights": {"names": float("nan")}}, "finite numbers are needed"),
        ({"intercept": float("inf")}, "intercept=inf; it must be a finite number"),
        ({"logit_adjustment": -0.1}, r"logit_adjustment=-0\.1; it must be a finite number >= 0"),
        ({"logit_adjustment": float("nan")}, "logit_adjustment=nan"),
    ],
)
def test_impossible_fusions_are_refused(change, message):
    with pytest.raises(ConfigurationError, match=message):
        Fusion(
            **{"candidates_per_source": 4, "weights": {"names": 1.0}, "intercept": 0, "logit_adjustment": 0, **change}
        )


def test_a_fusion_needs_all_that_it_weighs():
    fusion = Fusion(4, {"log_label_trees": 1.0, "generated": 1.0}, 0.0, 0.0)
    with pytest.raises(ConfigurationError, match=r"weighs \['label_trees'\], which no source of this model gives"):
        fusion.fuse(_candidates(1, 2), {"generated": np.zeros(2)}, COUNTS)


# ------------------------------------------------------------------------------------------------ learning


def _learnable(seed=0, texts=60):
    """Candidates of which those with a high `names` are mostly right, and `generated` says nothing."""
    random = np.random.default_rng(seed)
    candidates = _candidates(texts, 6)
    names, noise = random.random(texts * 6), random.random(texts * 6)
    right = (random.random(texts * 6) < names).reshape(texts, 6)
    references = [np.flatnonzero(row).tolist() for row in right]
    return candidates, {"names": names, "names_rank": noise, "generated": noise}, references


def test_a_fusion_learns_what_tells_right_from_wrong():
    candidates, values, references = _learnable()
    fusion, rule, thresholds = fit_fusion(candidates, values, references, COUNTS, 4)
    assert fusion.candidates_per_source == 4
    assert set(fusion.weights) == {
        *("names", "log_names", "relative_names", "generated", "log_generated", "relative_generated")
    }  # of the ranks that of retrieval alone counts, and it is not there
    fused = fusion.fuse(candidates, values, COUNTS)
    correct = fused.correct(references)
    assert fused.scores[correct].mean() > fused.scores[~correct].mean() + 0.2
    np.testing.assert_allclose(np.corrcoef(fused.scores, fused.parts["names"])[0, 1], 1, atol=0.2)
    assert rule.kind == "threshold" and rule.min_labels == 1
    assert set(thresholds) == {"micro", "macro", "example"}


def test_what_hardly_differs_gets_no_weight_under_which_rounding_decides():
    candidates, values, gold = _learnable()
    right = candidates.correct(gold)
    values["candidate_head"] = 0.1 + 5e-4 * right  # a head that has learned nothing yet
    fusion, *_ = fit_fusion(candidates, values, gold, COUNTS, 5)
    fused = fusion.fuse(candidates, values, COUNTS)
    rounded = {**values, "candidate_head": values["candidate_head"] * 1.004}
    np.testing.assert_allclose(fusion.fuse(candidates, rounded, COUNTS).scores, fused.scores, atol=0.3)


def _ranked(texts: int) -> tuple[ScoredLabels, list[list[int]]]:
    """What a source with two parts ranks by the one that says nothing, and the labels that are right."""
    candidates, values, references = _learnable(texts=texts)
    parts = {"names": values["names"], "neighbors": values["generated"]}
    entries = (candidates.text, candidates.labels, values["generated"], candidates.chosen, texts, parts)
    return ScoredLabels.from_entries(*entries), references


def test_the_parts_of_a_source_are_weighed_anew():
    scored, references = _ranked(60)
    model = weighed_model(scored, references, COUNTS, "retrieval")
    assert model.calibrator is None and model.confidence is not None
    assert {"retrieval", "names", "neighbors", "log_names"} <= set(model.fusion.weights)
    assert (model.fusion.candidates_per_source, dict(model.sources)) == (6, {})
    fused = model.fusion.fuse(*union({"retrieval": scored}), COUNTS)
    first, plain = (one.correct(references)[one.rank == 0].mean() for one in (fused, scored))
    assert first > plain + 0.2


@pytest.mark.parametrize("case", ["few", "no parts", "none wrong"])
def test_few_right_candidates_do_not_weigh_parts(case, caplog):
    scored, references = _ranked(20 if case == "few" else 60)
    assert scored.correct(references).sum() < MIN_RIGHT_CANDIDATES or case != "few"
    if case == "no parts":
        scored = replace(scored, parts={})
    if case == "none wrong":
        references = [list(range(6)) for _ in references]
    model = weighed_model(scored, references, COUNTS, "retrieval")
    assert model.fusion is None
    expected = ranked_model(scored, references, COUNTS)
    assert (model.rule, dict(model.thresholds)) == (expected.rule, dict(expected.thresholds))
    assert ("stay uncalibrated" in caplog.text) == (case == "none wrong")


def test_fused_scores_are_probabilities():
    """Also where frequent labels are lowered; the order of the labels is that of the adjusted logits."""
    random, counts = np.random.default_rng(0), np.array([0, 40, 40, 40])
    right = random.random((2000, 4)) < np.where(counts == 0, 0.1, 0.3)
    value = np.where(np.arange(8000) % 4 == 0, 0.0, 1.0) + right.ravel() * 0.5 + random.random(8000) * 0.6
    candidates, values = _candidates(2000, 4), {"generated": value}
    references = [np.flatnonzero(row).tolist() for row in right]
    fusion, rule, _ = fit_fusion(candidates, values, references, counts, 4)
    assert fusion.logit_adjustment > 0
    fused = fusion.fuse(candidates, values, counts)
    assert fused.scores.mean() == pytest.approx(right.mean(), abs=0.01)
    assert expected_calibration_error(fused.scores, fused.correct(references)) < 0.03
    chosen = rule.apply(fused)
    assert chosen.scores[chosen.chosen].mean() == pytest.approx(
        chosen.correct(references)[chosen.chosen].mean(), abs=0.1
    )


def test_slope_and_shift_keep_the_order():
    candidates, values, _ = _learnable()
    plain = Fusion(4, {"names": 2.0, "log_generated": 0.5}, -1.0, 0.3)
    one, other = (each.fuse(candidates, values, COUNTS) for each in (plain, replace(plain, slope=0.5, shift=1.5)))
    assert one.labels.tolist() == other.labels.tolist()
    np.testing.assert_allclose(logit(other.scores), 0.5 * logit(one.scores) + 1.5)


def test_the_most_probable_are_those_of_the_regression():
    """Without the adjustment, so that a label is not lowered for being frequent, and with its own probabilities."""
    candidates, values, _ = _learnable()
    adjusted = Fusion(4, {"names": 2.0, "log_generated": 0.5}, -1.0, 0.7, 0.5, 1.5)
    regression = Fusion(4, {"names": 2.0, "log_generated": 0.5}, -1.0, 0.0)
    found, expected = (each.fuse(candidates, values, COUNTS) for each in (adjusted.most_probable(), regression))
    assert (
        found.labels.tolist() == expected.labels.tolist() != adjusted.fuse(candidates, values, COUNTS).labels.tolist()
    )
    np.testing.assert_allclose(found.scores, expected.scores)


@pytest.mark.parametrize("wrong", [{"slope": 0.0}, {"slope": float("nan")}, {"shift": float("inf")}])
def test_slope_and_shift_are_checked(wrong):
    with pytest.raises(ConfigurationError, match="finite numbers, the slope above 0"):
        Fusion(4, {"names": 1.0}, 0.0, 0.0, **wrong)


def test_a_fusion_needs_right_and_wrong_candidates():
    candidates, values, _ = _learnable(texts=2)
    with pytest.raises(ConfigurationError, match="All of 12 candidates are wrong; a fusion learns from"):
        fit_fusion(candidates, values, [[], []], COUNTS, 4)
    with pytest.raises(ConfigurationError, match="All of 12 candidates are right"):
        fit_fusion(candidates, values, [list(range(6))] * 2, COUNTS, 4)


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 1000))
def test_the_threshold_costs_at_most_the_tolerance(seed):
    """Whatever strength favours rare labels, micro F1 on the rows stays near the best that any strength reaches."""
    candidates, values, references = _learnable(seed)
    fusion, rule, _ = fit_fusion(candidates, values, references, COUNTS, 4)
    best = 0.0
    for strength in np.linspace(0, 1, 21):
        tried = Fusion(4, fusion.weights, fusion.intercept, round(float(strength), 2))
        fused = tried.fuse(candidates, values, COUNTS)
        best = max(best, threshold_curves(fused, references, ("micro",))[1][0].max())
    chosen = rule.apply(fusion.fuse(candidates, values, COUNTS))
    hits = (chosen.chosen & chosen.correct(references)).sum()
    assert 2 * hits / (chosen.chosen.sum() + sum(map(len, references))) >= (1 - MICRO_F1_TOLERANCE) * best - 1e-12


@pytest.mark.parametrize("counts", [[0, 40, 40, 40], [40, 40, 40, 0]])
def test_the_adjustment_is_chosen_for_the_rare_and_costs_little(counts):
    """A label that is never seen is right as often as its scores say, the others far less often than theirs do."""
    random, counts = np.random.default_rng(0), np.array(counts)
    rare = int(counts.argmin())
    right = random.random((400, 4)) < np.where(np.arange(4) == rare, 0.2, 0.25)
    references = [np.flatnonzero(row).tolist() for row in right]
    candidates = _candidates(400, 4)
    value = np.where(candidates.labels == rare, 0.0, 1.0) + right.ravel() * 0.5 + random.random(1600) * 0.4

    def fused(strength):
        return Fusion(4, {"generated": 1.0}, 0.0, strength).fuse(candidates, {"generated": value}, counts)

    strengths = [0.05 * step for step in range(21)]
    found = choose_adjustment(((one, fused(one)) for one in strengths), references, counts)
    assert found.strength > 0
    chosen = tuned_threshold(found.threshold, found.min_labels).apply(fused(found.strength))
    hits = chosen.chosen & chosen.correct(references)
    f1 = 2 * hits.sum() / (chosen.chosen.sum() + right.sum())
    assert f1 >= (1 - MICRO_F1_TOLERANCE) * max(threshold_curves(fused(0.0), references, ("micro",))[1][0])
    assert (chosen.labels[hits] == rare).any()


def _with_a_specialist(seed=0, texts=400):
    """Two sources: one that knows frequent labels, and one that knows the rare ones but is wrong about others."""
    random = np.random.default_rng(seed)
    counts = np.array([60, 50, 40, 30, 1, 1, 0, 0])
    right = random.random((texts, 8)) < np.where(counts > 1, 0.4, 0.06)
    references = [np.flatnonzero(row).tolist() for row in right]
    noise = random.random((2, texts, 8)) * 0.5
    general = np.where(counts > 1, right * 0.5, 0) + noise[0]
    special = np.where(counts > 1, 0, right * 0.45) + noise[1]
    rows = [
        ScoredLabels.from_rows([(list(range(8)), row.tolist(), [False] * 8) for row in one])
        for one in (general, special)
    ]
    candidates, values = union({"label_trees": rows[0], "retrieval": rows[1]})
    return candidates, values, references, counts, {"label_trees": rows[0], "retrieval": rows[1]}


@pytest.mark.parametrize("seed", range(4))
def test_a_fusion_loses_no_rare_labels_to_its_sources(seed):
    candidates, values, references, counts, sources = _with_a_specialist(seed)

    def tail(scored, rule):
        chosen = rule.apply(scored)
        right, found = scored.correct(references) & chosen.chosen, []
        for label in np.flatnonzero(counts < 2):
            mine = scored.labels == label
            total = (mine & chosen.chosen).sum() + sum(label in row for row in references)
            found.append(2 * (mine & right).sum() / max(total, 1))
        return np.array([np.mean(found[2:]), np.mean(found[:2])])

    fusion, rule, _ = fit_fusion(candidates, values, references, counts, 8)
    fused = tail(fusion.fuse(candidates, values, counts), rule)
    for name, ranked in sources.items():
        own, of_source = union({name: ranked})
        alone, its_rule, _ = fit_fusion(own, of_source, references, counts, 8)
        assert (fused >= tail(alone.fuse(own, of_source, counts), its_rule) - 1e-9).all()


def test_floors_count_more_than_the_mean():
    """Of what micro F1 allows, that which reaches them is taken, or comes nearest."""
    candidates, values, references = _learnable(3)
    fusion, _, _ = fit_fusion(candidates, values, references, COUNTS, 4)
    tried = [
        (strength, replace(fusion, logit_adjustment=strength).fuse(candidates, values, COUNTS))
        for strength in np.linspace(0, 1, 11).tolist()
    ]
    free = choose_adjustment(tried, references, COUNTS)
    assert choose_adjustment(tried, references, COUNTS, free.macro[:2]) == free
    bound = choose_adjustment(tried, references, COUNTS, (1.0, 0.0))
    assert bound.macro[0] >= free.macro[0]
    assert bound.micro >= (1 - MICRO_F1_TOLERANCE) * free.micro
