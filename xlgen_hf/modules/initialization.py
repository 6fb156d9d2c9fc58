"""What a newly made model takes from its processor: fields of its config, rows of its embeddings, its clusters."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import torch
from torch import nn
from transformers import PreTrainedConfig, PreTrainedModel

from ..configuration_xlgen import XLGenConfig
from ..errors import ConfigurationError
from ..labels.clusters import LabelClusters
from ..labels.spelling import plain_token_ids
from ..processing_xlgen import XLGenProcessor
from ..retrieval.candidate_inputs import CandidateInputs
from ..settings import ModelSettings, default_cluster_loss_weight
from .backbone import longest_sequence
from .candidate_head import CandidateHead
from .candidate_pointer import CandidatePointer

__all__ = ["FreshModel", "check_lengths", "start_from_processor", "variant_options"]


class FreshModel(Protocol):
    """What [`start_from_processor`] needs of a model."""

    config: XLGenConfig
    cluster_head: nn.Linear
    cluster_embeddings: nn.Embedding
    label_vectors: torch.Tensor
    candidate_projection: nn.Linear
    candidate_pointer: CandidatePointer
    candidate_head: CandidateHead

    def get_input_embeddings(self) -> nn.Embedding:
        """The embedding matrix."""

    def get_decoder(self) -> PreTrainedModel:
        """The backbone's decoder."""

    def get_output_embeddings(self) -> nn.Linear:
        """The output layer."""

    def resize_token_embeddings(self, size: int, mean_resizing: bool = True) -> nn.Module:
        """Resize embedding matrix and output layer."""


def variant_options(variant: str, processor: XLGenProcessor, chosen: Mapping[str, object]) -> dict[str, object]:
    """Fields of the config that say what of the processor guides the variant.

    Args:
        variant: the variant.
        processor: the model's processor.
        chosen: fields of the config that are given.

    Raises:
        ConfigurationError: if the processor lacks what the variant needs.
    """
    clusters, candidates = processor.clusters, processor.candidates
    if variant in ("bcl", "mcg") and clusters is None:
        raise ConfigurationError(f"variant={variant!r} needs label clusters; give the processor some.")
    if candidates is None and variant == "rcl":
        raise ConfigurationError("variant='rcl' with a processor without candidates; it needs them.")
    if candidates is not None and variant == "base":
        raise ConfigurationError("variant='base' has no use for the processor's candidates; choose 'rcl'.")
    options: dict[str, object] = {}
    if variant in ("bcl", "mcg") and clusters is not None:
        options["num_clusters"] = clusters.num_clusters
        options["first_cluster_token_id"] = processor.label_tokenizer.first_cluster_token_id
        options["cluster_loss_weight"] = chosen.get("cluster_loss_weight", default_cluster_loss_weight(variant))
        if variant == "mcg":
            options["cluster_start_token_id"] = processor.label_tokenizer.task_token_id("clusters")
    return options if candidates is None else {**options, **_candidate_options(variant, processor, candidates, chosen)}


def _candidate_options(
    variant: str, processor: XLGenProcessor, candidates: CandidateInputs, chosen: Mapping[str, object]
) -> dict[str, object]:
    """The part of [`variant_options`] that is about candidates."""
    options: dict[str, object] = {"num_input_candidates": candidates.num_input_candidates}
    if variant == "rcl":
        options["conditioning"] = candidates.conditioning
    if candidates.conditioning == "memory":
        if variant != "rcl":
            raise ConfigurationError(
                f"variant={variant!r} reads candidates as tokens; those of the processor are vectors (memory)."
            )
        retriever = candidates.retriever
        return {**options, "num_label_vectors": len(retriever), "label_vector_size": retriever.width}
    options["first_level_token_id"] = processor.label_tokenizer.first_level_token_id
    if chosen.get("candidate_loss_weight", ModelSettings.candidate_loss_weight):
        options["candidate_head"] = True
        if chosen.get("generation_loss_weight") == 0:
            options["predicts_with"] = "candidate_head"
    return options


