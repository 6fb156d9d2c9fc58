from __future__ import annotations

import logging
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoModel,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    PreTrainedTokenizerFast,
    RobertaConfig,
    RobertaModel,
    T5Config,
    T5ForConditionalGeneration,
)

from xlgen_hf.encoders import embedding
from xlgen_hf.encoders.embedding import embed_texts
from xlgen_hf.encoders.loaded import load_encoder
from xlgen_hf.errors import CheckpointError, ConfigurationError, DataError
from xlgen_hf.files.serialization import write_tensors

WORDS = ["cats", "dogs", "and", "sleep", "run", "in", "the", "rain"]
TEXTS = ["cats", "cats and dogs sleep in the rain", "", "dogs run", "cats and dogs", "the rain in the rain", "cats"]


def make_tokenizer(special: bool = True, pad_first: bool = True) -> PreTrainedTokenizerFast:
    names = ["[PAD]", "[UNK]"] if pad_first else ["[UNK]", "[PAD]"]
    vocabulary = {word: i for i, word in enumerate([*names, "[CLS]", "[SEP]", *WORDS])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    if special:
        tokenizer.post_processor = processors.TemplateProcessing(
            single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
        )
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]", sep_token="[SEP]"
    )


def make_bert(seed: int = 0) -> BertModel:
    torch.manual_seed(seed)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    return BertModel(BertConfig(vocab_size=12, max_position_embeddings=20, **sizes)).eval()


def make_t5() -> T5ForConditionalGeneration:
    torch.manual_seed(0)
    config = T5Config(vocab_size=12, d_model=16, d_kv=8, d_ff=16, num_layers=2, num_heads=2, decoder_start_token_id=0)
    return T5ForConditionalGeneration(config).eval()


def make_bart() -> BartForConditionalGeneration:
    torch.manual_seed(0)
    sizes = {"encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ffn = {"encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    return BartForConditionalGeneration(
        BartConfig(vocab_size=12, d_model=16, max_position_embeddings=20, **sizes, **ffn)
    )


def make_roberta() -> RobertaModel:
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    return RobertaModel(RobertaConfig(vocab_size=12, max_position_embeddings=20, pad_token_id=1, **sizes)).eval()


MAKERS = {"bert": make_bert, "t5": make_t5, "bart": make_bart, "roberta": make_roberta}
PAIR = (make_bert(), make_tokenizer())


@pytest.fixture(params=sorted(MAKERS))
def kind(request):
    return request.param


def save(model, folder: Path) -> str:
    model.save_pretrained(folder)
    make_tokenizer(pad_first=model.config.pad_token_id == 0).save_pretrained(folder)
    return str(folder)


@torch.no_grad()
def embed_one(model, tokenizer, text: str) -> np.ndarray:
    """The plain definition: one text, no padding, mean over all its tokens."""
    encoder = model.get_encoder() if model.config.is_encoder_decoder else model
    return encoder(**tokenizer([text], return_tensors="pt", return_token_type_ids=False))[0][0].mean(0).numpy()


def test_masked_mean_in_the_order_of_the_texts(kind):
    model = MAKERS[kind]().eval()
    tokenizer = make_tokenizer(pad_first=model.config.pad_token_id == 0)
    found = embed_texts(TEXTS, (model, tokenizer), normalize=False, batch_size=3)
    assert found.dtype == np.float32
    assert found.shape == (len(TEXTS), 16)
    for row, text in zip(found, TEXTS, strict=True):
        np.testing.assert_allclose(row, embed_one(model, tokenizer, text), atol=1e-5)


def test_checkpoint_folder_gives_the_same_as_the_loaded_model(kind, tmp_path):
    model = MAKERS[kind]()
    folder = save(model, tmp_path)
    tokenizer = make_tokenizer(pad_first=model.config.pad_token_id == 0)
    np.testing.assert_allclose(embed_texts(TEXTS, folder), embed_texts(TEXTS, (model, tokenizer)), atol=1e-6)


def test_t5_encoder_alone_is_a_checkpoint_too(tmp_path):
    model = make_t5()
    folder = save(model, tmp_path / "whole")
    alone, _ = load_encoder(folder)
    assert not [name for name, _ in alone.named_parameters() if "decoder" in name]
    np.testing.assert_allclose(
        embed_texts(TEXTS, save(alone, tmp_path / "alone")), embed_texts(TEXTS, folder), atol=1e-6
    )


def test_half_precision_checkpoint_is_computed_in_float32(tmp_path):
    folder = save(make_bert().to(torch.bfloat16), tmp_path)
    assert load_encoder(folder)[0].dtype == torch.float32


def test_rows_have_length_one():
    np.testing.assert_allclose(np.linalg.norm(embed_texts(TEXTS, PAIR), axis=1), 1, atol=1e-6)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join), max_size=12),
    st.integers(1, 5),
    st.randoms(use_true_random=False),
)
def test_batches_and_order_of_texts_do_not_matter(texts, batch_size, random):
    order = list(range(len(texts)))
    random.shuffle(order)
    once = embed_texts(texts, PAIR)
    shuffled = embed_texts([texts[i] for i in order], PAIR, batch_size=batch_size)
    np.testing.assert_allclose(shuffled, once[order], atol=1e-5)


