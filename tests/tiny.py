"""Tiny real objects that tests share: rows, tokenizers and checkpoints made in memory, a client of the test Hub."""

from __future__ import annotations

import base64
import json
import os
import urllib.request
from functools import partial
from pathlib import Path

from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import (
    AutoModelForCausalLM,
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertModel,
    Gemma3TextConfig,
    GPT2Config,
    LlamaConfig,
    ModernBertConfig,
    ModernBertModel,
    PreTrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
    T5Config,
    T5ForConditionalGeneration,
)

from xlgen_hf.labels.space import LabelSpace

ROWS = [
    {"text": "a history of church music", "labels": ["music", "history", "church music"]},
    {"text": "playing the piano", "labels": ["music", "piano"]},
    {"text": "the history of art", "labels": ["history", "art"]},
    {"text": "art and music", "labels": ["music", "art"]},
    {"text": "organ music in the church", "labels": ["music", "church music", "organ"]},
    {"text": "history of the organ", "labels": ["history", "organ"]},
    {"text": "printing", "labels": ["printing (output)"]},
    {"text": "modern art", "labels": ["art", "modern art"]},
]


VOCABULARY = ["music history", "art history"]  # never seen in training


_WORDS = sorted({word for row in ROWS for word in row["text"].split()} | {"output", "history", "1", "2", "3"})


_SUBWORDS = [
    "(",
    ")",
    ",",
    "<",
    ">",
    ":",
    *"abcdefghijklmnopqrstuvwxyz",
    *(f"##{c}" for c in "abcdefghijklmnopqrstuvwxyz"),
]


def _tokenizer(specials: dict[str, str], template: str) -> PreTrainedTokenizerFast:
    words = list(dict.fromkeys([*specials.values(), *_WORDS, *_SUBWORDS]))
    tokenizer = Tokenizer(
        models.WordPiece({w: i for i, w in enumerate(words)}, unk_token=specials["unk_token"])  # type: ignore[arg-type]
    )
    tokenizer.normalizer = normalizers.Lowercase()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    around = [(token, words.index(token)) for token in template.split() if token != "$A"]
    tokenizer.post_processor = processors.TemplateProcessing(single=template, special_tokens=around)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, **specials)


def make_bert_tokenizer() -> PreTrainedTokenizerFast:
    specials = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return _tokenizer(specials, "[CLS] $A [SEP]")


def make_xlnet_tokenizer() -> PreTrainedTokenizerFast:
    """Two special tokens after a text, none of which ends a target."""
    specials = {"pad_token": "[PAD]", "unk_token": "[UNK]", "cls_token": "[CLS]", "sep_token": "[SEP]"}
    return _tokenizer({**specials, "eos_token": "</s>"}, "$A [SEP] [CLS]")


