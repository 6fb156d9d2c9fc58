"""What models and predictions return."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import torch
from transformers.modeling_outputs import Seq2SeqLMOutput

__all__ = ["LabelPrediction", "XLGenOutput"]


@dataclass
class XLGenOutput(Seq2SeqLMOutput):
    """Output of a forward pass: the fields of `Seq2SeqLMOutput`, and the losses and clusters.

    Attributes:
        generation_loss: cross-entropy of the label tokens, shape `()`.
        cluster_loss: loss of the clusters before weighting, shape `()`; None without clusters or targets.
        cluster_logits: logits of the clusters, shape `(B, C)`; `bcl` only.
    """

    generation_loss: torch.FloatTensor | None = None
    cluster_loss: torch.FloatTensor | None = None
    cluster_logits: torch.FloatTensor | None = None


@dataclass
class LabelPrediction:
    """The labels of one text.

    Attributes:
        labels: label names, most probable first.
        scores: probability of each label given the text and the labels generated before it, in [0, 1].
        clusters: names of the clusters that guided the generation, most probable first; empty for `base`.
        novel_labels: generated names that are not in the label space; empty in closed-vocabulary decoding.
    """

    labels: list[str]
    scores: list[float]
    clusters: list[str] = field(default_factory=list)
    novel_labels: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, list]:
        """The prediction as a JSON-ready dictionary."""
        return asdict(self)
