"""What models compute in: by name, by what the device has, and through loading."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sources import TEXTS, make_rcl, make_retriever

from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.encoders.number_types import has_bfloat16, number_type
from xlgen_hf.loading import load_predictor
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.retrieval.model_sources import save_source_alone


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ({"avx512_bf16": True}, torch.bfloat16),
        ({"amx_bf16": True, "avx512_bf16": False}, torch.bfloat16),
        ({"avx512_f": True, "avx512_bf16": False}, torch.float32),
        ({}, torch.float32),
    ],
)
def test_auto_follows_the_instructions_of_the_processor(monkeypatch, capabilities, expected):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities, raising=False)
    assert number_type("auto", "cpu") == expected
    assert has_bfloat16("cpu") == (expected == torch.bfloat16)


def test_where_torch_does_not_tell_auto_is_float32(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    assert number_type("auto", "cpu") == torch.float32
    assert number_type("auto", "meta") == torch.float32  # a device of which nothing is known


def test_a_type_by_name_is_that_type_everywhere():
    assert number_type("float32", "cpu") == torch.float32
    assert number_type("bfloat16", "cpu") == torch.bfloat16


def test_a_loaded_index_embeds_in_the_type_and_finds_nearly_the_same(checkpoints, label_space, tmp_path):
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=True)
    save_source_alone(tmp_path, label_space, "retrieval", retriever, ScoreModel())
    found = {}
    for name in (None, "float32", "bfloat16"):
        predictor = load_predictor(str(tmp_path), dtype=name)
        assert predictor.source.encoder[0].dtype == (torch.bfloat16 if name == "bfloat16" else torch.float32)
        ranked = [predictor.source.rank(TEXTS, 10) for _ in range(2)]
        np.testing.assert_array_equal(ranked[0].scores, ranked[1].scores)  # deterministic on one machine
        found[name] = ranked[0].scores[np.lexsort((ranked[0].labels, ranked[0].text))]  # of all labels
    np.testing.assert_array_equal(found[None], found["float32"])
    np.testing.assert_allclose(found["bfloat16"], found["float32"], atol=0.05)


def test_a_loaded_model_predicts_in_the_type(checkpoints, label_space, tmp_path):
    made = make_rcl(checkpoints["bert"], label_space)
    made.model.save_pretrained(tmp_path)
    made.processor.save_pretrained(tmp_path)
    predictor = load_predictor(str(tmp_path), dtype="bfloat16")
    generator = predictor.source
    assert generator.model.dtype == generator.processor.retriever.encoder[0].dtype == torch.bfloat16
    found = [predictor.predict(TEXTS, decoding=DecodingOptions(num_beams=beams)) for beams in (1, 1, 3)]
    assert found[0] == found[1]
    assert all(0 <= score <= 1 for answers in found for one in answers for score in one.scores)