def test_loaded_model_comes_back_as_it_was():
    model = make_bert().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = embed_texts(TEXTS, (model, make_tokenizer()))
    assert model.training
    np.testing.assert_array_equal(first, embed_texts(TEXTS, (model.eval(), make_tokenizer())))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


def test_long_texts_are_cut_and_counted(caplog):
    with caplog.at_level(logging.WARNING):
        found = embed_texts(["cats and dogs sleep", "cats and", "dogs " * 20_000], PAIR, max_length=4)
    assert "2 of 3 texts are longer than 4 tokens and were cut there" in caplog.text
    np.testing.assert_allclose(found[0], found[1], atol=1e-6)


@pytest.mark.parametrize(("make", "positions"), [(make_bert, 20), (make_bart, 20), (make_roberta, 18)])
def test_length_is_capped_by_the_position_table(make, positions, caplog):
    model = make()
    tokenizer = make_tokenizer(pad_first=model.config.pad_token_id == 0)
    with caplog.at_level(logging.WARNING):
        embed_texts(["cats " * 50], (model, tokenizer))
    assert f"longer than {positions} tokens" in caplog.text


def test_texts_without_tokens(caplog):
    tokenizer = make_tokenizer(special=False)
    with caplog.at_level(logging.WARNING):
        found = embed_texts(["", "cats", ""], (make_bert(), tokenizer))
    assert "2 texts have no tokens" in caplog.text
    assert not found[[0, 2]].any()
    assert found[1].any()


def test_no_texts():
    assert embed_texts([], PAIR).shape == (0, 16)


@pytest.mark.parametrize(
    ("texts", "match"),
    [
        ("cats", r"One string is given .*'cats'"),
        (["cats", None], r"^row 2: The text is NoneType"),
        (["cats", "dogs", 3], r"^row 3: The text is int '3'"),
        (["\ud800"], r"^row 1: .* not valid Unicode"),
    ],
)
def test_bad_texts(texts, match):
    with pytest.raises(DataError, match=match):
        embed_texts(texts, PAIR)


@pytest.mark.parametrize(
    ("option", "match"),
    [
        ({"batch_size": 0}, "batch_size=0"),
        ({"max_length": 0}, "max_length=0"),
        ({"max_length": 2}, r"max_length=2 leaves no room for text: .*2 of them special"),
        ({"device": "no-such-device"}, "device='no-such-device' cannot be used"),
    ],
)
def test_bad_settings(option, match):
    with pytest.raises(ConfigurationError, match=match):
        embed_texts(TEXTS, PAIR, **option)


def test_bad_checkpoints(tmp_path):
    with pytest.raises(CheckpointError, match="There is no folder"):
        embed_texts(TEXTS, str(tmp_path / "missing"))
    (tmp_path / "config.json").write_text("[1]")
    with pytest.raises(CheckpointError, match="not a checkpoint that can be loaded"):
        embed_texts(TEXTS, str(tmp_path))


def test_values_that_are_not_finite():
    model = make_bert()
    with torch.no_grad():
        model.embeddings.LayerNorm.bias.fill_(float("nan"))
    with pytest.raises(CheckpointError, match="BertModel computes NaN or infinity"):
        embed_texts(TEXTS, (model, make_tokenizer()))


