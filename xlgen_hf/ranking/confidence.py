"""How far a prediction can be trusted: its expected F1, and the probability that its best label is right."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import numpy as np

from ..files.schema import Fields, number
from .calibration import Curve, apply_curve
from .scored_labels import ScoredLabels

__all__ = ["Confidence", "ConfidenceContent", "ConfidenceModel", "promised_f1"]

_LEAST = 0.01


class ConfidenceContent(TypedDict):
    """A [`ConfidenceModel`] as JSON holds it."""

    expected_f1: Curve
    best_label: Curve


_CURVE = Fields[Curve]({"slope": number(minimum=0), "intercept": number()})
_CONFIDENCE_FORM = Fields[ConfidenceContent]({"expected_f1": _CURVE, "best_label": _CURVE})


@dataclass(frozen=True)
class Confidence:
    """How far the predictions for `N` texts can be trusted; 0 for a text without labels.

    Attributes:
        expected_f1: F1 that is expected of each set, in [0, 1], `(N,)`.
        best_label: probability that the label with the highest score is right, in [0, 1], `(N,)`.
    """

    expected_f1: np.ndarray
    best_label: np.ndarray


@dataclass(frozen=True)
class ConfidenceModel:
    """Maps what the scores of a text promise to what validation rows kept of such promises.

    Both maps are logistic curves over the logit of [`promised_f1`], two numbers each, so that a few hundred validation
    rows are enough, and texts keep the order that their promises have.

    Attributes:
        expected_f1: `slope` and `intercept` of the curve for the F1 of a set.
        best_label: of that for its best label.
        chosen_alone: whether the promise comes from the chosen labels alone: so of a generator that ends its own sets,
            since how many further candidates it has depends on its search.
    """

    expected_f1: Curve
    best_label: Curve
    chosen_alone: bool = False

    def estimate(self, scored: ScoredLabels) -> Confidence:
        """How far each text's chosen labels can be trusted.

        Args:
            scored: candidates of `N` texts with their final scores, the predicted ones chosen.
        """
        promised = promised_f1(scored, chosen_alone=self.chosen_alone)
        some = np.bincount(scored.text[scored.chosen], minlength=len(scored)) > 0
        found = (np.where(some, apply_curve(curve, promised), 0.0) for curve in (self.expected_f1, self.best_label))
        return Confidence(*found)

    def to_dict(self) -> ConfidenceContent:
        """As JSON holds it; [`from_dict`] makes it again."""
        return {"expected_f1": self.expected_f1, "best_label": self.best_label}

    @classmethod
    def from_dict(cls, given: object, path: str | Path, *, chosen_alone: bool) -> ConfidenceModel:
        """Check and read what [`to_dict`] gave.

        Args:
            given: a parsed JSON value.
            path: where it is from, for messages.
            chosen_alone: see there.

        Raises:
            ModelFolderError: if it is not of that form.
        """
        content = _CONFIDENCE_FORM.check(given, path, "confidence")
        return cls(content["expected_f1"], content["best_label"], chosen_alone)


def promised_f1(scored: ScoredLabels, *, chosen_alone: bool = False) -> np.ndarray:
    """F1 that scores promise for each text's chosen labels: 2 * right / (chosen + true), by expected counts.

    Args:
        scored: candidates of `N` texts, the predicted ones chosen.
        chosen_alone: whether the scores of other candidates count for nothing, instead of for labels that are missed.

    Returns:
        Shape `(N,)`, from 0.01 to 0.99: beyond that, differences of scores say nothing.
    """
    scores, chosen = scored.scores, scored.chosen
    counted = [chosen.astype(np.float64), scores * chosen, scores * chosen if chosen_alone else scores]
    size, right, true = (np.bincount(scored.text, values, len(scored)) for values in counted)
    promised: np.ndarray = 2 * right / np.maximum(size + true, 1e-12)
    return promised.clip(_LEAST, 1 - _LEAST)
