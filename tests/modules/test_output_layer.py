"""The restricted output layer: copies and pickles, layers of other kinds, and what is kept between calls."""

from __future__ import annotations

import copy
import pickle
import threading

import pytest
import torch
from torch import nn

from xlgen_hf.decoding.memory import LastValue

FAMILIES = ["t5", "bart", "bert", "modernbert"]
TEXTS = ["a history of church music", "modern art"]


def _batch(model, processor):
    batch = dict(processor(TEXTS, return_tensors="pt"))
    targets = [processor.label_tokenizer.build_target([0, 3]), processor.label_tokenizer.build_target([2])]
    longest = max(map(len, targets))
    batch["labels"] = torch.tensor([target + [-100] * (longest - len(target)) for target in targets])
    return batch


def _full_logits(model, batch):
    """Logits of the label tokens by way of the whole vocabulary."""
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    decoder_input = model.prepare_decoder_input_ids_from_labels(batch["labels"])
    return model.backbone(**inputs, decoder_input_ids=decoder_input).logits[..., model.output_token_ids]


@pytest.mark.parametrize("family", FAMILIES)
def test_the_backbone_alone_stays_whole(make_model, family):
    """What restricts the layer has no effect on who uses the backbone by itself, before and after."""
    model, processor = make_model(family)
    batch = _batch(model, processor)
    with torch.no_grad():
        before = _full_logits(model, batch)
        torch.testing.assert_close(model(**batch).logits, before)
        torch.testing.assert_close(_full_logits(model, batch), before)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))])
def test_a_copy_has_weights_of_its_own(make_model, family, duplicate):
    model, processor = make_model(family)
    batch = _batch(model, processor)
    with torch.no_grad():
        before = model(**batch).logits
        twin = duplicate(model)
        torch.testing.assert_close(twin(**batch).logits, before)
        twin.get_output_embeddings().weight.mul_(2)
        assert not torch.allclose(twin(**batch).logits, before)
        torch.testing.assert_close(model(**batch).logits, before)
        torch.testing.assert_close(twin(**batch).logits, _full_logits(twin, batch))


def test_a_bias_that_the_backbone_adds_counts(make_model):
    """BART's `final_logits_bias` is as wide as the vocabulary."""
    model, processor = make_model("bart")
    model.backbone.final_logits_bias.normal_()
    batch = _batch(model, processor)
    with torch.no_grad():
        torch.testing.assert_close(model(**batch).logits, _full_logits(model, batch))


class _Doubled(nn.Linear):
    """An output layer with a way of its own."""

    def forward(self, states):
        return 2 * super().forward(states)


def test_an_output_layer_of_another_kind_is_run_whole(make_model):
    model, processor = make_model("t5")
    batch = _batch(model, processor)
    with torch.no_grad():
        before = model(**batch).logits
        plain = model.get_output_embeddings()
        layer = _Doubled(plain.in_features, plain.out_features, bias=False)
        layer.weight = plain.weight
        model.set_output_embeddings(layer)
        torch.testing.assert_close(model(**batch).logits, 2 * before)


def test_weights_that_change_are_read_again(make_model):
    model, processor = make_model("t5")
    batch = _batch(model, processor)
    with torch.no_grad():
        before = model(**batch).logits
        model.get_output_embeddings().weight.add_(1.0)
        assert not torch.allclose(model(**batch).logits, before)
        torch.testing.assert_close(model(**batch).logits, _full_logits(model, batch))
        model.get_output_embeddings().weight.data.mul_(3)  # no version number tells
        model.train()
        model.eval()
        torch.testing.assert_close(model(**batch).logits, _full_logits(model, batch))


def test_the_last_value_is_kept_and_made_once():
    kept: LastValue[list[int]] = LastValue()
    made = []

    def make(key):
        return kept.get(key, lambda: made.append(key) or [key])

    assert make(1) is make(1)
    assert (make(2), make(1), made) == ([2], [1], [1, 2, 1])
    kept.clear()
    make(1)
    assert made == [1, 2, 1, 1]
    assert copy.deepcopy(kept).get(1, lambda: [7]) == [7]


def test_no_thread_gets_the_value_of_another_key():
    kept: LastValue[int] = LastValue()
    wrong = []

    def work(number):
        for _ in range(2000):
            if kept.get(number, lambda: number) != number:
                wrong.append(number)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong
