"""`top_k` gives as many labels as asked for, or as there are, and the first of them are those of a smaller k."""

from __future__ import annotations

import numpy as np
import pytest
from sources import TEXTS, Made, fused, large_space, make_rcl, make_retriever, make_trees, sharpened

from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.pipeline import XLGenPipeline
from xlgen_hf.prediction.ensemble import Ensemble
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.fitting import calibrated_model
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.ranking.scored_labels import ScoredLabels

SIZES = (1, 4, 11, 99)  # 4 candidates per source, 5 labels of a set, some 10 in beams, 40 labels
BASES = ("base", "bcl", "mcg")
HYBRIDS = ("hybrid", "hybrid with trees")
KINDS = (*BASES, "rcl", *HYBRIDS, "retriever", "label trees")


@pytest.fixture(scope="module")
def space():
    return large_space()


@pytest.fixture
def make_new(make_model, checkpoints, space):
    """A function that makes a predictor of each kind; sets have at most 5 labels, sources bring 4 each."""

    def make_predictor(kind: str) -> Predictor:
        if kind == "retriever":
            return Predictor(space, make_retriever(checkpoints["bert"], space, lexical=True))
        if kind == "label trees":
            return Predictor(space, make_trees(space))
        if kind in BASES:
            return Predictor.from_model(*sharpened(Made(*make_model("bert", kind, space=space, max_labels=5))))
        made = sharpened(make_rcl(checkpoints["bert"], space, number=6))
        if kind in HYBRIDS:
            made = fused(made, make_trees(space) if kind == "hybrid with trees" else None)
        return Predictor.from_model(*made)

    return make_predictor


@pytest.fixture
def make(make_new, made):
    """The same, for tests that do not change what they get."""
    return lambda kind: made.get(kind) or made.setdefault(kind, make_new(kind))


def _top(predictor, k, texts=TEXTS, **options):
    """Label names and scores of each text, checked for what every prediction promises."""
    found = predictor.predict(texts, rule=DecisionRule("top_k", k), **options)
    for one in found:
        assert len(set(one.labels)) == len(one.labels) == len(one.scores)
        assert one.scores == sorted(one.scores, reverse=True)
        assert all(0 <= score <= 1 for score in one.scores)
    return [(one.labels, one.scores) for one in found]


def _check_sizes(predictor, sizes, available, **options):
    """`k` labels for each text, or all that there are; those of a smaller `k` first, with their scores."""
    before = [([], [])] * len(TEXTS)
    for k in sizes:
        found = _top(predictor, k, **options)
        for (labels, scores), (few, few_scores) in zip(found, before, strict=True):
            assert len(labels) == min(k, available)
            assert labels[: len(few)] == few
            assert scores[: len(few)] == pytest.approx(few_scores, abs=1e-5)
        before = found
    return before


@pytest.mark.parametrize("kind", KINDS)
def test_as_many_labels_as_asked_for_or_as_there_are(make, kind):
    predictor = make(kind)
    available = 8 if kind == "label trees" else 40  # trees rank the labels that the rows have
    _check_sizes(predictor, SIZES, available)


@pytest.mark.parametrize(
    ("kind", "decoding"),
    [
        ("base", {"num_beams": 4}),
        ("rcl", {"num_beams": 4}),
        ("base", {"num_beams": 3, "pool": "vote"}),
        ("hybrid with trees", {"num_beams": 3, "pool": "vote"}),
        ("base", {"num_samples": 3}),
        ("hybrid with trees", {"num_samples": 3}),
        ("base", {"max_labels": 1}),
        ("rcl", {"max_labels": 1}),
    ],
)
def test_whatever_the_search(make, kind, decoding):
    """A plain generator with each search; of the others, which hand the search on to it, each search with one."""
    _check_sizes(make(kind), (2, 11, 99), 40, decoding=DecodingOptions(**decoding))


@pytest.mark.parametrize("kind", KINDS)
def test_fewer_allowed_labels_than_asked_for_are_all_given(make, space, kind):
    allowed = np.array([0, 2, 5, 7] if kind == "label trees" else [0, 5, 21, 39])
    everything = _check_sizes(make(kind), (1, 3, 50), 4, allowed=allowed)
    assert all(set(labels) == set(space.decode(allowed)) for labels, _ in everything)


@pytest.mark.parametrize("kind", ["base", "rcl", "hybrid"])
def test_a_target_may_hold_few_labels(make_new, kind):
    """Targets of 16 tokens hold one or two labels at a time; labels that never fit are not generated."""
    predictor = make_new(kind)
    processor: XLGenProcessor = predictor.source.processor
    processor.max_target_length = 16
    never = processor.label_tokenizer.oversized_labels
    predictor = Predictor.from_model(predictor.source.model, processor)
    # A hybrid's retriever knows labels that the generator cannot spell.
    _check_sizes(predictor, (2, 11, 99), 40 if kind == "hybrid" else 40 - len(never))


def test_the_set_of_a_small_k_is_that_above_a_threshold(make):
    """All rules that go by scores choose from one ranking."""
    predictor = make("rcl")
    for (labels, scores), one in zip(
        _top(predictor, 99), predictor.predict(TEXTS, rule=DecisionRule("threshold", 0.05)), strict=True
    ):
        assert one.labels == labels[: len(one.labels)]
        assert one.scores == pytest.approx(scores[: len(one.scores)], abs=1e-5)


def test_calibrated_scores_keep_their_order(make, space):
    """Curves of frequent and rare labels differ; what fills up comes last all the same."""
    predictor = make("base")
    random = np.random.default_rng(0)
    rows = [(random.permutation(40)[:20].tolist(), random.random(20).tolist(), [True] * 20) for _ in range(80)]
    references = [labels[:8] for labels, _, _ in rows]
    score_model = calibrated_model(ScoredLabels.from_rows(rows), references, space.counts)
    assert score_model.calibrator is not None
    calibrated = Predictor(space, predictor.source, score_model)
    _check_sizes(calibrated, SIZES, 40)


def test_a_rule_of_the_model_is_kept(make, space):
    ruled = Predictor(space, make("base").source, ScoreModel(rule=DecisionRule("top_k", 13)))
    for own, (labels, _) in zip(ruled.predict(TEXTS), _top(ruled, 13), strict=True):
        assert own.labels == labels


@pytest.mark.parametrize("how", ["average", "vote", "union"])
def test_ensembles_give_as_many(make, how):
    ensemble = Ensemble([make("base"), make("retriever")], how)
    for k in (1, 7, 99):
        assert [len(labels) for labels, _ in _top(ensemble, k)] == [min(k, 40)] * len(TEXTS)


def test_a_pipeline_gives_as_many(make):
    source = make("bcl").source
    tagger = XLGenPipeline(source.model, source.processor)
    for k in (3, 25):
        found = tagger(TEXTS, top_k=k)
        assert [len(row) for row in found] == [k] * len(TEXTS)
        expected = _top(Predictor.from_model(source.model, source.processor), k)
        assert [[one["label"] for one in row] for row in found] == [labels for labels, _ in expected]


def test_a_generator_fills_up_in_the_order_of_generation(make):
    """The search is the same for every k; what comes further is scored at most as what came before."""
    generator: Generator = make("base").source
    own = generator.rank(TEXTS)
    for k in (1, 12, 30):
        more = generator.rank(TEXTS, k)
        for text in range(len(TEXTS)):
            before, after = (one.take([text]) for one in (own, more))
            size = len(before.labels)
            assert len(after.labels) == max(k, size)
            assert set(before.labels.tolist()) == set(after.labels[:size].tolist())
            assert not after.chosen[size:].any()
