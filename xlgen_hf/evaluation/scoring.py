"""The package's wrapper around the metric: all scores come from the one implementation in `evaluate_metrics/xmc_f1`.

It calls the metric's core directly, which spares the package the serialization of `evaluate` and its import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np

from ..errors import DataError
from ..files.resources import load_metric_module

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

__all__ = ["LabelScorer", "score_ids", "score_labels"]

IdRows: TypeAlias = "Sequence[Sequence[int]] | tuple[np.ndarray, np.ndarray] | csr_matrix"

_REPORT = ("xmc_f1", "xmc_report")


def score_ids(
    predictions: IdRows,
    references: IdRows,
    *,
    num_labels: int,
    train_counts: np.ndarray | None = None,
    k: Sequence[int] = (1, 3, 5),
    shots: Sequence[int | str | Sequence[int]] = (0, 1),
    **options: object,
) -> dict[str, float]:
    """Score ranked label ids; the scores and their names are those of the metric `xmc_f1`.

    Args:
        predictions: ranked ids of `D` documents, best first: id lists, or the pair `(indptr, indices)` of a CSR matrix
            as numpy arrays of shape `(D + 1,)` and `(entries,)`, or a scipy sparse matrix `(D, L)` of scores.
        references: true ids of `D` documents, in the same form.
        num_labels: `L`; ids are 0 to L-1.
        train_counts: training documents of each label, shape `(L,)`, integers. Without it there are no scores of
            buckets, no propensity-scored ones and no rate of novel labels.
        k: cut-offs of the ranking scores; none for `()`.
        shots: buckets of labels by training count: `1` is exactly one, `(1, 5)` or `"1-5"` one to five.
        **options: `num_train_documents`, `propensity_a`, `propensity_b`, `bootstrap`, `confidence`, `seed`, `oracle`.

    Returns:
        Scores by name, between 0 and 1 except for the counts of labels. A mean over nothing is 0.

    Raises:
        DataError: if the rows cannot be scored; the message has the row.
    """
    core = load_metric_module(*_REPORT)
    try:
        return core.score_ids(
            predictions, references, num_labels=num_labels, train_counts=train_counts, k=k, shots=shots, **options
        )
    except ValueError as err:
        raise DataError(str(err)) from err


def score_labels(
    predictions: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    *,
    train_label_counts: Mapping[str, int] | None = None,
    **options: object,
) -> dict[str, Any]:
    """Score ranked label lists; the scores and their names are those of the metric `xmc_f1`.

    Args:
        predictions: ranked labels of `D` documents, best first.
        references: true labels of `D` documents.
        train_label_counts: training documents of each label; a label that it lacks was never seen in training.
        **options: `k`, `shots`, `train_references` (instead of the counts), `num_train_documents`, `propensity_a`,
            `propensity_b`, `bootstrap`, `confidence`, `seed`, `oracle`, `per_label`, `broader`.

    Returns:
        Scores by name, and with `per_label=True` a table of columns under `per_label`.

    Raises:
        DataError: if the rows cannot be scored; the message has the row.
    """
    core = load_metric_module(*_REPORT)
    try:
        return core.score_labels(predictions, references, train_label_counts=train_label_counts, **options)
    except ValueError as err:
        raise DataError(str(err)) from err


class LabelScorer:
    """Scores ranked label lists as [`score_labels`] does; of several ones, training labels are counted once.

    Args:
        **training: `train_label_counts`, `train_references`, `num_train_documents`, `broader`.

    Raises:
        DataError: if they cannot be used.
    """

    def __init__(self, **training: object) -> None:
        try:
            self._scorer = load_metric_module(*_REPORT).LabelScorer(**training)
        except ValueError as err:
            raise DataError(str(err)) from err

    def score(
        self, predictions: Sequence[Sequence[str]], references: Sequence[Sequence[str]], **options: object
    ) -> dict[str, Any]:
        """Scores by name; see [`score_labels`] for the arguments, and for what is raised."""
        try:
            scores: dict[str, Any] = self._scorer.score(predictions, references, **options)
        except ValueError as err:
            raise DataError(str(err)) from err
        return scores
