"""The encoder side: texts to the decoder's memory, conditioned on clusters or on candidate labels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn
from torch.nn import functional

from ..configuration_xlgen import XLGenConfig
from ..decoding.memory import XLGenMemory
from ..encoders.pooling import masked_mean
from ..errors import ConfigurationError
from .candidate_head import CandidateHead, candidate_spans, hide_candidates
from .candidate_pointer import spelled_candidates
from .causal import read_prompt, with_vectors

if TYPE_CHECKING:
    from transformers import PreTrainedModel

__all__ = ["ConditionedEncoderMixin", "EncoderModel", "append_cluster_tokens", "choose_bits"]

_LEAST_LOG_WEIGHT = -20.0  # finite where there is no candidate, which is masked elsewhere


class EncoderModel(Protocol):
    """What [`ConditionedEncoderMixin`] needs of the model that it is mixed into."""

    config: XLGenConfig
    backbone: PreTrainedModel
    training: bool
    cluster_head: nn.Linear
    cluster_embeddings: nn.Embedding
    label_vectors: torch.Tensor
    candidate_projection: nn.Linear
    candidate_ranks: nn.Embedding
    candidate_head: CandidateHead

    def get_encoder(self) -> nn.Module:
        """The backbone's encoder."""

    def predict_bits(self, logits: torch.Tensor) -> torch.Tensor:
        """See [`ConditionedEncoderMixin`]."""


class ConditionedEncoderMixin:
    """Encodes texts for an XLGen model, each variant in its way."""

    def encode(
        self: EncoderModel,
        input_ids: torch.Tensor | None,
        attention_mask: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        cluster_bits: torch.Tensor | None = None,
        candidate_ids: torch.Tensor | None = None,
        candidate_scores: torch.Tensor | None = None,
    ) -> XLGenMemory:
        """Encode texts and condition them on clusters or candidate labels.

        Args:
            input_ids: `(B, S)`, or None with `inputs_embeds`.
            attention_mask: `(B, S)`; all ones if None.
            inputs_embeds: `(B, S, H)`; no candidates are copied from these.
            cluster_bits: clusters of the texts, 0 or 1, `(B, C)`; `bcl` only, predicted if None.
            candidate_ids: label ids of candidates, padded with -1, `(B, K)`; `rcl` with label vectors only.
            candidate_scores: what the retriever says of the candidates in the inputs, `(B, K, F)`; 0 if None.

        Returns:
            The decoder's memory `(B, S + A, H)` with A the maximum number of clusters or candidate vectors of a text,
            its mask, and what the variant conditions on.
        """
        given = inputs_embeds if input_ids is None else input_ids
        if given is None:
            raise ValueError("Give input_ids, inputs_embeds or encoder_outputs.")
        if attention_mask is None:
            attention_mask = given.new_ones(given.shape[:2], dtype=torch.long)
        if self.config.is_causal:
            candidates = (candidate_ids, candidate_scores)
            return _encode_prompt(self, input_ids, attention_mask, inputs_embeds, cluster_bits, *candidates)
        hidden = _run_encoder(self, input_ids, attention_mask, inputs_embeds)
        if self.config.has_label_vectors and candidate_ids is not None:
            return _joined(XLGenMemory(hidden, attention_mask), *_candidate_vectors(self, candidate_ids, hidden.dtype))
        if self.config.variant == "bcl":
            return _with_clusters(self, hidden, input_ids, attention_mask, cluster_bits, candidate_scores)
        return _with_candidates(self, XLGenMemory(hidden, attention_mask), input_ids, candidate_scores)

    def candidate_weights(self: EncoderModel, memory: XLGenMemory) -> torch.Tensor | None:
        """Logarithms of what candidates weigh when they are copied from, `(B, K)`; None where all weigh alike.

        With the candidate gate they are the head's log-probabilities; generation does not train the head by them.
        """
        if not self.config.candidate_gate or memory.candidate_logits is None:
            return None
        return functional.logsigmoid(memory.candidate_logits.detach()).clamp(min=_LEAST_LOG_WEIGHT)

    def predict_bits(self: EncoderModel, logits: torch.Tensor) -> torch.Tensor:
        """Cluster logits `(B, C)` -> bits `(B, C)`: above the threshold, at least the best, at most `max_clusters`."""
        probability = logits.sigmoid()
        best = probability.topk(min(self.config.max_clusters, logits.shape[1]), dim=1).indices
        rank_bits = torch.zeros_like(probability).scatter_(1, best, 1.0)
        bits = rank_bits * (probability > self.config.cluster_threshold)
        return bits.scatter_(1, best[:, :1], 1.0)


