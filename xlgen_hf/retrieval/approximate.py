"""An index whose search is made approximate."""

from __future__ import annotations

import logging

import numpy as np
from scipy.sparse import csr_matrix

from .near_lists import fit_lists
from .retriever import LabelRetriever

__all__ = ["FEWEST_VECTORS", "LARGE", "QUERIES", "make_approximate"]

logger = logging.getLogger(__name__)

FEWEST_VECTORS = 20_000
"""With fewer texts, or names, than this their exact search stays, which is as fast."""
LARGE = 500_000
"""Texts and names from which on approximate search is worth while."""
QUERIES = 500
"""Queries that choose how much is looked at."""


def make_approximate(
    retriever: LabelRetriever, queries: np.ndarray | None = None, *, fewest: int = FEWEST_VECTORS, seed: int = 0
) -> LabelRetriever:
    """An index whose texts and names are searched approximately, see [`NearLists`].

    Args:
        retriever: the index, which stays as it is.
        queries: embeddings of texts like those to come, `(Q, H)`; some of the training texts if None. The first 500
            choose how much is looked at, so that 98 % of the nearest are found.
        fewest: with fewer vectors than this, exact search stays.
        seed: of what is random in the making.

    Raises:
        MissingExtraError: if faiss is not installed.
    """
    hidden, lists = None, {}
    if queries is None:
        rows = np.sort(np.random.default_rng(seed).permutation(len(retriever.documents))[:QUERIES])
        queries = retriever.documents[rows]
        places = (np.arange(len(rows)), rows)
        hidden = csr_matrix((np.ones(len(rows), bool), places), shape=(len(rows), len(retriever.documents)))
    queries = np.ascontiguousarray(queries[:QUERIES], dtype=np.float32)
    if len(retriever.documents) >= fewest:
        lists["documents"] = fit_lists(retriever.documents, queries, hidden, what="training texts", seed=seed)
    if len(retriever.names) >= fewest:
        lists["names"] = fit_lists(retriever.names, queries, what="label names", seed=seed)
    if not lists:
        logger.info("Search stays exact: there are fewer than %d training texts, and label names.", fewest)
    return retriever.with_lists(lists)
