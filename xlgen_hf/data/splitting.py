"""Splitting rows so that every split has its fraction of every label, rare ones too, and no text is in two splits."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import numpy as np
from datasets import Dataset
from scipy.sparse import csc_matrix, csr_matrix

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

    Labels are dealt out one after another, the rarest first: each of a label's texts goes to a split with a
    probability in proportion to what that split still lacks of the label. So a frequent label has its fraction in
    every split, and of the labels that occur once each split gets its fraction of them; a test split has labels that
    training never saw, as in practice. Rows of one group, and rows of equal texts (case and punctuation aside), stay
    together.

    Args:
        rows: rows with `text` and `labels`.
        fractions: the fraction of each split, which sum to 1.
        group_column: rows with equal values in this column go to the same split.
        seed: of the draw.

    Returns:
        The splits, each with its rows in their order. Without groups and equal texts their sizes are exact.

    Raises:
        ConfigurationError: if the fractions do not sum to 1, there is no such column, or a split would be empty.

    Source: after Sechidis et al., "On the Stratification of Multi-label Data", ECML PKDD 2011, with draws instead of
    the greatest need, which would put all labels of one text into the largest split.
    """
    sizes = _sizes(len(rows), fractions)
    if group_column is not None and group_column not in rows.column_names:
        raise ConfigurationError(f"There is no column {group_column!r} to group by, only {sorted(rows.column_names)}.")
    units = _units(rows, group_column)
    matrix = _unit_labels(rows, units)
    places = _deal(matrix, np.bincount(units), np.array(fractions, dtype=np.float64), sizes, seed)
    found = [np.flatnonzero(places[units] == split) for split in range(len(sizes))]
    empty = [number + 1 for number, members in enumerate(found) if not len(members)]
    if empty:
        raise ConfigurationError(
            f"Split {empty[0]} of {len(sizes)} would have no rows: {int(units.max()) + 1} groups of rows must stay "
            "together. Give fewer splits or other fractions."
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
    """The unit of each row that stays whole, shape `(N,)`: its group, or the rows with its text."""
    if group_column is None:
        keys = text_keys(rows)
        alone = keys == 0
        keys[alone] = np.arange(1, alone.sum() + 1, dtype=np.uint64) * 2  # text keys are odd
    else:
        values = [str(value) for (column,) in column_batches(rows, group_column) for value in column.to_pylist()]
        keys = np.unique(values, return_inverse=True)[1].astype(np.uint64)
    return np.unique(keys, return_inverse=True)[1]


def _unit_labels(rows: Dataset, units: np.ndarray) -> csc_matrix:
    """How often a label occurs in a unit, shape `(U, L)`."""
    codes: dict[str, int] = {}
    indices, lengths = [], []
    for (labels,) in column_batches(rows, "labels"):
        coded = labels.flatten().dictionary_encode()
        known = np.array([codes.setdefault(name, len(codes)) for name in coded.dictionary.to_pylist()], dtype=np.int64)
        indices.append(known[coded.indices.to_numpy(zero_copy_only=False)] if len(known) else known)
        lengths.append(labels.value_lengths().to_numpy(zero_copy_only=False))
    owners = np.repeat(units, np.concatenate(lengths))
    columns = np.concatenate(indices)
    ones = np.ones(len(columns), dtype=np.int32)
    return csc_matrix((ones, (owners, columns)), shape=(int(units.max()) + 1, max(len(codes), 1)))


def _deal(matrix: csc_matrix, weights: np.ndarray, fractions: np.ndarray, sizes: np.ndarray, seed: int) -> np.ndarray:
    """The split of each unit, shape `(U,)`.

    Args:
        matrix: labels of the units, shape `(U, L)`.
        weights: rows of each unit, shape `(U,)`.
        fractions: shape `(K,)`.
        sizes: rows of each split, shape `(K,)`.
        seed: of the draw.
    """
    random = np.random.default_rng(seed)
    by_unit = csr_matrix(matrix)
    occurrences = np.asarray(matrix.sum(axis=0)).ravel()
    lacking = occurrences[:, None] * fractions  # shape (L, K)
    room = sizes.astype(np.float64)
    places = np.full(len(weights), -1, dtype=np.int64)
    order = random.permutation(len(weights))
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    labels = random.permutation(len(occurrences))
    for label in labels[np.argsort(occurrences[labels], kind="stable")]:
        members = matrix.indices[matrix.indptr[label] : matrix.indptr[label + 1]]
        members = members[places[members] < 0]
        for unit in members[np.argsort(rank[members])]:
            place = _draw(lacking[label], room, random)
            places[unit] = place
            room[place] -= weights[unit]
            own = slice(by_unit.indptr[unit], by_unit.indptr[unit + 1])
            lacking[by_unit.indices[own], place] -= by_unit.data[own]
    for unit in order[places[order] < 0]:  # rows without labels
        place = _draw(room, room, random)
        places[unit] = place
        room[place] -= weights[unit]
    return places


def _draw(lacking: np.ndarray, room: np.ndarray, random: np.random.Generator) -> int:
    """A split, in proportion to what it lacks, among those with room; in proportion to the room where none lacks."""
    open_splits = np.maximum(room, 0)
    wanted = np.where(open_splits > 0, np.maximum(lacking, 0), 0)
    if not wanted.any():
        wanted = open_splits if open_splits.any() else np.ones_like(room)
    edges = np.cumsum(wanted)
    return int(np.searchsorted(edges, random.random() * edges[-1], side="right"))
