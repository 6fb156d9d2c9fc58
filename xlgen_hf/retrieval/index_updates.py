"""Training texts that join an index, and corrections of those that it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from scipy.sparse import csr_matrix, vstack

from .documents import DocumentNames
from .index_parts import fingerprints_of, label_matrix
from .retriever import LabelRetriever

__all__ = ["NewTexts", "add_texts"]


class NewTexts(NamedTuple):
    """What became of texts that were added to an index.

    Attributes:
        added: texts that it did not have.
        corrected: texts that it had with other labels.
        unchanged: texts that it had with these labels.
        repeated: texts that came later again, with the labels that counted.
    """

    added: int
    corrected: int
    unchanged: int
    repeated: int


def add_texts(
    retriever: LabelRetriever,
    texts: Sequence[str],
    label_ids: Sequence[Sequence[int]],
    ids: Sequence[str] | None = None,
) -> tuple[LabelRetriever, NewTexts]:
    """An index with further training texts; those that it has already get the labels that are given here.

    Args:
        retriever: the index, which stays as it is.
        texts: the texts; of equal ones the last counts.
        label_ids: the label ids of each.
        ids: what evidence calls each; numbered on if None. A text that is there already keeps its own.

    Returns:
        The index, and what became of the texts.
    """
    last = {text: row for row, text in enumerate(texts)}
    same = retriever.same_texts(list(last))
    rows = np.fromiter(last.values(), dtype=np.int64, count=len(last))
    given = label_matrix([label_ids[row] for row in rows.tolist()], len(retriever))
    sizes = np.diff(same.indptr)
    owner = np.repeat(np.arange(len(last)), sizes)
    differs = np.flatnonzero(abs(retriever.labels[same.indices] - given[owner]).sum(axis=1))
    labels = _with_rows(retriever.labels, same.indices[differs], given[owner[differs]])
    new, corrected = np.flatnonzero(sizes == 0), len(np.unique(owner[differs]))
    documents, fingerprints, lexical = retriever.documents, retriever.fingerprints, retriever.lexical
    names, lists = retriever.named_documents, dict(retriever.lists)
    if len(new):
        added = [texts[row] for row in rows[new].tolist()]
        vectors = retriever.embed(added, side="passage", progress=True)
        documents = np.concatenate([documents, vectors])
        if "documents" in lists:
            lists["documents"] = lists["documents"].extended(vectors)
        labels = vstack([labels, given[new]], format="csr")
        fingerprints = np.concatenate([fingerprints, fingerprints_of(added)])
        if lexical is not None:
            lexical = lexical.with_documents(np.arange(len(lexical.documents)), added)
        first = names.last_number + 1
        called = [str(first + row) if ids is None else ids[row] for row in rows[new].tolist()]
        names += DocumentNames.of(called, added, names.characters)
    made = retriever.with_documents(documents, labels, fingerprints, lexical, names, lists)
    return made, NewTexts(len(new), corrected, len(last) - len(new) - corrected, len(texts) - len(last))


def _with_rows(matrix: csr_matrix, rows: np.ndarray, new: csr_matrix) -> csr_matrix:
    """A matrix with other contents of some rows, `(N, L)`."""
    if not len(rows):
        return matrix
    order = np.arange(matrix.shape[0])
    order[rows] = matrix.shape[0] + np.arange(len(rows))
    return vstack([matrix, new], format="csr")[order]
