"""Baselines that need no model: what any system has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...data.blocks import each_value
from ...errors import ConfigurationError
from ...evaluation.scoring import score_ids
from ...labels.space import LabelSpace
from ...ranking.scored_labels import ScoredLabels
from .base import SystemData

__all__ = ["MostFrequent", "best_most_frequent_k", "most_frequent_predictions"]


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


def most_frequent_predictions(label_space: LabelSpace, num_rows: int, k: int) -> list[list[str]]:
    """Predict the same labels for every text: the `k` most frequent ones of the training data.

    Args:
        label_space: the label space with its training counts.
        num_rows: the number of texts.
        k: labels for each text, from 1 to the number of labels.

    Returns:
        A list of `k` names for each text, most frequent first.

    Raises:
        ConfigurationError: if `k` or `num_rows` are out of range.
    """
    if not 1 <= k <= len(label_space):
        raise ConfigurationError(f"k={k}; it must be from 1 to {len(label_space)}, the number of labels.")
    if num_rows < 0:
        raise ConfigurationError(f"num_rows={num_rows} is negative.")
    names = list(label_space.names[:k])  # ids are frequency ranks
    return [list(names) for _ in range(num_rows)]


def best_most_frequent_k(
    label_space: LabelSpace, validation_labels: Sequence[Sequence[str]], *, max_k: int = 50
) -> int:
    """The `k` with which `most_frequent_predictions` has the best micro F1; of equals the smallest.

    Args:
        label_space: the label space with its training counts.
        validation_labels: true labels of validation texts; names outside the label space count as missed ones.
        max_k: the largest `k` to try.

    Raises:
        ConfigurationError: if there are no validation texts.
    """
    if not len(validation_labels):
        raise ConfigurationError("There are no validation rows to choose k on.")
    unknown: dict[str, int] = {}
    references = [
        [label_space.index.get(name, len(label_space) + unknown.setdefault(name, len(unknown))) for name in labels]
        for labels in validation_labels
    ]
    scores = []
    for k in range(1, min(max_k, len(label_space)) + 1):
        predictions = [list(range(k))] * len(references)
        result = score_ids(predictions, references, num_labels=len(label_space) + len(unknown), k=(), shots=())
        scores.append(result["micro_f1"])
    return 1 + int(np.argmax(scores))
