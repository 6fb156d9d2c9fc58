"""What is made of rows before a training: those that teach, label-side rows, and incomplete label lists."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from typing import Final

import numpy as np
from datasets import Dataset

from ..errors import ConfigurationError
from ..labels.space import LabelSpace
from ..ranking.thresholds import often_without_labels
from .blocks import each_value
from .label_lists import column_batches, label_lists

__all__ = [
    "LABEL_SIDE",
    "drop_labels",
    "label_side_rows",
    "learns_from_none",
    "numbers_of_labels",
    "remove_labels",
    "rows_that_teach",
]

logger = logging.getLogger(__name__)


LABEL_SIDE: Final = "label_side"
"""Column that marks label-side rows among others."""

_JOINT = " : "  # library titles join their parts so


_MOST_NAMES = 4


def label_side_rows(
    label_space: LabelSpace, count: int, seed: int = 0, further: Sequence[tuple[int, str]] = ()
) -> list[dict[str, str | list[str]]]:
    """Make rows whose text is one to four label names, in any order, and whose labels are these.

    Every label of the space stands in as many rows as any other, give or take one, those that training never saw
    included: their names are known even where no document is.

    Args:
        label_space: the labels.
        count: number of rows.
        seed: seed of the draw.
        further: label ids and further names of theirs: aliases, and names in other languages. The text calls a label
            that has some by one of them half of the time.

    Source: Jain et al., "Gandalf", KDD 2024 (label names as training points).
    """
    random = np.random.default_rng(seed)
    rows: list[dict[str, str | list[str]]] = []
    pool: list[int] = []
    taken = 0  # labels of the pool; to delete them would move all others, for each row
    others: dict[int, list[str]] = {}
    for label, name in further:
        others.setdefault(label, []).append(name)
    for size in random.integers(1, min(_MOST_NAMES, len(label_space)) + 1, size=count):
        if len(pool) - taken < size:
            pool, taken = pool[taken:] + random.permutation(len(label_space)).tolist(), 0
        labels = list(dict.fromkeys(pool[taken : taken + size]))
        taken += size
        names = label_space.decode(labels)
        called = [_one_name(*pair, random) for pair in zip(names, map(others.get, labels), strict=True)]
        rows.append({"text": _JOINT.join(called), "labels": names})
    return rows


def _one_name(name: str, others: list[str] | None, random: np.random.Generator) -> str:
    """A label's own name, or one of its others half of the time."""
    return others[int(random.integers(len(others)))] if others and random.random() < 0.5 else name


def drop_labels(dataset: Dataset, rate: float = 0.5, seed: int = 0, *, keep_one: bool = True) -> Dataset:
    """Drop a share of each row's labels, drawn at random; for training rows, never for rows that evaluate.

    Of `n` labels `rate * n` are dropped, rounded down or up at random, so that the expected share is `rate`. The draw
    depends on the seed and the row's number alone.

    Args:
        dataset: rows with `labels`; other columns stay as they are.
        rate: share that is dropped, in [0, 1].
        seed: of the draw.
        keep_one: leave every row with labels at least one of them, so that short lists lose a smaller share.

    Returns:
        The rows in their order, the remaining labels in theirs.

    Raises:
        ConfigurationError: if the rate is not a fraction.

    Source: Jung et al., EACL 2023 (50 % of each training example's labels dropped).
    """
    if not 0 <= rate <= 1:
        raise ConfigurationError(f"rate={rate}; a share of labels to drop, from 0 to 1, is needed.")

    def drop(row: Mapping[str, list[str]], number: int) -> dict[str, list[str]]:
        labels = row["labels"]
        random = np.random.default_rng([seed, number])
        dropped = int(rate * len(labels) + random.random())
        least = 1 if keep_one and labels else 0
        kept = np.sort(random.permutation(len(labels))[: max(len(labels) - dropped, least)])
        return {"labels": [labels[i] for i in kept]}

    remaining = dataset.map(drop, with_indices=True, keep_in_memory=True, load_from_cache_file=False)
    before, after = ([name for row in each_value(rows, "labels") for name in row] for rows in (dataset, remaining))
    logger.info(
        "%d of %d labels of the rows were dropped; %d of %d different ones occur no more.",
        len(before) - len(after),
        len(before),
        len(set(before)) - len(set(after)),
        len(set(before)),
    )
    return remaining


def remove_labels(dataset: Dataset, names: Collection[str]) -> Dataset:
    """Rows without some labels; rows that lose all of theirs stay.

    Args:
        dataset: rows with `labels`; other columns stay as they are.
        names: the labels to remove.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    unwanted = pa.array(list(names), pa.string())

    def remove(table: pa.Table) -> pa.Table:
        lists = label_lists(table.column("labels").combine_chunks())
        kept = lists.select(~pc.is_in(lists.names, unwanted).to_numpy(zero_copy_only=False))
        place = table.schema.get_field_index("labels")
        return table.set_column(place, table.schema.field("labels"), kept.to_array())

    changed = dataset.with_format("arrow").map(remove, batched=True, keep_in_memory=True, load_from_cache_file=False)
    return changed.with_format(None)


def rows_that_teach(dataset: Dataset) -> np.ndarray:
    """Numbers of the rows to learn from: those with labels and, if [`learns_from_none`], the others.

    The log tells how many the others are, and whether they are left out.
    """
    labelled = np.flatnonzero(numbers_of_labels(dataset))
    without = len(dataset) - len(labelled)
    if without and learns_from_none(dataset):
        logger.info("%d of %d training rows have no labels; they show what has none.", without, len(dataset))
        return np.arange(len(dataset))
    if without:
        logger.warning("%d of %d training rows have no labels and are left out.", without, len(dataset))
    return labelled


def learns_from_none(dataset: Dataset) -> bool:
    """Whether texts like the rows that have no label are to get low scores: see [`often_without_labels`].

    Args:
        dataset: training rows; label-side rows do not count.
    """
    numbers = numbers_of_labels(dataset)
    if LABEL_SIDE in dataset.column_names:
        numbers = numbers[~np.asarray(dataset[LABEL_SIDE][:], dtype=bool)]
    return bool(numbers.any()) and often_without_labels(numbers)


def numbers_of_labels(dataset: Dataset) -> np.ndarray:
    """How many labels each row has, `(N,)`."""
    parts = [part.value_lengths().to_numpy(zero_copy_only=False) for (part,) in column_batches(dataset, "labels")]
    return np.concatenate(parts) if parts else np.zeros(0, dtype=np.int64)
