"""Hierarchical precision, recall and F1: labels count together with those above them."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf import RowOptions
from xlgen_hf.cli.main import main
from xlgen_hf.data.vocabulary_files import write_vocabulary
from xlgen_hf.errors import ConfigurationError, DataError
from xlgen_hf.evaluation.evaluate import run_evaluate
from xlgen_hf.evaluation.scoring import score_labels
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.vocabulary import Vocabulary

NAMES = ("hierarchical_precision", "hierarchical_recall", "hierarchical_f1")
BROADER = {
    "organ": ["keyboard", "wind"],
    "piano": ["keyboard"],
    "keyboard": ["music"],
    "wind": ["music"],
    "oil": ["art"],
}
LABELS = ["organ", "piano", "keyboard", "wind", "music", "oil", "art", "other"]


def hierarchical(predictions, references, broader=BROADER, **options):
    scores = score_labels(predictions, references, broader=broader, **options)
    return tuple(scores[name] for name in NAMES)


def test_worked_out_by_hand():
    # {organ, keyboard, wind, music} against {piano, keyboard, music}; then a label without a hierarchy
    assert hierarchical([["organ"], ["other"]], [["piano"], ["other"]]) == pytest.approx((3 / 5, 3 / 4, 6 / 9))
    assert hierarchical([["oil"]], [["piano"]]) == (0.0, 0.0, 0.0)
    assert hierarchical([[]], [[]]) == (0.0, 0.0, 0.0)


def test_a_single_root_counts_only_where_it_is_given():
    rooted = {**BROADER, "music": ["things"], "art": ["things"]}
    assert hierarchical([["oil"]], [["piano"]], rooted) == (0.0, 0.0, 0.0)
    assert hierarchical([["things"]], [["things", "oil"]], rooted) == pytest.approx((1.0, 1 / 3, 0.5))


def test_loops_are_followed_once():
    assert hierarchical([["a"]], [["b"]], {"a": ["b"], "b": ["a"], "c": ["c"]}) == (1.0, 1.0, 1.0)


def above(label):
    return {label}.union(*(above(parent) for parent in BROADER.get(label, ())))


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(*[st.lists(st.sampled_from(LABELS), unique=True)] * 2), min_size=1, max_size=5))
def test_equals_sets_with_their_ancestors(rows):
    """The definition, written out, and the same of the flat scores of such sets."""
    augmented = [[sorted(set().union(*map(above, labels))) for labels in pair] for pair in rows]
    flat = score_labels(*zip(*augmented, strict=True))
    found = hierarchical(*map(list, zip(*rows, strict=True)))
    assert found == pytest.approx(tuple(flat[f"micro_{name.split('_')[1]}"] for name in NAMES))


def test_intervals_lie_around_the_score_and_other_scores_stay():
    rows = [["organ"], ["piano"], ["oil"]], [["piano"], ["piano"], ["wind"]]
    plain = score_labels(*rows, bootstrap=20)
    scores = score_labels(*rows, bootstrap=20, broader=BROADER)
    assert scores["hierarchical_f1_ci_low"] <= scores["hierarchical_f1"] <= scores["hierarchical_f1_ci_high"]
    assert {name: value for name, value in scores.items() if "hierarchical" not in name} == plain


@pytest.mark.parametrize(
    ("broader", "message"),
    [
        ([], "must give the labels directly above each label, not a list"),
        ({"a": "b"}, "broader: 'a': 'b' is not a label with a list of the labels above it"),
        ({"a": [1]}, r"broader: 'a': \[1\] is not a label"),
    ],
)
def test_bad_hierarchies_are_explained(broader, message):
    with pytest.raises(DataError, match=message):
        score_labels([["a"]], [["a"]], broader=broader)


# ------------------------------------------------------------------------------------------------ xlgen evaluate


@pytest.fixture
def files(tmp_path):
    concepts = [
        Concept(f"c:{one}", {"en": one}, broader=tuple(f"c:{up}" for up in BROADER.get(one, ()))) for one in LABELS
    ]
    write_vocabulary(tmp_path / "vocabulary.jsonl", Vocabulary(concepts))
    write_jsonl(tmp_path / "predictions.jsonl", [{"labels": ["organ"]}, {"labels": ["c:other"]}])
    write_jsonl(tmp_path / "test.jsonl", [{"labels": ["c:piano"], "part": "a"}, {"labels": ["other"], "part": "b"}])
    return tmp_path


def test_by_the_vocabulary(files, capsys):
    """References and predictions call concepts by id or name."""
    words = ["evaluate", "--predictions", str(files / "predictions.jsonl"), "--references", str(files / "test.jsonl")]
    words += ["--vocabulary", str(files / "vocabulary.jsonl"), "--hierarchical", "--by", "part"]
    assert main([*words, "--output-file", str(files / "scores.json")]) == 0
    assert "with all above each label (hierarchical)" in capsys.readouterr().out
    scores = json.loads((files / "scores.json").read_text(encoding="utf-8"))
    assert tuple(scores[name] for name in NAMES) == pytest.approx((3 / 5, 3 / 4, 6 / 9))
    assert scores["groups"]["part"]["b"]["hierarchical_f1"] == 1.0


def test_a_hierarchy_is_needed(files):
    rows = files / "predictions.jsonl", files / "test.jsonl"
    with pytest.raises(ConfigurationError, match="there is no vocabulary"):
        run_evaluate(*rows, hierarchical=True)
    write_jsonl(files / "flat.jsonl", [{"id": f"c:{one}", "label": one} for one in LABELS])
    with pytest.raises(ConfigurationError, match="no concept has a broader one"):
        run_evaluate(*rows, hierarchical=True, rows=RowOptions(vocabulary=files / "flat.jsonl"))