def make_t5_tokenizer() -> PreTrainedTokenizerFast:
    return _tokenizer({"pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}, "$A </s>")


def make_bart_tokenizer() -> PreTrainedTokenizerFast:
    specials = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
    return _tokenizer(specials, "<s> $A </s>")


def _make_t5(folder: Path) -> None:
    tokenizer = make_t5_tokenizer()
    config = T5Config(
        vocab_size=len(tokenizer) + 8, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2, dropout_rate=0.1,
        decoder_start_token_id=0, pad_token_id=0, eos_token_id=1,
    )  # fmt: skip
    T5ForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _make_bart(folder: Path) -> None:
    tokenizer = make_bart_tokenizer()
    config = BartConfig(
        vocab_size=len(tokenizer), d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=32, decoder_ffn_dim=32, max_position_embeddings=128,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=None,
    )  # fmt: skip
    BartForConditionalGeneration(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _make_bert(folder: Path) -> None:
    tokenizer = make_bert_tokenizer()
    config = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=128, pad_token_id=0,
    )  # fmt: skip
    BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def _make_modernbert(folder: Path) -> None:
    tokenizer = make_bert_tokenizer()
    config = ModernBertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=128, pad_token_id=0, cls_token_id=2, sep_token_id=3, bos_token_id=2, eos_token_id=3,
    )  # fmt: skip
    ModernBertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def make_causal_tokenizer(template: str = "<s> $A") -> PreTrainedTokenizerFast:
    """As many language models have it: no padding token, nothing after a text."""
    return _tokenizer({"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}, template)


def causal_config(family: str, **changes: object) -> PreTrainedConfig:
    """A tiny decoder-only model: an untied output layer (Llama), a window (Gemma 3), learned positions (GPT-2)."""
    size = len(make_causal_tokenizer())
    ends = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": None}
    llama = {
        "vocab_size": size, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "max_position_embeddings": 192, **ends,
    }  # fmt: skip
    gemma = {"head_dim": 8, "sliding_window": 6, "layer_types": ["sliding_attention", "full_attention"]}
    gpt2 = {"vocab_size": size, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 192, **ends}
    kind, values = {
        "llama": (LlamaConfig, {**llama, "tie_word_embeddings": False}),
        "qwen2": (Qwen2Config, {**llama, "tie_word_embeddings": True, "max_window_layers": 2}),
        "gemma3": (Gemma3TextConfig, {**llama, **gemma}),
        "gpt2": (GPT2Config, gpt2),
    }[family]
    return kind(**{**values, **changes})


def _make_causal(family: str, folder: Path) -> None:
    AutoModelForCausalLM.from_config(causal_config(family)).save_pretrained(folder)
    make_causal_tokenizer("$A" if family in ("qwen2", "gpt2") else "<s> $A").save_pretrained(folder)


CAUSAL_FAMILIES = ["llama", "qwen2", "gemma3", "gpt2"]

MAKERS = {"t5": _make_t5, "bart": _make_bart, "bert": _make_bert, "modernbert": _make_modernbert} | {
    family: partial(_make_causal, family) for family in CAUSAL_FAMILIES
}


def make_clusters(label_space: LabelSpace, dimension: int = 16, count: int = 3, encoder: str | None = None):
    """Clusters that follow from the label ids alone; new labels are put into them by the encoder."""
    import numpy as np

    from xlgen_hf.labels.clusters import LabelClusters

    centroids = np.eye(count, dimension, dtype=np.float32)
    names = [f"cluster {c}" for c in range(count)]
    metadata = {} if encoder is None else {"encoder": encoder}
    return LabelClusters(np.arange(len(label_space), dtype=np.int64) % count, centroids, names, metadata)


class Hub:
    """The test Hub of `hub_server.py`, seen from outside."""

    alice, bob, read_only = "hf_aliceSecretToken", "hf_bobSecretToken", "hf_readOnlySecretToken"

    def __init__(self, url: str) -> None:
        self.url = url

    def ask(self, what: str, content: object = None):
        request = urllib.request.Request(f"{self.url}/_test/{what}", data=json.dumps(content).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def fault(self, method: str, path: str, kind: str, **more: object) -> None:
        self.ask("fault", {"method": method, "path": path, "kind": kind, **more})

    def history(self, name: str, kind: str = "model", branch: str = "main"):
        """Commits of a branch, the oldest first; None where there is no such repository."""
        return self.ask("history", {"kind": kind, "name": name, "branch": branch})

    def file(self, name: str, path: str, kind: str = "model", branch: str = "main") -> bytes:
        return base64.b64decode(self.ask("file", {"kind": kind, "name": name, "branch": branch, "path": path}))

    def environment(self, home: Path, token: str | None = None) -> dict[str, str]:
        """Environment of a fresh process that talks to this Hub."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
        settings = {
            "HF_ENDPOINT": self.url, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_TELEMETRY": "1",
            "HF_UPDATE_DOWNLOAD_COUNTS": "0", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }  # fmt: skip
        return {**kept, **settings, **({} if token is None else {"HF_TOKEN": token})}
