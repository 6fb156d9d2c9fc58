"""Hidden states of texts made into one vector each."""

from __future__ import annotations

import torch

from .recipe import Pooling

__all__ = ["masked_mean", "pool"]


def pool(hidden: torch.Tensor, mask: torch.Tensor, pooling: Pooling) -> torch.Tensor:
    """One vector for each text out of its hidden states.

    Args:
        hidden: `(B, S, H)`, padded on the right.
        mask: 1 where a token of the text is, else 0, `(B, S)`.
        pooling: see [`EmbeddingRecipe`].

    Returns:
        `(B, H)`, of the type of `hidden`.
    """
    if pooling == "mean":
        return masked_mean(hidden, mask)
    if pooling == "max":
        return hidden.masked_fill(mask[:, :, None] == 0, -torch.inf).amax(1)
    if pooling == "cls":
        return hidden[:, 0]
    return hidden[torch.arange(len(hidden), device=hidden.device), mask.sum(1) - 1]


def masked_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of hidden states over the positions that a mask keeps.

    Args:
        hidden: `(B, S, H)`.
        mask: 1 where a position counts, else 0, `(B, S)`.

    Returns:
        `(B, H)`, of the type of `hidden`; zeros for a row without any position.
    """
    weight = mask.to(hidden.dtype)[:, :, None]
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
