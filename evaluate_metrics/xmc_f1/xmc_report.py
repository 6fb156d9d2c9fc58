"""All scores of one evaluation in one dictionary: the functions that the metric and the package call."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

import numpy as np

from .xmc_hierarchy import Broader, check_broader, hierarchical_scores, match_with_ancestors, root_of
from .xmc_inputs import LabelIndex, check_label_counts, check_label_lists, count_labels, id_rows
from .xmc_scores import (
    LabelRows,
    Matches,
    ScoreOptions,
    label_scores,
    match_labels,
    parse_shots,
    score_matches,
    select_entries,
)

__all__ = ["LabelScorer", "check_options", "score_all", "score_ids", "score_labels"]

logger = logging.getLogger(__name__)

_ORACLE_SCORES = ("micro_", "macro_", "example_")
_NO_INTERVAL = ("_labels", "_support")


@dataclass(frozen=True)
class _Training:
    """What is known of the training data: documents of each label, shape `(L,)`, and documents."""

    counts: np.ndarray | None
    num_documents: int | None


def score_ids(
    predictions: Any,
    references: Any,
    *,
    num_labels: int,
    train_counts: np.ndarray | Sequence[int] | None = None,
    num_train_documents: int | None = None,
    **options: Any,
) -> dict[str, float]:
    """Score ranked label ids.

    Args:
        predictions: ranked ids of each document, best first, in a form that `id_rows` reads.
        references: true ids of each document, in the same form.
        num_labels: `L`; ids are 0 to L-1.
        train_counts: training documents of each label, shape `(L,)`.
        num_train_documents: documents in training, for the propensities; estimated where only the counts are given.
        **options: `k`, `shots`, `propensity_a`, `propensity_b`, `bootstrap`, `confidence`, `seed`, `oracle`, with the
            meaning and defaults that the metric documents.

    Raises:
        ValueError: for input that cannot be scored, with the row where there is one.
        TypeError: for an unknown option.
    """
    counts = None if train_counts is None else _checked_counts(np.asarray(train_counts), num_labels)
    rows = id_rows(predictions, "predictions"), id_rows(references, "references")
    return score_all(_match(*rows, num_labels), counts, num_train_documents, **options)


def _checked_counts(counts: np.ndarray, num_labels: int) -> np.ndarray:
    if counts.shape != (num_labels,) or not np.issubdtype(counts.dtype, np.integer) or np.any(counts < 0):
        raise ValueError(
            f"train_counts must hold a whole number of at least 0 for each of the {num_labels} labels, got shape"
            f" {counts.shape}, {counts.dtype}."
        )
    return counts


def score_labels(
    predictions: Sequence[Sequence[str]],
    references: Sequence[Sequence[str]],
    *,
    train_label_counts: Mapping[str, int] | None = None,
    train_references: Sequence[Sequence[str]] | None = None,
    num_train_documents: int | None = None,
    per_label: bool = False,
    broader: Broader | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score ranked label lists.

    Args:
        predictions: ranked labels of each document, best first: label lists, or a pyarrow column of them.
        references: true labels of each document, in the same form.
        train_label_counts: training documents of each label; a label that it lacks was never seen in training.
        train_references: the training documents' labels, instead of the counts.
        num_train_documents: documents in training, for the propensities; estimated where only the counts are given.
        per_label: add a table with a row for each label that occurs in references or predictions.
        broader: label -> the labels directly above it; adds the hierarchical scores.
        **options: as for `score_ids`.

    Returns:
        Scores by name; with `per_label` also `per_label`, a dictionary of columns.

    Raises:
        ValueError: for input that cannot be scored, with the row where there is one.
        TypeError: for an unknown option.
    """
    scorer = LabelScorer(
        train_label_counts=train_label_counts,
        train_references=train_references,
        num_train_documents=num_train_documents,
        broader=broader,
    )
    return scorer.score(predictions, references, per_label=per_label, **options)


class LabelScorer:
    """Scores ranked label lists; of several ones, the training labels are counted and numbered once.

    Args:
        train_label_counts, train_references, num_train_documents, broader: as for `score_labels`.

    Raises:
        ValueError: as `score_labels`.
    """

    def __init__(
        self,
        *,
        train_label_counts: Mapping[str, int] | None = None,
        train_references: Sequence[Sequence[str]] | None = None,
        num_train_documents: int | None = None,
        broader: Broader | None = None,
    ) -> None:
        names, self._counts, self._documents = _read_training(
            train_label_counts, train_references, num_train_documents
        )
        self._known = {name: number for number, name in enumerate(names)}
        self._broader = broader
        if broader is not None:
            check_broader(broader)
            self._root = root_of(broader)

    def score(
        self,
        predictions: Sequence[Sequence[str]],
        references: Sequence[Sequence[str]],
        *,
        per_label: bool = False,
        **options: Any,
    ) -> dict[str, Any]:
        """What `score_labels` gives; see there for the arguments."""
        check_label_lists(predictions, "predictions")
        check_label_lists(references, "references")
        index = LabelIndex(self._known)
        rows = index.rows(predictions, "predictions"), index.rows(references, "references")
        counts = self._counts
        if counts is not None:
            counts = np.concatenate([counts, np.zeros(len(index) - len(counts), dtype=np.int64)])
        matches, names = _match(*rows, len(index)), index.names
        hierarchy = None
        if self._broader is not None:
            of_matches = matches.predictions, matches.references
            hierarchy = match_with_ancestors(*of_matches, names, self._broader, self._root)
        scores = score_all(matches, counts, self._documents, hierarchy=hierarchy, **options)
        if per_label:
            scores["per_label"] = _label_table(matches, names, counts)
        return scores


