"""What a data set is like: sizes, tail, lengths, duplicates and leakage, and whether it is a published split."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigurationError
from .label_lists import column_batches
from .suspicion import (
    Suspicion,
    label_counts,
    look_alike_suspicions,
    look_alikes,
    row_suspicions,
    shared_texts,
    split_suspicions,
    text_keys,
    token_lengths,
    truncation_suspicions,
)

if TYPE_CHECKING:
    from datasets import Dataset
    from transformers import PreTrainedTokenizerBase

__all__ = [
    "BENCHMARKS",
    "SHOT_BUCKETS",
    "Benchmark",
    "Bucket",
    "Distribution",
    "Inspection",
    "SplitFacts",
    "inspect_rows",
]

SHOT_BUCKETS = {"0": (0, 0), "1": (1, 1), "2-4": (2, 4), "5-9": (5, 9), "10-99": (10, 99), "100+": (100, None)}
"""Buckets of labels by training documents, which together hold every label: from and to; None is without end."""

_SHOWN_GROUPS = 20  # of look-alikes, in the report
_BINS = 30
_MEAN_TOLERANCE = 0.02  # published means are rounded


@dataclass(frozen=True)
class Benchmark:
    """A published split, known by its statistics.

    Attributes:
        name: its name.
        train: training documents.
        test: test documents.
        labels: different labels in both.
        labels_per_document: mean number of labels of a document.
        source: where the statistics are from.
    """

    name: str
    train: int
    test: int
    labels: int
    labels_per_document: float
    source: str


_ARTICLE = "Jung et al., EACL 2023"
BENCHMARKS = (
    Benchmark("EUR-Lex", 15_449, 3_865, 3_956, 5.3, _ARTICLE),
    Benchmark("Wiki10-31K", 14_146, 6_616, 30_938, 18.6, _ARTICLE),
    Benchmark("AmazonCat-13K", 1_186_239, 306_782, 13_330, 5.0, _ARTICLE),
    Benchmark("Wiki-500K", 1_779_881, 769_421, 501_070, 4.75, _ARTICLE),
)
"""The splits that the XLGen paper reports on. The Extreme Classification Repository has another EUR-Lex, with 3,993
labels; results on it are not comparable."""


@dataclass(frozen=True)
class Distribution:
    """How a number is distributed over documents.

    Attributes:
        mean: mean.
        minimum: least value.
        median: half of the documents have at most this.
        p95: 95 % of the documents have at most this.
        maximum: greatest value.
        edges: edges of the bins of a histogram, one more than bins.
        documents: documents in each bin.
    """

    mean: float
    minimum: int
    median: float
    p95: float
    maximum: int
    edges: list[float]
    documents: list[int]

    @classmethod
    def of(cls, values: np.ndarray) -> Distribution:
        """The distribution of integers, shape `(N,)`; up to 95 % of them are in bins of equal width."""
        if not len(values):
            return cls(0.0, 0, 0.0, 0.0, 0, [0.0, 1.0], [0])
        low, p95 = int(values.min()), float(np.quantile(values, 0.95))
        width = max(1, int(np.ceil((p95 + 1 - low) / _BINS)))
        edges = np.arange(low, p95 + 1 + width, width, dtype=np.float64)
        documents = np.histogram(np.minimum(values, edges[-1]), bins=edges)[0]
        return cls(
            float(values.mean()), low, float(np.median(values)), p95, int(values.max()),
            edges.tolist(), documents.tolist(),
        )  # fmt: skip


@dataclass(frozen=True)
class Bucket:
    """Labels with some number of training documents.

    Attributes:
        shots: the number, as `1`, `2-4` or `100+`.
        labels: labels with that many.
        occurrences: how often they occur in the split.
    """

    shots: str
    labels: int
    occurrences: int


@dataclass(frozen=True)
class SplitFacts:
    """What a split is like.

    Attributes:
        documents: rows.
        without_labels: rows without labels.
        empty_texts: rows without text.
        repeated_texts: rows whose text an earlier row has, case and punctuation aside.
        labels: different labels.
        occurrences: labels of all rows.
        labels_per_document: how many labels a row has.
        words: words of a text.
        tokens: tokens of a text, where a tokenizer is given; of a sample of the texts.
        truncated: fraction of the texts with more tokens than the maximum, where one is given.
        shots: its labels by the number of training documents.
    """

    documents: int
    without_labels: int
    empty_texts: int
    repeated_texts: int
    labels: int
    occurrences: int
    labels_per_document: Distribution
    words: Distribution
    tokens: Distribution | None
    truncated: float | None
    shots: list[Bucket]


@dataclass(frozen=True)
class Inspection:
    """What a data set is like.

    Attributes:
        splits: facts by split.
        labels: different labels of all splits and the vocabulary.
        vocabulary: labels of the vocabulary that no row has.
        shared: split -> another split -> rows of the first whose text the other has, too.
        benchmark: the published split that this is, or the one that it resembles, in words; None for none.
        look_alikes: groups of label names that look the same, the first of them.
        suspicions: what looks wrong.
    """

    splits: dict[str, SplitFacts]
    labels: int
    vocabulary: int
    shared: dict[str, dict[str, int]]
    benchmark: str | None
    look_alikes: list[tuple[str, ...]]
    suspicions: list[Suspicion] = field(default_factory=list)

    def to_dict(self) -> dict[str, object]:
        """The inspection as JSON can hold it."""
        content = asdict(self)
        content["look_alikes"] = [list(group) for group in self.look_alikes]
        content["suspicions"] = [one._asdict() for one in self.suspicions]
        return content


def inspect_rows(
    splits: Mapping[str, Dataset],
    *,
    vocabulary: Iterable[str] = (),
    tokenizer: PreTrainedTokenizerBase | None = None,
    max_length: int | None = None,
    token_sample: int | None = 10_000,
) -> Inspection:
    """Look at the rows of a data set.

    Args:
        splits: rows by split; `train`, or else the first, counts as the training rows.
        vocabulary: label names beyond those of the rows.
        tokenizer: counts the tokens of texts.
        max_length: tokens that a model reads; needs a tokenizer.
        token_sample: texts of each split that are tokenized, at equal distances; None for all.

    Raises:
        ConfigurationError: if there is a maximum length and no tokenizer.
    """
    if max_length is not None and tokenizer is None:
        raise ConfigurationError("A maximum length counts tokens; give a tokenizer, too.")
    usual = [name for name in ("train", "validation", "test") if name in splits]
    splits = {name: splits[name] for name in (*usual, *(name for name in splits if name not in usual))}
    first = next(iter(splits))
    counts = {name: label_counts(rows) for name, rows in splits.items()}
    keys = {name: text_keys(rows) for name, rows in splits.items()}
    names = dict.fromkeys(label for found in counts.values() for label in found)
    further = [name for name in dict.fromkeys(vocabulary) if name not in names]
    tokens = {}
    if tokenizer is not None:
        tokens = {name: token_lengths(rows, tokenizer, token_sample) for name, rows in splits.items()}
    facts = {
        name: _split_facts(rows, counts[name], counts[first], keys[name], tokens.get(name), max_length)
        for name, rows in splits.items()
    }
    found = [
        *(one.of(name) for name, rows in splits.items() for one in row_suspicions(rows)),
        *split_suspicions(splits, keys),
        *look_alike_suspicions([*names, *further]),
        *(truncation_suspicions(tokens[first], max_length) if max_length is not None else ()),
    ]
    groups = look_alikes([*names, *further])
    return Inspection(
        splits=facts,
        labels=len(names) + len(further),
        vocabulary=len(further),
        shared=_shared(keys),
        benchmark=_recognise(facts, len(names)),
        look_alikes=groups[:_SHOWN_GROUPS],
        suspicions=found,
    )


def _split_facts(
    rows: Dataset,
    counts: Counter[str],
    train_counts: Counter[str],
    keys: np.ndarray,
    tokens: np.ndarray | None,
    max_length: int | None,
) -> SplitFacts:
    lengths, words = _sizes(rows)
    there = keys[keys != 0]
    return SplitFacts(
        documents=len(rows),
        without_labels=int((lengths == 0).sum()),
        empty_texts=int((words == 0).sum()),
        repeated_texts=len(there) - len(np.unique(there)),
        labels=len(counts),
        occurrences=counts.total(),
        labels_per_document=Distribution.of(lengths),
        words=Distribution.of(words),
        tokens=None if tokens is None else Distribution.of(tokens),
        truncated=None if tokens is None or max_length is None else _fraction(tokens > max_length),
        shots=_buckets(counts, train_counts),
    )


def _fraction(found: np.ndarray) -> float:
    """The fraction that is true; 0 of nothing."""
    return float(found.mean()) if len(found) else 0.0


def _sizes(rows: Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Labels and words of each row."""
    lengths, words = [np.empty(0, dtype=np.int64)], [np.empty(0, dtype=np.int64)]  # a split may have no rows
    for texts, labels in column_batches(rows, "text", "labels"):
        lengths.append(labels.value_lengths().to_numpy(zero_copy_only=False))
        words.append(np.array([len(text.split()) for text in texts.to_pylist()], dtype=np.int64))
    return np.concatenate(lengths).astype(np.int64), np.concatenate(words)


