"""Baselines that need no model: what any system has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...data.blocks import each_value
from ...errors import ConfigurationError
from ...ranking.scored_labels import ScoredLabels
from .base import SystemData

__all__ = ["MostFrequent"]


class MostFrequent:
    """The same labels for every text: those that most training rows have, scored with the fraction that has them.

    It keeps no files; counting again is as fast as reading.

    Args:
        num_labels: labels for a text, at least 1; fewer where training saw fewer.

    Raises:
        ConfigurationError: if `num_labels` is below 1.
    """

    def __init__(self, num_labels: int = 50) -> None:
        if num_labels < 1:
            raise ConfigurationError(f"num_labels={num_labels}; it must be an integer >= 1.")
        self.num_labels = num_labels
        self._ids: list[int] | None = None
        self._shares: list[float] = []

    def fit(self, data: SystemData) -> None:
        """Count the labels of the training rows; of equally frequent ones the lower id comes first.

        Raises:
            ConfigurationError: if no training row has a label.
            LabelSpaceError: if a label is not in the label space.
        """
        ids = [label for labels in each_value(data.train, "labels") for label in data.label_space.encode(labels)]
        if not ids:
            raise ConfigurationError(f"None of the {len(data.train)} training rows has a label to count.")
        counts = np.bincount(ids)
        best = np.argsort(-counts, kind="stable")[: self.num_labels]
        best = best[counts[best] > 0]
        self._ids, self._shares = best.tolist(), (counts[best] / len(data.train)).tolist()

    def score(self, texts: Sequence[str]) -> ScoredLabels:
        """The most frequent labels of each text with their training shares.

        Raises:
            ConfigurationError: before [`fit`].
        """
        if self._ids is None:
            raise ConfigurationError("The system is not fitted; call fit before score.")
        chosen = [False] * len(self._ids)
        return ScoredLabels.from_rows([(self._ids, self._shares, chosen)] * len(texts))
