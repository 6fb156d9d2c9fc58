"""The candidate head: what it reads, its loss against values by hand, and what the decoder makes of it."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sources import Made, label_ids, make_rcl

from xlgen_hf.configuration_xlgen import NUM_CANDIDATE_SCORES, XLGenConfig
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.modules.candidate_head import CandidateHead, candidate_loss, candidate_spans
from xlgen_hf.modules.candidate_pointer import NOTHING, CandidatePointer, spelled_candidates
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.ranking.sources import PARTS
from xlgen_hf.retrieval.candidate_inputs import SCORES
from xlgen_hf.training.collator import DataCollatorForXLGen, ShareCollator, encode_dataset
from xlgen_hf.training.losses import LOSSES, loss_sums

TEXTS = ["a history of organ music", "printing", ""]
SEPARATOR, END = 9, 2
LEVELS = range(20, 28)

names = st.lists(st.integers(3, 5), min_size=1, max_size=3)


@pytest.fixture
def make(checkpoints, label_space):
    """A function that builds an RCL with random weights in its head."""

    def make_from(number=3, family="bert", **options) -> Made:
        made = make_rcl(checkpoints[family], label_space, "tokens", number, **options)
        if made.model.config.candidate_head:
            torch.manual_seed(5)
            for parameter in made.model.candidate_head.parameters():
                torch.nn.init.normal_(parameter)
        return made

    return make_from


def _batch(made, rows):
    return DataCollatorForXLGen(made.processor, "rcl")(list(encode_dataset(rows, made.processor, training=True)))


# ------------------------------------------------------------------------------------------------ the head itself


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(10, 15), st.lists(names, max_size=4)), min_size=1, max_size=4))
def test_spans_hold_the_level_and_the_name_of_each_candidate(rows):
    inputs = [[0, text, *(t for i, name in enumerate(found) for t in (LEVELS[i], *name)), END] for text, found in rows]
    longest = max(map(len, inputs))
    ids = torch.tensor([[*row, *[0] * (longest - len(row))] for row in inputs])
    mask = torch.tensor([[1] * (len(row) - 1) + [0] * (longest - len(row) + 1) for row in inputs])  # no END
    spans = candidate_spans(*spelled_candidates(ids, mask, LEVELS, SEPARATOR), longest)
    for row, (_, found) in enumerate(rows):
        held = [ids[row][span].tolist() for span in spans[row] if span.any()]
        assert held == [[LEVELS[i], *name] for i, name in enumerate(found)]


def test_before_training_every_candidate_has_the_same_small_probability():
    head = CandidateHead(8, NUM_CANDIDATE_SCORES)
    head.reset()
    spans = torch.zeros(2, 3, 6, dtype=torch.bool)
    spans[0, 0, 2:4] = spans[0, 1, 4:6] = spans[1, 0, 1] = True
    logits = head(torch.randn(2, 6, 8), torch.ones(2, 6), spans, torch.rand(2, 3, NUM_CANDIDATE_SCORES))
    assert logits.dtype == torch.float32 and logits.shape == (2, 3)
    assert torch.equal(torch.isinf(logits), ~spans.any(-1))
    assert set(logits[spans.any(-1)].tolist()) == {-2.0}


def test_the_loss_is_the_cross_entropy_by_hand():
    logits = torch.tensor([[0.0, 2.0, -torch.inf], [-1.0, 3.0, 0.5]], requires_grad=True)
    targets = torch.tensor([[1, 0, -100], [0, -100, 1]])
    by_hand = [
        -math.log(1 / (1 + math.exp(-0.0))),
        -math.log(1 - 1 / (1 + math.exp(-2.0))),
        -math.log(1 - 1 / (1 + math.exp(1.0))),
        -math.log(1 / (1 + math.exp(-0.5))),
    ]
    loss = candidate_loss(logits, targets)
    assert loss.item() == pytest.approx(sum(by_hand) / 4, rel=1e-6)
    loss.backward()
    assert torch.isfinite(logits.grad).all() and logits.grad[targets == -100].eq(0).all()
    assert candidate_loss(logits, torch.full_like(targets, -100)).item() == 0


# ------------------------------------------------------------------------------------------------ in a model


@pytest.mark.parametrize("family", ["bert", "t5", "modernbert"])
@torch.no_grad()
def test_padding_and_company_change_no_logit(make, family):
    made = make(family=family)
    together = Generator(*made).encode(made.processor.encode_texts(TEXTS)).memory.candidate_logits
    assert together.shape == (len(TEXTS), 3)
    for row, text in enumerate(TEXTS):
        alone = Generator(*made).encode(made.processor.encode_texts([text])).memory.candidate_logits[0]
        torch.testing.assert_close(together[row, : len(alone)], alone, atol=1e-4, rtol=1e-4)
        assert torch.isinf(together[row, len(alone) :]).all()


@torch.no_grad()
def test_text_name_and_scores_of_the_retriever_count(make):
    made = make()
    (encoded,) = made.processor.encode_texts(TEXTS[:1])
    inputs = made.processor.pad([made.processor.build_input(encoded)], candidates=[encoded.candidates])
    assert inputs["candidate_scores"].shape == (1, 3, NUM_CANDIDATE_SCORES) and SCORES == ("retrieval", *PARTS)
    found = made.processor.candidates.find(TEXTS[:1])
    np.testing.assert_allclose(inputs["candidate_scores"][0, :, 0], found.scores, rtol=1e-6)
    np.testing.assert_allclose(inputs["candidate_scores"][0, :, 2], found.parts[SCORES[2]], rtol=1e-6)
    logits = made.model.encode(**inputs).candidate_logits
    without = made.model.encode(**{**inputs, "candidate_scores": None}).candidate_logits
    assert not torch.allclose(logits, without)
    other = inputs["input_ids"].clone()
    other[0, 1] += 1  # a token of the text
    assert not torch.allclose(logits, made.model.encode(**{**inputs, "input_ids": other}).candidate_logits)


def test_targets_are_the_labels_of_the_row(make, rows):
    made = make()
    batch = _batch(made, rows)
    ids = label_ids(made.processor.label_space)
    found = made.processor.candidates.find(rows["text"][:], training=True)
    assert (batch["candidate_targets"] >= 0).any() and batch["candidate_targets"].eq(1).any()
    for row, (first, last) in enumerate(zip(found.start[:-1], found.start[1:], strict=True)):
        expected = [int(label in ids[row]) for label in found.labels[first:last]]
        assert batch["candidate_targets"][row, : len(expected)].tolist() == expected
    marked = rows.add_column("label_side", [True] * len(rows))
    assert _batch(made, marked)["candidate_targets"].eq(-100).all()


def test_soft_targets_are_a_share_of_the_retrieval_scores(make, rows):
    processor = make().processor
    encoded = list(encode_dataset(rows, processor))
    hard, soft = (
        DataCollatorForXLGen(processor, "rcl", soft_targets=share)(encoded)["candidate_targets"]
        for share in (0.0, 0.3)
    )
    scores = DataCollatorForXLGen(processor, "rcl")(encoded)["candidate_scores"][:, :, 0]
    assert (hard == 1).any() and (scores[hard == 0] > 0).any()
    assert torch.allclose(soft, torch.where(hard == 0, 0.3 * scores, hard))


def test_the_loss_is_the_weighted_sum_of_both(make, rows):
    made = make(candidate_loss_weight=0.5, dropout=0.0)
    out = made.model(**_batch(made, rows))
    torch.testing.assert_close(out.loss, out.generation_loss + 0.5 * out.candidate_loss)
    out.loss.backward()
    assert made.model.candidate_head.hidden.weight.grad.abs().sum() > 0
    plain = make(candidate_loss_weight=0.0, dropout=0.0)
    assert not hasattr(plain.model, "candidate_head")
    assert plain.model(**_batch(plain, rows)).candidate_loss is None


def test_without_generation_the_decoder_does_not_run(make, rows):
    made = make(generation_loss_weight=0.0, dropout=0.0)
    handle = made.model.get_decoder().register_forward_pre_hook(lambda *given: pytest.fail("the decoder ran"))
    out = made.model(**_batch(made, rows))
    handle.remove()
    assert out.logits is None and out.generation_loss is None
    torch.testing.assert_close(out.loss, out.candidate_loss)


def test_the_loss_of_shares_is_that_of_the_batch(make, rows):
    made = make(dropout=0.0)
    encoded = list(encode_dataset(rows, made.processor))
    collator = DataCollatorForXLGen(made.processor, "rcl")
    shares = [ShareCollator(collator, process, 3)(encoded[:2]) for process in range(3)]
    with torch.no_grad():
        whole = made.model(**collator(encoded[:2]))
        sums = [loss_sums(made.model(**share), share) for share in shares]
    total = sum(one.counts for one in sums)
    assert sums[2].counts.tolist() == [0, 0, 0]
    means = [one.means(lambda _: total, processes=3) for one in sums]
    for name in (LOSSES[0], LOSSES[2]):
        torch.testing.assert_close(torch.stack([mean[name] for mean in means]).mean(), whole[name])


# ------------------------------------------------------------------------------------------------ conditioning


def test_the_gate_weighs_what_is_copied():
    """Two candidates that can be copied from: their copies go as their weights, all else being equal."""
    pointer = CandidatePointer(4, 2)
    pointer.reset()
    pointer.rank_weight.weight.data.zero_()
    torch.nn.init.constant_(pointer.gate.bias, 50.0)  # everything is copied
    inputs = (torch.zeros(1, 1, 6), torch.randn(1, 1, 4), torch.randn(1, 2, 4), torch.tensor([[[3, 5]]]))
    probability = torch.tensor([[0.9, 0.3]])
    found = pointer(*inputs, torch.tensor([[[3, 5]]]), probability.log()).exp()[0, 0]
    assert found[[3, 5]].tolist() == pytest.approx([0.75, 0.25], abs=1e-4)
    assert pointer(*inputs, torch.tensor([[[3, 5]]])).exp()[0, 0, [3, 5]].tolist() == pytest.approx(
        [0.5, 0.5], abs=1e-4
    )


@torch.no_grad()
def test_the_gate_of_a_model_follows_its_head(make):
    made, gated = make(), make(candidate_gate=True)
    target = torch.tensor([made.processor.label_tokenizer.build_target([0])])
    outputs = []
    for one in (made, gated):
        memory = Generator(*one).encode(one.processor.encode_texts(TEXTS[:1])).memory
        outputs.append(one.model(encoder_outputs=memory, labels=target).logits)
    assert made.model.candidate_weights(memory) is None
    torch.testing.assert_close(gated.model.candidate_weights(memory), memory.candidate_logits.sigmoid().log())
    assert not torch.allclose(*outputs)


@torch.no_grad()
def test_candidates_below_the_threshold_are_hidden(make):
    made = make()
    texts = made.processor.encode_texts(TEXTS[:1])
    before = Generator(*made).encode(texts).memory
    probabilities = before.candidate_logits.sigmoid()[0]
    made.model.config.candidate_threshold = float(probabilities.median()) + 1e-6
    after = Generator(*made).encode(texts).memory
    torch.testing.assert_close(after.candidate_logits, before.candidate_logits)
    is_hidden = probabilities < made.model.config.candidate_threshold
    assert is_hidden.any() and not is_hidden.all()
    assert after.candidate_tokens[0][is_hidden].eq(NOTHING).all()
    assert torch.equal(after.candidate_tokens[0][~is_hidden], before.candidate_tokens[0][~is_hidden])
    sizes = (before.candidate_tokens[0] != NOTHING).sum(-1)
    assert int(before.attention_mask.sum() - after.attention_mask.sum()) == int(sizes[is_hidden].sum())


@pytest.mark.parametrize(
    "options",
    [
        {"generation_loss_weight": 0.0},
        {"candidate_gate": True},
        {"candidate_threshold": 0.1},
        {"predicts_with": "candidate_head"},
    ],
    ids=lambda options: next(iter(options)),
)
def test_what_needs_a_head_is_refused_without_one(make, options):
    with pytest.raises(ConfigurationError, match=r"needs a candidate head\. Choose variant=.rcl."):
        make(candidate_loss_weight=0.0, **options)
    with pytest.raises(ConfigurationError, match="needs a candidate head"):
        XLGenConfig(variant="base", **options)
