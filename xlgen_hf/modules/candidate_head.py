"""XLGen-RCL: the head that says which of the candidate labels in the input apply to the text."""

from __future__ import annotations

import math

import torch
from torch import nn
from torch.nn import functional

from .candidate_pointer import NOTHING
from .output_layer import IGNORED

__all__ = ["CandidateHead", "candidate_loss", "candidate_spans", "hide_candidates"]

_PRIOR = -2.0  # logit of a candidate before training: some 12 % of a retriever's candidates are right
_SMALL = 1e-3  # scores below it hardly differ in what the head reads of them


class CandidateHead(nn.Module):
    """Predicts for each candidate label whether it is a label of the text: BCL's idea at the level of labels.

    It reads the mean of the encoder's states over the candidate's tokens, alone and multiplied with that of the text,
    and the retriever's scores. These reach the logit directly as well, so that training starts from what they say.

    Args:
        width: of the encoder's states, `H`.
        num_scores: scores that the retriever gives a candidate, `F`.

    Source: the multi-hot vector over clusters that BCL's head predicts (Jung et al., EACL 2023), here over the
    candidates of each text.
    """

    def __init__(self, width: int, num_scores: int) -> None:
        super().__init__()
        features = 3 * num_scores + 1
        self.hidden = nn.Linear(2 * width + features, width)
        self.output = nn.Linear(width, 1)
        self.direct = nn.Linear(features, 1)

    @torch.no_grad()
    def reset(self) -> None:
        """Start from the same small probability for every candidate."""
        for layer in (self.output, self.direct):
            layer.weight.zero_()
            layer.bias.zero_()
        self.direct.bias.fill_(_PRIOR)

    def forward(
        self, states: torch.Tensor, mask: torch.Tensor, spans: torch.Tensor, scores: torch.Tensor | None
    ) -> torch.Tensor:
        """Logits of the candidates, `(B, K)`, float32; minus infinity where there is none.

        Args:
            states: the encoder's last hidden states, `(B, S, H)`.
            mask: of the input, `(B, S)`.
            spans: 1 at the tokens of each candidate, `(B, K, S)`; see [`candidate_spans`].
            scores: of the candidates by the retriever, best candidate first, in [0, 1], `(B, K, F)`; 0 if None.
        """
        spans = spans.to(states.dtype)
        text = (mask.to(states.dtype) - spans.sum(1)).clamp(min=0)
        text_state = _mean(text[:, None], states)
        own = _mean(spans, states)
        if scores is None:
            scores = states.new_zeros(*spans.shape[:2], (self.direct.in_features - 1) // 3)
        features = _features(scores.float()).to(states.dtype)
        hidden = functional.gelu(self.hidden(torch.cat([own, own * text_state, features], dim=-1)))
        logits = (self.output(hidden) + self.direct(features))[..., 0]
        return logits.float().masked_fill(~spans.any(-1), -torch.inf)


def _mean(weights: torch.Tensor, states: torch.Tensor) -> torch.Tensor:
    """Means of states `(B, S, H)` over the tokens that weights `(B, K, S)` choose, `(B, K, H)`."""
    return weights @ states / weights.sum(-1, keepdim=True).clamp(min=1)


def _features(scores: torch.Tensor) -> torch.Tensor:
    """Scores `(B, K, F)` -> `(B, K, 3F + 1)`: as they are, logarithmic, relative to the text's best, and 1 / rank."""
    logarithmic = torch.log1p(scores / _SMALL) / math.log1p(1 / _SMALL)
    relative = scores / scores.amax(dim=1, keepdim=True).clamp(min=_SMALL)
    rank = 1 / torch.arange(1, scores.shape[1] + 1, device=scores.device, dtype=scores.dtype)
    return torch.cat([scores, logarithmic, relative, rank[None, :, None].expand(len(scores), -1, 1)], dim=-1)


def candidate_spans(places: torch.Tensor, names: torch.Tensor, length: int) -> torch.Tensor:
    """Which tokens of an input are those of which candidate, `(B, K, S)`, bool: its level and its name.

    Args:
        places, names: see `spelled_candidates`, `(B, K)` and `(B, K, P)`.
        length: tokens of the input, `S`.
    """
    size = (names != NOTHING).sum(-1)  # the level stands in for the separator
    position = torch.arange(length, device=places.device)
    first = places[:, :, None]
    return (position >= first) & (position < first + size[:, :, None])


def hide_candidates(
    is_hidden: torch.Tensor, spans: torch.Tensor, mask: torch.Tensor, names: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Hide candidates from the decoder, which neither attends to them nor copies from them.

    Args:
        is_hidden: the candidates to hide, `(B, K)`, bool.
        spans: their tokens, see [`candidate_spans`].
        mask: of the input, `(B, S)`.
        names: see `spelled_candidates`, `(B, K, P)`.

    Returns:
        Mask and names without them.
    """
    chosen = is_hidden[:, :, None]
    return mask.masked_fill((spans & chosen).any(1), 0), names.masked_fill(chosen, NOTHING)


def candidate_loss(logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Mean binary cross-entropy over the candidates, `()`; 0 without any.

    Args:
        logits: `(B, K)`; minus infinity where there is no candidate.
        targets: how far the candidate is a label of the text, from 0 to 1; -100 where no loss counts, `(B, K)`.
    """
    counted = targets != IGNORED
    total = functional.binary_cross_entropy_with_logits(
        logits[counted].float(), targets[counted].float(), reduction="sum"
    )
    return total / counted.sum().clamp(min=1)