def _read_training(
    train_label_counts: Mapping[str, int] | None,
    train_references: Sequence[Sequence[str]] | None,
    num_train_documents: int | None,
) -> tuple[list[str], np.ndarray | None, int | None]:
    """Names, counts and number of training documents, as far as they are given."""
    _check_training(train_label_counts, train_references)
    if train_references is not None:
        names, counts = count_labels(train_references)
        return names, counts, len(train_references) if num_train_documents is None else num_train_documents
    if train_label_counts is None:
        return [], None, None
    counts = np.fromiter(train_label_counts.values(), dtype=np.int64, count=len(train_label_counts))
    return list(train_label_counts), counts, num_train_documents


def _check_training(
    train_label_counts: Mapping[str, int] | None, train_references: Sequence[Sequence[str]] | None
) -> None:
    if train_label_counts is not None and train_references is not None:
        raise ValueError("Give train_label_counts or train_references, not both.")
    if train_references is not None and not len(train_references):
        raise ValueError("train_references is empty; give the labels of each training document, or leave it out.")
    if train_label_counts is not None:
        check_label_counts(train_label_counts)


def check_options(
    *,
    train_label_counts: Mapping[str, int] | None = None,
    train_references: Sequence[Sequence[str]] | None = None,
    num_train_documents: int | None = None,
    broader: Broader | None = None,
    seed: int = 0,
    **options: Any,
) -> None:
    """Check the options of the metric as far as they can be without the documents.

    Raises:
        ValueError: for one that is out of range.
    """
    read_options(**{name: options[name] for name in signature(read_options).parameters if name in options})
    _check_training(train_label_counts, train_references)
    if num_train_documents is not None:
        _check_number(num_train_documents, max((train_label_counts or {}).values(), default=0))
    if broader is not None:
        check_broader(broader)
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise ValueError(f"seed={seed!r}; it must be a whole number of at least 0.")


def _check_number(documents: int, most: int) -> None:
    if not isinstance(documents, (int, np.integer)) or documents < max(most, 1):
        raise ValueError(
            f"num_train_documents is {documents!r}; it must be a whole number of at least 1 and not below the greatest"
            f" training count, {most}."
        )


def _match(predictions: LabelRows, references: LabelRows, num_labels: int) -> Matches:
    if len(references.indptr) < 2 and len(predictions.indptr) < 2:
        raise ValueError("There are no documents to score: predictions and references are empty.")
    matches = match_labels(predictions, references, num_labels)
    for field, documents in (
        ("predictions", matches.repeated_predictions),
        ("references", matches.repeated_references),
    ):
        if len(documents):
            logger.warning(
                "%d repeated labels in %s were counted once, at their best rank; the first is in row %d.",
                len(documents),
                field,
                documents.min() + 1,
            )
    return matches


def _training_documents(counts: np.ndarray, given: int | None, references: LabelRows) -> int:
    """Where their number is not given, take training to have as many labels a document as the references."""
    most = int(counts.max(initial=0))
    if given is None:
        labels_each = max(len(references.indices) / (len(references.indptr) - 1), 1.0)
        documents = max(round(counts.sum() / labels_each), most, 1)
        logger.warning(
            "psp and psndcg take training to have %d documents, estimated from the counts; give num_train_documents.",
            documents,
        )
        return documents
    _check_number(given, most)
    return int(given)


def score_all(
    matches: Matches,
    train_counts: np.ndarray | None = None,
    num_train_documents: int | None = None,
    *,
    k: Sequence[int] = (1, 3, 5),
    shots: Sequence[int | str | Sequence[int]] = (0, 1),
    propensity_a: float = 0.55,
    propensity_b: float = 1.5,
    bootstrap: int = 0,
    confidence: float = 0.95,
    seed: int = 0,
    oracle: bool = False,
    hierarchy: Matches | None = None,
) -> dict[str, Any]:
    """Score predictions set against references; the options are those of the metric.

    With `hierarchy`, the same with the labels above each, the hierarchical scores are added.
    """
    options = read_options(k, shots, propensity_a, propensity_b, bootstrap, confidence)
    training = _Training(train_counts, None)
    if train_counts is not None and options.k:
        if options.propensity_b == 0 and not train_counts.all():
            raise ValueError(
                f"propensity_b={propensity_b!r} gives labels without training documents, of which there are "
                f"{np.count_nonzero(train_counts == 0)}, a propensity of 0. Choose one above 0."
            )
        training = _Training(train_counts, _training_documents(train_counts, num_train_documents, matches.references))

    def scored(weights: np.ndarray | None = None) -> dict[str, float]:
        plain = score_matches(matches, options, training.counts, training.num_documents, weights)
        return plain if hierarchy is None else {**plain, **hierarchical_scores(hierarchy, weights)}

    scores: dict[str, Any] = scored()
    if bootstrap:
        scores.update(_intervals(scored, matches.num_documents, scores, bootstrap, confidence, seed))
    if oracle:
        scores.update(_oracle_scores(matches, options, training))
    return scores


