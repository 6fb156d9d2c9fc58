"""Label-side training rows: label names as texts, so that the model learns to spell a label whose words it reads."""

from __future__ import annotations

import numpy as np

from .labels import LabelSpace

__all__ = ["label_side_rows"]

_JOINT = " : "  # library titles join their parts so
_MOST_NAMES = 4


def label_side_rows(label_space: LabelSpace, count: int, seed: int = 0) -> list[dict[str, str | list[str]]]:
    """Make rows whose text is one to four label names, in any order, and whose labels are these.

    Every label of the space stands in as many rows as any other, give or take one, those that training never saw
    included: their names are known even where no document is.

    Args:
        label_space: the labels.
        count: number of rows.
        seed: seed of the draw.

    Source: Jain et al., "Gandalf", KDD 2024 (label names as training points).
    """
    random = np.random.default_rng(seed)
    rows: list[dict[str, str | list[str]]] = []
    pool: list[int] = []
    for size in random.integers(1, min(_MOST_NAMES, len(label_space)) + 1, size=count):
        if len(pool) < size:
            pool += random.permutation(len(label_space)).tolist()
        names = label_space.decode(dict.fromkeys(pool[:size]))
        del pool[:size]
        rows.append({"text": _JOINT.join(names), "labels": names})
    return rows
