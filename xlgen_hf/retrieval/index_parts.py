"""The tensors of an index: which text has which label, what tells texts apart, and what a file of them must hold."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from scipy.sparse import csr_matrix

__all__ = ["FURTHER", "FURTHER_CALLED", "fingerprints_of", "label_matrix", "tensor_problem"]

FURTHER = "further_names"
"""The tensor with the label ids of further names."""
FURTHER_CALLED = "further_called"
"""What the names of the tensors with these names themselves begin with."""
_INDEX_KINDS: dict[str, type] = {
    "documents": np.float16,
    "names": np.float16,
    "label_start": np.int64,
    "label_ids": np.int32,
    "fingerprints": np.int64,
}


def fingerprints_of(texts: Sequence[str]) -> np.ndarray:
    """A number of 64 bits for each text, `(N,)`, int64, the same on every machine."""
    digests = b"".join(hashlib.blake2b(text.encode(), digest_size=8).digest() for text in texts)
    return np.frombuffer(digests, dtype="<i8").astype(np.int64)


def label_matrix(label_ids: Sequence[Sequence[int]], num_labels: int) -> csr_matrix:
    """Rows of label ids, which may name one twice -> `(N, L)`, 1 where a text has a label."""
    start = np.cumsum([0, *(len(set(row)) for row in label_ids)])
    ids = np.fromiter((label for row in label_ids for label in dict.fromkeys(row)), np.int32, int(start[-1]))
    return csr_matrix((np.ones(len(ids), np.float32), ids, start), shape=(len(label_ids), num_labels))


def tensor_problem(tensors: dict[str, np.ndarray], num_labels: int) -> str | None:
    """Say what does not fit, if anything."""
    for name, kind in _INDEX_KINDS.items():
        if name not in tensors or tensors[name].dtype != kind:
            return f"{name!r} must be there, as {np.dtype(kind).name}."
    documents, names, start, ids, fingerprints = (tensors[name] for name in _INDEX_KINDS)
    if documents.ndim != 2 or names.ndim != 2 or documents.shape[1] != names.shape[1]:
        return f"'documents' {documents.shape} and 'names' {names.shape} must be matrices of one width."
    problem = _names_problem(len(names), tensors.get(FURTHER, np.zeros(0, np.int32)), num_labels)
    if problem:
        return problem
    if not (np.isfinite(documents).all() and np.isfinite(names).all()):
        return "embeddings hold NaN or infinity."
    if fingerprints.shape != (len(documents),):
        return f"{len(documents)} texts come with 'fingerprints' {fingerprints.shape}."
    if start.shape != (len(documents) + 1,) or start[0] != 0 or start[-1] != len(ids) or (np.diff(start) < 0).any():
        return "'label_start' does not say where each text's labels begin."
    if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < num_labels:
        return f"'label_ids' leave the label space of {num_labels} labels."
    return None


def _names_problem(number: int, further: np.ndarray, num_labels: int) -> str | None:
    """Say what is wrong with the number of names, or with the labels of the further ones, if anything."""
    if further.ndim != 1 or further.dtype != np.int32 or (np.diff(further) < 0).any():
        return f"{FURTHER!r} must be a list of ascending int32."
    if len(further) and not 0 <= int(further[0]) <= int(further[-1]) < num_labels:
        return f"{FURTHER!r} leave the label space of {num_labels} labels."
    if number != num_labels + len(further):
        return f"{number - len(further)} label names are indexed, the label space has {num_labels} labels."
    return None
