"""Texts and names of an index that several processes embed together; what they compute goes through files."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from ..encoders.embedding import embed_share
from ..encoders.loaded import load_encoder, own_device
from ..encoders.number_types import NumberType, number_type
from ..encoders.recipe import EmbeddingRecipe

__all__ = ["SharedEmbedding", "Together"]

_ENCODER_FOLDER = "shared-encoder"


class Together(Protocol):
    """Processes that work together."""

    @property
    def rank(self) -> int:
        """The number of this one, from 0."""

    @property
    def count(self) -> int:
        """How many there are."""

    def told(self, number: int = 0) -> int:
        """Wait until all processes are here, and learn the first one's number."""


@dataclass(frozen=True)
class SharedEmbedding:
    """Processes that fill one cache of embeddings: each computes some of its shards, as one process would.

    Attributes:
        processes: the processes.
        folder: of the retriever's training, which all of them can read and write.
    """

    processes: Together
    folder: Path

    @property
    def cache(self) -> Path:
        """Where the embeddings are."""
        return self.folder / "embeddings"

    def lead(
        self,
        texts: Sequence[Sequence[str]],
        encoder: tuple[PreTrainedModel, PreTrainedTokenizerBase],
        recipe: EmbeddingRecipe,
        max_length: int,
    ) -> None:
        """Give the others the encoder, embed an own share, and wait for theirs; for the first process.

        Args:
            texts: training texts, and names of labels.
            encoder: what embeds them, on the device of this process.
            recipe, max_length: how; see `embed_texts`.
        """
        place = self.folder / _ENCODER_FOLDER
        for part in encoder:
            part.save_pretrained(place)
        self.processes.told()
        self._embed(texts, encoder, recipe, max_length)
        self.processes.told()
        shutil.rmtree(place)

    def follow(
        self, texts: Sequence[Sequence[str]], recipe: EmbeddingRecipe, max_length: int, dtype: NumberType
    ) -> None:
        """Take the encoder from the first process, and embed an own share; for the others.

        Args:
            texts, recipe, max_length: see [`lead`].
            dtype: what they are embedded in.
        """
        self.processes.told()
        model, tokenizer = load_encoder(str(self.folder / _ENCODER_FOLDER), recipe, own_device())
        model.to(number_type(dtype, model.device))
        self._embed(texts, (model, tokenizer), recipe, max_length)
        self.processes.told()

    def _embed(
        self,
        texts: Sequence[Sequence[str]],
        encoder: tuple[PreTrainedModel, PreTrainedTokenizerBase],
        recipe: EmbeddingRecipe,
        max_length: int,
    ) -> None:
        share = (self.processes.rank, self.processes.count)
        for some in texts:
            embed_share(some, encoder, share, self.cache, recipe=recipe, max_length=max_length)