def check_lengths(name: str, backbone: PreTrainedConfig, processor: XLGenProcessor) -> None:
    """Refuse a processor whose inputs or targets are longer than a backbone's positions.

    Args:
        name: checkpoint of the backbone, for the message.
        backbone: its config.
        processor: the model's processor.

    Raises:
        ConfigurationError: if they are.
    """
    limit = longest_sequence(backbone, processor.tokenizer)
    if limit is not None and not backbone.is_encoder_decoder and limit < _joint_length(processor):
        raise ConfigurationError(
            f"{name!r} reads inputs of {processor.max_source_length} and targets of {processor.max_target_length} "
            f"tokens one after the other, with what guides them {_joint_length(processor)}, and has positions for "
            f"{limit}. Lower max_source_length and max_target_length."
        )
    if limit is not None and limit < max(processor.max_source_length, processor.max_target_length):
        raise ConfigurationError(
            f"The processor allows inputs of {processor.max_source_length} and targets of "
            f"{processor.max_target_length} tokens, {name!r} has positions for {limit}. Lower max_source_length "
            "and max_target_length."
        )


def _joint_length(processor: XLGenProcessor) -> int:
    """Most tokens that a decoder-only backbone reads in one row: input, vectors of clusters or candidates, target."""
    vectors = 0 if processor.clusters is None else processor.clusters.num_clusters
    if processor.candidates is not None and processor.candidates.conditioning == "memory":
        vectors += processor.candidates.num_input_candidates
    return processor.max_source_length + vectors + processor.max_target_length


@torch.no_grad()
def start_from_processor(model: FreshModel, processor: XLGenProcessor) -> None:
    """Make room for the processor's tokens, and start clusters and candidates from what they are about.

    Args:
        model: a newly made model; its weights are changed.
        processor: its processor.
    """
    if len(processor.tokenizer) > model.config.vocab_size:
        model.resize_token_embeddings(len(processor.tokenizer), mean_resizing=False)
    for embeddings in _embedding_matrices(model):
        known = embeddings[: processor.label_tokenizer.separator_token_id].mean(0)
        embeddings[processor.label_tokenizer.added_token_ids] = known
    if model.config.has_label_vectors and processor.candidates is not None:
        retriever = processor.candidates.retriever
        model.label_vectors.copy_(torch.from_numpy(retriever.names[: len(retriever)]))
        if model.label_vectors.shape[1] == model.config.hidden_size:
            nn.init.eye_(model.candidate_projection.weight)
            model.candidate_projection.weight.mul_(_scale(model))
    if model.config.copies_candidates:
        model.candidate_pointer.reset()
    if model.config.candidate_head:
        model.candidate_head.reset()
    if model.config.has_clusters and processor.clusters is not None:
        _start_clusters(model, processor, processor.clusters)


def _embedding_matrices(model: FreshModel) -> list[torch.Tensor]:
    """The encoder's embedding matrix, and the decoder's where that is another one (T5Gemma).

    Of a decoder-only backbone, the output layer's weights too where it has its own: they start from pretrained ones.
    """
    found = [part.get_input_embeddings().weight for part in (model, model.get_decoder())]
    if model.config.is_causal:
        found[1] = model.get_output_embeddings().weight
    return found[:1] if found[0] is found[1] else found


def _scale(model: FreshModel) -> float:
    """Length of the vectors that the decoder reads: hidden states of an encoder, or embeddings of a prompt."""
    if not model.config.is_causal:
        return float(model.config.hidden_size**0.5)
    some = torch.arange(min(1000, model.config.separator_token_id or 1000))
    return float(model.get_input_embeddings()(some).norm(dim=-1).mean())


def _start_clusters(model: FreshModel, processor: XLGenProcessor, clusters: LabelClusters) -> None:
    matrices = _embedding_matrices(model)
    for token, ids in zip(
        processor.label_tokenizer.cluster_token_ids(range(clusters.num_clusters)),
        plain_token_ids(processor.tokenizer, clusters.names),
        strict=True,
    ):
        for embeddings in matrices if ids else ():
            embeddings[token] = embeddings[ids].mean(0)
    if model.config.is_causal:
        if model.config.variant == "bcl" and model.config.conditioning == "memory":
            tokens = processor.label_tokenizer.cluster_token_ids(range(clusters.num_clusters))
            model.cluster_embeddings.weight.copy_(model.get_input_embeddings()(torch.tensor(tokens)))
        return
    centroids = torch.as_tensor(clusters.centroids, dtype=matrices[0].dtype)
    if model.config.variant == "bcl" and centroids.shape[1] == model.config.hidden_size:
        scale = model.config.hidden_size**0.5
        model.cluster_head.weight.copy_(centroids * (10 / scale))
        model.cluster_head.bias.fill_(-5.0)
        if model.config.conditioning == "memory":
            model.cluster_embeddings.weight.copy_(centroids * (0.5 * scale))
