"""What a prediction is: the labels of one text."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..labels.vocabulary import Vocabulary

__all__ = ["LabelPrediction", "NovelLabel", "as_concepts"]


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
        ids: id of the concept that each label stands for, None for a label without one; None where the model has no
            vocabulary.
        parents: broader concepts of each label, as `{"id", "label"}`, where they were asked for, see [`as_concepts`].
    """

    labels: list[str]
    scores: list[float]
    clusters: list[str] = field(default_factory=list)
    novel_labels: list[NovelLabel] = field(default_factory=list)
    ids: list[str | None] | None = None
    parents: list[list[dict[str, str]]] | None = None

    def to_dict(self) -> dict[str, list]:
        """The prediction as a JSON-ready dictionary, without what is None."""
        return {name: value for name, value in asdict(self).items() if value is not None}


def as_concepts(prediction: LabelPrediction, vocabulary: Vocabulary, *, parents: bool = False) -> LabelPrediction:
    """A prediction with the labels of a vocabulary, such as that of the model in another language.

    Args:
        prediction: a prediction with ids; labels without one keep their names.
        vocabulary: the vocabulary of the model, or what its `in_language` gave.
        parents: whether the broader concepts of each label are added.
    """
    ids = prediction.ids or [None] * len(prediction.labels)
    named = zip(prediction.labels, ids, strict=True)
    labels = [label if one is None else vocabulary.labels[one] for label, one in named]
    above = [[] if one is None else vocabulary.parents(one) for one in ids]
    found = [[{"id": one, "label": vocabulary.labels[one]} for one in of_label] for of_label in above]
    return replace(prediction, labels=labels, parents=found if parents else None)
