"""Evidence in predictions of every kind of model: the same labels and scores, and what led to each."""

from __future__ import annotations

import json

import pytest
from sources import ROW_TEXTS, TEXTS, fused, make_rcl, make_retriever, make_trees, sharpened

from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.vocabulary import Vocabulary
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.prediction.results import form_of_answers
from xlgen_hf.ranking.decisions import DecisionRule

OF_RETRIEVAL = {"retrieval", "neighbors", "names", "lexical_neighbors", "lexical_names"}
RULES = [None, DecisionRule("top_k", 3), DecisionRule("threshold", 0.9)]


def _retriever(checkpoints, space, make_model):
    return Predictor(space, make_retriever(checkpoints["bert"], space, lexical=True)), OF_RETRIEVAL, {"retrieval"}


def _trees(checkpoints, space, make_model):
    pytest.importorskip("omikuji", reason="the extra `baselines` is not installed")
    return Predictor(space, make_trees(space)), set(), {"label_trees"}


def _base(checkpoints, space, make_model):
    return Predictor.from_model(*sharpened(make_model_pair(make_model, "base"))), set(), {"generated"}


def _rcl(checkpoints, space, make_model):
    made = sharpened(make_rcl(checkpoints["bert"], space))
    return Predictor.from_model(*made), OF_RETRIEVAL, {"generated", "input"}


def _head(checkpoints, space, make_model):
    made = make_rcl(checkpoints["bert"], space, predicts_with="candidate_head", generation_loss_weight=0.0)
    return Predictor.from_model(made.model.eval(), made.processor), OF_RETRIEVAL, {"retrieval", "input"}


def _hybrid(checkpoints, space, make_model):
    made = fused(sharpened(make_rcl(checkpoints["bert"], space)))
    names = {"retrieval", "generated", "input"}
    return Predictor.from_model(*made), {*OF_RETRIEVAL, "generated", "teacher_forced"}, names


def make_model_pair(make_model, variant):
    from sources import Made

    return Made(*make_model("bert", variant))


@pytest.mark.parametrize("make", [_retriever, _trees, _base, _rcl, _head, _hybrid])
@pytest.mark.parametrize("rule", RULES)
def test_a_prediction_with_evidence_is_the_same(checkpoints, label_space, make_model, made, make, rule):
    if make not in made:
        made[make] = make(checkpoints, label_space, make_model)
    predictor, scores, places = made[make]
    plain = predictor.predict(TEXTS, rule=rule, batch_size=2)
    explained = predictor.predict(TEXTS, rule=rule, batch_size=2, evidence=True)
    counts = dict(zip(label_space.names, label_space.counts.tolist(), strict=True))
    for one, other in zip(plain, explained, strict=True):
        assert one.evidence is None and other.labels == one.labels
        assert other.scores == pytest.approx(one.scores, abs=1e-6)
        assert [reason.label for reason in other.evidence] == other.labels
        assert [reason.score for reason in other.evidence] == other.scores
        read = other.candidates or []
        assert [reason.places.get("input", 0) for reason in other.evidence] == [
            read.index(label) + 1 if label in read else 0 for label in other.labels
        ]
        assert one.candidates is None and bool(read) == ("input" in places)
        for reason in other.evidence:
            assert scores <= set(reason.scores) and set(reason.places) <= places
            assert reason.training_rows == counts[reason.label]
            assert all(0 <= value <= 1 for value in reason.scores.values())
            assert all(place >= 1 for place in reason.places.values())
        json.dumps(other.to_dict())
        assert "evidence" not in one.to_dict()


def test_retrieval_scores_every_label_whoever_found_it(checkpoints, label_space, make_model):
    """The fault: of labels that came from elsewhere the evidence said that retrieval gave them 0."""
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=True)
    predictor = Predictor.from_model(
        *fused(sharpened(make_model_pair(make_model, "base")), retriever=retriever, number=2)
    )
    ranked = retriever.rank(TEXTS, len(label_space))
    known = {
        (text, label_space.names[label]): score
        for text, label, score in zip(
            ranked.text.tolist(), ranked.labels.tolist(), ranked.scores.tolist(), strict=True
        )
    }
    found = predictor.predict(TEXTS, rule=DecisionRule("top_k", 8), evidence=True)
    for text, one in enumerate(found):
        for reason in one.evidence:
            assert reason.scores["retrieval"] == pytest.approx(known.get((text, reason.label), 0), abs=1e-6)


def test_places_are_those_in_the_rankings(checkpoints, label_space, make_model):
    predictor, _, _ = _hybrid(checkpoints, label_space, make_model)
    retriever = predictor.score_model.sources["retrieval"]
    depth = predictor.score_model.fusion.candidates_per_source
    ranked = [label_space.decode(row.tolist()) for row in retriever.rank(TEXTS, depth).labels.reshape(-1, depth)]
    for names, one in zip(ranked, predictor.predict(TEXTS, rule=DecisionRule("top_k", 5), evidence=True), strict=True):
        for reason in one.evidence:
            place = names.index(reason.label) + 1 if reason.label in names else None
            assert reason.places.get("retrieval") == place


@pytest.mark.parametrize("variant", ["bcl", "mcg"])
def test_clusters_that_hold_the_label_are_named(make_model, variant):
    made = sharpened(make_model_pair(make_model, variant))
    predictor = Predictor.from_model(*made)
    assignment = made.processor.clusters.assignment
    guided = 0
    for one in predictor.predict(TEXTS, rule=DecisionRule("top_k", 4), evidence=True):
        for reason in one.evidence:
            own = predictor.cluster_names[assignment[made.processor.label_space.index[reason.label]]]
            assert reason.clusters == ([own] if own in one.clusters else [])
            guided += len(reason.clusters)
    assert guided


def test_aliases_are_named_and_labels_follow_the_language(checkpoints, label_space):
    concepts = [Concept(id=f"c{place}", names={"en": name, "de": f"{name} (de)"}) for place, name in
                enumerate(label_space.names)]  # fmt: skip
    vocabulary = Vocabulary(concepts, "en")
    further = vocabulary.further_names(label_space.index)
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=True, further=further)
    predictor = Predictor(label_space, retriever, vocabulary=vocabulary)
    (found,) = predictor.predict(["church music (de)"], evidence=True)
    names = {match.name for reason in found.evidence for match in reason.names if match.by == "lexical"}
    assert "church music (de)" in names
    german = form_of_answers(vocabulary, output_language="de")(found)
    assert [reason.label for reason in german.evidence] == german.labels == [f"{one} (de)" for one in found.labels]


def test_the_model_itself_gives_evidence(checkpoints, label_space):
    made = sharpened(make_rcl(checkpoints["bert"], label_space))
    (found,) = made.model.predict(ROW_TEXTS[:1], made.processor, evidence=True)
    assert [reason.label for reason in found.evidence] == found.labels
