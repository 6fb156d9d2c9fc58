"""What is kept between the steps of decoding: the encoder side's output of a batch, and values made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

import torch
from transformers import EncoderDecoderCache
from transformers.modeling_outputs import ModelOutput

from .prompt_cache import branched

__all__ = ["LastValue", "XLGenMemory"]

T = TypeVar("T")


class LastValue(Generic[T]):
    """Keeps the value that was made last, until another one is asked for.

    Safe with threads: a value is made, then published together with its key in one assignment. Threads that ask for
    different values make them over and over, but each gets its own. Copies and pickles are empty, for what is kept
    belongs to the tensors of one model.
    """

    def __init__(self) -> None:
        self._kept: tuple[object, T] | None = None

    def get(self, key: object, make: Callable[[], T]) -> T:
        """The value of a key.

        Args:
            key: all that the value depends on; compared by equality.
            make: makes the value, where the one that is kept has another key.
        """
        kept = self._kept
        if kept is None or kept[0] != key:
            kept = self._kept = (key, make())
        return kept[1]

    def clear(self) -> None:
        """Forget the value."""
        self._kept = None

    def __reduce__(self) -> tuple[type[LastValue[T]], tuple[()]]:
        return type(self), ()


@dataclass
class XLGenMemory(ModelOutput):
    """What the encoder side gives the decoder, a row for each text.

    Attributes:
        last_hidden_state: the decoder's memory, `(B, S, H)`; of a decoder-only backbone the embeddings of the prompts,
            each at the right end of its row.
        attention_mask: its mask, `(B, S)`.
        cluster_logits: logits of the clusters, `(B, C)`; `bcl` only.
        cluster_bits: the bits that conditioned the memory, `(B, C)`; `bcl` only.
        candidate_keys: memory of each candidate, `(B, K, H)`; `rcl` that copies only.
        candidate_tokens: tokens of each candidate's name, its separator last, padded with -1, `(B, K, P)`.
        candidate_logits: by the candidate head, minus infinity where there is no candidate, `(B, K)`.
        prompt: what a decoder-only backbone has kept of the prompts, see [`shared_prompt`]; None where it has not run.
    """

    last_hidden_state: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    cluster_logits: torch.Tensor | None = None
    cluster_bits: torch.Tensor | None = None
    candidate_keys: torch.Tensor | None = None
    candidate_tokens: torch.Tensor | None = None
    candidate_logits: torch.Tensor | None = None
    prompt: EncoderDecoderCache | None = None

    def select(self, rows: torch.Tensor) -> XLGenMemory:
        """The memory of these rows, which may repeat."""
        return XLGenMemory(**{name: _selected(value, rows) for name, value in self.items()})


def _selected(part: torch.Tensor | EncoderDecoderCache, rows: torch.Tensor) -> torch.Tensor | EncoderDecoderCache:
    return branched(part, rows) if isinstance(part, EncoderDecoderCache) else part[rows]
