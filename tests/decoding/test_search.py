"""The search against brute force, against `generate` of transformers, and under every option."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from transformers import LogitsProcessorList

from xlgen_hf.decoding.constraints import LabelSetConstraint
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.decoding.logits_process import LabelSetLogitsProcessor, split_labels
from xlgen_hf.decoding.memory import XLGenMemory
from xlgen_hf.decoding.search import DecoderRows, walk
from xlgen_hf.errors import ConfigurationError, LabelSpaceError
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.labels.trie import LabelTrie

FAMILIES = ["t5", "bart", "bert", "modernbert"]
TEXTS = ["a history of church music", "modern art", "", "the piano " * 20, "organ"]
SMALL = LabelSpace(["music", "art", "church music", "church history", "organ"], [9, 7, 5, 2, 0])


def _sharpen(model):
    """Random models are indifferent: larger output weights make their choices differ clearly."""
    with torch.no_grad():
        model.get_output_embeddings().weight.mul_(6)
    return model.eval()


def _sequence_log_probs(model, processor, text, sequences):
    """Log-probability of whole label sequences by teacher forcing, one by one."""
    memory, _ = model.encode_batch(processor.encode_texts([text]), processor)
    found = []
    for labels in sequences:
        target = torch.tensor([processor.label_tokenizer.build_target(labels)])
        logits = model(encoder_outputs=memory, labels=target).logits.log_softmax(-1)
        columns = model.piece_positions(target)
        found.append(float(logits.gather(2, columns[:, :, None]).sum()))
    return found


@pytest.mark.parametrize("variant", ["base", "bcl", "mcg"])
@pytest.mark.parametrize("family", FAMILIES)
@torch.no_grad()
def test_a_wide_beam_finds_all_sets_and_the_best_one_first(make_model, family, variant):
    model, processor = make_model(family, variant, SMALL)
    _sharpen(model)
    sequences = [list(p) for size in (1, 2) for p in itertools.permutations(range(5), size)]
    expected = _sequence_log_probs(model, processor, TEXTS[0], sequences)
    ranked = sorted(range(len(sequences)), key=lambda i: -expected[i])
    ids = processor.encode_texts(TEXTS[:2])
    memory, _ = model.encode_batch(ids, processor)
    options = DecodingOptions(num_beams=len(sequences), min_labels=1, max_labels=2)
    sets = model._search(memory.select(torch.tensor([0])), model._label_constraint(processor, options, 1), options, 64)
    assert [[x for x in row if x >= 0] for row in sets.labels[0].tolist()] == [sequences[i] for i in ranked]
    np.testing.assert_allclose(sets.score[0], [expected[i] for i in ranked], atol=1e-4)
    best = model.decode_texts(ids, processor, options)[0]
    assert best.labels == sequences[ranked[0]]
    assert best.complete


@pytest.mark.parametrize("order", ["freq_forward", "freq_backward", "alphabet"])
@torch.no_grad()
def test_in_training_order_each_set_has_one_sequence(make_model, order):
    space = LabelSpace(SMALL.names, SMALL.counts, order)
    model, processor = make_model("t5", space=space)
    _sharpen(model)
    subsets = [space.order(s) for size in (1, 2, 3) for s in itertools.combinations(range(5), size)]
    expected = _sequence_log_probs(model, processor, TEXTS[0], subsets)
    options = DecodingOptions(num_beams=40, min_labels=1, max_labels=3, ordered=True)
    memory, _ = model.encode_batch(processor.encode_texts(TEXTS[:1]), processor)
    sets = model._search(memory, model._label_constraint(processor, options, 1), options, 64)
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
def test_greedy_search_equals_that_of_transformers(make_model, family, variant):
    model, processor = make_model(family, variant)
    _sharpen(model)
    ids = processor.encode_texts(TEXTS)
    memory, _ = model.encode_batch(ids, processor)
    sequences = model.generate(
        encoder_outputs=memory,
        attention_mask=memory.attention_mask,
        logits_processor=LogitsProcessorList(
            [
                LabelSetLogitsProcessor(
                    processor.label_tokenizer.trie, processor.eos_token_id, min_labels=2, max_labels=4
                )
            ]
        ),
        num_beams=1,
        do_sample=False,
        max_new_tokens=60,
    )[:, 1:].numpy()
    expected = [
        [processor.label_tokenizer.trie.label_of(row[a : b + 1].tolist()) for a, b in spans]
        for row, spans in zip(
            sequences, split_labels(sequences, processor.label_tokenizer.separator_token_id), strict=True
        )
    ]
    decoded = model.decode_texts(ids, processor, DecodingOptions(min_labels=2, max_labels=4))
    assert [one.labels for one in decoded] == expected


@pytest.mark.parametrize("options", [{}, {"num_beams": 3}, {"num_samples": 4, "temperature": 2.0}])
@pytest.mark.parametrize("family", FAMILIES)
def test_batching_changes_nothing_and_every_set_is_valid(make_model, family, options):
    model, processor = make_model(family, "bcl")
    _sharpen(model)
    together = model.predict(TEXTS, processor, min_labels=2, max_labels=4, **options)
    for prediction in together:
        assert 2 <= len(prediction.labels) <= 4
        assert len(set(prediction.labels)) == len(prediction.labels)
        assert prediction.scores == sorted(prediction.scores, reverse=True)
        assert all(0 <= score <= 1 for score in prediction.scores)
    if "num_samples" in options:  # draws depend on the batch; the same call draws the same
        assert model.predict(TEXTS, processor, min_labels=2, max_labels=4, **options) == together
        return
    alone = [model.predict([text], processor, min_labels=2, max_labels=4, **options)[0] for text in TEXTS]
    for one, other in zip(together, alone, strict=True):
        assert one.labels == other.labels
        assert one.scores == pytest.approx(other.scores, abs=1e-4)


def test_samples_come_as_often_as_they_are_probable():
    """Three labels of one token each, a fixed distribution: frequencies follow it, over what is open."""
    trie = LabelTrie([[3], [4], [5]])
    probabilities = torch.tensor([0.0, 0.1, 0.0, 0.5, 0.3, 0.1])

    def step(memory, tokens, cache):
        return probabilities.log().expand(len(tokens), -1), None

    rows = DecoderRows(step, XLGenMemory(torch.zeros(1, 1, 1), torch.ones(1, 1)))
    constraint = LabelSetConstraint(trie, min_labels=1, max_labels=1)
    generator = torch.Generator().manual_seed(0)
    sets = walk(rows, constraint, 0, 1, 8, samples=4000, generator=generator)
    shares = np.bincount(sets.labels[0, :, 0], minlength=3) / 4000
    np.testing.assert_allclose(shares, np.array([0.5, 0.3, 0.1]) / 0.9, atol=0.03)


@torch.no_grad()
def test_candidates_of_beams_weigh_the_sets(make_model):
    model, processor = make_model("t5", space=SMALL)
    _sharpen(model)
    options = DecodingOptions(num_beams=4, min_labels=1, max_labels=2)
    memory, _ = model.encode_batch(processor.encode_texts(TEXTS[:1]), processor)
    sets = model._search(memory, model._label_constraint(processor, options, 1), options, 64)
    weight = np.exp(sets.score[0]) / np.exp(sets.score[0]).sum()
    expected: dict[int, float] = {}
    for member in range(4):
        for label, value in zip(sets.labels[0, member].tolist(), sets.log_probs[0, member].tolist(), strict=True):
            if label >= 0:
                expected[label] = expected.get(label, 0) + weight[member] * np.exp(value)
    assert model.decode_texts(processor.encode_texts(TEXTS[:1]), processor, options)[0].candidates == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize("options", [{"num_beams": 4}, {"num_samples": 5}])
@torch.no_grad()
def test_beams_and_samples_are_fused(make_model, options):
    model, processor = make_model("t5", space=SMALL)
    _sharpen(model)
    memory, _ = model.encode_batch(processor.encode_texts(TEXTS), processor)
    plain = DecodingOptions(min_labels=1, max_labels=3, **options)
    sets = model._search(memory, model._label_constraint(processor, plain, 1), plain, 64)
    found = {
        pool: model.decode_texts(
            processor.encode_texts(TEXTS), processor, DecodingOptions(min_labels=1, max_labels=3, pool=pool, **options)
        )
        for pool in ("best", "average", "vote", "union")
    }
    for text in range(len(TEXTS)):
        members = [{x for x in row if x >= 0} for row in sets.labels[text].tolist()]
        shares = {label: sum(label in one for one in members) / len(members) for label in set().union(*members)}
        assert set(found["best"][text].labels) == members[0]
        assert set(found["union"][text].labels) == set(shares)
        assert set(found["vote"][text].labels) == {label for label, share in shares.items() if share > 0.5}
        assert found["vote"][text].candidates == pytest.approx(shares)
        assert len(found["average"][text].labels) == round(sum(map(len, members)) / len(members))


def test_greedy_search_goes_on_for_candidates_and_keeps_its_own_set(make_model):
    model, processor = make_model("bert")
    _sharpen(model)
    own = model.decode(TEXTS, processor, DecodingOptions(min_labels=1, max_labels=5))
    more = model.decode(TEXTS, processor, DecodingOptions(min_labels=1, max_labels=5, num_candidates=5))
    assert [one.labels for one in more] == [one.labels for one in own]
    assert all(len(one.candidates) == 5 for one in more)
    assert all(set(one.labels) <= set(one.candidates) for one in more)


@torch.no_grad()
def test_given_labels_are_scored_as_teacher_forcing_scores_them(make_model):
    model, processor = make_model("bart", "bcl", SMALL)
    _sharpen(model)
    names = list(SMALL.names)
    scores = model.score(TEXTS[:2], [names, names[::-1]], processor)
    for text, row, order in zip(TEXTS[:2], scores, (1, -1), strict=True):
        for label, score in zip(range(5)[::order], row, strict=True):
            target = torch.tensor([processor.label_tokenizer.build_target([label])[:-1]])
            memory, _ = model.encode_batch(processor.encode_texts([text]), processor)
            logits = model(encoder_outputs=memory, labels=target).logits.log_softmax(-1)
            expected = logits.gather(2, model.piece_positions(target)[:, :, None]).sum().exp()
            assert score == pytest.approx(float(expected), rel=1e-3)


@torch.no_grad()
def test_candidates_stand_at_their_place_among_given_labels(make_model):
    """Given the labels 0 and 3, label 2 is scored behind 0; a given label behind those before it."""
    model, processor = make_model("t5", space=SMALL)
    _sharpen(model)
    names = list(SMALL.names)
    given = [[names[3], names[0]]]
    scores = model.score(TEXTS[:1], [[names[2], names[3], names[4]]], processor, given=given)[0]
    with_end = {tuple(s): v for s, v in zip(
        ([0, 2], [0, 3], [0, 3, 4]),
        _prefix_log_probs(model, processor, TEXTS[0], [[0, 2], [0, 3], [0, 3, 4]]), strict=True,
    )}  # fmt: skip
    alone = dict(zip(("0", "03"), _prefix_log_probs(model, processor, TEXTS[0], [[0], [0, 3]]), strict=True))
    expected = [
        np.exp(with_end[0, 2] - alone["0"]),
        np.exp(with_end[0, 3] - alone["0"]),
        np.exp(with_end[0, 3, 4] - alone["03"]),
    ]
    assert scores == pytest.approx(expected, rel=1e-3)


def test_texts_with_given_labels_of_any_length_are_scored_as_alone(make_model):
    model, processor = make_model("bert", space=SMALL)
    _sharpen(model)
    texts = TEXTS[:3]
    wanted, given = [[1, 2, 4], [], [0, 4]], [[0, 3], [1], []]
    ids = processor.encode_texts(texts)
    together = model.score_ids(ids, wanted, processor, given=given)
    for row in range(3):
        alone = model.score_ids(ids[row : row + 1], wanted[row : row + 1], processor, given=given[row : row + 1])
        assert together[row] == pytest.approx(alone[0], rel=1e-4)
    least = float(np.median([value for row in together for value in row]))
    cut = model.score_ids(ids, wanted, processor, given=given, least=least)
    for exact, bound in zip(np.concatenate(together), np.concatenate(cut), strict=True):
        assert bound == pytest.approx(exact, rel=1e-4) if exact >= least else exact * 0.999 <= bound < least


def _prefix_log_probs(model, processor, text, sequences):
    """As `_sequence_log_probs`, without the end token."""
    memory, _ = model.encode_batch(processor.encode_texts([text]), processor)
    found = []
    for labels in sequences:
        target = torch.tensor([processor.label_tokenizer.build_target(labels)[:-1]])
        logits = model(encoder_outputs=memory, labels=target).logits.log_softmax(-1)
        found.append(float(logits.gather(2, model.piece_positions(target)[:, :, None]).sum()))
    return found


def test_restricted_labels_alone_are_predicted(make_model):
    model, processor = make_model("bert")
    allowed = np.array([1, 4])
    for options in ({}, {"num_beams": 3}):
        for prediction in model.predict(TEXTS, processor, labels=allowed, min_labels=3, max_labels=4, **options):
            assert set(prediction.labels) == set(processor.label_space.decode(allowed))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams=0"),
        ({"num_beams": 2, "num_samples": 2}, "choose one"),
        ({"num_beams": 2, "pool": "mean"}, "pool='mean'"),
        ({"num_samples": 2, "temperature": 0.0}, r"temperature=0\.0"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        DecodingOptions(**options)


def test_what_cannot_be_decoded_is_refused(make_model):
    model, processor = make_model("t5", space=LabelSpace(SMALL.names, SMALL.counts, "shuffle"))
    with pytest.raises(LabelSpaceError, match="'shuffle': there is no order"):
        model.predict(TEXTS, processor, ordered=True)
    with pytest.raises(ConfigurationError, match="min_labels=5, max_labels=2"):
        model.predict(TEXTS, processor, min_labels=5, max_labels=2)
    with pytest.raises(ConfigurationError, match="2 texts come with candidates for 1"):
        model.score(TEXTS[:2], [["art"]], processor)
