"""One meaning of a threshold: the labels with at least that score, by the model, the pipeline and the command line."""

from __future__ import annotations

import json

import numpy as np
import pytest
from sources import TEXTS, Made, fused, make_rcl, make_retriever, make_trees, sharpened

from xlgen_hf.cli.main import main
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.pipeline import XLGenPipeline
from xlgen_hf.prediction.ensemble import Ensemble
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.thresholds import tuned_threshold

KINDS = ("base", "bcl", "rcl", "hybrid", "retriever", "label trees")


@pytest.fixture
def make(make_model, checkpoints, label_space, made):
    """A function that gives a predictor of each kind, the same to all tests."""

    def make_predictor(kind: str) -> Predictor:
        if kind == "retriever":
            return Predictor(label_space, make_retriever(checkpoints["bert"], label_space))
        if kind == "label trees":
            return Predictor(label_space, make_trees(label_space))
        if kind in ("base", "bcl"):
            return Predictor.from_model(*sharpened(Made(*make_model("bert", kind, max_labels=5))))
        model = sharpened(make_rcl(checkpoints["bert"], label_space, number=4))
        return Predictor.from_model(*(fused(model) if kind == "hybrid" else model))

    return lambda kind: made.get(kind) or made.setdefault(kind, make_predictor(kind))


@pytest.mark.parametrize("kind", KINDS)
def test_just_the_labels_with_at_least_that_score(make, kind):
    """Out of one ranking, whatever the threshold; a text may be left without labels."""
    predictor = make(kind)
    everything = predictor.predict(TEXTS, rule=DecisionRule("threshold", 0))
    assert all(one.labels for one in everything)
    scores = sorted({score for one in everything for score in one.scores})
    for threshold in (0.999, scores[len(scores) // 2], scores[-1]):
        found = predictor.predict(TEXTS, rule=DecisionRule("threshold", threshold))
        for one, every in zip(found, everything, strict=True):
            expected = [
                (label, score) for label, score in zip(every.labels, every.scores, strict=True) if score >= threshold
            ]
            assert list(zip(one.labels, one.scores, strict=True)) == expected
        kept = predictor.predict(TEXTS, rule=tuned_threshold(threshold))
        for one, every, strict in zip(kept, everything, found, strict=True):
            assert one.labels == every.labels[: max(1, len(strict.labels))]
    if scores[-1] < 1:
        above = DecisionRule("threshold", np.nextafter(scores[-1], 1))
        assert all(one.labels == [] for one in predictor.predict(TEXTS, rule=above))


def test_model_pipeline_ensemble_and_command_line_agree(make, tmp_path):
    source = make("bcl").source
    model, processor = source.model, source.processor
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    write_jsonl(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    ranked = model.predict(TEXTS, processor, rule=DecisionRule("threshold", 0.0))
    middle = float(np.median([score for one in ranked for score in one.scores]))
    for threshold in (0.0, middle, 0.999):
        expected = [one.labels for one in model.predict(TEXTS, processor, rule=DecisionRule("threshold", threshold))]
        in_pipeline = XLGenPipeline(model, processor)(TEXTS, threshold=threshold)
        assert [[one["label"] for one in row] for row in in_pipeline] == expected
        out = tmp_path / f"{threshold}.jsonl"
        assert main(["predict", "--model", str(tmp_path / "model"), "--input-file", str(tmp_path / "texts.jsonl"),
                     "--output-file", str(out), "--threshold", repr(threshold)]) == 0  # fmt: skip
        assert [json.loads(line)["labels"] for line in out.read_text().splitlines()] == expected
        twice = Ensemble([Predictor.from_model(model, processor)] * 2, "union")
        assert [one.labels for one in twice.predict(TEXTS, rule=DecisionRule("threshold", threshold))] == expected
    assert expected == [[]] * len(TEXTS)  # the last threshold leaves nothing, the middle one something
    assert any(one.labels for one in model.predict(TEXTS, processor, rule=DecisionRule("threshold", middle)))


@pytest.mark.parametrize("value", ["nan", "-1", "1.5", "inf", "-0.001", "1.0001"])
def test_impossible_thresholds_are_refused_where_they_are_given(make, tmp_path, capsys, value):
    with pytest.raises(ConfigurationError, match="it must be a number from 0 to 1"):
        DecisionRule("threshold", float(value))
    source = make("base").source
    with pytest.raises(ConfigurationError, match="it must be a number from 0 to 1"):
        XLGenPipeline(source.model, source.processor, threshold=float(value))
    source.model.save_pretrained(tmp_path / "model")
    source.processor.save_pretrained(tmp_path / "model")
    write_jsonl(tmp_path / "texts.jsonl", [{"text": "organ"}])
    arguments = ["predict", "--model", str(tmp_path / "model"), "--input-file", str(tmp_path / "texts.jsonl")]
    assert main([*arguments, f"--threshold={value}"]) == 1
    assert "a number from 0 to 1" in capsys.readouterr().err


# ------------------------------------------------------------------------------------------------ few allowed labels


@pytest.mark.parametrize("pool", ["best", "average", "vote", "union"])
@pytest.mark.parametrize("kind", ["base", "bcl", "rcl"])
def test_beams_that_do_not_exist_do_not_vote(make, label_space, kind, pool):
    """One label to choose from and five beams: one set exists, and decides."""
    predictor = make(kind)
    organ = np.array(label_space.encode(["organ"]))
    decoding = DecodingOptions(num_beams=5, pool=pool)
    alone = predictor.predict(TEXTS, decoding=DecodingOptions(num_beams=1), allowed=organ)
    for one, best in zip(predictor.predict(TEXTS, decoding=decoding, allowed=organ), alone, strict=True):
        assert one.labels == ["organ"]
        assert one.scores == pytest.approx([1.0] if pool == "vote" else best.scores, abs=1e-5)


def test_two_allowed_labels_are_pooled_over_the_sets_that_exist(make, label_space):
    """Two labels make four sequences; with more beams than that the pool is the same."""
    predictor, allowed = make("base"), np.array(label_space.encode(["organ", "art"]))
    for pool in ("average", "vote"):
        few, many = (
            predictor.predict(TEXTS, decoding=DecodingOptions(num_beams=beams, pool=pool), allowed=allowed)
            for beams in (4, 9)
        )
        assert [one.labels for one in few] == [one.labels for one in many]
        for one, other in zip(few, many, strict=True):
            assert one.scores == pytest.approx(other.scores, abs=1e-5)