def choose_bits(model: EncoderModel, logits: torch.Tensor, gold: torch.Tensor | None) -> torch.Tensor:
    """The bits that condition the memory: gold or predicted.

    Training with `cluster_source="mixed"` samples one of both for each text, so that the model meets its own mistakes.

    Args:
        model: a `bcl` model.
        logits: of the clusters, `(B, C)`.
        gold: clusters of the texts, 0 or 1, `(B, C)`; None where they are not known.
    """
    if gold is None:
        return model.predict_bits(logits.detach())
    if not model.training or model.config.cluster_source == "gold":
        return gold
    predicted = model.predict_bits(logits.detach()).to(gold.dtype)
    if model.config.cluster_source == "predicted":
        return predicted
    draw = torch.rand(gold.shape[0], 1, device=gold.device) < model.config.predicted_rate
    return torch.where(draw, predicted, gold)


def append_cluster_tokens(
    config: XLGenConfig, input_ids: torch.Tensor | None, mask: torch.Tensor, bits: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """Put the active clusters' tokens before the special tokens that end each text.

    Args:
        config: gives the token of the first cluster, and the padding.
        input_ids, mask: the texts, `(B, S)`.
        bits: clusters of the texts, 0 or 1, `(B, C)`.

    Returns:
        Ids and mask, `(B, S + A)` with A the largest number of clusters of a text; padding comes last.

    Raises:
        ConfigurationError: if there are no ids, or no tokens for clusters.
    """
    if input_ids is None or config.first_cluster_token_id is None or config.pad_token_id is None:
        raise ConfigurationError("conditioning='tokens' needs input_ids and a processor with clusters.")
    # Padding may stand on either side; here it comes after the text.
    order = mask.eq(0).long().argsort(dim=1, stable=True)
    input_ids, mask = input_ids.gather(1, order), mask.gather(1, order)
    active, clusters = _first_active(bits)
    most = active.shape[1]
    count, length = (active > 0).sum(1, keepdim=True), mask.sum(1, keepdim=True).long()  # (B, 1)
    batch, source = input_ids.shape
    position = torch.arange(source + most, device=mask.device).expand(batch, -1)
    offset = position - (length - _end_lengths(config, input_ids, mask))
    tokens = config.first_cluster_token_id + clusters.gather(1, offset.clamp(0, most - 1))
    text = input_ids.gather(1, (position - count * (offset >= count)).clamp(max=source - 1))
    ids = torch.where((offset >= 0) & (offset < count), tokens, text)
    new_mask = (position < length + count).to(mask.dtype)
    return torch.where(new_mask > 0, ids, config.pad_token_id), new_mask


def _end_lengths(config: XLGenConfig, input_ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
    """Special tokens that end each input `(B, S)`, `(B, 1)`."""
    length = mask.sum(1, keepdim=True).long()
    if config.num_end_tokens is not None:
        return length.clamp(max=config.num_end_tokens)
    assert isinstance(config.eos_token_id, int)
    last = input_ids.gather(1, mask.cumsum(1).eq(length).long().argmax(1, keepdim=True))
    return last.eq(config.eos_token_id).long()


def _run_encoder(
    model: EncoderModel,
    input_ids: torch.Tensor | None,
    attention_mask: torch.Tensor,
    inputs_embeds: torch.Tensor | None = None,
) -> torch.Tensor:
    given = {"input_ids": input_ids} if inputs_embeds is None else {"inputs_embeds": inputs_embeds}
    output = model.get_encoder()(**given, attention_mask=attention_mask, return_dict=True)
    hidden: torch.Tensor = output.last_hidden_state
    return hidden


def _encode_prompt(
    model: EncoderModel,
    input_ids: torch.Tensor | None,
    mask: torch.Tensor,
    inputs_embeds: torch.Tensor | None,
    gold: torch.Tensor | None,
    candidate_ids: torch.Tensor | None,
    candidate_scores: torch.Tensor | None,
) -> XLGenMemory:
    """Read texts as prompts of a decoder-only backbone; clusters and candidates follow them, as vectors or tokens."""
    config = model.config
    with_states = config.variant == "bcl" or config.reads_candidates
    prompt = read_prompt(model.backbone, input_ids, mask, inputs_embeds, with_states=with_states)
    if config.has_label_vectors and candidate_ids is not None:
        vectors = _candidate_vectors(model, candidate_ids, prompt.embeds.dtype)
        return with_vectors(model.backbone, prompt, *vectors).memory()
    if prompt.hidden is None or not with_states:
        return prompt.memory()
    guided = prompt
    logits = bits = None
    if config.variant == "bcl":
        logits, bits = _predict_clusters(model, prompt.hidden, prompt.mask, gold)
        guided = with_vectors(model.backbone, prompt, *_cluster_vectors(model, bits))
    memory = guided.memory()
    memory.cluster_logits, memory.cluster_bits = logits, bits
    found = _with_candidates(model, XLGenMemory(prompt.hidden, prompt.mask), prompt.ids, candidate_scores)
    memory.candidate_keys, memory.candidate_tokens = found.candidate_keys, found.candidate_tokens
    memory.candidate_logits = found.candidate_logits
    return memory


def _with_clusters(
    model: EncoderModel,
    hidden: torch.Tensor,
    input_ids: torch.Tensor | None,
    mask: torch.Tensor,
    gold: torch.Tensor | None,
    scores: torch.Tensor | None,
) -> XLGenMemory:
    """Predict clusters from hidden states `(B, S, H)`, and condition on them or on the gold ones."""
    logits, bits = _predict_clusters(model, hidden, mask, gold)
    as_tokens = model.config.conditioning == "tokens"
    if as_tokens:
        input_ids, mask = append_cluster_tokens(model.config, input_ids, mask, bits)
        hidden = _run_encoder(model, input_ids, mask)
    memory = _with_candidates(model, XLGenMemory(hidden, mask), input_ids, scores)
    memory.cluster_logits, memory.cluster_bits = logits, bits
    return memory if as_tokens else _joined(memory, *_cluster_vectors(model, bits))


def _predict_clusters(
    model: EncoderModel, hidden: torch.Tensor, mask: torch.Tensor, gold: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits of the clusters, and the bits that condition, both `(B, C)`."""
    pooled = functional.normalize(masked_mean(hidden, mask), dim=-1) * hidden.shape[-1] ** 0.5
    logits = model.cluster_head(pooled)
    return logits, choose_bits(model, logits, gold)


def _cluster_vectors(model: EncoderModel, bits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of each text's clusters `(B, A, H)`, and which of them are active `(B, A)`."""
    active, clusters = _first_active(bits)
    if model.config.conditioning == "memory":
        vectors: torch.Tensor = model.cluster_embeddings(clusters)
    else:  # of a decoder-only backbone: tokens can follow a prompt that is read already
        first = model.config.first_cluster_token_id
        assert first is not None
        vectors = model.backbone.get_input_embeddings()(first + clusters)
    return vectors, active > 0


def _first_active(bits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Bits and ids of each text's clusters by their ids, those that are not active last, both `(B, A)`.

    The order of a text's clusters must not depend on other texts, as that of `topk` does among equal values.
    """
    most = max(int((bits > 0).sum(1).max()), 1)
    active, clusters = bits.sort(dim=1, descending=True, stable=True)
    return active[:, :most], clusters[:, :most]


def _candidate_vectors(
    model: EncoderModel, candidate_ids: torch.Tensor, dtype: torch.dtype
) -> tuple[torch.Tensor, torch.Tensor]:
    """Vectors of the candidates `(B, K, H)`, and which of them there are `(B, K)`."""
    rank = torch.arange(candidate_ids.shape[1], device=candidate_ids.device)
    rank = rank.clamp(max=model.candidate_ranks.num_embeddings - 1)
    vectors = model.candidate_projection(model.label_vectors[candidate_ids.clamp(min=0)].to(dtype))
    return vectors + model.candidate_ranks(rank), candidate_ids >= 0


def _joined(memory: XLGenMemory, vectors: torch.Tensor, active: torch.Tensor) -> XLGenMemory:
    """Append vectors `(B, A, H)`, of which those that are active `(B, A)` count, to a memory `(B, S, H)`."""
    hidden, mask = memory.last_hidden_state, memory.attention_mask
    assert hidden is not None and mask is not None
    memory.last_hidden_state = torch.cat([hidden, vectors.to(hidden.dtype)], dim=1)
    memory.attention_mask = torch.cat([mask, active.to(mask.dtype)], dim=1)
    return memory


def _with_candidates(
    model: EncoderModel, memory: XLGenMemory, input_ids: torch.Tensor | None, scores: torch.Tensor | None
) -> XLGenMemory:
    """Find the candidates in inputs `(B, S)`, if any; the head says which apply, and may hide others from the decoder.

    Nothing is found without candidates, or where the inputs are embeddings, in which no names can be read.
    """
    if input_ids is not None and model.config.reads_candidates:
        _find_candidates(model, memory, input_ids, scores)
    return memory


def _find_candidates(
    model: EncoderModel, memory: XLGenMemory, input_ids: torch.Tensor, scores: torch.Tensor | None
) -> None:
    config, hidden, mask = model.config, memory.last_hidden_state, memory.attention_mask
    assert hidden is not None and mask is not None
    assert config.separator_token_id is not None
    from_end = mask.flip(1).cumsum(1).flip(1)  # 1 at the last token
    body = mask * (from_end > _end_lengths(config, input_ids, mask))
    places, names = spelled_candidates(input_ids, body, config.level_token_ids, config.separator_token_id)
    if config.candidate_head:
        spans = candidate_spans(places, names, input_ids.shape[1])
        memory.candidate_logits = model.candidate_head(hidden, mask, spans, scores)
        if config.candidate_threshold:
            hidden_ones = memory.candidate_logits.detach().sigmoid() < config.candidate_threshold
            memory.attention_mask, names = hide_candidates(hidden_ones, spans, mask, names)
    if config.copies_candidates:
        if config.is_causal:  # a state knows what is before it, so that a name's last token stands for the candidate
            places = places + ((names >= 0).sum(-1) - 1).clamp(min=0)
        memory.candidate_keys = hidden.gather(1, places[:, :, None].expand(-1, -1, hidden.shape[-1]))
        memory.candidate_tokens = names
