"""The encoder side: texts to the decoder's memory, conditioned on clusters or on candidate labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional

from ..decoding.memory import XLGenMemory
from ..errors import ConfigurationError
from .candidate_pointer import spelled_candidates

__all__ = ["ConditionedEncoderMixin"]


class ConditionedEncoderMixin:
    """Encodes texts for an XLGen model, each variant in its way."""

    # What the model brings.
    config: Any
    training: bool
    get_encoder: Callable[..., Any]
    cluster_head: nn.Linear
    cluster_embeddings: nn.Embedding
    label_vectors: torch.Tensor
    candidate_projection: nn.Linear
    candidate_ranks: nn.Embedding

    def encode(
        self,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        cluster_bits: torch.Tensor | None = None,
        candidate_ids: torch.Tensor | None = None,
    ) -> XLGenMemory:
        """Encode texts and condition them on clusters or candidate labels.

        Args:
            input_ids: `(B, S)`, or None with `inputs_embeds`.
            attention_mask: `(B, S)`; all ones if None.
            inputs_embeds: `(B, S, H)`; no candidates are copied from these.
            cluster_bits: clusters of the texts, 0 or 1, `(B, C)`; `bcl` only, predicted if None.
            candidate_ids: label ids of candidates, padded with -1, `(B, K)`; `rcl` with label vectors only.

        Returns:
            The decoder's memory `(B, S + A, H)` with A the maximum number of clusters or candidate vectors of a text,
            its mask, and what the variant conditions on.
        """
        given = inputs_embeds if input_ids is None else input_ids
        if given is None:
            raise ValueError("Give input_ids, inputs_embeds or encoder_outputs.")
        if attention_mask is None:
            attention_mask = given.new_ones(given.shape[:2], dtype=torch.long)
        hidden = self._run_encoder(input_ids, attention_mask, inputs_embeds)
        if self.config.has_label_vectors and candidate_ids is not None:
            return XLGenMemory(*self._join_candidates(hidden, attention_mask, candidate_ids))
        if self.config.variant == "bcl":
            return self._with_clusters(hidden, input_ids, attention_mask, cluster_bits)
        memory = XLGenMemory(hidden, attention_mask)
        if self.config.copies_candidates and input_ids is not None:
            ends = (self.config.separator_token_id, self.config.eos_token_id)
            places, pieces = spelled_candidates(input_ids, attention_mask, self.config.level_token_ids, *ends)
            keys = hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[-1]))
            memory.candidate_keys, memory.candidate_pieces = keys, pieces
        return memory

    def _with_clusters(
        self, hidden: torch.Tensor, input_ids: torch.Tensor | None, mask: torch.Tensor, gold: torch.Tensor | None
    ) -> XLGenMemory:
        pooled = functional.normalize(_masked_mean(hidden, mask), dim=-1) * hidden.shape[-1] ** 0.5
        logits = self.cluster_head(pooled)
        bits = self._choose_bits(logits, gold)
        if self.config.conditioning == "tokens":
            ids, mask = self._append_cluster_tokens(input_ids, mask, bits)
            return XLGenMemory(self._run_encoder(ids, mask), mask, logits, bits)
        return XLGenMemory(*self._join_clusters(hidden, mask, bits), logits, bits)

    def _join_candidates(
        self, hidden: torch.Tensor, mask: torch.Tensor, candidate_ids: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the vectors of the candidates to the memory: `(B, S, H)` and `(B, K)` -> `(B, S + K, H)`."""
        rank = torch.arange(candidate_ids.shape[1], device=hidden.device)
        rank = rank.clamp(max=self.candidate_ranks.num_embeddings - 1)
        vectors = self.candidate_projection(self.label_vectors[candidate_ids.clamp(min=0)].to(hidden.dtype))
        vectors = vectors + self.candidate_ranks(rank)
        return torch.cat([hidden, vectors], dim=1), torch.cat([mask, (candidate_ids >= 0).to(mask.dtype)], dim=1)

    def _run_encoder(
        self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor, inputs_embeds: torch.Tensor | None = None
    ) -> torch.Tensor:
        given = {"input_ids": input_ids} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
        return self.get_encoder()(**given, attention_mask=attention_mask, return_dict=True).last_hidden_state

    def predict_bits(self, logits: torch.Tensor) -> torch.Tensor:
        """Cluster logits `(B, C)` -> bits `(B, C)`: above the threshold, at least the best, at most `max_clusters`."""
        probability = logits.sigmoid()
        best = probability.topk(min(self.config.max_clusters, logits.shape[1]), dim=1).indices
        rank_bits = torch.zeros_like(probability).scatter_(1, best, 1.0)
        bits = rank_bits * (probability > self.config.cluster_threshold)
        return bits.scatter_(1, best[:, :1], 1.0)

    def _choose_bits(self, logits: torch.Tensor, gold: torch.Tensor | None) -> torch.Tensor:
        """Gold or predicted bits; training with `mixed` draws for each text, so that it knows its own mistakes."""
        if gold is None:
            return self.predict_bits(logits.detach())
        if not self.training or self.config.cluster_source == "gold":
            return gold
        predicted = self.predict_bits(logits.detach()).to(gold.dtype)
        if self.config.cluster_source == "predicted":
            return predicted
        draw = torch.rand(gold.shape[0], 1, device=gold.device) < self.config.predicted_rate
        return torch.where(draw, predicted, gold)

    def _join_clusters(
        self, hidden: torch.Tensor, mask: torch.Tensor, bits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Append the vectors of the active clusters to the memory: `(B, S, H)` and `(B, C)` -> `(B, S + A, H)`."""
        most = max(int((bits > 0).sum(1).max()), 1)
        active, clusters = bits.topk(most, dim=1)  # (B, A)
        vectors = self.cluster_embeddings(clusters).to(hidden.dtype)
        return torch.cat([hidden, vectors], dim=1), torch.cat([mask, (active > 0).to(mask.dtype)], dim=1)

    def _append_cluster_tokens(
        self, input_ids: torch.Tensor | None, mask: torch.Tensor, bits: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Put the active clusters' tokens before each text's last token; ids and mask `(B, S + A)`."""
        if input_ids is None or self.config.first_cluster_token_id is None:
            raise ConfigurationError("conditioning='tokens' needs input_ids and a processor with clusters.")
        most = max(int((bits > 0).sum(1).max()), 1)
        active, clusters = bits.topk(most, dim=1)
        count, length = (active > 0).sum(1, keepdim=True), mask.sum(1, keepdim=True)  # (B, 1)
        batch, source = input_ids.shape
        position = torch.arange(source + most, device=mask.device).expand(batch, -1)
        offset = position - (length - 1)
        tokens = self.config.first_cluster_token_id + clusters.gather(1, offset.clamp(0, most - 1))
        text = input_ids.gather(1, position.clamp(max=source - 1))
        last = input_ids.gather(1, length - 1)
        ids = torch.where(offset < 0, text, torch.where(offset < count, tokens, last))
        new_mask = (position < length + count).to(mask.dtype)
        return torch.where(new_mask > 0, ids, self.config.pad_token_id), new_mask


def _masked_mean(hidden: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Mean of `(B, S, H)` over the positions that `mask` `(B, S)` keeps, `(B, H)`."""
    weight = mask.to(hidden.dtype)[:, :, None]
    return (hidden * weight).sum(1) / weight.sum(1).clamp(min=1)
