"""The losses of a batch that several processes share: what the same batch gives in one process."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch

from ..configuration_xlgen import Variant
from ..errors import ConfigurationError
from ..modeling_xlgen import XLGenOutput
from ..modules.output_layer import IGNORED
from .collator import Batch

__all__ = ["LOSSES", "LossSums", "check_batch", "loss_sums"]

LOSSES = ("generation_loss", "cluster_loss", "candidate_loss")
"""Names of the parts of a model's loss."""


class LossSums(NamedTuple):
    """The losses of a batch as sums, and what they are summed over.

    Attributes:
        values: cross-entropy of all label tokens, loss of all clusters, loss of all candidates, `(3,)`; 0 where the
            model has none. Named in `LOSSES`.
        counts: label tokens, rows (`bcl`) or tokens (`mcg`) of clusters, and candidates, `(3,)`.
    """

    values: torch.Tensor
    counts: torch.Tensor

    def means(self, total: Callable[[torch.Tensor], torch.Tensor], processes: int = 1) -> dict[str, torch.Tensor]:
        """The losses such that their mean over the processes is that of the whole batch.

        Args:
            total: sums a tensor over the processes.
            processes: their number.
        """
        means = self.values * processes / total(self.counts).clamp(min=1)
        return dict(zip(LOSSES, means, strict=True))


def loss_sums(output: XLGenOutput, inputs: Batch) -> LossSums:
    """Sums of the losses of a batch.

    Args:
        output: what the model gave for it; its losses are means.
        inputs: the batch. Rows all of whose targets are ignored count as none.
    """
    counted = inputs["labels"] != IGNORED  # (B, T)
    none = counted.new_zeros((), dtype=torch.long)
    if "cluster_rows" in inputs:  # mcg
        of_clusters = inputs["cluster_rows"][:, None]
        numbers = [(counted & ~of_clusters).sum(), (counted & of_clusters).sum()]
    else:
        numbers = [counted.sum(), counted.any(1).sum() if "cluster_bits" in inputs else none]
    has_candidates = output.get("candidate_loss") is not None
    numbers.append((inputs["candidate_targets"] != IGNORED).sum() if has_candidates else none)
    losses = [output.get(name) for name in LOSSES]
    some = next(loss for loss in losses if loss is not None)
    counts = torch.stack(numbers).to(some.dtype)
    return LossSums(torch.stack([some.new_zeros(()) if loss is None else loss for loss in losses]) * counts, counts)


def check_batch(variant: Variant, inputs: Batch) -> None:
    """Refuse a training batch without the clusters that the variant learns from, as a user's own collator may make it.

    Raises:
        ConfigurationError: names what the batch holds.
    """
    column = {"bcl": "cluster_bits", "mcg": "cluster_rows"}.get(variant)
    if column is not None and column not in inputs:
        raise ConfigurationError(
            f"The batches of the data_collator hold {sorted(inputs)}; {variant!r} learns from {column!r} as well. "
            f"Give the collator that makes them the variant: DataCollatorForXLGen(processor, variant={variant!r})."
        )
