"""The constraint of label sets inside transformers' own `generate`, with real models."""

from __future__ import annotations

import pytest
import torch
from tiny import ROWS
from transformers import LogitsProcessor, LogitsProcessorList

from xlgen_hf.decoding.logits_process import LabelSetLogitsProcessor, split_labels
from xlgen_hf.errors import ConfigurationError

TEXTS = [row["text"] for row in ROWS]


@pytest.fixture(params=["t5", "bart"])
def made(request, make_model):
    """A model whose finished rows are filled with padding, T5's being its start token; and its processor."""
    model, processor = make_model(request.param)
    with torch.no_grad():  # what a text is decides where its labels end
        for weight in model.parameters():
            if weight.dim() > 1 and weight.std() < 0.1:
                weight.mul_(0.3 / weight.std())
    return model, processor


def generate(made, *, beams: int = 1, bounds=None, ranks=None, others=(), **options):
    """Label ids of each row."""
    model, processor = made
    spell = processor.label_tokenizer
    bounds = bounds or {"min_labels": 1, "max_labels": 3}
    constraint = LabelSetLogitsProcessor(spell.trie, processor.eos_token_id, num_beams=beams, ranks=ranks, **bounds)
    torch.manual_seed(0)
    sequences = model.generate(
        **processor(TEXTS, return_tensors="pt"), logits_processor=LogitsProcessorList([constraint, *others]),
        num_beams=beams, max_new_tokens=60, **options,
    )[:, 1:].numpy()  # fmt: skip
    rows = zip(sequences, split_labels(sequences, spell.separator_token_id), strict=True)
    return [[spell.trie.label_of(row[first : last + 1].tolist()) for first, last in spans] for row, spans in rows]


@pytest.mark.parametrize(
    "options", [{}, {"beams": 3}, {"beams": 3, "num_return_sequences": 3}, {"do_sample": True, "top_k": 0}]
)
@pytest.mark.parametrize("ordered", [False, True])
def test_rows_that_end_early_stay_ended(made, options, ordered):
    _, processor = made
    space = processor.label_space
    order = {label: rank for rank, label in enumerate(space.order(range(len(space))))}
    ranks = torch.tensor([order[label] for label in range(len(space))]).numpy() if ordered else None
    found = generate(made, bounds={"min_labels": 1, "max_labels": 4}, ranks=ranks, **options)
    assert all(None not in labels and 1 <= len(labels) <= 4 and len(set(labels)) == len(labels) for labels in found)
    assert len({len(labels) for labels in found}) > 1 or ordered
    if ordered:
        assert all([order[label] for label in labels] == sorted(order[label] for label in labels) for labels in found)


@pytest.mark.parametrize("beams", [1, 3])
@pytest.mark.parametrize("options", [{"min_new_tokens": 40}, {"no_repeat_ngram_size": 1}, {"suppress_tokens": "all"}])
def test_constraints_that_exclude_every_label_are_named(made, beams, options):
    if options.get("suppress_tokens") == "all":
        options = {"suppress_tokens": list(range(made[0].config.vocab_size))}
    with pytest.raises(ConfigurationError, match=r"Row \d+ cannot go on: after \d+ tokens.*min_new_tokens.*no_repeat"):
        generate(made, beams=beams, bounds={"min_labels": 3, "max_labels": 3}, **options)


class _Force(LogitsProcessor):
    """Forces a token whatever came before."""

    def __init__(self, token: int) -> None:
        self.token = token

    def __call__(self, input_ids, scores):
        forced = torch.full_like(scores, -torch.inf)
        forced[:, self.token] = 0.0
        return forced


def test_a_token_that_something_else_forces_is_named(made):
    unknown = made[1].tokenizer.unk_token_id
    with pytest.raises(ConfigurationError, match=rf"Row 0 goes on with token {unknown}, which no label set allows"):
        generate(made, others=[_Force(unknown)])


def test_a_small_label_space_leaves_beams_without_anything(made):
    """Beams without a continuation are no error while others have one."""
    found = generate(made, beams=6, bounds={"min_labels": 0, "max_labels": 1}, num_return_sequences=6)
    assert all(None not in labels and len(labels) <= 1 for labels in found)
