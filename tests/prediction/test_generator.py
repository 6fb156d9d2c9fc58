"""The generator's search against brute force, against `generate` of transformers, and under every option."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from sources import Made, sharpened
from transformers import LogitsProcessorList

from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.decoding.logits_process import LabelSetLogitsProcessor, split_labels
from xlgen_hf.errors import ConfigurationError, LabelSpaceError
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.prediction.predictor import Predictor
from xlgen_hf.ranking.decisions import DecisionRule

FAMILIES = ["t5", "bart", "bert", "modernbert"]
TEXTS = ["a history of church music", "modern art", "", "the piano " * 20, "organ"]
SMALL = LabelSpace(["music", "art", "church music", "church history", "organ"], [9, 7, 5, 2, 0], "freq_forward")


@pytest.fixture
def make(make_model):
    """A function that builds a model whose choices differ clearly."""

    def make_from(*arguments, **options) -> Made:
        return sharpened(Made(*make_model(*arguments, **options)))

    return make_from


def _sets(made, options, texts=TEXTS[:1]):
    """All sets of a search."""
    generator = Generator(*made)
    return generator.search(generator.encode(made.processor.encode_texts(texts)), options)


def _decoded(made, options=None, texts=TEXTS):
    return Generator(*made, options).decoded(texts)


def _log_probs(made, text, sequences, *, end=True):
    """Log-probability of whole label sequences by teacher forcing, one by one."""
    model, processor = made
    memory = Generator(model, processor).encode(processor.encode_texts([text])).memory
    found = []
    for labels in sequences:
        target = torch.tensor([processor.label_tokenizer.build_target(labels)[: None if end else -1]])
        with torch.no_grad():
            logits = model(encoder_outputs=memory, labels=target).logits.log_softmax(-1)
        found.append(float(logits.gather(2, model.output_positions(target)[:, :, None]).sum()))
    return found


# ------------------------------------------------------------------------------------------------ search


@pytest.mark.parametrize("variant", ["base", "bcl", "mcg"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_wide_beam_finds_all_sets_and_the_best_one_first(make, family, variant):
    made = make(family, variant, SMALL)
    sequences = [list(p) for size in (1, 2) for p in itertools.permutations(range(5), size)]
    expected = _log_probs(made, TEXTS[0], sequences)
    ranked = sorted(range(len(sequences)), key=lambda i: -expected[i])
    options = DecodingOptions(num_beams=len(sequences), min_labels=1, max_labels=2)
    sets = _sets(made, options)
    assert [[x for x in row if x >= 0] for row in sets.labels[0].tolist()] == [sequences[i] for i in ranked]
    np.testing.assert_allclose(sets.score[0], [expected[i] for i in ranked], atol=1e-4)
    best = _decoded(made, options, TEXTS[:2])[0]
    assert best.labels == sequences[ranked[0]]
    assert best.complete


@pytest.mark.parametrize("order", ["freq_forward", "freq_backward", "alphabet"])
def test_in_training_order_each_set_has_one_sequence(make, order):
    space = LabelSpace(SMALL.names, SMALL.counts, order)
    made = make("t5", space=space)
    subsets = [space.order(s) for size in (1, 2, 3) for s in itertools.combinations(range(5), size)]
    expected = _log_probs(made, TEXTS[0], subsets)
    sets = _sets(made, DecodingOptions(num_beams=40, min_labels=1, max_labels=3, ordered=True))
    found = {
        tuple(x for x in row if x >= 0): score
        for row, score in zip(sets.labels[0].tolist(), sets.score[0], strict=True)
    }
    found.pop((), None)  # more beams than sets: the rest is empty
    assert found == pytest.approx({tuple(s): v for s, v in zip(subsets, expected, strict=True)}, abs=1e-4)
    assert np.isneginf(sets.score[0][len(subsets) :]).all()


@pytest.mark.parametrize("variant", ["base", "bcl"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_greedy_search_equals_that_of_transformers(make, family, variant):
    model, processor = made = make(family, variant)
    labels = processor.label_tokenizer
    memory = Generator(model, processor).encode(processor.encode_texts(TEXTS)).memory
    constraint = LabelSetLogitsProcessor(labels.trie, processor.eos_token_id, min_labels=2, max_labels=4)
    sequences = model.generate(
        encoder_outputs=memory,
        attention_mask=memory.attention_mask,
        logits_processor=LogitsProcessorList([constraint]),
        num_beams=1,
        do_sample=False,
        max_new_tokens=60,
    )[:, 1:].numpy()
    expected = [
        [labels.trie.label_of(row[a : b + 1].tolist()) for a, b in spans]
        for row, spans in zip(sequences, split_labels(sequences, labels.separator_token_id), strict=True)
    ]
    assert [one.labels for one in _decoded(made, DecodingOptions(min_labels=2, max_labels=4))] == expected


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_samples": 4, "temperature": 2.0}])
@pytest.mark.parametrize("family", FAMILIES)
def test_batching_changes_nothing_and_every_set_is_valid(make, family, options):
    model, processor = make(family, "bcl")
    decoding = DecodingOptions(min_labels=2, max_labels=4, **options)
    together = model.predict(TEXTS, processor, decoding=decoding)
    for prediction in together:
        assert 2 <= len(prediction.labels) <= 4
        assert len(set(prediction.labels)) == len(prediction.labels)
        assert prediction.scores == sorted(prediction.scores, reverse=True)
        assert all(0 <= score <= 1 for score in prediction.scores)
    alone = [model.predict([text], processor, decoding=decoding)[0] for text in TEXTS]
    for one, other in zip(together, alone, strict=True):
        assert one.labels == other.labels
        assert one.scores == pytest.approx(other.scores, abs=1e-4)


def test_the_model_s_own_bounds_give_way_to_those_that_are_asked_for(make):
    model, processor = make("bert", min_labels=3, max_labels=4)
    for number, options in ((2, {"max_labels": 2}), (5, {"min_labels": 5})):
        found = model.predict(TEXTS, processor, decoding=DecodingOptions(**options))
        assert [len(one.labels) for one in found] == [number] * len(TEXTS)


@pytest.mark.parametrize("options", [{"num_beams": 1}, {"num_beams": 3}, {"num_samples": 4, "pool": "vote"}])
@pytest.mark.parametrize("order", ["freq_forward", "alphabet"])
def test_in_order_the_minimum_is_reached(make, order, options):
    """Whatever was chosen first; of fewer labels to choose from all are taken."""
    model, processor = make("bert", space=LabelSpace(SMALL.names, SMALL.counts, order))
    for allowed, number in ((None, 4), (np.array([4, 0, 2]), 3)):
        decoding = DecodingOptions(min_labels=4, max_labels=5, ordered=True, **options)
        for prediction in model.predict(TEXTS, processor, decoding=decoding, allowed=allowed):
            assert number <= len(prediction.labels)
            labels = processor.label_space.encode(prediction.labels)
            assert allowed is None or set(labels) == set(allowed.tolist())


def test_candidates_that_are_wanted_change_no_set_in_order(make):
    made = make("bert")
    options = {"min_labels": 2, "max_labels": 4, "ordered": True}
    own = _decoded(made, DecodingOptions(**options))
    more = _decoded(made, DecodingOptions(min_candidates=7, **options))
    assert [one.labels for one in more] == [one.labels for one in own]
    assert all(2 <= len(one.labels) <= 4 for one in own)


@pytest.mark.parametrize("options", [{"num_beams": 3}, {"num_samples": 4}])
@pytest.mark.parametrize("pool", ["average", "vote", "union"])
def test_bounds_are_those_of_the_pooled_set(make, pool, options):
    model, processor = make("bert")
    given = [["music"], ["art", "organ"], [], ["piano"], ["music", "art"]]
    for least, most in ((1, 1), (3, 3), (2, 4)):
        decoding = DecodingOptions(min_labels=least, max_labels=most, pool=pool, **options)
        for one in model.predict(TEXTS, processor, decoding=decoding):
            assert least <= len(one.labels) <= most
        for one, held in zip(model.predict(TEXTS, processor, decoding=decoding, given=given), given, strict=True):
            number = len(held)
            assert max(least - number, 0) <= len(one.labels) <= max(most - number, 0)


def test_allowed_labels_alone_are_predicted(make):
    model, processor = make("bert")
    allowed = np.array([1, 4])
    for options in ({}, {"num_beams": 3}):
        decoding = DecodingOptions(min_labels=3, max_labels=4, **options)
        for prediction in model.predict(TEXTS, processor, allowed=allowed, decoding=decoding):
            assert set(prediction.labels) == set(processor.label_space.decode(allowed))


def test_what_cannot_be_decoded_is_refused(make):
    model, processor = make("t5", space=LabelSpace(SMALL.names, SMALL.counts, "shuffle"))
    with pytest.raises(LabelSpaceError, match="'shuffle': there is no order"):
        model.predict(TEXTS, processor, decoding=DecodingOptions(ordered=True))
    for wanted in (0, 12):  # candidates that a greedy search would go on for
        with pytest.raises(ConfigurationError, match="min_labels=5, max_labels=2"):
            model.predict(
                TEXTS, processor, decoding=DecodingOptions(min_labels=5, max_labels=2, min_candidates=wanted)
            )
    with pytest.raises(ConfigurationError, match="pool='vote' has nothing to pool"):
        model.predict(TEXTS, processor, decoding=DecodingOptions(num_beams=1, pool="vote"))


# ------------------------------------------------------------------------------------------------ candidates


def test_candidates_of_beams_weigh_the_sets(make):
    made = make("t5", space=SMALL)
    options = DecodingOptions(num_beams=4, min_labels=1, max_labels=2)
    sets = _sets(made, options)
    weight = np.exp(sets.score[0]) / np.exp(sets.score[0]).sum()
    expected: dict[int, float] = {}
    for member in range(4):
        for label, value in zip(sets.labels[0, member].tolist(), sets.log_probs[0, member].tolist(), strict=True):
            if label >= 0:
                expected[label] = expected.get(label, 0) + weight[member] * np.exp(value)
    assert _decoded(made, options, TEXTS[:1])[0].candidates == pytest.approx(expected, rel=1e-4)


@pytest.mark.parametrize("options", [{"num_beams": 4}, {"num_samples": 5}])
def test_beams_and_samples_are_fused(make, options):
    made = make("t5", space=SMALL)
    sets = _sets(made, DecodingOptions(min_labels=1, max_labels=3, **options), TEXTS)
    found = {
        pool: _decoded(made, DecodingOptions(min_labels=1, max_labels=3, pool=pool, **options))
        for pool in ("best", "average", "vote", "union")
    }
    for text in range(len(TEXTS)):
        members = [{x for x in row if x >= 0} for row in sets.labels[text].tolist()]
        shares = {label: sum(label in one for one in members) / len(members) for label in set().union(*members)}
        assert set(found["best"][text].labels) == members[0]
        for pool, wanted in (("union", 0.0), ("vote", 0.5)):  # as far as the bounds go, the best ones
            labels = found[pool][text].labels
            chosen = {label for label, share in shares.items() if share > wanted}
            assert len(labels) == min(max(len(chosen), 1), 3)
            assert set(labels) <= chosen if chosen else set(labels) <= set(shares)
        assert found["vote"][text].candidates == pytest.approx(shares)
        assert len(found["average"][text].labels) == round(sum(map(len, members)) / len(members))


@pytest.mark.parametrize("max_labels", [1, 3, 5])
def test_greedy_search_goes_on_for_candidates_and_keeps_its_own_set(make, max_labels):
    made = make("bert")
    own = _decoded(made, DecodingOptions(min_labels=1, max_labels=max_labels))
    more = _decoded(made, DecodingOptions(min_labels=1, max_labels=max_labels, min_candidates=6))
    assert [one.labels for one in more] == [one.labels for one in own]
    assert [one.complete for one in more] == [one.complete for one in own]
    for one, other in zip(own, more, strict=True):
        assert len(other.candidates) == 6
        assert {label: other.candidates[label] for label in one.labels} == pytest.approx(one.candidates)


# ------------------------------------------------------------------------------------------------ given labels


@torch.no_grad()
def test_given_labels_are_scored_as_teacher_forcing_scores_them(make):
    made = make("bart", "bcl", SMALL)
    names = list(SMALL.names)
    scores = made.model.score(TEXTS[:2], [names, names[::-1]], made.processor)
    for text, row, order in zip(TEXTS[:2], scores, (1, -1), strict=True):
        expected = np.exp(_log_probs(made, text, [[label] for label in range(5)], end=False))
        assert row == pytest.approx(expected[::order].tolist(), rel=1e-3)


def test_candidates_stand_at_their_place_among_given_labels(make):
    """Given the labels 0 and 3, label 2 is scored after 0; a given label after those before it."""
    made = make("t5", space=SMALL)
    names = list(SMALL.names)
    given = [[names[3], names[0]]]
    scores = made.model.score(TEXTS[:1], [[names[2], names[3], names[4]]], made.processor, given=given)[0]
    sequences = [[0], [0, 3], [0, 2], [0, 3, 4]]
    first, both, second, third = _log_probs(made, TEXTS[0], sequences, end=False)
    assert scores == pytest.approx(np.exp([second - first, both - first, third - both]).tolist(), rel=1e-3)


def test_texts_with_given_labels_of_any_length_are_scored_as_alone(make):
    made = make("bert", space=SMALL)
    generator = Generator(*made)
    texts = made.processor.encode_texts(TEXTS[:3])
    wanted, given = [[1, 2, 4], [], [0, 4]], [[0, 3], [1], []]
    together = generator.score(generator.encode(texts), wanted, given)
    for row in range(3):
        alone = generator.score(generator.encode(texts[row : row + 1]), wanted[row : row + 1], given[row : row + 1])
        assert together[row] == pytest.approx(alone[0], rel=1e-4)
    floor = float(np.median([value for row in together for value in row]))
    cut = generator.score(generator.encode(texts), wanted, given, floor=floor)
    for exact, bound in zip(np.concatenate(together), np.concatenate(cut), strict=True):
        assert bound == pytest.approx(exact, rel=1e-4) if exact >= floor else exact * 0.999 <= bound < floor


def test_texts_candidates_and_given_labels_must_agree(make):
    model, processor = make("t5", space=SMALL)
    with pytest.raises(ConfigurationError, match="2 texts come with candidates for 1"):
        model.score(TEXTS[:2], [["art"]], processor)
    with pytest.raises(ConfigurationError, match="1 texts come with candidates for 1 and given labels for 2"):
        model.score(TEXTS[:1], [["art"]], processor, given=[["art"], []])
    with pytest.raises(LabelSpaceError, match="'nothing' is none of the 5 labels"):
        model.score(TEXTS[:1], [["nothing"]], processor)


@pytest.mark.parametrize("restrict_output", [True, False])
def test_new_labels_leave_the_former_predictor_as_it_was(make, restrict_output):
    former = Predictor.from_model(*make("t5", "base", restrict_output=restrict_output))
    before = former.predict(TEXTS, rule=DecisionRule("top_k", 3))
    predictor = former.with_labels(["organ history", "music"])
    assert predictor.label_space.names == (*former.label_space.names, "organ history")
    found = predictor.predict(["organ"], rule=DecisionRule("top_k", len(predictor.label_space)))[0]
    assert "organ history" in found.labels
    assert former.predict(TEXTS, rule=DecisionRule("top_k", 3)) == before
    assert "organ history" not in former.label_space
    shared = zip(former.source.model.parameters(), predictor.source.model.parameters(), strict=True)
    assert all(one is other for one, other in shared)
