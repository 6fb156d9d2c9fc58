"""Scores of ranked label sets, computed on integer label ids with numpy and scipy only.

Everything is sparse: the work grows with the number of predicted and true labels, and no loop runs over documents or
labels. `D` is the number of documents, `L` the number of labels. Rows of labels are held as `LabelRows`, the `indptr`
and `indices` of a CSR matrix with the labels of a row in rank order.

The formulas, averaging sets and conventions for empty sets are documented in `xmc_f1.py` and in the metric card.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import scipy.sparse as sp

__all__ = [
    "LabelRows",
    "Matches",
    "ScoreOptions",
    "ShotBucket",
    "inverse_propensity",
    "label_scores",
    "match_labels",
    "parse_shots",
    "score_matches",
    "select_entries",
]

_UNBOUNDED = int(np.iinfo(np.int64).max)


class LabelRows(NamedTuple):
    """Label ids of `D` documents.

    Attributes:
        indptr: shape `(D + 1,)`; the labels of document `d` are `indices[indptr[d]:indptr[d + 1]]`.
        indices: label ids, best first within a document.
    """

    indptr: np.ndarray
    indices: np.ndarray


class ShotBucket(NamedTuple):
    """Labels that occur `lowest` to `highest` times in training; `name` starts the names of their scores."""

    name: str
    lowest: int
    highest: int


@dataclass(frozen=True)
class ScoreOptions:
    """What to compute.

    Attributes:
        k: cut-offs of the ranking scores, each at least 1.
        shots: buckets of labels by training count.
        propensity_a: A of the propensity model.
        propensity_b: B of the propensity model.
    """

    k: tuple[int, ...] = (1, 3, 5)
    shots: tuple[ShotBucket, ...] = (ShotBucket("0", 0, 0), ShotBucket("1", 1, 1))
    propensity_a: float = 0.55
    propensity_b: float = 1.5


@dataclass(frozen=True)
class Matches:
    """Predictions set against references, the only thing that scores are computed from.

    Attributes:
        num_labels: `L`.
        predictions: predicted labels, duplicates removed.
        references: true labels, duplicates removed.
        hit_documents: document of each hit (a predicted label that is true), shape `(hits,)`.
        hit_labels: label id of each hit.
        hit_ranks: rank of each hit in its prediction, 0 is the best.
        repeated_predictions: documents of the repeated labels that were removed from predictions, one for each.
        repeated_references: the same of the references.
    """

    num_labels: int
    predictions: LabelRows
    references: LabelRows
    hit_documents: np.ndarray
    hit_labels: np.ndarray
    hit_ranks: np.ndarray
    repeated_predictions: np.ndarray
    repeated_references: np.ndarray

    @property
    def num_documents(self) -> int:
        """`D`."""
        return len(self.references.indptr) - 1


def parse_shots(shots: Sequence[int | str | Sequence[int]]) -> tuple[ShotBucket, ...]:
    """Read buckets of labels by training count.

    Args:
        shots: `1` is exactly one training document, `(1, 5)` or `"1-5"` one to five, `"10+"` ten or more.

    Raises:
        ValueError: if a bucket is none of these.
    """
    if isinstance(shots, (str, int)):
        shots = [shots]
    return tuple(_parse_shot(shot) for shot in shots)


def _parse_shot(shot: int | str | Sequence[int]) -> ShotBucket:
    if isinstance(shot, str):
        match = re.fullmatch(r"\s*(\d+)\s*(?:(\+)|-\s*(\d+))?\s*", shot)
        parts = [] if match is None else [match[1], _UNBOUNDED if match[2] else match[3] or match[1]]
    else:
        parts = list(shot) if isinstance(shot, Iterable) else [shot, shot]
        parts = parts if all(isinstance(part, (int, np.integer)) for part in parts) else []
    lowest, highest = map(int, parts) if len(parts) == 2 else (-1, -1)
    if not 0 <= lowest <= highest:
        raise ValueError(
            f"{shot!r} is not a bucket of training counts; use an integer such as 1 (exactly 1 training document),"
            " lowest and highest count such as (1, 5) or '1-5', or '10+' for 10 and more."
        )
    name = f"{lowest}+" if highest == _UNBOUNDED else f"{lowest}" if lowest == highest else f"{lowest}-{highest}"
    return ShotBucket(name, lowest, highest)


def inverse_propensity(
    train_counts: np.ndarray, num_train_documents: int, a: float = 0.55, b: float = 1.5
) -> np.ndarray:
    """1 / p_l of each label, with p_l = 1 / (1 + C (N_l + B)^-A) and C = (ln N - 1) (B + 1)^A.

    Args:
        train_counts: N_l, the number of training documents with label l, shape `(L,)`.
        num_train_documents: N.
        a: A. Jain et al. use 0.5 for Wikipedia, 0.6 for Amazon, 0.55 elsewhere.
        b: B. Jain et al. use 0.4 for Wikipedia, 2.6 for Amazon, 1.5 elsewhere.

    Returns:
        Shape `(L,)`, never below 1: with fewer than 3 training documents C would be negative and is taken as 0.

    Source: Jain, Prabhu and Varma, "Extreme Multi-label Loss Functions for Recommendation, Tagging, Ranking & Other
    Missing Label Applications", KDD 2016.
    """
    c = max(np.log(max(num_train_documents, 1)) - 1.0, 0.0) * (b + 1.0) ** a
    return 1.0 + c * (np.asarray(train_counts, dtype=np.float64) + b) ** -a


def match_labels(predictions: LabelRows, references: LabelRows, num_labels: int) -> Matches:
    """Find the predicted labels that are true.

    A label that is repeated in a row counts once, at its best rank; the labels after it move up.

    Args:
        predictions: `D` ranked predictions.
        references: `D` sets of true labels.
        num_labels: `L`; ids are below it.

    Raises:
        ValueError: if the numbers of documents differ or an id is outside 0..L-1.
    """
    if len(predictions.indptr) != len(references.indptr):
        raise ValueError(
            f"{len(predictions.indptr) - 1} predictions for {len(references.indptr) - 1} references; give one"
            " prediction (an empty list, if need be) for each reference."
        )
    predictions, ranked, repeated_predictions = _ranked_matrix(predictions, num_labels, "predictions")
    references, true, repeated_references = _ranked_matrix(references, num_labels, "references")
    true.data.fill(1)
    hits = ranked.multiply(true).tocsr()
    return Matches(
        num_labels=num_labels,
        predictions=predictions,
        references=references,
        hit_documents=_documents(hits.indptr),
        hit_labels=hits.indices,
        hit_ranks=hits.data - 1,
        repeated_predictions=repeated_predictions,
        repeated_references=repeated_references,
    )


def _documents(indptr: np.ndarray) -> np.ndarray:
    """Document of each entry."""
    return np.repeat(np.arange(len(indptr) - 1, dtype=np.int32), np.diff(indptr))


def _ranked_matrix(rows: LabelRows, num_labels: int, field: str) -> tuple[LabelRows, sp.csr_array, np.ndarray]:
    """Rows without repeated labels, their matrix of shape `(D, L)`, and the documents of the repeated labels.

    The value of a label is its rank, counted from 1 so that none is 0.
    """
    _check_ids(rows, num_labels, field)
    matrix = _matrix(rows, num_labels)
    if matrix.has_canonical_format:
        return rows, matrix, np.empty(0, dtype=np.int32)
    documents = _documents(rows.indptr)
    order = np.lexsort((rows.indices, documents))  # stable: equal labels of a row stay in rank order
    again = order[1:][(np.diff(rows.indices[order]) == 0) & (np.diff(documents[order]) == 0)]
    keep = np.ones(len(order), dtype=bool)
    keep[again] = False
    rows = select_entries(rows, keep)
    return rows, _matrix(rows, num_labels), documents[again]


def _matrix(rows: LabelRows, num_labels: int) -> sp.csr_array:
    indices = rows.indices.astype(np.int32 if num_labels <= np.iinfo(np.int32).max else np.int64)  # sorted in place
    matrix = sp.csr_array((_ranks(rows, first=1), indices, rows.indptr), shape=(len(rows.indptr) - 1, num_labels))
    matrix.sort_indices()
    return matrix


def _ranks(rows: LabelRows, first: int = 0) -> np.ndarray:
    """Rank of each entry in its document, counted from `first`."""
    starts = rows.indptr[:-1].astype(np.int32) - np.int32(first)
    ranks = np.arange(len(rows.indices), dtype=np.int32)
    ranks -= np.repeat(starts, np.diff(rows.indptr))
    return ranks


def select_entries(rows: LabelRows, keep: np.ndarray) -> LabelRows:
    """The entries where `keep` is true, in the same documents and order."""
    kept_before = np.concatenate(([0], np.cumsum(keep)))
    return LabelRows(kept_before[rows.indptr], rows.indices[keep])


def _check_ids(rows: LabelRows, num_labels: int, field: str) -> None:
    if not len(rows.indices) or (rows.indices.min() >= 0 and rows.indices.max() < num_labels):
        return
    wrong = int(np.flatnonzero((rows.indices < 0) | (rows.indices >= num_labels))[0])
    document = int(np.searchsorted(rows.indptr, wrong, side="right")) - 1
    raise ValueError(
        f"{field}, row {document + 1} (index {document}): label id {rows.indices[wrong]} is outside"
        f" 0..{num_labels - 1}; give ids of the {num_labels} labels."
    )


def _ratio(numerator: Any, denominator: Any) -> np.ndarray:
    """Quotient, 0 where the denominator is 0."""
    numerator, denominator = np.broadcast_arrays(numerator, denominator)
    result = np.zeros(numerator.shape, dtype=np.float64)
    return np.divide(numerator, denominator, out=result, where=denominator != 0)


def _f1(true_positives: Any, predicted: Any, true: Any) -> np.ndarray:
    return _ratio(2.0 * np.asarray(true_positives), np.asarray(predicted) + np.asarray(true))


def _mean(values: np.ndarray) -> float:
    """Mean, 0 of nothing."""
    return float(values.mean()) if values.size else 0.0


class _Weighting:
    """Sums over documents, each counted `weights[d]` times (once without weights)."""

    def __init__(self, matches: Matches, weights: np.ndarray | None) -> None:
        self.matches = matches
        self.weights = weights
        self.total = float(matches.num_documents if weights is None else weights.sum())

    def document_mean(self, values: np.ndarray) -> float:
        """Mean of a value of each document, shape `(D,)`."""
        return float(values.sum() if self.weights is None else self.weights @ values) / self.total

    def label_totals(self, labels: np.ndarray, documents: np.ndarray | None) -> np.ndarray:
        """Number of entries of each label, shape `(L,)`; `documents` is needed with weights only."""
        weights = None if self.weights is None else self.weights[documents]
        return np.bincount(labels, weights=weights, minlength=self.matches.num_labels)

    def row_totals(self, rows: LabelRows) -> np.ndarray:
        """Number of entries of each label in `rows`, shape `(L,)`."""
        return self.label_totals(rows.indices, None if self.weights is None else _documents(rows.indptr))


class _LabelTotals(NamedTuple):
    """True positives, predictions and references of each label, shape `(L,)` each."""

    hits: np.ndarray
    predicted: np.ndarray
    true: np.ndarray


def _label_totals(weighting: _Weighting) -> _LabelTotals:
    matches = weighting.matches
    return _LabelTotals(
        weighting.label_totals(matches.hit_labels, matches.hit_documents),
        weighting.row_totals(matches.predictions),
        weighting.row_totals(matches.references),
    )


def label_scores(matches: Matches) -> dict[str, np.ndarray]:
    """Precision, recall and F1 of each label, with the counts they come from; shape `(L,)` each."""
    totals = _label_totals(_Weighting(matches, None))
    return {
        "support": totals.true,
        "predicted": totals.predicted,
        "true_positives": totals.hits,
        "precision": _ratio(totals.hits, totals.predicted),
        "recall": _ratio(totals.hits, totals.true),
        "f1": _f1(*totals),
    }


def score_matches(
    matches: Matches,
    options: ScoreOptions,
    train_counts: np.ndarray | None = None,
    num_train_documents: int | None = None,
    weights: np.ndarray | None = None,
) -> dict[str, float]:
    """Compute all scores.

    Args:
        matches: predictions set against references, of at least one document.
        options: cut-offs, buckets, propensity parameters.
        train_counts: training documents of each label, shape `(L,)`; without it there are no scores of buckets, no
            propensity-scored ones and no rate of novel labels.
        num_train_documents: documents in training; without it there are no propensity-scored ones.
        weights: how often each document counts, shape `(D,)`, once by default.

    Returns:
        Scores by name, each a float.
    """
    weighting = _Weighting(matches, weights)
    totals = _label_totals(weighting)
    scores = {**_set_scores(weighting, totals), **_ranking_scores(weighting, totals, options.k)}
    if train_counts is None:
        return scores
    for bucket in options.shots:
        inside = (train_counts >= bucket.lowest) & (train_counts <= bucket.highest)
        scores.update(_bucket_scores(totals, inside, bucket.name))
        scores.update(_bucket_recall(weighting, totals, inside, bucket.name, options.k))
    novel = totals.predicted[train_counts == 0].sum()
    scores["novel_label_rate"] = float(_ratio(novel, totals.predicted.sum()))
    if num_train_documents is not None and options.k:
        inverse = inverse_propensity(train_counts, num_train_documents, options.propensity_a, options.propensity_b)
        scores.update(_propensity_scores(weighting, inverse, options.k))
    return scores


def _micro_scores(totals: _LabelTotals) -> dict[str, float]:
    hits, predicted, true = (float(one.sum()) for one in totals)
    return {
        "micro_precision": float(_ratio(hits, predicted)),
        "micro_recall": float(_ratio(hits, true)),
        "micro_f1": float(_f1(hits, predicted, true)),
    }


def _macro_scores(totals: _LabelTotals) -> dict[str, float]:
    """Means over the labels that occur in the references."""
    hits, predicted, true = (one[totals.true > 0] for one in totals)
    return {
        "macro_precision": _mean(_ratio(hits, predicted)),
        "macro_recall": _mean(_ratio(hits, true)),
        "macro_f1": _mean(_f1(hits, predicted, true)),
    }


def _set_scores(weighting: _Weighting, totals: _LabelTotals) -> dict[str, float]:
    matches = weighting.matches
    predicted, true = np.diff(matches.predictions.indptr), np.diff(matches.references.indptr)
    hits = np.bincount(matches.hit_documents, minlength=matches.num_documents)
    anywhere = (totals.true > 0) | (totals.predicted > 0)
    return {
        **_micro_scores(totals),
        **_macro_scores(totals),
        "macro_f1_all": _mean(_f1(*(one[anywhere] for one in totals))),
        "example_precision": weighting.document_mean(_ratio(hits, predicted)),
        "example_recall": weighting.document_mean(_ratio(hits, true)),
        "example_f1": weighting.document_mean(_f1(hits, predicted, true)),
        "mean_labels_predicted": weighting.document_mean(predicted),
        "mean_labels_reference": weighting.document_mean(true),
    }


def _bucket_scores(totals: _LabelTotals, inside: np.ndarray, name: str) -> dict[str, float]:
    chosen = _LabelTotals(*(one[inside] for one in totals))
    precision = _mean(_ratio(chosen.hits, chosen.predicted))  # over all labels of the bucket, as the authors' script
    recall = _mean(_ratio(chosen.hits, chosen.true))
    prefix = f"{name}_shot"
    return {
        f"{prefix}_micro_f1": _micro_scores(chosen)["micro_f1"],
        f"{prefix}_macro_f1": _macro_scores(chosen)["macro_f1"],
        f"{prefix}_macro_f1_harmonic": float(_ratio(2.0 * precision * recall, precision + recall)),
        f"{prefix}_labels": float(np.count_nonzero(chosen.true)),
        f"{prefix}_support": float(chosen.true.sum()),
    }


def _bucket_recall(
    weighting: _Weighting, totals: _LabelTotals, inside: np.ndarray, name: str, cutoffs: Sequence[int]
) -> dict[str, float]:
    matches = weighting.matches
    scores = {}
    for k in cutoffs:
        within = (matches.hit_ranks < k) & inside[matches.hit_labels]
        found = weighting.label_totals(matches.hit_labels[within], matches.hit_documents[within])
        scores[f"{name}_shot_recall_at_{k}"] = float(_ratio(found.sum(), totals.true[inside].sum()))
    return scores


def _discounts(length: int) -> np.ndarray:
    """1 / log2(rank + 1) for the ranks 1 to `length`."""
    return 1.0 / np.log2(np.arange(2, length + 2))


class _RankTable:
    """Sums of values by rank and by the number of true labels of the document, which all ranking scores depend on.

    Args:
        weighting: how often each document counts.
        documents: document of each entry, shape `(entries,)`.
        ranks: rank of each entry, 0 is the best.
        values: value of each entry, 1 by default.
        depth: ranks to keep.
    """

    def __init__(
        self, weighting: _Weighting, documents: np.ndarray, ranks: np.ndarray, values: np.ndarray | None, depth: int
    ) -> None:
        true = np.diff(weighting.matches.references.indptr)
        if weighting.weights is not None:
            values = weighting.weights[documents] * (1.0 if values is None else values)
        within = ranks < depth
        if not within.all():
            documents, ranks = documents[within], ranks[within]
            values = None if values is None else values[within]
        depth = min(depth, int(ranks.max(initial=-1)) + 1)
        width = int(true.max(initial=0)) + 1
        cells = ranks.astype(np.int64) * width + true[documents]
        sums = np.bincount(cells, weights=values, minlength=depth * width).reshape(depth, width)
        self.sums = sums.astype(np.float64)  # shape (depth, width): rank, number of true labels
        self.num_true = np.arange(width)

    def within(self, k: int) -> np.ndarray:
        """Sums over the ranks before k for each number of true labels."""
        return self.sums[:k].sum(axis=0)

    def ndcg(self, k: int) -> float:
        """Sum of the values, discounted by rank and divided by the best that the number of true labels allows."""
        most = np.minimum(self.num_true, k)
        ideal = np.concatenate(([0.0], np.cumsum(_discounts(most.max()))))  # k may be far above all ranks
        gains = _discounts(len(self.sums[:k])) @ self.sums[:k]
        return float(_ratio(gains, ideal[most]).sum())


def _ranking_scores(weighting: _Weighting, totals: _LabelTotals, cutoffs: Sequence[int]) -> dict[str, float]:
    if not cutoffs:
        return {}
    matches = weighting.matches
    table = _RankTable(weighting, matches.hit_documents, matches.hit_ranks, None, max(cutoffs))
    scores = {}
    for k in cutoffs:
        within = matches.hit_ranks < k
        found = weighting.label_totals(matches.hit_labels[within], matches.hit_documents[within])
        hits = table.within(k)
        scores[f"precision_at_{k}"] = float(hits.sum()) / k / weighting.total
        scores[f"recall_at_{k}"] = float(_ratio(hits, table.num_true).sum()) / weighting.total
        scores[f"f1_at_{k}"] = float(_ratio(2.0 * hits, k + table.num_true).sum()) / weighting.total
        scores[f"ndcg_at_{k}"] = table.ndcg(k) / weighting.total
        scores[f"coverage_at_{k}"] = float(_ratio(np.count_nonzero(found), np.count_nonzero(totals.true)))
    return scores


def _best_first(references: LabelRows, inverse: np.ndarray) -> np.ndarray:
    """Inverse propensities of the true labels, the greatest of each document first."""
    by_value = np.argsort(-inverse, kind="stable")
    place = np.empty(len(by_value), dtype=np.int32)
    place[by_value] = np.arange(len(by_value), dtype=np.int32)
    ordered = _matrix(LabelRows(references.indptr, place[references.indices]), len(inverse))
    return inverse[by_value][ordered.indices]


def _propensity_scores(weighting: _Weighting, inverse: np.ndarray, cutoffs: Sequence[int]) -> dict[str, float]:
    """PSP@k and PSnDCG@k, each over the value of the best possible ranking."""
    matches = weighting.matches
    depth = max(cutoffs)
    true = matches.references
    got = _RankTable(weighting, matches.hit_documents, matches.hit_ranks, inverse[matches.hit_labels], depth)
    best = _RankTable(weighting, _documents(true.indptr), _ranks(true), _best_first(true, inverse), depth)
    scores = {}
    for k in cutoffs:
        scores[f"psp_at_{k}"] = float(_ratio(got.within(k).sum(), best.within(k).sum()))
        scores[f"psndcg_at_{k}"] = float(_ratio(got.ndcg(k), best.ndcg(k)))
    return scores
