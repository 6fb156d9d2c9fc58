"""Texts that are longer than a model's input: counted, and said once for each prediction."""

from __future__ import annotations

import logging
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from sources import Made, fused, make_rcl, make_retriever, make_trees

from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.errors import LabelSpaceError
from xlgen_hf.labels.tokens import TruncationReport
from xlgen_hf.prediction.encoding import one_report_of_cuts
from xlgen_hf.prediction.ensemble import Ensemble
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.ranking.sources import TextBatch

LONG = "modern art " * 40
TEXTS = ["music", LONG, "art", LONG, "", LONG, "organ"]
KINDS = ("base", "bcl", "mcg", "rcl", "rcl with vectors", "head", "hybrid")


@pytest.fixture
def predictor_of(make_model, checkpoints, label_space, made):
    """A function that makes the predictor of a kind, whose model reads 32 tokens."""

    def make(kind: str) -> Predictor:
        if kind not in made:
            if kind in ("base", "bcl", "mcg"):
                model = Made(*make_model("bert", kind, max_labels=3))
            else:
                head = {"candidate_head": True, "predicts_with": "candidate_head"} if kind == "head" else {}
                conditioning = "memory" if kind == "rcl with vectors" else "tokens"
                model = make_rcl(checkpoints["bert"], label_space, conditioning, **head)
            model.processor.max_source_length = 32
            made[kind] = fused(model, make_trees(label_space)) if kind == "hybrid" else model
        made[kind].processor.reported_cuts = False
        return Predictor.from_model(*made[kind])

    return make


def _said(caplog):
    """What the log says of cut texts since this was asked last."""
    said = [one.getMessage() for one in caplog.records if one.name.startswith("xlgen_hf") and "cut" in one.msg]
    caplog.clear()
    return said


def _line(cut, texts=7):
    return f"{cut} of {texts} texts do not fit into max_source_length=32 tokens and were cut there."


@pytest.mark.parametrize("kind", KINDS)
def test_each_prediction_counts_its_cut_texts_once(predictor_of, caplog, kind):
    predictor = predictor_of(kind)
    caplog.clear()
    for size in (2, 64):
        predictor.predict(TEXTS, batch_size=size)
        assert _said(caplog) == [_line(3)]
    predictor.rank(TEXTS[:2], 20, batch_size=1)
    assert _said(caplog) == [_line(1, 2)]


def test_an_index_counts_the_cut_texts_of_all_batches(checkpoints, label_space, caplog):
    """The fault: those of the first batch alone were counted, as if they were all."""
    retriever = make_retriever(checkpoints["bert"], label_space)
    retriever.settings = replace(retriever.settings, max_length=8)
    caplog.clear()
    with one_report_of_cuts():  # as the command predicts, some texts after others
        for _ in range(2):
            Predictor(label_space, retriever).predict(TEXTS, batch_size=2)
    assert _said(caplog) == ["6 of 14 texts are longer than 8 tokens and were cut there."]


@pytest.mark.parametrize("kind", ["base", "rcl", "hybrid"])
def test_where_nothing_is_cut_nothing_is_said(predictor_of, caplog, kind):
    predictor = predictor_of(kind)
    caplog.clear()
    predictor.predict(["music", "art"])
    predictor.predict([])
    assert [one.getMessage() for one in caplog.records if one.levelno >= logging.WARNING] == []


def test_every_way_to_ask_a_model_counts(predictor_of, caplog):
    predictor = predictor_of("base")
    model, processor = predictor.source.model, predictor.source.processor
    caplog.clear()
    model.predict(TEXTS, processor, decoding=DecodingOptions(num_beams=2), allowed=np.array([0, 2]), batch_size=2)
    assert _said(caplog) == [_line(3)]
    model.score(TEXTS, [["art"]] * len(TEXTS), processor, batch_size=2)
    assert _said(caplog) == [_line(3)]
    predictor.predict(TEXTS, evidence=True, open_vocabulary=True)
    assert _said(caplog) == [_line(3)]
    Ensemble([predictor, predictor]).predict(TEXTS)
    assert _said(caplog) == [_line(3)] * 2  # each of them cut its own


def test_what_a_training_has_reported_is_not_said_again(predictor_of, caplog):
    predictor = predictor_of("base")
    processor = predictor.source.processor
    processor.encode_texts(["art"], TruncationReport())
    predictor.predict(TEXTS)
    assert _said(caplog) == [_line(3)]  # nothing was lost there
    report = TruncationReport()
    processor.encode_texts(TEXTS, report)
    report.log("Training data")
    caplog.clear()
    predictor.predict(TEXTS)
    Predictor.from_model(predictor.source.model, processor.with_score_model(processor.score_model)).predict(TEXTS)
    assert _said(caplog) == []


def test_a_prediction_that_fails_leaves_nothing_to_the_next_one(predictor_of, caplog):
    predictor = predictor_of("base")
    caplog.clear()
    with pytest.raises(LabelSpaceError):
        predictor.source.model.score(TEXTS, [["nothing"]] * len(TEXTS), predictor.source.processor)
    encode, calls = predictor.source.encode, []

    def fail(texts):
        calls.append(len(texts))
        if len(calls) == 2:
            raise RuntimeError("no memory")
        return encode(texts)

    predictor.source.encode = fail
    with pytest.raises(RuntimeError, match="no memory"):
        predictor.predict(TEXTS, batch_size=2)
    assert _said(caplog) == []
    predictor.source.encode = encode
    predictor.predict(TEXTS[:2])
    assert _said(caplog) == [_line(1, 2)]
    predictor.source.encoded(TextBatch(TEXTS))  # by nobody's prediction
    assert _said(caplog) == []


def test_threads_count_their_own_texts(predictor_of, caplog):
    predictor = predictor_of("base")
    caplog.clear()
    parts = [TEXTS[:2], TEXTS, [LONG] * 5, ["art"]]
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda texts: predictor.predict(texts, batch_size=1), parts))
    assert sorted(_said(caplog)) == sorted([_line(1, 2), _line(3), _line(5, 5)])


def test_several_predictions_may_be_one(predictor_of, caplog):
    predictor = predictor_of("rcl")
    caplog.clear()
    with one_report_of_cuts():
        predictor.predict(TEXTS, batch_size=2)
        predictor.predict(["music"])
        predictor.predict([LONG])
        assert _said(caplog) == []
    assert _said(caplog) == [_line(4, 9)]
    for expected in ([_line(1, 1)], []):
        with one_report_of_cuts(once=True):
            predictor.predict([LONG])
        assert _said(caplog) == expected
