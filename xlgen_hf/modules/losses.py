"""The losses of a training step: of the label tokens, the clusters and the candidate head, and their weighted sum."""

from __future__ import annotations

from typing import Protocol

import torch
from torch.nn import functional

from ..configuration_xlgen import XLGenConfig
from ..decoding.memory import XLGenMemory
from .candidate_head import candidate_loss
from .output_layer import IGNORED

__all__ = ["TrainedModel", "token_loss", "training_losses"]


class TrainedModel(Protocol):
    """What the losses ask of a model."""

    config: XLGenConfig
    training: bool
    label_smoothing: float
    cluster_loss_scale: float

    def output_positions(self, tokens: torch.Tensor) -> torch.Tensor:
        """Token ids -> their positions in the logits."""


def training_losses(
    model: TrainedModel,
    memory: XLGenMemory,
    logits: torch.Tensor | None,
    labels: torch.Tensor | None,
    cluster_bits: torch.Tensor | None = None,
    cluster_rows: torch.Tensor | None = None,
    candidate_targets: torch.Tensor | None = None,
) -> dict[str, torch.Tensor | None]:
    """All losses, and their weighted sum as `loss`, as far as there are targets.

    Args:
        model: gives weights and label smoothing.
        memory: what the encoder side says of clusters and candidates.
        logits: of the label tokens, `(B, T, R)`; None where the candidate head alone is trained.
        labels, cluster_bits, cluster_rows, candidate_targets: see `XLGenForConditionalGeneration.forward`.
    """
    config, generation, clusters, of_candidates = model.config, None, None, None
    if memory.candidate_logits is not None and candidate_targets is not None:
        of_candidates = candidate_loss(memory.candidate_logits, candidate_targets)
    if logits is not None and labels is not None:
        generation, clusters = _generation_losses(model, logits, labels, cluster_rows)
    if labels is not None and memory.cluster_logits is not None and cluster_bits is not None:
        clusters = functional.binary_cross_entropy_with_logits(memory.cluster_logits.float(), cluster_bits.float())
    weighed = (
        (config.generation_loss_weight, generation),
        (config.cluster_loss_weight * model.cluster_loss_scale, clusters),
        (config.candidate_loss_weight, of_candidates),
    )
    parts = [weight * loss for weight, loss in weighed if loss is not None]
    losses = {"generation_loss": generation, "cluster_loss": clusters, "candidate_loss": of_candidates}
    return {"loss": sum(parts[1:], parts[0]) if parts else None, **losses}


def _generation_losses(
    model: TrainedModel, logits: torch.Tensor, labels: torch.Tensor, cluster_rows: torch.Tensor | None
) -> tuple[torch.Tensor, torch.Tensor | None]:
    """The loss of the label tokens, and of the cluster tokens (`mcg`)."""
    target, smoothing = model.output_positions(labels), model.label_smoothing if model.training else 0.0
    if cluster_rows is None:
        return token_loss(logits, target, smoothing=smoothing), None
    clusters = token_loss(logits, target, cluster_rows, smoothing)
    return token_loss(logits, target, ~cluster_rows, smoothing), clusters


def token_loss(
    logits: torch.Tensor, target: torch.Tensor, rows: torch.Tensor | None = None, smoothing: float = 0.0
) -> torch.Tensor:
    """Mean cross-entropy of target tokens, shape `()`; 0 without any.

    Args:
        logits: `(B, T, R)`.
        target: columns of the target tokens, -100 where no loss counts, `(B, T)`.
        rows: rows that count, `(B,)`, bool; all if None.
        smoothing: fraction of the targets' probability that all `R` columns share, in [0, 1).
    """
    counted = target != IGNORED
    if rows is not None:
        counted &= rows[:, None]
    # Only counted positions go through the softmax: the padding of a batch is often half of it.
    loss = functional.cross_entropy(
        logits[counted].float(), target[counted], reduction="sum", label_smoothing=smoothing
    )
    return loss / counted.sum().clamp(min=1)
