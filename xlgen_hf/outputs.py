"""What models and predictions return."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

import torch
from transformers.modeling_outputs import ModelOutput, Seq2SeqLMOutput

__all__ = ["LabelPrediction", "NovelLabel", "XLGenMemory", "XLGenOutput"]


@dataclass
class XLGenMemory(ModelOutput):
    """What the encoder side gives the decoder, a row for each text.

    Attributes:
        last_hidden_state: the decoder's memory, `(B, S, H)`.
        attention_mask: its mask, `(B, S)`.
        cluster_logits: logits of the clusters, `(B, C)`; `bcl` only.
        cluster_bits: the bits that conditioned the memory, `(B, C)`; `bcl` only.
        candidate_keys: memory of each candidate, `(B, K, H)`; `rcl` that copies only.
        candidate_pieces: pieces of each candidate, its separator last, filled up with -1, `(B, K, P)`; likewise.
    """

    last_hidden_state: torch.Tensor | None = None
    attention_mask: torch.Tensor | None = None
    cluster_logits: torch.Tensor | None = None
    cluster_bits: torch.Tensor | None = None
    candidate_keys: torch.Tensor | None = None
    candidate_pieces: torch.Tensor | None = None

    def select(self, rows: torch.Tensor) -> XLGenMemory:
        """The memory of these rows, which may repeat."""
        return XLGenMemory(**{name: value[rows] for name, value in self.items()})


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
class NovelLabel:
    """A generated name that is not in the label space.

    Attributes:
        label: the name.
        score: its probability given the text and the names generated before it, in [0, 1].
        nearest: the known label whose spelling is most like it.
    """

    label: str
    score: float
    nearest: str


@dataclass
class LabelPrediction:
    """The labels of one text.

    Attributes:
        labels: label names, most probable first.
        scores: probability of each label given the text and the labels generated before it, in [0, 1].
        clusters: names of the clusters that guided the generation, most probable first; empty for `base`.
        novel_labels: generated names that are not in the label space, most probable first; empty in closed-vocabulary
            decoding.
    """

    labels: list[str]
    scores: list[float]
    clusters: list[str] = field(default_factory=list)
    novel_labels: list[NovelLabel] = field(default_factory=list)

    def to_dict(self) -> dict[str, list]:
        """The prediction as a JSON-ready dictionary."""
        return asdict(self)
