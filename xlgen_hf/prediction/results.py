"""What a prediction is: the labels of one text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import TYPE_CHECKING

from ..ranking.confidence import Confidence
from .evidence import LabelEvidence

if TYPE_CHECKING:
    from ..labels.vocabulary import Vocabulary

__all__ = ["LabelPrediction", "NovelLabel", "add_confidence", "as_concepts"]


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
        evidence: what speaks for each label, where it was asked for.
        candidates: labels that the model read with the text, in this order and named as in the label space, where
            evidence was asked for; None of a model that reads none.
        expected_f1: F1 that is expected of the labels, in [0, 1], see [`ConfidenceModel`]; None where no validation
            rows taught it, and of an ensemble.
        best_label_probability: probability that the label with the highest score is right, in [0, 1]; None likewise.
        abstain: whether a person should look at the text, as `expected_f1` is below the bound; None without a bound.
    """

    labels: list[str]
    scores: list[float]
    clusters: list[str] = field(default_factory=list)
    novel_labels: list[NovelLabel] = field(default_factory=list)
    ids: list[str | None] | None = None
    parents: list[list[dict[str, str]]] | None = None
    evidence: list[LabelEvidence] | None = None
    candidates: list[str] | None = None
    expected_f1: float | None = None
    best_label_probability: float | None = None
    abstain: bool | None = None

    def to_dict(self) -> dict[str, object]:
        """The prediction as a JSON-ready dictionary, without what is None."""
        found = {name: value for name, value in asdict(replace(self, evidence=None)).items() if value is not None}
        return found if self.evidence is None else {**found, "evidence": [one.to_dict() for one in self.evidence]}


def add_confidence(
    predictions: Sequence[LabelPrediction], confidence: Confidence, abstain_below: float | None = None
) -> None:
    """Say of each prediction how far it can be trusted, and whether a person should look at its text.

    Args:
        predictions: of `N` texts; they are changed.
        confidence: of the same.
        abstain_below: expected F1 below which a person should; nothing is said of that if None.
    """
    for one, f1, best in zip(
        predictions, confidence.expected_f1.tolist(), confidence.best_label.tolist(), strict=True
    ):
        one.expected_f1, one.best_label_probability = f1, best
        one.abstain = None if abstain_below is None else f1 < abstain_below


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
    evidence = prediction.evidence and [
        replace(one, label=label) for one, label in zip(prediction.evidence, labels, strict=True)
    ]
    return replace(prediction, labels=labels, parents=found if parents else None, evidence=evidence)
