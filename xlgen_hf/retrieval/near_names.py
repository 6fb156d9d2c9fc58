"""The labels whose names are nearest to texts: by embedding and by spelling, exactly or approximately."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .search import BestColumns, Names, VectorSearch
from .spelling import Spelling
from .weighing import RetrievalSettings

__all__ = ["nearest_names"]


def nearest_names(
    names: Names,
    queries: np.ndarray,
    k: int,
    choices: Sequence[np.ndarray],
    spelling: Spelling | None,
    settings: RetrievalSettings | None,
    approximate: VectorSearch | None = None,
) -> np.ndarray:
    """The labels with the best names, of each set of labels to choose from: query * L + label of each.

    Args:
        names: the names of `L` labels.
        queries: embeddings, `(Q, H)`, float32.
        k: labels of each query and set.
        choices: sets of label ids, ascending; the first one holds all labels.
        spelling: of the same texts; None where it does not count.
        settings: how both kinds of nearness are weighed; if None, the best of each kind are found.
        approximate: finds names among all of them. Then the best of each kind are found of all labels: one that is
            good in the sum and far down in both may be missed. Smaller sets are searched exactly. All if None.
    """
    found: list[np.ndarray] = []
    if approximate is not None:
        found, choices = _in_lists(names, approximate, queries, k, spelling), choices[1:]
        if not choices:
            return np.concatenate(found)
    kinds = 2 if spelling is not None and settings is None else 1
    best = [[BestColumns(len(queries), min(k, len(kept))) for kept in choices] for _ in range(kinds)]
    for first, by_embedding in names.blocks(queries):
        last = first + by_embedding.shape[1]
        similarities = [by_embedding, *([] if spelling is None else [spelling.of_labels[:, first:last]])]
        nearness = similarities if settings is None else [settings.weigh_names(similarities)]
        for values, of_choices in zip(nearness, best, strict=True):
            for kept, columns in zip(choices, of_choices, strict=True):
                inside = kept[slice(*np.searchsorted(kept, [first, last]))]
                columns.add(values if len(inside) == last - first else values[:, inside - first], inside)
    row = np.arange(len(queries))[:, None] * len(names)
    found += [(row + one.found()[0]).reshape(-1) for of_choices in best for one in of_choices]
    return np.concatenate(found)


def _in_lists(
    names: Names, search: VectorSearch, queries: np.ndarray, k: int, spelling: Spelling | None
) -> list[np.ndarray]:
    """The labels with the nearest names by embedding, found by a search, and with those by spelling."""
    rows, values = search.nearest(queries, min(names.rows_for(k), names.rows_for(len(names))))
    found = [(names.labels_of(rows), values)]
    if spelling is not None:
        found.append(spelling.nearest_labels(min(k, len(names))))
    keys = []
    for labels, similarity in found:
        row, place = np.nonzero(similarity > -np.inf)
        keys.append(row * len(names) + labels[row, place])
    return keys
