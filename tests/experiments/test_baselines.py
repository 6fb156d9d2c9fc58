from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.errors import ConfigurationError
from xlgen_hf.evaluation.scoring import score_labels
from xlgen_hf.experiments.systems.frequency import best_most_frequent_k, most_frequent_predictions
from xlgen_hf.labels.space import LabelSpace

SPACE = LabelSpace(["a", "b", "c", "d"], [5, 3, 1, 0])


def test_the_same_labels_for_every_text():
    predictions = most_frequent_predictions(SPACE, 3, 2)
    assert predictions == [["a", "b"]] * 3
    predictions[0].append("c")
    assert predictions[1] == ["a", "b"]
    assert most_frequent_predictions(SPACE, 0, 1) == []


@pytest.mark.parametrize(
    ("rows", "k", "message"), [(1, 0, "k=0; .* from 1 to 4"), (1, 5, "k=5"), (-1, 1, "num_rows=-1")]
)
def test_impossible_settings(rows, k, message):
    with pytest.raises(ConfigurationError, match=message):
        most_frequent_predictions(SPACE, rows, k)


def test_best_k_by_hand():
    assert best_most_frequent_k(SPACE, [["a", "b"], ["a", "b"], ["a"]]) == 2
    assert best_most_frequent_k(SPACE, [["a"], ["a", "d"]]) == 1
    assert best_most_frequent_k(SPACE, [["a", "b", "c"]], max_k=2) == 2
    with pytest.raises(ConfigurationError, match="no validation rows"):
        best_most_frequent_k(SPACE, [])


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.sampled_from(["a", "b", "c", "d", "unknown"]), unique=True), min_size=1, max_size=6))
def test_best_k_is_the_best(references):
    scores = [
        score_labels(most_frequent_predictions(SPACE, len(references), k), references)["micro_f1"] for k in range(1, 5)
    ]
    assert scores[best_most_frequent_k(SPACE, references) - 1] == pytest.approx(max(scores))
