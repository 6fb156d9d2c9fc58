"""What the report of a training says."""

from __future__ import annotations

import pytest

from xlgen_hf.files.training_report import score_of

SCORES = {"micro_f1": 0.0, "0_shot_macro_f1": 0.0, "0_shot_labels": 0, "1_shot_macro_f1": 0.0, "1_shot_labels": 2}


@pytest.mark.parametrize(
    ("name", "value"),
    [("micro_f1", 0.0), ("1_shot_macro_f1", 0.0), ("0_shot_macro_f1", None), ("macro_f1", None)],
)
def test_a_score_of_no_labels_is_none(name, value):
    """It would read as if all of them were wrong."""
    assert score_of(SCORES, name) == value
