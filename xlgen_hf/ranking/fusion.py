"""Fusion: one score for a candidate label out of what several sources and scorers say of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from ..errors import ConfigurationError
from ..files.schema import Fields, integer, mapping_of, number, strings
from .scored_labels import ScoredLabels

__all__ = ["MAX_CANDIDATES", "Fusion", "feature_names", "feature_values"]

MAX_CANDIDATES = 1000
_FLOOR = 1e-6  # probability that logarithms start from
_RANK = "retrieval_rank"  # counts as it is; of the other ranks nothing was gained
_DERIVED = ("log_", "relative_")


_FUSION_FORM = Fields[dict[str, Any]](
    {
        "candidates_per_source": integer(minimum=1, maximum=MAX_CANDIDATES),
        "weights": mapping_of(number()),
        "intercept": number(),
        "logit_adjustment": number(minimum=0),
        "sources": strings(unique=True),
        "slope": number(minimum=0),
        "shift": number(),
    },
    optional=("slope", "shift"),
)


@dataclass(frozen=True)
class Fusion:
    """A logistic regression over what retrieval, generator and label trees say of a candidate label.

    Candidates are the labels that retrieval, and the trees if there are some, rank first, and those that the generator
    found. A feature is a source's score of a label, its logarithm, or its fraction of the text's best one; what the
    generator did not find has a teacher-forced score, as the next label at its place among those that it did.

    The regression learns how often a label is right, and of rare labels that is seldom. So the fused logit `z` of a
    label with `n` training documents is lowered to `slope * (z - logit_adjustment * log(1 + n)) + shift`. See
    `fit_fusion` for how validation rows choose the weights and the adjustment, and then slope and shift so that the
    scores of all labels together are probabilities again.

    Lowering lets a threshold find rare labels. It does not order labels better by how probable they are, so where a
    number of labels is wanted, [`most_probable`] ranks them.

    Attributes:
        candidates_per_source: labels of a text that retrieval contributes, and the trees as well, from 1 to 1000.
        weights: of the features, by name.
        intercept: of the regression.
        logit_adjustment: strength with which rare labels are favoured, at least 0.
        slope: above 0; see above.
        shift: see above.

    Raises:
        ConfigurationError: if a value is out of range.

    Source: stacking of scores, Wolpert 1992; that a generator should score a retriever's candidates: De Cao et al.,
    "Highly Parallel Autoregressive Entity Linking with Discriminative Correction", EMNLP 2021; logits lowered by
    frequency: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
    """

    candidates_per_source: int
    weights: Mapping[str, float]
    intercept: float
    logit_adjustment: float
    slope: float = 1.0
    shift: float = 0.0

    def __post_init__(self) -> None:
        """Check the values."""
        number = self.candidates_per_source
        if type(number) is not int or not 1 <= number <= MAX_CANDIDATES:
            raise ConfigurationError(
                f"candidates_per_source={number!r}; it must be an integer from 1 to {MAX_CANDIDATES}."
            )
        wrong = [name for name, weight in self.weights.items() if not math.isfinite(weight)]
        if not self.weights or wrong:
            raise ConfigurationError(f"weights={dict(self.weights)}; finite numbers are needed, at least one.")
        if not math.isfinite(self.intercept):
            raise ConfigurationError(f"intercept={self.intercept}; it must be a finite number.")
        if not math.isfinite(self.logit_adjustment) or self.logit_adjustment < 0:
            raise ConfigurationError(f"logit_adjustment={self.logit_adjustment}; it must be a finite number >= 0.")
        if not (math.isfinite(self.slope) and self.slope > 0 and math.isfinite(self.shift)):
            raise ConfigurationError(f"slope={self.slope}, shift={self.shift}; finite numbers, the slope above 0.")

    def to_dict(self, sources: list[str]) -> dict[str, Any]:
        """As JSON holds it, with the names of the sources that it weighs; [`from_dict`] makes it again."""
        return {**asdict(self), "sources": sources}

    @classmethod
    def from_dict(cls, given: object, path: str | Path) -> tuple[Fusion, list[str]]:
        """Check and read what [`to_dict`] gave: the fusion, and the names of its sources.

        Args:
            given: a parsed JSON value.
            path: where it is from, for messages.

        Raises:
            ModelFolderError: if it is not of that form.
        """
        content = dict(_FUSION_FORM.check(given, path, "fusion"))
        sources: list[str] = content.pop("sources")
        return cls(**content), sources

    @property
    def inputs(self) -> set[str]:
        """Names of the values that are weighed."""
        return set(map(_base_name, self.weights))

    def most_probable(self) -> Fusion:
        """The regression as it is: it favours no labels, and its scores are probabilities."""
        return replace(self, logit_adjustment=0.0, slope=1.0, shift=0.0)

    def fuse(self, candidates: ScoredLabels, values: Mapping[str, np.ndarray], counts: np.ndarray) -> ScoredLabels:
        """Fused scores of the candidates, best first within a text, with the values as their parts.

        Args:
            candidates: `M` candidates of all sources, see [`union`].
            values: what sources and scorers say of them, by name, `(M,)` each.
            counts: training documents of each label, `(L,)`.

        Raises:
            ConfigurationError: if a value that has a weight is missing.
        """
        lacking = sorted(self.inputs - set(values))
        if lacking:
            raise ConfigurationError(f"The fusion weighs {lacking}, which no source of this model gives.")
        features = feature_values(values, list(self.weights), candidates)
        logits = features @ np.array(list(self.weights.values())) + self.intercept
        logits -= self.logit_adjustment * np.log1p(counts[candidates.labels])
        scores = expit(self.slope * logits + self.shift)
        return ScoredLabels.from_entries(
            candidates.text, candidates.labels, scores, candidates.chosen, len(candidates), values
        )


def feature_names(values: Mapping[str, np.ndarray]) -> list[str]:
    """The features that these values have: each as it is, its logarithm, its fraction of the text's best one."""
    bases = [name for name in values if not name.endswith("_rank")]
    derived = [f"{kind}{name}" for kind in _DERIVED for name in bases]
    return [*bases, *derived, *([_RANK] if _RANK in values else [])]


def feature_values(values: Mapping[str, np.ndarray], names: list[str], candidates: ScoredLabels) -> np.ndarray:
    """The named features of each candidate, `(M, F)`."""
    return np.stack([_feature(values, name, candidates) for name in names], axis=1)


def _base_name(feature: str) -> str:
    for kind in _DERIVED:
        feature = feature.removeprefix(kind)
    return feature


def _feature(values: Mapping[str, np.ndarray], name: str, candidates: ScoredLabels) -> np.ndarray:
    value = values[_base_name(name)]
    if name.startswith("log_"):
        return np.log(value + _FLOOR)
    if name.startswith("relative_"):
        best = np.zeros(len(candidates))
        np.maximum.at(best, candidates.text, value)
        return value / np.maximum(best[candidates.text], _FLOOR)
    return value