def _buckets(counts: Counter[str], train_counts: Counter[str]) -> list[Bucket]:
    shots = np.array([train_counts[name] for name in counts], dtype=np.int64)
    occurrences = np.array(list(counts.values()), dtype=np.int64)
    buckets = []
    for name, (low, high) in SHOT_BUCKETS.items():
        inside = shots >= low if high is None else (shots >= low) & (shots <= high)
        buckets.append(Bucket(name, int(inside.sum()), int(occurrences[inside].sum())))
    return buckets


def _shared(keys: Mapping[str, np.ndarray]) -> dict[str, dict[str, int]]:
    """Rows of a later split whose text an earlier one has."""
    names = list(keys)
    return {
        later: {earlier: len(shared_texts(keys[later], keys[earlier])) for earlier in names[:number]}
        for number, later in enumerate(names)
        if number
    }


def _recognise(facts: Mapping[str, SplitFacts], labels: int) -> str | None:
    """The published split with these numbers of rows, and how far its labels agree."""
    if not {"train", "test"} <= set(facts):
        return None
    validation = facts["validation"].documents if "validation" in facts else 0
    train = (facts["train"].documents, facts["train"].documents + validation)  # some keep a part of train apart
    for one in BENCHMARKS:
        if one.train not in train or one.test != facts["test"].documents:
            continue
        mean = sum(part.occurrences for part in facts.values()) / sum(part.documents for part in facts.values())
        here = f"{labels:,} labels, {mean:.2f} per document"
        if labels == one.labels and abs(mean - one.labels_per_document) < _MEAN_TOLERANCE * mean:
            return f"{one.name} as in {one.source}: its rows, and {here}."
        there = f"{one.labels:,}, {one.labels_per_document} per document ({one.source})"
        return f"{one.name} by its rows, but {here} instead of {there}; labels may have been merged, dropped or lost."
    return None
