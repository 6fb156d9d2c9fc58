"""The work of a prediction: each text is embedded, searched for and encoded once, whoever reads the result."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
from sources import fused, large_space, make_rcl, make_retriever, make_trees, make_untrained, sharpened
from torch.utils.hooks import RemovableHandle

from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.label_trees import LabelTrees
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.ranking.thresholds import tuned_threshold
from xlgen_hf.retrieval.retriever import LabelRetriever

SOME, ONE = np.arange(0, 40, 3), np.array([2])
REQUESTS = {
    "own": (None, None),
    "own, of some": (None, SOME),
    "top_k": (DecisionRule("top_k", 3), SOME),
    "deep top_k": (DecisionRule("top_k", 25), None),
    "deep top_k, of one": (DecisionRule("top_k", 25), ONE),
    "threshold": (DecisionRule("threshold", 0.1), SOME),
    "tuned threshold": (tuned_threshold(0.5), None),
}
TEXTS = ["a history of organ music", "printing", "modern piano"]
KINDS = ("rcl", "rcl with vectors", "hybrid", "hybrid with trees", "hybrid of base", "retriever")


class _Work:
    """Counts texts and calls of what costs time."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.monkeypatch = monkeypatch
        self.texts: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()

    def count(self, owner: type, name: str, size) -> None:
        """Count the calls of a method, and the texts in each."""
        method = getattr(owner, name)

        def counted(this, *arguments, **options):
            self.calls[name] += 1
            self.texts[name] += size(arguments)
            return method(this, *arguments, **options)

        self.monkeypatch.setattr(owner, name, counted)

    def watch(self, predictor: Predictor) -> list[RemovableHandle]:
        """Count embedding, search, trees, and runs of the model's encoder."""
        self.count(LabelRetriever, "embed", lambda given: len(given[0]))
        self.count(LabelRetriever, "find", lambda given: len(given[0]))
        self.count(LabelTrees, "rank", lambda given: len(given[0]))
        model = getattr(predictor.source, "model", None)
        return [] if model is None else [model.get_encoder().register_forward_pre_hook(self._encode, with_kwargs=True)]

    def _encode(self, module, arguments, options) -> None:
        self.calls["encode"] += 1
        self.texts["encode"] += len(options["input_ids"])


@pytest.fixture
def watch(monkeypatch):
    """A function that counts the work of a predictor until the test ends."""
    handles = []

    def start(predictor: Predictor) -> _Work:
        work = _Work(monkeypatch)
        handles.extend(work.watch(predictor))
        return work

    yield start
    for handle in handles:
        handle.remove()


@pytest.fixture(scope="module")
def predictors(checkpoints):
    """Predictors of every kind that retrieves, over 40 labels; no test changes them."""
    space, checkpoint = large_space(), checkpoints["bert"]
    rcl = sharpened(make_rcl(checkpoint, space, number=6))
    vectors = sharpened(make_rcl(checkpoint, space, "memory", number=6))
    retriever = make_retriever(checkpoint, space, lexical=True)
    base = sharpened(make_untrained(checkpoint, "base", space, max_labels=5))
    made = {
        "rcl": rcl,
        "rcl with vectors": vectors,
        # Fewer labels per source than the model reads: the deeper of both searches serves both.
        "hybrid": fused(rcl, number=4),
        "hybrid with trees": fused(rcl, make_trees(space), number=9),
        "hybrid of base": fused(base, retriever=make_retriever(checkpoint, space)),
    }
    found = {name: Predictor.from_model(*one) for name, one in made.items()}
    return {**found, "retriever": Predictor(space, retriever, ScoreModel())}


# The kinds that read most and least meet every request, each other one those that ask for least and most.
WHOLE = ("rcl", "hybrid with trees", "retriever")
CASES = [(kind, name) for kind in KINDS for name in REQUESTS if kind in WHOLE or name in ("own", "deep top_k")]


@pytest.mark.parametrize(("kind", "request_"), CASES)
def test_each_text_is_embedded_searched_and_encoded_once(predictors, watch, kind, request_):
    predictor = predictors[kind]
    work, (rule, allowed) = watch(predictor), REQUESTS[request_]
    new = [text for text in TEXTS if text != "printing"]  # that one is in the index, which has its embedding
    found = predictor.predict(TEXTS, rule=rule, allowed=allowed, batch_size=2)
    assert len(found) == len(TEXTS)
    batches = 2
    assert work.texts["find"] == len(TEXTS) and work.calls["find"] == batches
    assert work.texts["embed"] == len(new)
    encoded = len(TEXTS) if kind != "retriever" else 0
    assert work.texts["encode"] == encoded and work.calls["encode"] == (batches if encoded else 0)
    assert work.calls["rank"] <= (2 * batches if kind == "hybrid with trees" else 0)


@pytest.mark.parametrize("kind", ["rcl", "hybrid with trees"])
@pytest.mark.parametrize("decoding", [{"num_beams": 3}, {"num_samples": 2}, {"min_candidates": 9}])
def test_another_search_costs_no_more(predictors, watch, kind, decoding):
    predictor = predictors[kind]
    work = watch(predictor)
    predictor.predict(TEXTS, decoding=DecodingOptions(**decoding), rule=DecisionRule("top_k", 20))
    assert work.texts["find"] == work.texts["encode"] == len(TEXTS)
    assert work.calls["find"] == work.calls["encode"] == work.calls["embed"] == 1


def test_open_vocabulary_encodes_no_text_again(predictors, watch):
    predictor = predictors["hybrid"]
    work = watch(predictor)
    predictor.predict(TEXTS, open_vocabulary=True)
    assert work.texts["find"] == work.texts["encode"] == len(TEXTS)


def test_texts_of_the_index_are_not_embedded_again(predictors, watch):
    predictor = predictors["retriever"]
    work = watch(predictor)
    predictor.predict(["printing", "art and music"])
    assert work.texts["embed"] == 0 and work.texts["find"] == 2
