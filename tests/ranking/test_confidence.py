"""How far predictions can be trusted: what scores promise, what validation rows make of it, and what files hold."""

from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.errors import DataError, ModelFolderError
from xlgen_hf.ranking.confidence import ConfidenceModel, promised_f1
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.fitting import fit_confidence, with_confidence
from xlgen_hf.ranking.reliability import expected_calibration_error
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.ranking.scored_labels import ScoredLabels


def _texts(seed: int, texts: int = 600) -> tuple[ScoredLabels, list[list[int]]]:
    """Candidates whose scores are true probabilities, of texts that are more or less clear."""
    random = np.random.default_rng(seed)
    clear = random.uniform(0.1, 1, size=(texts, 1))
    scores = np.sort(random.uniform(size=(texts, 8)) * clear, axis=1)[:, ::-1]
    true = [np.flatnonzero(row).tolist() for row in random.uniform(size=scores.shape) < scores]
    rows = [(list(range(8)), row, [False] * 8) for row in scores]
    return DecisionRule("top_k", 3).apply(ScoredLabels.from_rows(rows)), true


def test_promises_worked_out_by_hand():
    scored = ScoredLabels.from_rows([
        ([1, 2, 3], [0.8, 0.4, 0.2], [True, True, False]), ([4], [0.5], [False]), ([], [], []),
        ([1], [1.0], [True]),
    ])  # fmt: skip
    assert promised_f1(scored) == pytest.approx([2 * 1.2 / (2 + 1.4), 0.01, 0.01, 0.99])
    assert promised_f1(scored, chosen_alone=True) == pytest.approx([2 * 1.2 / (2 + 1.2), 0.01, 0.01, 0.99])


@pytest.mark.parametrize("distorted", [False, True])
def test_what_validation_rows_teach_comes_true_on_others(distorted):
    """Also where scores are not probabilities."""
    (validation, known), (test, true) = _texts(0), _texts(1)
    if distorted:
        validation, test = (one.with_scores(one.scores**3) for one in (validation, test))
    model = fit_confidence(validation, known)
    found = model.estimate(test)
    chosen = [set(ids) for ids, _ in test.sets()]
    f1 = np.array([2 * len(some & set(all_)) / (3 + len(all_)) for some, all_ in zip(chosen, true, strict=True)])
    best = np.array([float(test.labels[first] in ids) for first, ids in zip(test.start[:-1], true, strict=True)])
    assert expected_calibration_error(found.expected_f1, f1, 5) < 0.06
    assert expected_calibration_error(found.best_label, best, 5) < 0.08
    assert f1[found.expected_f1 > np.median(found.expected_f1)].mean() > f1.mean() + 0.1


def test_texts_without_labels_promise_nothing():
    model = ConfidenceModel({"slope": 1.0, "intercept": 3.0}, {"slope": 1.0, "intercept": 3.0})
    scored = ScoredLabels.from_rows([([1], [0.9], [False]), ([], [], []), ([1], [0.9], [True])])
    found = model.estimate(scored)
    assert found.expected_f1[:2].tolist() == found.best_label[:2].tolist() == [0, 0]
    assert found.expected_f1[2] > 0.9
    assert model.estimate(ScoredLabels.from_rows([])).expected_f1.shape == (0,)


@settings(max_examples=25)
@given(st.integers(0, 1000), st.booleans())
def test_texts_keep_the_order_of_their_promises(seed, chosen_alone):
    scored, known = _texts(seed, 40)
    model = fit_confidence(scored, known, chosen_alone=chosen_alone)
    promised = promised_f1(scored, chosen_alone=chosen_alone)
    found = model.estimate(scored).expected_f1
    assert ((found >= 0) & (found <= 1)).all()
    assert (np.diff(found[np.argsort(promised)]) >= -1e-12).all()


def test_rows_that_teach_nothing(caplog):
    scored, known = _texts(0, 5)
    nothing = DecisionRule("threshold", 1.0)
    with pytest.raises(DataError, match="None of 5 texts has a label"):
        fit_confidence(nothing.apply(scored), known)
    model = ScoreModel(rule=nothing)
    assert with_confidence(model, scored, known) is model
    assert "cannot say how far a prediction can be trusted" in caplog.text


def test_few_rows_give_no_certainty():
    scored, _ = _texts(0, 5)
    for known, low, high in (([[]] * 5, 0.01, 0.4), ([[0, 1, 2]] * 5, 0.6, 0.99)):
        found = fit_confidence(scored, known).estimate(scored)
        assert ((found.expected_f1 > low) & (found.expected_f1 < high)).all()
        assert ((found.best_label > low) & (found.best_label < high)).all()


def test_where_promises_mislead_all_texts_are_alike():
    rows = [([0], [score], [True]) for score in (0.9, 0.8, 0.2, 0.1)]
    model = fit_confidence(ScoredLabels.from_rows(rows), [[1], [1], [0], [0]])
    assert model.expected_f1["slope"] == 0
    found = model.estimate(ScoredLabels.from_rows(rows))
    assert found.expected_f1 == pytest.approx([0.5] * 4) and found.best_label == pytest.approx([0.5] * 4)


def test_a_score_model_keeps_it(tmp_path):
    scored, known = _texts(0, 50)
    model = with_confidence(ScoreModel(rule=DecisionRule("top_k", 3)), scored, known)
    model.save(tmp_path)
    assert ScoreModel.load(tmp_path, {}) == model
    path = tmp_path / "score_model.json"
    content = json.loads(path.read_text())
    del content["confidence"]
    path.write_text(json.dumps(content))
    assert ScoreModel.load(tmp_path, {}).confidence is None
    content["confidence"] = {"expected_f1": {"slope": -1, "intercept": 0}, "best_label": {"slope": 1, "intercept": 0}}
    path.write_text(json.dumps(content))
    with pytest.raises(ModelFolderError, match=r"confidence.expected_f1.slope' is -1; it must be a number >= 0"):
        ScoreModel.load(tmp_path, {})


def test_of_a_generators_own_sets_the_chosen_labels_count_alone(tmp_path):
    scored, known = _texts(0, 50)
    own = with_confidence(ScoreModel(), scored, known)
    assert own.confidence.chosen_alone and own.confidence != fit_confidence(scored, known)
    own.save(tmp_path)
    assert ScoreModel.load(tmp_path, {}) == own
