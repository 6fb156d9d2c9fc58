"""Encoders of transformers: loading one with its tokenizer, and what embedding texts needs of it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from ..configuration_xlgen import hidden_size
from ..errors import CheckpointError, ConfigurationError
from ..files.model_checks import check_loaded
from ..files.tokenizer_checks import try_tokenizer
from .causal import refuse_causal
from .checkpoints import checkpoint_errors, fetch_checkpoint
from .pooling import pool
from .recipe import EmbeddingRecipe, read_recipe
from .text_encoder import Encode

if TYPE_CHECKING:  # the classes of models take half of the time of a start
    from transformers import PreTrainedModel

__all__ = [
    "LoadedEncoder",
    "LoadedTokenizer",
    "hash_of_weights",
    "load_encoder",
    "longest_text",
    "num_positions",
    "own_device",
]

_INSTEAD_OF_CAUSAL = (
    "Use an encoder such as sentence-transformers/all-MiniLM-L6-v2, or a causal checkpoint that was trained for "
    "embeddings and says so in a 1_Pooling/config.json (lasttoken)."
)
# Families that number positions from after the padding id: that many rows of the position table are not positions.
_POSITIONS_AFTER_PADDING = {"camembert", "data2vec-text", "longformer", "mpnet", "roberta", "xlm-roberta"}


def load_encoder(
    name: str, recipe: EmbeddingRecipe | None = None, device: str | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load an encoder that can be trained and saved on its own, and its tokenizer.

    Args:
        name: a folder, a name that an installed package carries, or a Hub id; of a T5 the encoder alone is taken.
        recipe: how its embeddings are made; as the checkpoint says if None.
        device: where it goes; it stays on the CPU if None.

    Raises:
        CheckpointError: if it cannot be loaded, is a causal language model that nothing says to pool by the last
            token, or is a seq2seq model whose family has no model of the encoder alone.
    """
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

    source = LoadedEncoder.open(name, recipe)
    if source.config.is_encoder_decoder and type(source.config) not in MODEL_FOR_TEXT_ENCODING_MAPPING:
        raise CheckpointError(
            f"{name!r} is a seq2seq model of type {source.config.model_type!r}, whose encoder cannot be saved on its "
            "own. Give an encoder checkpoint, such as sentence-transformers/all-MiniLM-L6-v2, or a T5."
        )
    model = source.load().eval()
    _move(model, device or "cpu")
    return model, source.tokenizer.tokenizer


@dataclass(frozen=True)
class LoadedTokenizer:
    """A tokenizer of transformers as embedding uses it; see [`TextTokenizer`]."""

    tokenizer: PreTrainedTokenizerBase

    @property
    def padding_id(self) -> int:
        """See [`TextTokenizer`]."""
        return self.tokenizer.pad_token_id or 0

    @property
    def num_special(self) -> int:
        """See [`TextTokenizer`]."""
        return int(self.tokenizer.num_special_tokens_to_add())

    def ids(self, texts: list[str]) -> list[list[int]]:
        """See [`TextTokenizer`]."""
        found: list[list[int]] = self.tokenizer(texts, truncation=False, padding=False, verbose=False)["input_ids"]
        return found

    def first_ids(self, text: str, size: int) -> list[int]:
        """See [`TextTokenizer`]."""
        if not self.tokenizer.is_fast:
            slow: list[int] = self.tokenizer(text, truncation=True, max_length=size)["input_ids"]
            return slow
        # `truncation=True` would be a setting of the Rust tokenizer, which other threads that use it take back.
        backend = self.tokenizer.backend_tokenizer
        if backend.truncation is not None:  # of whoever used it before
            backend.no_truncation()
        encoded = backend.encode(text, add_special_tokens=False)
        encoded.truncate(size - self.num_special, direction=self.tokenizer.truncation_side)
        found: list[int] = backend.post_process(encoded).ids
        return found

    def spans(self, texts: list[str]) -> list[list[tuple[int, int]]] | None:
        """See [`TextTokenizer`]."""
        if not self.tokenizer.is_fast:
            return None
        found = self.tokenizer(texts, return_offsets_mapping=True, verbose=False)
        spans: list[list[tuple[int, int]]] = found["offset_mapping"]
        return spans