def read_options(
    k: Sequence[int] | int = (1, 3, 5),
    shots: Sequence[int | str | Sequence[int]] = (0, 1),
    propensity_a: float = 0.55,
    propensity_b: float = 1.5,
    bootstrap: int = 0,
    confidence: float = 0.95,
) -> ScoreOptions:
    """Check the options of the metric that say what to compute.

    Raises:
        ValueError: for one that is out of range.
    """
    for name, value in (("propensity_a", propensity_a), ("propensity_b", propensity_b)):
        if not 0 <= float(value) < np.inf:
            raise ValueError(f"{name}={value!r}; it must be a number >= 0.")
    if not isinstance(bootstrap, (int, np.integer)) or bootstrap < 0 or bootstrap == 1 or not 0.0 < confidence < 1.0:
        raise ValueError(
            f"bootstrap must be 0 or at least 2 and confidence within 0 and 1, got {bootstrap}, {confidence}."
        )
    return ScoreOptions(_checked_cutoffs(k), parse_shots(shots), float(propensity_a), float(propensity_b))


def _checked_cutoffs(k: Sequence[int] | int) -> tuple[int, ...]:
    cutoffs = list(k) if isinstance(k, Iterable) else [k]
    if not all(isinstance(one, (int, np.integer)) and not isinstance(one, bool) and one >= 1 for one in cutoffs):
        raise ValueError(f"k must hold whole numbers of at least 1, got {k!r}.")
    return tuple(int(one) for one in cutoffs)


def _oracle_scores(matches: Matches, options: ScoreOptions, training: _Training) -> dict[str, float]:
    """Set scores of the predictions cut at the true number of labels of each document, which no system knows."""
    predicted, true = np.diff(matches.predictions.indptr), np.diff(matches.references.indptr)
    ranks = np.arange(predicted.sum()) - np.repeat(matches.predictions.indptr[:-1], predicted)
    cut = select_entries(matches.predictions, ranks < np.repeat(true, predicted))
    without_ranking = ScoreOptions(k=(), shots=options.shots)
    scores = score_matches(match_labels(cut, matches.references, matches.num_labels), without_ranking, training.counts)
    return {
        f"oracle_{name}": value
        for name, value in scores.items()
        if name.startswith(_ORACLE_SCORES) or name.endswith(("_micro_f1", "_macro_f1", "_macro_f1_harmonic"))
    }


def _intervals(
    scored: Callable[[np.ndarray], dict[str, float]],
    documents: int,
    scores: Mapping[str, float],
    resamples: int,
    confidence: float,
    seed: int,
) -> dict[str, float]:
    """Bootstrap over documents: `<score>_ci_low` and `<score>_ci_high`; `scored` gives the scores by their weights.

    A resample misses documents and so labels, which shifts every score over sets of labels (macro F1 up, coverage
    down). The interval is therefore the spread of the resamples around their mean, laid around the score.
    """
    generator = np.random.default_rng(seed)
    names = [name for name in scores if not name.endswith(_NO_INTERVAL)]
    values = np.empty((resamples, len(names)))
    for number in range(resamples):
        weights = np.bincount(generator.integers(documents, size=documents), minlength=documents).astype(np.float64)
        drawn = scored(weights)
        values[number] = [drawn[name] for name in names]
    ends = (1 - confidence) / 2, (1 + confidence) / 2
    low, high = np.quantile(values - values.mean(axis=0), ends, axis=0) + [scores[name] for name in names]
    highest = [np.inf if name.startswith("mean_labels") else 1.0 for name in names]
    bounds = {"low": np.maximum(low, 0.0), "high": np.minimum(high, highest)}
    return {f"{name}_ci_{end}": float(bounds[end][i]) for i, name in enumerate(names) for end in bounds}


def _label_table(matches: Matches, names: Sequence[str], train_counts: np.ndarray | None) -> dict[str, list[Any]]:
    """Columns over the labels that occur in references or predictions, the most frequent in the references first."""
    columns = label_scores(matches)
    present = np.flatnonzero((columns["support"] > 0) | (columns["predicted"] > 0))
    order = present[np.argsort(-columns["support"][present], kind="stable")]
    table: dict[str, list[Any]] = {"label": [names[one] for one in order]}
    if train_counts is not None:
        table["train_count"] = train_counts[order].tolist()
    return {**table, **{name: values[order].tolist() for name, values in columns.items()}}
