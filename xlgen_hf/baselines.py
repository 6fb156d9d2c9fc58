"""Baselines that need no model: what any system has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .errors import ConfigurationError
from .labels import LabelSpace
from .scoring import score_ids

__all__ = ["best_most_frequent_k", "most_frequent_predictions"]


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