class TestCache:
    @pytest.fixture
    def many_shards(self, monkeypatch):
        monkeypatch.setattr(embedding, "SHARD_TEXTS", 2)

    @pytest.fixture
    def encoded(self, monkeypatch):
        """Numbers of texts that went through a model, a batch each."""
        sizes = []
        forward = BertModel.forward

        def count(model, **inputs):
            sizes.append(len(inputs["input_ids"]))
            return forward(model, **inputs)

        monkeypatch.setattr(BertModel, "forward", count)
        return sizes

    def test_second_run_computes_nothing(self, tmp_path, many_shards, encoded, monkeypatch):
        folder = save(make_bert(), tmp_path / "model")
        first = embed_texts(TEXTS, folder, cache_dir=tmp_path / "cache")
        assert sum(encoded) == len(TEXTS)
        monkeypatch.setattr(AutoModel, "from_pretrained", lambda *_, **__: pytest.fail("weights were read"))
        np.testing.assert_array_equal(embed_texts(TEXTS, folder, cache_dir=tmp_path / "cache"), first)
        unscaled = embed_texts(TEXTS, folder, cache_dir=tmp_path / "cache", normalize=False)
        assert not np.allclose(unscaled, first)

    def test_killed_run_goes_on(self, tmp_path, many_shards, encoded, monkeypatch):
        whole = embed_texts(TEXTS, PAIR)
        encoded.clear()
        forward = BertModel.forward

        def stop_in_third_shard(model, **inputs):
            if len(encoded) == 2:
                raise KeyboardInterrupt("third shard")
            return forward(model, **inputs)

        with monkeypatch.context() as patch:
            patch.setattr(BertModel, "forward", stop_in_third_shard)
            with pytest.raises(KeyboardInterrupt, match="third shard"):
                embed_texts(TEXTS, PAIR, cache_dir=tmp_path)
        assert len(list(tmp_path.glob("*/shard-*"))) == 2
        assert not list(tmp_path.glob("*/*.tmp"))
        encoded.clear()
        np.testing.assert_allclose(embed_texts(TEXTS, PAIR, cache_dir=tmp_path), whole, atol=1e-6)
        assert sum(encoded) == len(TEXTS) - 4

    @pytest.mark.parametrize("damage", ["cut", "other shape", "not finite", "other name"])
    def test_damaged_shard_is_computed_again(self, tmp_path, many_shards, encoded, caplog, damage):
        whole = embed_texts(TEXTS, PAIR, cache_dir=tmp_path)
        shard = sorted(tmp_path.glob("*/shard-*"))[1]
        values = {
            "other shape": np.ones((1, 16)),
            "not finite": np.full((2, 16), np.nan),
            "other name": np.ones((2, 16)),
        }
        if damage == "cut":
            shard.write_bytes(shard.read_bytes()[:-7])
        else:
            name = "other" if damage == "other name" else "embeddings"
            write_tensors(shard, {name: values[damage].astype(np.float32)})
        encoded.clear()
        with caplog.at_level(logging.WARNING):
            np.testing.assert_array_equal(embed_texts(TEXTS, PAIR, cache_dir=tmp_path), whole)
        assert shard.name in caplog.text
        assert "computed again" in caplog.text
        assert encoded == [2]

    def test_key_covers_texts_length_and_weights(self, tmp_path):
        def folders(**changes):
            arguments = {"texts": TEXTS, "encoder": PAIR, "max_length": 16, **changes}
            embed_texts(cache_dir=tmp_path, **arguments)
            return {path.name for path in tmp_path.iterdir()}

        first = folders()
        assert len(first) == 1
        assert folders(normalize=False, batch_size=2) == first
        assert len(folders(texts=TEXTS[::-1])) == 2
        assert len(folders(max_length=5)) == 3
        assert len(folders(encoder=(make_bert(seed=1), make_tokenizer()))) == 4
        assert len(folders(encoder=(make_bert(), make_tokenizer()))) == 4  # the same weights in another object

    def test_key_of_a_folder_follows_its_files(self, tmp_path):
        folder = save(make_bert(), tmp_path / "model")
        before = embed_texts(TEXTS, folder, cache_dir=tmp_path / "cache")
        shutil.rmtree(folder)
        save(make_bert(seed=1), tmp_path / "model")
        assert not np.allclose(embed_texts(TEXTS, folder, cache_dir=tmp_path / "cache"), before)


def test_progress_is_silent_where_stderr_is_no_terminal(capfd):
    embed_texts(TEXTS, PAIR)
    captured = capfd.readouterr()
    assert captured.out == captured.err == ""
