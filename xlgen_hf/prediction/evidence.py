"""Why a label was predicted: what each source says of it, and how often training saw it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..ranking.decisions import DecisionRule
from ..ranking.scored_labels import ScoredLabels
from ..ranking.sources import CandidateSource
from .encoding import ModelSource
from .predictor import Predictor
from .results import LabelPrediction

__all__ = ["ExplainedText", "explain"]


@dataclass
class ExplainedText:
    """The predicted labels of a text with what speaks for each.

    Attributes:
        text: the text.
        prediction: its labels and scores.
        training_rows: number of training rows of each label.
        evidence: for each label what the sources say of it, by name, in [0, 1]; empty where nothing is known. With
            retrieval `neighbors` is the weight of the label among similar training texts, `names` the similarity of
            text and label name; `lexical_neighbors` and `lexical_names` are the same by character n-grams. Fused
            models also have `retrieval`, `label_trees`, `generated` (what the model itself found) and
            `teacher_forced`.
    """

    text: str
    prediction: LabelPrediction
    training_rows: list[int]
    evidence: list[dict[str, float]]

    def to_dict(self) -> dict[str, object]:
        """The answer as a JSON-ready dictionary: the text, the fields of a prediction, and what speaks for labels."""
        return {
            "text": self.text,
            **self.prediction.to_dict(),
            "training_rows": self.training_rows,
            "evidence": self.evidence,
        }


def explain(
    predictor: Predictor, texts: Sequence[str], *, rule: DecisionRule | None = None, batch_size: int = 64
) -> list[ExplainedText]:
    """Predict the label sets of texts, with what speaks for each label.

    Args:
        predictor: predicts.
        texts: the texts.
        rule: which of the scored labels are predicted; the model's own rule if None.
        batch_size: texts in a batch.

    Returns:
        An answer for each text, with the labels that [`Predictor.predict`] returns.

    Raises:
        ConfigurationError: if the rule does not fit the model.
    """
    decided = predictor.decide(texts, rule=rule, batch_size=batch_size)
    scored = decided.scored
    parts = {**_read_candidates(predictor.source, texts, scored), **scored.parts}
    parts = {name: values for name, values in parts.items() if not name.endswith("_rank")}
    counts = predictor.label_space.counts
    answers = []
    for number, prediction in enumerate(predictor.to_predictions(scored, decided)):
        places = np.arange(scored.start[number], scored.start[number + 1])
        places = places[scored.chosen[places]]
        evidence = [{name: round(float(values[place]), 4) for name, values in parts.items()} for place in places]
        answers.append(ExplainedText(texts[number], prediction, counts[scored.labels[places]].tolist(), evidence))
    return answers


def _read_candidates(source: CandidateSource, texts: Sequence[str], scored: ScoredLabels) -> dict[str, np.ndarray]:
    """What retrieval says of the labels that a model predicts out of the candidates that it reads (rcl)."""
    candidates = source.processor.candidates if isinstance(source, ModelSource) else None
    if candidates is None or not len(texts):
        return {}
    found = candidates.find(texts)
    span = int(max(scored.labels.max(initial=0), found.labels.max(initial=0))) + 1
    keys, known = scored.text * span + scored.labels, found.text * span + found.labels
    order = np.argsort(known)
    place = np.searchsorted(known[order], keys).clip(max=max(len(known) - 1, 0))
    is_known = known[order][place] == keys
    values = {"retrieval": found.scores, **found.parts}
    return {name: np.where(is_known, part[order][place], 0.0) for name, part in values.items()}
