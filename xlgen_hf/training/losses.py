"""The losses of a batch that several processes share: what the same batch gives in one process."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import torch

from ..modeling_xlgen import XLGenOutput
from ..modules.output_layer import IGNORED

__all__ = ["LossSums", "loss_sums"]


class LossSums(NamedTuple):
    """The two losses of a batch as sums, and what they are summed over.

    Attributes:
        generation: cross-entropy of all label tokens, `()`.
        cluster: loss of all clusters, `()`; 0 where the model has none.
        counts: label tokens, and rows (`bcl`) or tokens (`mcg`) of clusters, `(2,)`.
    """

    generation: torch.Tensor
    cluster: torch.Tensor
    counts: torch.Tensor

    def means(self, total: Callable[[torch.Tensor], torch.Tensor], processes: int = 1) -> dict[str, torch.Tensor]:
        """Generation and cluster loss such that their mean over the processes is that of the whole batch.

        Args:
            total: sums a tensor over the processes.
            processes: their number.
        """
        counts = total(self.counts).clamp(min=1)
        return {
            "generation_loss": self.generation * processes / counts[0],
            "cluster_loss": self.cluster * processes / counts[1],
        }


def loss_sums(output: XLGenOutput, inputs: Mapping[str, torch.Tensor]) -> LossSums:
    """Sums of the losses of a batch.

    Args:
        output: what the model gave for it; its losses are means.
        inputs: the batch. Rows all of whose targets are ignored count as none.
    """
    counted = inputs["labels"] != IGNORED  # (B, T)
    if "cluster_rows" in inputs:  # mcg
        of_clusters = inputs["cluster_rows"][:, None]
        counts = torch.stack([(counted & ~of_clusters).sum(), (counted & of_clusters).sum()])
    else:
        rows = counted.any(1).sum() if "cluster_bits" in inputs else counted.new_zeros((), dtype=torch.long)
        counts = torch.stack([counted.sum(), rows])
    generation, cluster = output.generation_loss, output.cluster_loss
    assert generation is not None
    counts = counts.to(generation.dtype)
    return LossSums(
        generation * counts[0], generation.new_zeros(()) if cluster is None else cluster * counts[1], counts
    )
