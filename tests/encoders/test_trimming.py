"""Checkpoints without the tokens that no text needs: the same tokens, the same numbers, for every family."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from families import make_checkpoint
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tiny import ROWS
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    AutoTokenizer,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
)

from xlgen_hf.encoders.embedding import embed_texts
from xlgen_hf.encoders.trimming import trim_checkpoint
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.files.leftovers import find_leftovers

TEXTS = [row["text"] for row in ROWS]
SPECIAL = ["<pad>", "<unk>", "</s>"]
KINDS = {
    "t5": AutoModelForSeq2SeqLM,  # output layer of its own
    "mt5": AutoModelForSeq2SeqLM,
    "bart": AutoModelForSeq2SeqLM,  # bias of the logits
    "mbart": AutoModelForSeq2SeqLM,  # language codes
    "marian": AutoModelForSeq2SeqLM,  # two settings for the size of its vocabulary
    "bert": AutoModel,
    "albert": AutoModel,  # embeddings that are narrower than the states
    "xlm-roberta": AutoModel,
    "gpt2": AutoModelForCausalLM,
    "qwen2": AutoModelForCausalLM,
}


@pytest.mark.parametrize("family", KINDS)
def test_the_model_computes_the_same(family, tmp_path):
    make_checkpoint(family, tmp_path / "whole")
    trimmed = trim_checkpoint(str(tmp_path / "whole"), TEXTS[:2], tmp_path / "cache")
    outputs, tokenizers = [], []
    for folder in (str(tmp_path / "whole"), trimmed):
        tokenizer, model = AutoTokenizer.from_pretrained(folder), KINDS[family].from_pretrained(folder).eval()
        ids = tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
        inputs = {"decoder_input_ids": ids} if KINDS[family] is AutoModelForSeq2SeqLM else {}
        with torch.no_grad():
            out = model(input_ids=ids, **inputs)
        outputs.append(out["logits"] if "logits" in out else out["last_hidden_state"])
        tokenizers.append(tokenizer)
    whole, smaller = tokenizers
    assert len(smaller) < len(whole)
    assert AutoConfig.from_pretrained(trimmed).vocab_size == len(smaller)
    names = smaller.convert_ids_to_tokens(list(range(len(smaller))))
    columns = [whole.convert_tokens_to_ids(name) for name in names]
    expected = outputs[0][..., columns] if outputs[0].shape[-1] != outputs[1].shape[-1] else outputs[0]
    torch.testing.assert_close(outputs[1], expected)
    for name in ("pad_token", "eos_token", "bos_token", "unk_token"):
        assert getattr(smaller, name) == getattr(whole, name)
    assert AutoConfig.from_pretrained(trimmed).pad_token_id in (smaller.pad_token_id, None)


def _byte_pairs() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    options = {"special_tokens": SPECIAL, "initial_alphabet": alphabet, "show_progress": False}
    tokenizer.train_from_iterator(TEXTS, trainers.BpeTrainer(vocab_size=500, **options))
    return tokenizer


def _word_pieces() -> Tokenizer:
    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>"))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Whitespace(), decoders.WordPiece()
    options = {"special_tokens": SPECIAL, "show_progress": False}
    tokenizer.train_from_iterator(TEXTS, trainers.WordPieceTrainer(vocab_size=300, **options))
    return tokenizer


def _unigrams() -> Tokenizer:
    """Words, their halves and characters; from so few texts the library itself learns characters alone."""
    words = sorted({f"▁{word}" for text in TEXTS for word in text.split()})
    parts = {half for word in words for half in (word[: len(word) // 2], word[len(word) // 2 :]) if len(half) > 1}
    scores = {**dict.fromkeys(SPECIAL, 0.0), **dict.fromkeys("".join(words), -9.0)}
    scores |= {**dict.fromkeys(sorted(parts), -7.0), **dict.fromkeys(words[::2], -10.0)}
    tokenizer = Tokenizer(models.Unigram(list(scores.items()), unk_id=SPECIAL.index("<unk>")))
    tokenizer.pre_tokenizer, tokenizer.decoder = pre_tokenizers.Metaspace(), decoders.Metaspace()
    return tokenizer


@pytest.fixture(scope="module", params=[_byte_pairs, _unigrams, _word_pieces])
def learned(request, tmp_path_factory):
    """A tiny encoder with a tokenizer that was trained, as real ones are."""
    folder = tmp_path_factory.mktemp("learned")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=request.param(), pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    )
    tokenizer.save_pretrained(folder)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    torch.manual_seed(0)
    BertModel(BertConfig(vocab_size=len(tokenizer) + 5, **sizes)).save_pretrained(folder)  # a table with rows to spare
    return folder


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(chosen=st.lists(st.sampled_from(TEXTS), min_size=1, max_size=4))
def test_texts_are_cut_into_the_same_tokens(learned, tmp_path_factory, chosen):
    trimmed = trim_checkpoint(str(learned), chosen, tmp_path_factory.mktemp("cache"))
    whole, smaller = AutoTokenizer.from_pretrained(learned), AutoTokenizer.from_pretrained(trimmed)
    assert len(smaller) < len(whole)
    assert [smaller.tokenize(text) for text in chosen] == [whole.tokenize(text) for text in chosen]
    for text in TEXTS:  # all their characters are known, so that none is lost
        ids = smaller(text)["input_ids"]
        assert smaller.unk_token_id not in ids
        assert smaller.decode(ids).replace(" ", "") == text.replace(" ", "")


def test_embeddings_are_the_same_and_the_recipe_is_kept(learned, tmp_path):
    prompts = {"prompts": {"query": f"{TEXTS[5]} ", "passage": ""}, "default_prompt_name": None}
    names = ("modules.json", "config_sentence_transformers.json")
    modules = [{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"}]
    try:
        for name, content in zip(names, (modules, prompts), strict=True):
            (learned / name).write_text(json.dumps(content))
        trimmed = Path(trim_checkpoint(str(learned), TEXTS[:2], tmp_path))
        assert all((trimmed / name).read_bytes() == (learned / name).read_bytes() for name in names)
        whole, smaller = (embed_texts(TEXTS[:2], str(folder), side="query") for folder in (learned, trimmed))
    finally:
        for name in names:
            (learned / name).unlink()
    np.testing.assert_array_equal(whole, smaller)


def test_a_trimmed_checkpoint_is_written_once_and_removed_by_clean(learned, tmp_path):
    first = trim_checkpoint(str(learned), TEXTS[:2], tmp_path / "cache")
    written = Path(first, "model.safetensors").stat().st_mtime_ns
    assert {path.stat().st_mode & 0o777 for path in Path(first).iterdir()} == {Path(first).stat().st_mode & 0o666}
    assert trim_checkpoint(str(learned), TEXTS[:2], tmp_path / "cache") == first
    assert Path(first, "model.safetensors").stat().st_mtime_ns == written
    assert trim_checkpoint(str(learned), TEXTS, tmp_path / "cache") != first
    assert {(one.kind, one.path.parent.name) for one in find_leftovers(tmp_path)} == {("trimmed", "cache")}


@pytest.mark.parametrize(
    ("family", "match"),
    [
        ("t5gemma", r"cannot be trimmed: its config has parts \(encoder, decoder\)"),
        ("marian-separate", "cannot be trimmed: texts and targets have separate vocabularies"),
        ("fsmt", "cannot be trimmed: its weights model.decoder.output_projection.weight are of the whole vocabulary"),
        ("canine", "cannot be trimmed: a CanineModel has no table of token embeddings.*Leave --trim-vocabulary out"),
    ],
)
def test_what_cannot_be_trimmed_is_refused(family, match, tmp_path):
    make_checkpoint(family, tmp_path / "whole")
    with pytest.raises(ConfigurationError, match=match):
        trim_checkpoint(str(tmp_path / "whole"), TEXTS, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()  # nothing half-written


def test_a_tokenizer_of_whole_words_is_refused(learned, tmp_path):
    for file in learned.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    words = Tokenizer(models.WordLevel({"<unk>": 0, "<pad>": 1, "</s>": 2, "red": 3}, unk_token="<unk>"))
    PreTrainedTokenizerFast(
        tokenizer_object=words, pad_token="<pad>", unk_token="<unk>", eos_token="</s>"
    ).save_pretrained(tmp_path)
    with pytest.raises(ConfigurationError, match="its tokenizer is a WordLevel, and neither Unigram"):
        trim_checkpoint(str(tmp_path), TEXTS, tmp_path / "cache")
