"""Risk against coverage: by hand, against a plain definition, and what cannot be drawn."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlgen_hf.data.predictions import Predictions
from xlgen_hf.errors import DataError
from xlgen_hf.evaluation.risk_coverage import confidence_scores, risk_curves
from xlgen_hf.ranking.risk_coverage import risk_coverage, score_at_coverage


def test_worked_out_by_hand():
    curve = risk_coverage(np.array([0.2, 0.9, 0.5, 0.5]), np.array([1.0, 1.0, 0.0, 1.0]))
    np.testing.assert_allclose(curve["coverage"], [0.25, 0.5, 0.75, 1])
    np.testing.assert_allclose(curve["risk"], [0, 0.25, 1 / 3, 0.25])  # the two equal ones count one half each
    np.testing.assert_allclose(curve["best"], [0, 0, 0, 0.25])
    assert curve["area"] == pytest.approx((0.25 + 1 / 3 + 0.25) / 4) and curve["best_area"] == pytest.approx(1 / 16)
    assert [score_at_coverage(curve, part) for part in (0.01, 0.5, 0.51, 1)] == pytest.approx([1, 0.75, 2 / 3, 0.75])


@given(st.lists(st.tuples(st.integers(0, 4), st.floats(0, 1)), min_size=1, max_size=20))
def test_no_order_is_better_than_the_best(rows):
    confidence, quality = map(np.array, zip(*rows, strict=True))
    curve = risk_coverage(confidence, quality)
    assert (curve["best"] <= curve["risk"] + 1e-9).all() and curve["best_area"] <= curve["area"] + 1e-9
    assert curve["risk"][-1] == pytest.approx(1 - quality.mean())
    if len(set(confidence.tolist())) == 1:
        np.testing.assert_allclose(curve["risk"], 1 - quality.mean())


def test_predictions_that_say_how_sure_they_are():
    labels = [["a", "b"], ["c"], [], ["d"]]
    true = pa.chunked_array([[["a", "b"], ["x"], ["y"], ["e", "d"]]])
    confidence = {"expected_f1": [0.9, 0.3, 0.0, 0.8], "best_label_probability": [0.9, 0.2, 0.0, 0.1]}
    given = Predictions(labels, [[0.1, 0.1], [0.9], [], [0.9]], confidence=confidence)
    curves = risk_curves(given, true)
    np.testing.assert_allclose(curves["example_f1"]["risk"], 1 - np.cumsum([1, 2 / 3, 0, 0]) / [1, 2, 3, 4])
    np.testing.assert_allclose(curves["best_label"]["risk"], 1 - np.cumsum([1, 0, 1, 0]) / [1, 2, 3, 4])
    scores = confidence_scores(given, true, curves)
    assert scores["example_f1_at_coverage_50"] == pytest.approx(5 / 6)
    assert scores["expected_f1_calibration_error"] == pytest.approx((0.1 + 0.3 + 0 + 0.8 - 2 / 3) / 4)
    by_score = risk_curves(Predictions(labels, given.scores), true)
    assert by_score["example_f1"]["risk"][0] == pytest.approx(1 - (0 + 2 / 3) / 2)  # the two of 0.9
    assert risk_curves(Predictions(labels), true) == {}
    logits = [[score - 5 for score in scores] for scores in given.scores]  # the fault: below 0 no label was surest
    below = risk_curves(Predictions(labels, logits), true)["example_f1"]
    np.testing.assert_allclose(below["risk"], by_score["example_f1"]["risk"])


def test_what_has_no_curve():
    with pytest.raises(DataError, match=r"Confidence of shape \(2,\) for qualities \(3,\); give one for each text"):
        risk_coverage(np.zeros(2), np.zeros(3))
    with pytest.raises(DataError, match="at least one"):
        risk_coverage(np.zeros(0), np.zeros(0))
