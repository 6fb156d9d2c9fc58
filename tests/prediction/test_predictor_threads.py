"""Several threads predict what one does: every variant, hybrids, retrieval and label trees alone, ensembles."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from sources import Made, fused, make_rcl, make_retriever, make_trees, sharpened

from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.loading import load_predictor
from xlgen_hf.prediction.ensemble import Ensemble
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.retrieval.model_sources import save_source_alone

TEXTS = ["a history of organ music", "printing", "modern piano", "", "church and art " * 9]
THREADS = 4  # each asks for something else where they do
KINDS = ("base", "bcl", "mcg", "rcl", "rcl with vectors", "hybrid", "hybrid with trees", "retrieval", "label_trees")


@pytest.fixture
def make(make_model, checkpoints, label_space, made):
    """A function that gives a predictor of each kind, the same to all tests."""

    def make_predictor(kind: str) -> Predictor:
        if kind == "retrieval":
            return Predictor(label_space, make_retriever(checkpoints["bert"], label_space, lexical=True))
        if kind == "label_trees":
            return Predictor(label_space, make_trees(label_space))
        if kind in ("base", "bcl", "mcg"):
            return Predictor.from_model(*sharpened(Made(*make_model("bert", kind, max_labels=4))))
        conditioning = "memory" if kind == "rcl with vectors" else "tokens"
        model = sharpened(make_rcl(checkpoints["bert"], label_space, conditioning))
        if kind.startswith("hybrid"):
            model = fused(model, make_trees(label_space) if kind == "hybrid with trees" else None)
        return Predictor.from_model(*model)

    return lambda kind: made.get(kind) or made.setdefault(kind, make_predictor(kind))


def _saved(predictor: Predictor, kind: str, folder) -> str:
    if kind in ("retrieval", "label_trees"):
        save_source_alone(folder, predictor.label_space, kind, predictor.source, ScoreModel())
    else:
        predictor.source.model.save_pretrained(folder)
        predictor.source.processor.save_pretrained(folder)
    return str(folder)


def _together(call):
    """Results of calls that begin at the same moment, each in a thread of its own."""
    start = threading.Barrier(THREADS)

    def wait_and_call(number):
        start.wait()
        return call(number)

    with ThreadPoolExecutor(THREADS) as pool:
        return list(pool.map(wait_and_call, range(THREADS)))


def _check(found, expected):
    for predictions, wanted in zip(found, expected, strict=True):
        assert [one.labels for one in predictions] == [one.labels for one in wanted]
        assert [one.clusters for one in predictions] == [one.clusters for one in wanted]
        for one, other in zip(predictions, wanted, strict=True):
            assert one.scores == pytest.approx(other.scores, abs=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_a_predictor_that_was_just_loaded(make, tmp_path, kind):
    """Nothing is warm: whatever is made at the first use is made by several threads at once."""
    folder = _saved(make(kind), kind, tmp_path / "model")
    expected = load_predictor(folder).predict(TEXTS)
    cold = load_predictor(folder)
    _check(_together(lambda _: cold.predict(TEXTS)), [expected] * THREADS)


@pytest.mark.parametrize("kind", ["rcl", "hybrid with trees", "retrieval", "label_trees"])
def test_threads_that_ask_for_different_things_get_them(make, kind):
    predictor = make(kind)
    rules = [None, DecisionRule("top_k", 2), DecisionRule("top_k", 6), DecisionRule("threshold", 0.2)]

    def predict(number):
        allowed = None if number % 3 == 0 else np.arange(number % 3, len(predictor.label_space))
        return predictor.predict(TEXTS[: 1 + number % 3], rule=rules[number % 4], allowed=allowed, batch_size=2)

    expected = [predict(number) for number in range(THREADS)]
    _check(_together(predict), expected)


def test_searches_and_open_vocabulary(make):
    predictor = make("rcl")
    searches = [
        DecodingOptions(num_beams=3),
        DecodingOptions(num_samples=2, seed=5),
        None,
        DecodingOptions(num_beams=1),
    ]

    def predict(number):
        return predictor.predict(TEXTS, decoding=searches[number % 4], open_vocabulary=number % 2 == 0)

    expected = [predict(number) for number in range(THREADS)]
    found = _together(predict)
    _check(found, expected)
    for predictions, wanted in zip(found, expected, strict=True):
        names = [[one.label for one in prediction.novel_labels] for prediction in predictions]
        assert names == [[one.label for one in prediction.novel_labels] for prediction in wanted]


def test_an_ensemble(make):
    ensemble = Ensemble([make("hybrid with trees"), make("bcl"), make("retrieval")], "union")
    expected = ensemble.predict(TEXTS)
    _check(_together(lambda _: ensemble.predict(TEXTS)), [expected] * THREADS)
