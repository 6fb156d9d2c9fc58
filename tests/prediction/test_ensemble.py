"""Ensembles of predictors of any kind: how their labels meet, and what is combined."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sources import TEXTS, Made, fused, label_ids, make_rcl, make_retriever, make_trees, sharpened
from tiny import ROWS, VOCABULARY

from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.prediction.ensemble import Ensemble
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.scored_labels import combine


@pytest.fixture
def generator(make_model):
    return Predictor.from_model(*sharpened(Made(*make_model("bert", "bcl", max_labels=4))))


@pytest.fixture
def retriever(checkpoints, label_space):
    return Predictor(label_space, make_retriever(checkpoints["bert"], label_space))


@pytest.mark.parametrize("how", ["average", "vote", "union"])
def test_members_are_combined_as_their_scored_labels_are(generator, retriever, label_space, how):
    ensemble = Ensemble([generator, retriever], how)
    members = [one.score_model.rule.apply(one.rank(TEXTS)) for one in (generator, retriever)]
    expected = combine(members, how).sets()
    for one, (labels, scores), own in zip(ensemble.predict(TEXTS), expected, generator.predict(TEXTS), strict=True):
        assert one.labels == label_space.decode(labels)
        assert one.scores == pytest.approx(scores)
        assert one.clusters == own.clusters  # those of the first member


def test_an_ensemble_of_equals_is_as_each_of_them(retriever):
    for one, other in zip(Ensemble([retriever] * 3).predict(TEXTS), retriever.predict(TEXTS), strict=True):
        assert one.labels == other.labels
        assert one.scores == pytest.approx(other.scores)


@pytest.mark.parametrize("rule", [DecisionRule("top_k", 3), DecisionRule("expected_f1"), None])
def test_an_ensemble_of_one_hybrid_is_as_it_is(checkpoints, label_space, rule):
    """The fault: rules that rank labels got the scores that are for thresholds."""
    made = fused(sharpened(make_rcl(checkpoints["bert"], label_space)))
    hybrid = Predictor.from_model(*made)
    fusion = replace(hybrid.score_model.fusion, slope=0.5, shift=-1.0)
    hybrid.score_model = replace(hybrid.score_model, fusion=fusion)
    for one, other in zip(Ensemble([hybrid]).predict(TEXTS, rule=rule), hybrid.predict(TEXTS, rule=rule), strict=True):
        assert one.labels == other.labels
        assert one.scores == pytest.approx(other.scores)


def test_no_member_is_refused():
    with pytest.raises(ConfigurationError, match="An ensemble needs at least one model"):
        Ensemble([])


def test_labels_meet_by_their_names(checkpoints, label_space):
    """Members count other documents, so that their ids differ."""
    more = [row["labels"] for row in ROWS] + [["modern art", "organ"]] * 9
    other = LabelSpace.from_label_lists(more, VOCABULARY)
    assert other.names != label_space.names and set(other.names) == set(label_space.names)
    first = Predictor(label_space, make_trees(label_space))
    second = Predictor(other, make_retriever(checkpoints["bert"], other))
    assert label_ids(other) != label_ids(label_space)
    rule = DecisionRule("top_k", 99)
    alone = [{label: score for label, score in zip(one.labels, one.scores, strict=True)}
             for one in first.predict(TEXTS, rule=rule)]  # fmt: skip
    others = [{label: score for label, score in zip(one.labels, one.scores, strict=True)}
              for one in second.predict(TEXTS, rule=rule)]  # fmt: skip
    allowed = np.array(label_space.encode(["organ", "printing (output)", "art history"]))
    for ids, names in ((None, set(label_space.names)), (allowed, set(label_space.decode(allowed)))):
        found = Ensemble([first, second]).predict(TEXTS, rule=rule, allowed=ids)
        for one, some, more_of_it in zip(found, alone, others, strict=True):
            assert set(one.labels) == names
            mean = {name: (some.get(name, 0) + more_of_it.get(name, 0)) / 2 for name in names}
            assert dict(zip(one.labels, one.scores, strict=True)) == pytest.approx(mean, abs=1e-6)


def test_other_labels_are_refused(retriever, checkpoints):
    space = LabelSpace.from_label_lists([row["labels"] for row in ROWS], ["others"])
    other = Predictor(space, make_retriever(checkpoints["bert"], space))
    with pytest.raises(ConfigurationError, match=r"need the same labels; 3 names are labels of one alone, e\.g\."):
        Ensemble([retriever, other])


def test_options_of_a_search_need_generators_alone(generator, retriever):
    search = DecodingOptions(num_beams=3)
    assert Ensemble([generator] * 2).predict(TEXTS, decoding=search)
    with pytest.raises(ConfigurationError, match="num_beams=3: that is for a generator's search; this model has none"):
        Ensemble([generator, retriever]).predict(TEXTS, decoding=search)
