"""Any number of threads give the results of one: the model, its pipeline, and generation."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from xlgen_hf.pipeline import XLGenPipeline
from xlgen_hf.training.lora import add_lora

TEXTS = ["a history of church music", "modern art", "", "the piano " * 20, "organ", "art and music"]
THREADS = 8


def _together(call, count=THREADS):
    """Results of calls that begin at the same moment, in threads of their own."""
    start = threading.Barrier(count)

    def wait_and_call(number):
        start.wait()
        return call(number)

    with ThreadPoolExecutor(count) as pool:
        return list(pool.map(wait_and_call, range(count)))


def _same(found, expected):
    assert [one.labels for one in found] == [one.labels for one in expected]
    assert [one.clusters for one in found] == [one.clusters for one in expected]
    for one, other in zip(found, expected, strict=True):
        assert one.scores == pytest.approx(other.scores, abs=1e-6)


@pytest.mark.parametrize(
    ("family", "variant"),
    [("t5", "base"), ("bart", "bcl"), ("bert", "mcg"), ("modernbert", "bcl"), ("t5", "mcg"), ("bert", "base")],
)
def test_many_threads_predict_what_one_does(make_model, family, variant):
    model, processor = make_model(family, variant, max_labels=4)
    expected = model.predict(TEXTS, processor)
    for found in _together(lambda _: model.predict(TEXTS, processor)):
        _same(found, expected)


def test_threads_that_ask_for_different_things_get_them(make_model):
    """Each call has constraints of its own, so that what one thread keeps is of no use to another."""
    model, processor = make_model("bert", "bcl", max_labels=4)

    def predict(number):
        allowed = np.arange(number % 4, len(processor.label_space))
        return model.predict(TEXTS[: 1 + number % 5], processor, allowed=allowed)

    expected = [predict(number) for number in range(THREADS)]
    for found, wanted in zip(_together(predict), expected, strict=True):
        _same(found, wanted)


def test_threads_with_an_adapter(make_model, tmp_path):
    model, processor = make_model("bert", "bcl", max_labels=4)
    adapted = add_lora(model, processor, tmp_path / "base", r=4).eval()
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter += 0.3 * torch.randn_like(parameter)
    expected = adapted.predict(TEXTS, processor)
    for found in _together(lambda _: adapted.predict(TEXTS, processor)):
        _same(found, expected)


def test_threads_of_a_pipeline(make_model):
    model, processor = make_model("t5", "bcl", max_labels=4)
    pipeline = XLGenPipeline(model, processor)
    expected = pipeline(TEXTS)
    for found in _together(lambda _: pipeline(TEXTS)):
        for one, other in zip(found, expected, strict=True):
            assert [entry["label"] for entry in one] == [entry["label"] for entry in other]
            assert [entry["score"] for entry in one] == pytest.approx([entry["score"] for entry in other], abs=1e-6)


def test_training_in_one_thread_leaves_the_predictions_of_another_alone(make_model):
    """Gradients are computed while other threads predict with the same weights."""
    model, processor = make_model("t5", "base", dropout=0.0, max_labels=4)
    batch = dict(processor(["art and music"], return_tensors="pt"))
    batch["labels"] = torch.tensor([processor.label_tokenizer.build_target([0, 2])])
    model(**batch).loss.backward()
    gradient = model.get_output_embeddings().weight.grad.clone()
    expected = model.predict(TEXTS, processor)

    def work(number):
        if number % 2:
            return model.predict(TEXTS, processor)
        return torch.autograd.grad(model(**batch).loss, model.get_output_embeddings().weight)[0]

    for number, found in enumerate(_together(work, 10)):
        if number % 2:
            _same(found, expected)
        else:
            torch.testing.assert_close(found, gradient)


@pytest.mark.parametrize("family", ["t5", "bart", "bert"])
def test_threads_that_generate_as_transformers_does(make_model, family):
    model, processor = make_model(family, "bcl")
    batch = processor(["art", "music history"], return_tensors="pt")
    options = {"max_new_tokens": 6, "do_sample": False}
    expected = {beams: model.generate(**batch, **options, num_beams=beams) for beams in (1, 2)}
    for number, found in enumerate(_together(lambda n: model.generate(**batch, **options, num_beams=1 + n % 2), 8)):
        assert torch.equal(found, expected[1 + number % 2])
