"""What models and predictions return."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from transformers.modeling_outputs import ModelOutput

__all__ = ["XLGenMemory"]


@dataclass
class XLGenMemory(ModelOutput):
    """What the encoder side gives the decoder, a row for each text.

    Attributes:
        last_hidden_state: the decoder's memory, `(B, S, H)`.
        attention_mask: its mask, `(B, S)`.
        cluster_logits: logits of the clusters, `(B, C)`; `bcl` only.
        cluster_bits: the bits that conditioned the memory, `(B, C)`; `bcl` only.
        candidate_keys: memory of each candidate, `(B, K, H)`; `rcl` that copies only.
        candidate_pieces: pieces of each candidate, its separator last, filled up with -1, `(B, K, P)`; likewise.
    """

    last_hidden_state: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    cluster_logits: torch.Tensor | None = None
    cluster_bits: torch.Tensor | None = None
    candidate_keys: torch.Tensor | None = None
    candidate_pieces: torch.Tensor | None = None

    def select(self, rows: torch.Tensor) -> XLGenMemory:
        """The memory of these rows, which may repeat."""
        return XLGenMemory(**{name: value[rows] for name, value in self.items()})
