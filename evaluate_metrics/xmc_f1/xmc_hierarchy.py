"""Hierarchical precision, recall and F1: labels count together with all labels that are above them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import scipy.sparse as sp

from .xmc_scores import LabelRows, Matches, match_labels

__all__ = ["Broader", "check_broader", "hierarchical_scores", "match_with_ancestors", "root_of"]

Broader: TypeAlias = Mapping[str, Sequence[str]]
"""Label -> the labels directly above it; a label that it lacks has none above it."""


def check_broader(broader: Broader) -> None:
    """Check that a hierarchy gives lists of labels for labels.

    Raises:
        ValueError: naming the first entry that is none.
    """
    if not isinstance(broader, Mapping):
        raise ValueError(f"broader must give the labels directly above each label, not a {type(broader).__name__}.")
    for name, above in broader.items():
        labels = [name, *above] if isinstance(above, (list, tuple)) else [None]
        if not all(isinstance(one, str) for one in labels):
            raise ValueError(f"broader: {name!r}: {above!r} is not a label with a list of the labels above it.")


def root_of(broader: Broader) -> str | None:
    """The label that is above everything: the single one without broader ones, where there is just one."""
    above = {one for parents in broader.values() for one in parents}
    roots = [one for one in dict.fromkeys([*above, *broader]) if not broader.get(one)]
    return roots[0] if len(roots) == 1 and roots[0] in above else None


def match_with_ancestors(
    predictions: LabelRows, references: LabelRows, names: Sequence[str], broader: Broader, root: str | None
) -> Matches:
    """Set predictions against references, each label together with all labels above it.

    A loop is followed once. The root is left out, for it is above everything; it stays where a row has it itself.

    Args:
        predictions: `D` predictions.
        references: `D` sets of true labels.
        names: the labels in the order of their ids.
        broader: what is directly above each label.
        root: what [`root_of`] gave.
    """
    # Training may have many more labels than the documents: those without a document are not looked at.
    used, ids = np.unique(np.concatenate([predictions.indices, references.indices]), return_inverse=True)
    closure = _closure([names[one] for one in used.tolist()], broader, root)
    rows = zip((predictions, references), np.split(ids, [len(predictions.indices)]), strict=True)
    predicted, true = (_extended(LabelRows(of_rows.indptr, indices), closure) for of_rows, indices in rows)
    return match_labels(predicted, true, closure.shape[1])


def _closure(names: Sequence[str], broader: Broader, root: str | None) -> sp.csr_array:
    """Which labels are a label itself or above it, `(len(names), L')`; ids begin with those of `names`."""
    index = {name: number for number, name in enumerate(names)}
    starts, columns = [0], []
    for number, name in enumerate(names):
        found, waiting = {name}, [name]
        while waiting:
            new = [one for one in broader.get(waiting.pop(), ()) if one not in found and one != root]
            found.update(new)
            waiting.extend(new)
        columns += [number, *(index.setdefault(one, len(index)) for one in found if one != name)]
        starts.append(len(columns))
    return sp.csr_array((np.ones(len(columns), np.int32), columns, starts), shape=(len(names), len(index)))


def _extended(rows: LabelRows, closure: sp.csr_array) -> LabelRows:
    """Rows of labels -> rows of these and the labels above them, each once."""
    shape = (len(rows.indptr) - 1, closure.shape[0])
    product = sp.csr_array((np.ones(len(rows.indices), np.int32), rows.indices, rows.indptr), shape=shape) @ closure
    return LabelRows(product.indptr, product.indices)


def hierarchical_scores(matches: Matches, weights: np.ndarray | None = None) -> dict[str, float]:
    """Precision, recall and F1 over all documents of labels with their ancestors.

    Args:
        matches: what [`match_with_ancestors`] found.
        weights: how often each document counts, shape `(D,)`, once by default.

    Source: Kiritchenko, Matwin, Nock and Famili, "Learning and Evaluation in the Presence of Class Hierarchies:
    Application to Text Categorization", Canadian AI 2006.
    """
    per_document = (
        np.bincount(matches.hit_documents, minlength=matches.num_documents),
        np.diff(matches.predictions.indptr),
        np.diff(matches.references.indptr),
    )
    hits, predicted, true = (float(one.sum() if weights is None else weights @ one) for one in per_document)
    return {
        "hierarchical_precision": hits / predicted if predicted else 0.0,
        "hierarchical_recall": hits / true if true else 0.0,
        "hierarchical_f1": 2 * hits / (predicted + true) if predicted + true else 0.0,
    }
