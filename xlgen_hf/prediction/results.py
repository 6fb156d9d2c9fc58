"""What a prediction is: the labels of one text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field

__all__ = ["LabelPrediction", "NovelLabel"]


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