def longest_text(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> float:
    """How many tokens an encoder can take.

    Args:
        config: its config.
        tokenizer: its tokenizer.
    """
    return min(tokenizer.model_max_length, num_positions(config) or 2**31)


def num_positions(config: PreTrainedConfig) -> int | None:
    """Tokens that a model with learned positions can take; None where there is no limit.

    Args:
        config: its config, or that of a part of it.
    """
    positions = getattr(config, "max_position_embeddings", None)
    if not positions or positions < 0:  # -1 in XLNet: none
        return None
    return positions - (config.pad_token_id + 1 if config.model_type in _POSITIONS_AFTER_PADDING else 0)


@dataclass
class LoadedEncoder:
    """An encoder that is loaded only once it has something to compute; see [`TextEncoder`]."""

    name: str
    config: PreTrainedConfig
    tokenizer: LoadedTokenizer
    recipe: EmbeddingRecipe
    path: str = ""
    model: PreTrainedModel | None = None

    @classmethod
    def open(
        cls, encoder: str | tuple[PreTrainedModel, PreTrainedTokenizerBase], recipe: EmbeddingRecipe | None
    ) -> LoadedEncoder:
        """One by its name, or one that is loaded already with its tokenizer."""
        if not isinstance(encoder, str):
            model, own = encoder
            recipe = recipe or EmbeddingRecipe()
            return cls(type(model).__name__, model.config, LoadedTokenizer(own), recipe, model=model)
        path = fetch_checkpoint(encoder)
        recipe = (read_recipe(path) or EmbeddingRecipe()) if recipe is None else recipe
        with checkpoint_errors(encoder):
            config = AutoConfig.from_pretrained(path, trust_remote_code=False)
            tokenizer = LoadedTokenizer(try_tokenizer(Path(path)))
        if not config.is_encoder_decoder and recipe.pooling != "last":
            refuse_causal(encoder, config, _INSTEAD_OF_CAUSAL)
        return cls(encoder, config, tokenizer, recipe, path=path)

    @property
    def width(self) -> int:
        """See [`TextEncoder`]."""
        try:
            return hidden_size(self.config)
        except ConfigurationError as err:
            raise CheckpointError(f"{self.name}: {err}") from err

    @cached_property
    def longest(self) -> float:
        """See [`TextEncoder`]."""
        return longest_text(self.config, self.tokenizer.tokenizer)

    def identity(self) -> str:
        """Tell these weights from others: by a loaded model's values, a folder's files, a Hub id's commit."""
        if self.model is not None:
            return hash_of_weights(_encoder_of(self.model))
        folder = Path(self.path)
        if folder.parent.name == "snapshots":  # the Hub's cache, which names the folder after the commit
            return f"{self.name}@{folder.name}"
        files = sorted(p for p in folder.iterdir() if p.suffix in {".safetensors", ".bin"} or p.name == "config.json")
        return "|".join(f"{p.name}:{p.stat().st_size}:{p.stat().st_mtime_ns}" for p in files)

    def load(self) -> PreTrainedModel:
        """Load the encoder alone, with weights in float32; one that came loaded stays as it is."""
        if self.model is not None:
            return _encoder_of(self.model)
        from transformers import AutoModel, AutoModelForSeq2SeqLM, AutoModelForTextEncoding
        from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

        options: dict[str, object] = {"dtype": torch.float32, "trust_remote_code": False, "use_safetensors": True}
        kind = AutoModelForSeq2SeqLM if self.config.is_encoder_decoder else AutoModel
        if type(self.config) in MODEL_FOR_TEXT_ENCODING_MAPPING:  # T5 and its kin: the decoder is not even read
            kind = AutoModelForTextEncoding
        with checkpoint_errors(self.name):
            model, info = kind.from_pretrained(self.path, output_loading_info=True, **options)
            check_loaded(Path(self.path), model, info, but_for="pooler")  # what a pooler gives is not used
        return model.get_encoder() if kind is AutoModelForSeq2SeqLM else model

    @contextmanager
    def computing(self, device: object) -> Iterator[Encode]:
        """See [`TextEncoder`]; a loaded model is moved, and stays there."""
        model = self.load()
        _move(model, device or (model.device if self.model is not None else own_device()))

        def encode(ids: np.ndarray, mask: np.ndarray, keep: bool) -> tuple[np.ndarray, np.ndarray | None]:
            inputs = {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask)}
            inputs = {name: value.to(model.device) for name, value in inputs.items()}
            hidden = model(**inputs).last_hidden_state.float()  # (B, S, H)
            pooled = pool(hidden, inputs["attention_mask"], self.recipe.pooling).cpu().numpy()
            return pooled, hidden.cpu().numpy() if keep else None

        with _evaluating(model):
            yield encode


def _encoder_of(model: PreTrainedModel) -> PreTrainedModel:
    return model.get_encoder() if model.config.is_encoder_decoder else model


def hash_of_weights(model: PreTrainedModel) -> str:
    """A digest of names, types and values of a model's weights; equal for equal weights, wherever they are."""
    digest = hashlib.blake2b()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name}:{value.dtype}:{tuple(value.shape)}".encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
    return digest.hexdigest()


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    """Switch dropout off for a while, where it is on: to say so to every part takes longer than to embed a text."""
    trained = [part for part in model.modules() if part.training]
    for part in trained:
        part.training = False
    try:
        with torch.inference_mode():
            yield
    finally:
        for part in trained:
            part.training = True


def _move(model: torch.nn.Module, device: object) -> None:
    try:
        wanted = torch.empty(0, device=device).device  # type: ignore[call-overload]
    except (RuntimeError, AssertionError) as err:  # no such device, or a torch that was built without it
        raise ConfigurationError(f"device={str(device)!r} cannot be used: {str(err).splitlines()[0]}") from err
    if any(one.device != wanted for one in model.parameters()):
        model.to(device)  # type: ignore[call-overload]


def own_device() -> str:
    """The GPU of this process, by its number on the machine (`torchrun`), or the first one; without any the CPU."""
    if not torch.cuda.is_available():
        return "cpu"
    number = os.environ.get("LOCAL_RANK")
    return f"cuda:{int(number) % torch.cuda.device_count()}" if number else "cuda"
