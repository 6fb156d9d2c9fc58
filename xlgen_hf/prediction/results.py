"""What a prediction is: the labels of one text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, TypeAlias

from ..errors import ConfigurationError
from ..ranking.confidence import Confidence
from .evidence import LabelEvidence

if TYPE_CHECKING:
    from ..labels.vocabulary import Vocabulary

__all__ = ["Answer", "LabelPrediction", "NovelLabel", "PredictedConcept", "add_confidence", "form_of_answers"]


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


@dataclass(frozen=True)
class PredictedConcept:
    """A predicted label as the concept that it stands for.

    Attributes:
        id: id of the concept; None for a label without one, as all are where the model has no vocabulary.
        label: the label.
        language: language of the label, a tag such as `de`: the one that was asked for, or another one where the
            concept has no name in that; None where it is not known.
        score: probability of the label, in [0, 1].
        broader: ids of its broader concepts, those directly above it.
    """

    id: str | None
    label: str
    language: str | None
    score: float
    broader: list[str] = field(default_factory=list)


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
        concepts: each label as a concept, in the order of `labels`, where they were asked for.
        parents: broader concepts of each label, as `{"id", "label"}`, where they were asked for.
        evidence: what speaks for each label, where it was asked for.
        candidates: labels that the model read with the text, in this order and named as in the label space, where
            evidence was asked for; None of a model that reads none.
        expected_f1: F1 that is expected of the labels, in [0, 1], see [`ConfidenceModel`]; None where no validation
            rows taught it, and of an ensemble.
        best_label_probability: probability that the label with the highest score is right, in [0, 1]; None as before.
        abstain: whether a person should look at the text, as `expected_f1` is below the bound; None without a bound.
    """

    labels: list[str]
    scores: list[float]
    clusters: list[str] = field(default_factory=list)
    novel_labels: list[NovelLabel] = field(default_factory=list)
    ids: list[str | None] | None = None
    concepts: list[PredictedConcept] | None = None
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


Answer: TypeAlias = Callable[[LabelPrediction], LabelPrediction]
"""Brings a prediction into the form that options ask for."""


def form_of_answers(
    vocabulary: Vocabulary | None,
    *,
    output_language: str | None = None,
    with_parents: bool = False,
    concepts: bool = False,
    spelling: Callable[[str], str] = str,
) -> Answer:
    """What brings a model's predictions into the form that options ask for.

    Args:
        vocabulary: that of the model.
        output_language: language of the labels; that of the training if None.
        with_parents: whether the broader concepts of each label are added (`parents`).
        concepts: whether each label is added as a concept (`concepts`).
        spelling: how options are written in messages: `with_parents` may be `--with-parents`.

    Raises:
        ConfigurationError: if the model has no vocabulary, or that has no name in the language.
    """
    if output_language is None and not with_parents:
        return partial(_in_form, vocabulary=vocabulary, concepts=True) if concepts else lambda prediction: prediction
    if vocabulary is None:
        option = "with_parents" if output_language is None else "output_language"
        given = "" if output_language is None else f" {output_language}"
        raise ConfigurationError(
            f"{spelling(option)}{given}: the model has no vocabulary; train it, or index, with --vocabulary."
        )
    shown = vocabulary if output_language is None else vocabulary.in_language(output_language)
    return partial(_in_form, vocabulary=shown, parents=with_parents, concepts=concepts)


def _in_form(
    prediction: LabelPrediction, vocabulary: Vocabulary | None, *, parents: bool = False, concepts: bool = False
) -> LabelPrediction:
    """A prediction with the labels of a vocabulary, such as that of the model in another language.

    Args:
        prediction: the prediction; labels without a concept keep their names.
        vocabulary: that of the model, or what its `in_language` gave.
        parents: whether the broader concepts of each label are added.
        concepts: whether each label is added as a concept.
    """
    ids = prediction.ids or [None] * len(prediction.labels)
    ranked = zip(ids, prediction.labels, prediction.scores, strict=True)
    found = [_concept(vocabulary, *one) for one in ranked]
    names = {} if vocabulary is None else vocabulary.labels
    evidence = prediction.evidence and [
        replace(one, label=concept.label) for one, concept in zip(prediction.evidence, found, strict=True)
    ]
    return replace(
        prediction,
        labels=[one.label for one in found],
        concepts=found if concepts else None,
        parents=[[{"id": id_, "label": names[id_]} for id_ in one.broader] for one in found] if parents else None,
        evidence=evidence,
    )


def _concept(vocabulary: Vocabulary | None, concept_id: str | None, label: str, score: float) -> PredictedConcept:
    if vocabulary is None or concept_id is None:
        return PredictedConcept(None, label, None, score)
    named, language = vocabulary.labels[concept_id], vocabulary.language_of(concept_id)
    return PredictedConcept(concept_id, named, language, score, vocabulary.parents(concept_id))
