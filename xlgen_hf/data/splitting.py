"""Splitting rows so that every split has its fraction of every label, rare ones too, and no text is in two splits."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from scipy.sparse import csr_matrix
from scipy.sparse.csgraph import connected_components

from ..errors import ConfigurationError
from .label_lists import column_batches
from .suspicion import text_keys

__all__ = ["SPLIT_NAMES_BY_NUMBER", "split_rows"]

logger = logging.getLogger(__name__)

SPLIT_NAMES_BY_NUMBER = {2: ("train", "test"), 3: ("train", "validation", "test")}
"""What two or three splits are called."""


def split_rows(
    rows: Dataset, fractions: Sequence[float], *, group_column: str | None = None, seed: int = 0
) -> list[Dataset]:
    """Split rows at random, stratified by their labels.

    Rows are dealt out in random order, each to the split that lacks most of what the row has: of its labels, as far as
    they are frequent enough for every split to get one, and of labels as rare as its rare ones. So a frequent label
    has its fraction in every split, and of the labels that occur once, twice, ... each split gets its fraction of
    them; a test split has labels that training never saw, as in practice. Rows of one group, and rows of equal texts
    (case and punctuation aside), stay together.

    Args:
        rows: rows with `text` and `labels`.
        fractions: the fraction of each split, which sum to 1.
        group_column: rows with equal values in this column go to the same split.
        seed: of the draw.

    Returns:
        The splits, each with its rows in their order. Without groups and equal texts their sizes are exact.

    Raises:
        ConfigurationError: if the fractions do not sum to 1, there is no such column, or a split would be empty.

    Source: after Sechidis et al., "On the Stratification of Multi-label Data", ECML PKDD 2011, which takes a row's
    rarest label alone into account, and puts labels that occur once into the largest split.
    """
    sizes = _sizes(len(rows), fractions)
    if group_column is not None and group_column not in rows.column_names:
        raise ConfigurationError(f"There is no column {group_column!r} to group by, only {sorted(rows.column_names)}.")
    units = _units(rows, group_column)
    shares = np.array(fractions, dtype=np.float64)
    places = _deal(_unit_features(rows, units, shares.min()), np.bincount(units), shares, sizes, seed)
    found = [np.flatnonzero(places[units] == split) for split in range(len(sizes))]
    empty = [number + 1 for number, members in enumerate(found) if not len(members)]
    if empty:
        groups = "" if group_column is None else f", and rows of one {group_column!r} with the rows of their texts"
        raise ConfigurationError(
            f"Split {empty[0]} of {len(sizes)} would have no rows: equal texts stay together{groups}. Parts that can "
            f"be dealt out: {int(units.max()) + 1}. Give fewer splits, other fractions, or further text columns."
        )
    logger.info("%d rows were split into %s.", len(rows), ", ".join(f"{len(members):,}" for members in found))
    return [rows.select(members) for members in found]


def _sizes(count: int, fractions: Sequence[float]) -> np.ndarray:
    """Rows of each split, shape `(K,)`: rounded so that they sum to all rows."""
    given = np.array(fractions, dtype=np.float64)
    if len(given) < 2 or not (given > 0).all() or abs(given.sum() - 1) > 1e-6:
        raise ConfigurationError(
            f"fractions={list(fractions)}; give two or more fractions above 0 that sum to 1, such as 0.8, 0.1, 0.1."
        )
    sizes = np.floor(given * count).astype(np.int64)
    by_rest = np.argsort(-(given * count - sizes), kind="stable")
    sizes[by_rest[: count - sizes.sum()]] += 1
    if not sizes.all():
        raise ConfigurationError(f"{count} rows cannot be split into fractions {list(fractions)}: one would be empty.")
    return sizes


def _units(rows: Dataset, group_column: str | None) -> np.ndarray:
    """The unit of each row that stays whole, shape `(N,)`: the rows with its text, and with its group."""
    keys = text_keys(rows)
    alone = keys == 0
    keys[alone] = np.arange(1, alone.sum() + 1, dtype=np.uint64) * 2  # text keys are odd
    texts = np.unique(keys, return_inverse=True)[1]
    if group_column is None:
        return texts
    values = [value for (column,) in column_batches(rows, group_column) for value in column.to_pylist()]
    named = [(False, row) if value is None or value == "" else (True, str(value)) for row, value in enumerate(values)]
    codes: dict[tuple[bool, object], int] = {}  # a row without a group is one of its own
    groups = np.array([codes.setdefault(one, len(codes)) for one in named], dtype=np.int64)
    # Groups that share a text belong together, too: the connected parts of a graph of groups and texts.
    size = int(groups.max()) + 1 + int(texts.max()) + 1
    edges = (np.ones(len(rows)), (groups, int(groups.max()) + 1 + texts))
    parts = connected_components(csr_matrix(edges, shape=(size, size)), directed=False)[1]
    return np.unique(parts[groups], return_inverse=True)[1]


def _unit_features(rows: Dataset, units: np.ndarray, rarest_fraction: float) -> csr_matrix:
    """What is to be spread, as counts of each unit, shape `(U, F)`: rows, frequent labels, and pools of rare labels.

    A label of which the smallest split would get less than one row cannot be spread by itself; all labels that occur
    as often are one feature. That a row has no label is spread as a label is.
    """
    codes: dict[str, int] = {}
    indices, lengths = [np.empty(0, dtype=np.int64)], []
    for (labels,) in column_batches(rows, "labels"):
        coded = labels.flatten().dictionary_encode()
        known = np.array([codes.setdefault(name, len(codes)) for name in coded.dictionary.to_pylist()], dtype=np.int64)
        if len(known):
            indices.append(known[coded.indices.to_numpy(zero_copy_only=False)])
        lengths.append(labels.value_lengths().to_numpy(zero_copy_only=False))
    numbers = np.concatenate(lengths)
    without = np.flatnonzero(numbers == 0)
    entries = np.concatenate([*indices, np.full(len(without), len(codes))])
    counts = np.bincount(entries, minlength=len(codes) + 1)
    pooled = counts * rarest_fraction < 1
    keys = np.where(pooled, counts, int(counts.max(initial=0)) + 1 + np.arange(len(counts)))
    features = np.unique(keys, return_inverse=True)[1] + 1  # 0 is the number of rows
    owners = np.concatenate([units, np.repeat(units, numbers), units[without]])
    columns = np.concatenate([np.zeros(len(units), dtype=np.int64), features[entries]])
    shape = (int(units.max()) + 1, int(features.max(initial=0)) + 1)
    matrix = csr_matrix((np.ones(len(columns)), (owners, columns)), shape=shape)
    matrix.sum_duplicates()
    return matrix


def _deal(
    features: csr_matrix, weights: np.ndarray, fractions: np.ndarray, sizes: np.ndarray, seed: int
) -> np.ndarray:
    """The split of each unit, shape `(U,)`.

    Args:
        features: how much of each feature the units have, shape `(U, F)`.
        weights: rows of each unit, shape `(U,)`.
        fractions: shape `(K,)`.
        sizes: rows of each split, shape `(K,)`.
        seed: of the order of the units, and of the draw between splits that lack as much.
    """
    random = np.random.default_rng(seed)
    wanted = np.asarray(features.sum(axis=0)).ravel()[:, None] * fractions  # shape (F, K)
    lacking = wanted.copy()
    room = sizes.astype(np.float64)
    places = np.empty(len(weights), dtype=np.int64)
    for unit in random.permutation(len(weights)):
        own = slice(features.indptr[unit], features.indptr[unit + 1])
        columns, amounts = features.indices[own], features.data[own]
        need = amounts @ (lacking[columns] / wanted[columns])
        need[room <= 0] = -np.inf
        best = np.flatnonzero(need >= need.max() - 1e-9)
        place = int(best[0])
        if len(best) > 1:
            place = int(random.choice(best, p=fractions[best] / fractions[best].sum()))
        places[unit] = place
        room[place] -= weights[unit]
        lacking[columns, place] -= amounts
    return places
