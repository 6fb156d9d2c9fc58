"""The parts that a model has beside its backbone, by its config."""

from __future__ import annotations

import torch
from torch import nn

from ..configuration_xlgen import NUM_CANDIDATE_SCORES, XLGenConfig
from .candidate_head import CandidateHead
from .candidate_pointer import CandidatePointer

__all__ = ["add_parts"]


def add_parts(model: nn.Module, config: XLGenConfig) -> None:
    """Give a model the parts that its variant asks for, with weights that are still to be set.

    Args:
        model: the model; it is changed.
        config: its config.
    """
    if config.variant == "bcl":
        model.cluster_head = nn.Linear(config.hidden_size, config.num_clusters)
        if config.conditioning == "memory":
            model.cluster_embeddings = nn.Embedding(config.num_clusters, config.hidden_size)
    if config.has_label_vectors:
        width = config.label_vector_size or 0
        model.register_buffer("label_vectors", torch.zeros(config.num_label_vectors or 0, width))
        model.candidate_projection = nn.Linear(width, config.hidden_size)
        model.candidate_ranks = nn.Embedding(config.num_input_candidates or 1, config.hidden_size)
    if config.copies_candidates:
        model.candidate_pointer = CandidatePointer(config.hidden_size, config.num_input_candidates or 1)
    if config.candidate_head:
        model.candidate_head = CandidateHead(config.hidden_size, NUM_CANDIDATE_SCORES)
    if config.num_output_tokens is not None:
        model.register_buffer("output_token_ids", torch.zeros(config.num_output_tokens, dtype=torch.long))
