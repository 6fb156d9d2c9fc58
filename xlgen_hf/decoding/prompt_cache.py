"""The cache of a decoder-only backbone: what is kept of a prompt stands there once, however many rows read it."""

from __future__ import annotations

from copy import copy

import torch
from transformers import Cache, DynamicCache, EncoderDecoderCache
from transformers.cache_utils import DynamicLayer

__all__ = ["beams_of", "branched", "shared_prompt"]


class _PromptLayer(DynamicLayer):
    """Keys and values of one layer: those of `B` prompts, which rows share, and those of `N` rows' own tokens.

    A beam search would otherwise keep and move a copy of its text's prompt for each beam. Tensors are replaced, never
    written into, so a shallow copy of a layer goes its own way.

    Args:
        keys, values: of the prompts, `(B, heads, S, width)`.
    """

    def __init__(self, keys: torch.Tensor, values: torch.Tensor) -> None:
        super().__init__()
        self.prompts = (keys, values)
        self._prompt_of_row: torch.Tensor | None = None  # (N,); None while row i reads prompt i

    def update(
        self, key_states: torch.Tensor, value_states: torch.Tensor, *args: object, **kwargs: object
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append to the rows' own tokens; keys and values of prompts and own tokens together come back."""
        own = super().update(key_states, value_states, *args, **kwargs)
        keys, values = (torch.cat(pair, dim=-2) for pair in zip(self._of_rows(), own, strict=True))
        return keys, values

    @property
    def rows(self) -> int:
        """The number of rows."""
        return len(self.prompts[0]) if self._prompt_of_row is None else len(self._prompt_of_row)

    @property
    def place(self) -> torch.device:
        """Where the prompts are."""
        return self.prompts[0].device

    def _of_rows(self) -> tuple[torch.Tensor, torch.Tensor]:
        if self._prompt_of_row is None:
            return self.prompts
        keys, values = (part.index_select(0, self._prompt_of_row) for part in self.prompts)
        return keys, values

    def get_seq_length(self) -> int:
        """Tokens of a row, its prompt's included."""
        return self.prompts[0].shape[-2] + super().get_seq_length()

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        """Go on with these rows, which may repeat."""
        if self.is_initialized:
            super().batch_select_indices(indices)
        rows = indices if self._prompt_of_row is None else self._prompt_of_row[indices]
        self._prompt_of_row = rows
        if len(rows) <= len(self.prompts[0]):  # rows were dropped: so are prompts
            self.prompts, self._prompt_of_row = self._of_rows(), None

    def reorder_cache(self, beam_idx: torch.Tensor) -> None:
        """Go on with these rows, each of the same text as the one whose place it takes: the prompts stay."""
        if self.is_initialized:
            super().batch_select_indices(beam_idx)


def shared_prompt(cache: Cache) -> EncoderDecoderCache:
    """The cache that generation starts from, of what a decoder-only model has kept of its prompts.

    Args:
        cache: a cache of keys and values for `B` prompts.

    Returns:
        A cache whose part for self-attention holds the prompts, and whose part for cross-attention is empty.
    """
    prompts = DynamicCache()
    prompts.layers = [_PromptLayer(layer.keys, layer.values) for layer in cache.layers]
    return EncoderDecoderCache(prompts, DynamicCache())


def branched(cache: EncoderDecoderCache, rows: torch.Tensor | None = None) -> EncoderDecoderCache:
    """A cache of some rows of another one, which stays as it is: layers replace their tensors, so a new shell does.

    Args:
        cache: the cache.
        rows: the rows, which may repeat; all if None.
    """
    parts = []
    for part in (cache.self_attention_cache, cache.cross_attention_cache):
        shell = copy(part)
        shell.layers = [copy(layer) for layer in part.layers]
        parts.append(shell)
    twin = EncoderDecoderCache(*parts)
    if rows is not None:
        twin.batch_select_indices(rows)
    return twin


def beams_of(prompt: EncoderDecoderCache, rows: int) -> torch.Tensor | None:
    """The prompt of each row where a text's beams stand beside each other, `(N,)`; None where each text has one row.

    Args:
        prompt: what [`shared_prompt`] gave.
        rows: number of rows `N`, a multiple of the texts.
    """
    layer = prompt.self_attention_cache.layers[0]
    if layer.rows == rows:
        return None
    return torch.arange(layer.rows, device=layer.place).repeat_interleave(rows // layer.rows)
