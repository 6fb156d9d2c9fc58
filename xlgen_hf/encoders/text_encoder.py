"""What embedding texts needs of an encoder: one of transformers, or one that is a graph."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Protocol, TypeAlias

import numpy as np

from .recipe import EmbeddingRecipe

__all__ = ["Encode", "TextEncoder", "TextTokenizer"]

Encode: TypeAlias = "Callable[[np.ndarray, np.ndarray, bool], tuple[np.ndarray, np.ndarray | None]]"
"""Token ids and mask, both `(B, S)`, int64, to vectors `(B, H)` and, where wanted, hidden states `(B, S, H)`."""


class TextTokenizer(Protocol):
    """Turns texts into token ids."""

    @property
    def padding_id(self) -> int:
        """What fills the rows of a batch; any id will do, since the mask hides it."""

    @property
    def num_special(self) -> int:
        """How many tokens are added to each text."""

    def ids(self, texts: list[str]) -> list[list[int]]:
        """Token ids of texts, special ones included, however long they are."""

    def first_ids(self, text: str, size: int) -> list[int]:
        """Token ids of a text that is truncated to a number of tokens, special ones included."""

    def spans(self, texts: list[str]) -> list[list[tuple[int, int]]] | None:
        """Where each token of [`ids`] begins and ends in its text, in characters; None if that is not known."""


class TextEncoder(Protocol):
    """An encoder with its tokenizer, and how a vector is made of its hidden states."""

    @property
    def name(self) -> str:
        """What messages call it."""

    @property
    def tokenizer(self) -> TextTokenizer:
        """Its tokenizer."""

    @property
    def recipe(self) -> EmbeddingRecipe:
        """Prompts and pooling."""

    @property
    def width(self) -> int:
        """Size `H` of its hidden states."""

    @property
    def longest(self) -> float:
        """How many tokens it can take."""

    def identity(self) -> str:
        """Tells its weights from others, for the cache."""

    def computing(self, device: object) -> AbstractContextManager[Encode]:
        """What encodes batches, on a device; its own one if None."""
