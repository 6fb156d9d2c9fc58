"""Making clusters of labels: label embeddings, and k-means over them, or the tree of broader concepts."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans, MiniBatchKMeans
from sklearn.manifold import TSNE
from threadpoolctl import threadpool_limits

from ..encoders.embedding import Encoder, embed_texts, recipe_of
from ..errors import ConfigurationError, DataError
from ..settings import BATCH_SIZE
from .clusters import LabelClusters, LabelMap
from .hierarchy import branch_clusters
from .space import LabelSpace
from .vocabulary import Vocabulary

__all__ = [
    "FEWEST_ON_MAP",
    "MINI_BATCH_ABOVE",
    "MOST_ON_MAP",
    "SIMILARITIES_AT_ONCE",
    "cluster_labels",
    "default_num_clusters",
    "fit_clusters",
    "incidence_matrix",
    "k_means",
    "label_embeddings",
    "map_labels",
]

logger = logging.getLogger(__name__)
_NAMED_BY = 3  # labels in the name of a cluster
_NEIGHBORS = 10  # labels with documents that place one without
_NEIGHBOR_TEMPERATURE = 0.1  # of the softmax over their names' cosines
_PLACING_NAME_WEIGHT = 0.5  # least share of the name in the embedding of a label without documents
SIMILARITIES_AT_ONCE = 20_000_000
"""Similarities of label names that are held in memory together."""
MINI_BATCH_ABOVE = 20_000_000
"""Distances of one iteration of k-means, above which it works on samples of the labels."""
_MANY_STARTS_BELOW = 1_000_000  # distances of one iteration, below which several starts cost nothing
_STARTS = 4
FEWEST_ON_MAP = 20
"""Labels with different embeddings that a map needs; of fewer there is little to see."""
MOST_ON_MAP = 2_000
"""Labels that a map shows; t-SNE of them takes seconds, and more marks would cover each other."""
_PERPLEXITY = 30  # neighbours of a label that t-SNE keeps near it
_MAP_STEPS, _MAP_ANGLE = 500, 0.8  # of 1,000 labels, a map as good as with the defaults in less than half their time


def default_num_clusters(num_labels: int) -> int:
    """Take the square root of the number of labels, at least 2: as many clusters as labels in a cluster.

    A decision among `C` clusters and one among a cluster's labels are then equally hard, and both lists stay short
    at any size: 63 for EUR-Lex' 3,956 labels, 708 for Wiki-500K's 501,070. The paper uses 30 for every data set.

    Args:
        num_labels: size of the label space, at least 1.
    """
    return min(max(2, round(num_labels**0.5)), num_labels)


def fit_clusters(
    label_space: LabelSpace,
    texts: Sequence[str],
    label_ids: Sequence[Sequence[int]],
    encoder: Encoder,
    *,
    passage_prompt: str | None = None,
    num_clusters: int | None = None,
    name_weight: float = 0.0,
    hierarchy: Vocabulary | None = None,
    seed: int = 0,
    cache_dir: str | Path | None = None,
    max_length: int = 256,
    batch_size: int = BATCH_SIZE,
    device: str | None = None,
    progress: bool = True,
) -> LabelClusters:
    """Embed training documents and label names, make label embeddings out of them, and cluster those.

    Args:
        label_space: the `L` labels.
        texts: `N` training documents.
        label_ids: each document's label ids.
        encoder: see `embed_texts`.
        passage_prompt: put before documents and label names; the checkpoint's own if None.
        num_clusters: `C`, from 1 to `L`; `default_num_clusters(L)` if None, 30 in the paper. Fewer come out, with
            a warning, where fewer label embeddings are different.
        name_weight: share of the name in a label's embedding, from 0 (documents alone, as in the paper) to 1; see
            `label_embeddings`, where 0.5 was best.
        hierarchy: concepts whose tree of broader concepts makes the clusters, see [`branch_clusters`]; if None,
            k-means over the label embeddings makes them.
        seed: of k-means. The same seed and embeddings give the same clusters.
        cache_dir: see `embed_texts`.
        max_length: see `embed_texts`.
        batch_size: see `embed_texts`.
        device: see `embed_texts`.
        progress: see `embed_texts`.

    Raises:
        ConfigurationError: if `num_clusters` or `name_weight` is out of range, or there is no hierarchy.
        DataError: if texts and label ids differ in number, or a label id is none of the label space.
    """
    wanted = default_num_clusters(len(label_space)) if num_clusters is None else num_clusters
    _check_settings(wanted, name_weight, len(label_space))
    incidence = incidence_matrix(texts, label_ids, len(label_space))
    recipe = recipe_of(encoder, passage_prompt=passage_prompt)
    embed = partial(
        embed_texts,
        encoder=encoder,
        recipe=recipe,
        max_length=max_length,
        batch_size=batch_size,
        cache_dir=cache_dir,
        device=device,
        progress=progress,
    )
    documents = embed(texts)
    needs_names = name_weight > 0 or bool((incidence.getnnz(axis=0) == 0).any())
    names = embed(label_space.names) if needs_names else None
    vectors = label_embeddings(incidence, documents, names, name_weight)
    metadata = {
        "encoder": encoder if isinstance(encoder, str) else type(encoder[0]).__name__,
        **({} if passage_prompt is None else {"passage_prompt": passage_prompt}),
        "name_weight": name_weight,
        "seed": seed,
        "num_documents": len(texts),
        "num_labels_without_documents": int((incidence.getnnz(axis=0) == 0).sum()),
        **({} if hierarchy is None else {"made_by": "hierarchy"}),
    }
    if hierarchy is None:
        assignment = k_means(vectors, wanted, seed)
    else:
        assignment = branch_clusters(
            hierarchy, label_space, wanted, lambda labels, number: k_means(vectors[labels], number, seed)
        )
    clusters = cluster_labels(label_space, vectors, assignment, metadata)
    clusters.label_map = map_labels(vectors, clusters.assignment, seed)
    return clusters


def cluster_labels(
    label_space: LabelSpace, vectors: np.ndarray, assignment: np.ndarray, metadata: Mapping[str, object] | None = None
) -> LabelClusters:
    """Clusters out of an assignment: numbered by frequency, with centroids and names.

    Args:
        label_space: the `L` labels.
        vectors: label embeddings, `(L, H)`, rows of length 1.
        assignment: a number for each label, the same for those of one cluster, `(L,)`; any integers.
        metadata: what the clusters remember of how they were made.

    Returns:
        Clusters without gaps in their numbers: the one whose labels occur most often in training first, then by first
        label. A centroid is the mean direction of the members, a name the most frequent of them.
    """
    ordered = _order_by_frequency(assignment, label_space.counts)
    names = _cluster_names(ordered, label_space)
    return LabelClusters(ordered, _centroids(vectors, ordered), names, metadata or {})


def _check_settings(num_clusters: int, name_weight: float, num_labels: int) -> None:
    if not 1 <= num_clusters <= num_labels:
        raise ConfigurationError(f"num_clusters={num_clusters}; with {num_labels} labels, give 1 to {num_labels}.")
    if not 0 <= name_weight <= 1:
        raise ConfigurationError(f"name_weight={name_weight}; it must lie in [0, 1].")


def incidence_matrix(texts: Sequence[str], label_ids: Sequence[Sequence[int]], num_labels: int) -> csr_matrix:
    """Which document has which label.

    Args:
        texts: `N` documents.
        label_ids: each document's label ids; one that is repeated counts once.
        num_labels: size of the label space, `L`.

    Returns:
        `(N, L)`, float32, rows of length 1 where a document has labels.

    Raises:
        DataError: if texts and label ids differ in number, or a label id is none of the label space.
    """
    if len(texts) != len(label_ids):
        raise DataError(f"{len(texts)} texts come with {len(label_ids)} lists of label ids.")
    columns: list[int] = []
    starts = [0]
    for row, ids in enumerate(label_ids, 1):
        unique = sorted(set(ids))
        if unique and not 0 <= unique[0] <= unique[-1] < num_labels:
            raise DataError(f"Label ids {unique} are not all in 0 to {num_labels - 1}.", row=row)
        columns += unique
        starts.append(len(columns))
    sizes = np.diff(starts)
    values = np.repeat(1 / np.sqrt(np.maximum(sizes, 1)), sizes).astype(np.float32)
    return csr_matrix((values, columns, starts), shape=(len(texts), num_labels))


def _unit(rows: np.ndarray) -> np.ndarray:
    """Rows of length 1; rows of zeros stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)


def label_embeddings(
    incidence: csr_matrix, documents: np.ndarray, names: np.ndarray | None = None, name_weight: float = 0.0
) -> np.ndarray:
    """Label embeddings from the documents that carry a label (PIFA), and from its name.

    A label's PIFA is the sum of its documents' embeddings, each divided by the root of the document's number of
    labels. Names and documents lie in different regions of the encoder's space, so names are first moved by the
    difference of the two means. For a label without documents, the PIFA of the labels with the 10 nearest names stand
    in, weighted by the softmax of cosine / 0.1, and the name's share is at least 0.5.

    Measured on yso-20k (MiniLM): of labels with 3 or more documents whose PIFA was hidden, 0.584 came into their true
    one of 30 clusters, and 0.478 of 136, against 0.528 and 0.446 by the bare name. With `name_weight` 0.5 instead of
    0, a test title's 5 nearest of 30 centroids held 0.810 of its labels instead of 0.798, of 166 centroids 0.623
    instead of 0.600 (means of two seeds). Of validation labels never seen in training, 5 of 30 held 0.76, against 0.07
    where their embeddings are left at zero.

    Args:
        incidence: documents by labels, `(N, L)`, rows of length 1.
        documents: document embeddings, `(N, H)`.
        names: embeddings of the label names by the same encoder, `(L, H)`; may be None where each label has documents
            and `name_weight` is 0.
        name_weight: share of the name in a label's embedding, in [0, 1].

    Returns:
        One row of length 1 for each label, `(L, H)`, float32.

    Source: PIFA as in PECOS and the XLGen authors' code; the placement by names is this library's own.
    """
    vectors = _unit(np.asarray(incidence.T @ documents))
    if names is None:
        return vectors
    seen = (incidence.getnnz(axis=0) > 0).nonzero()[0]
    unseen = np.setdiff1d(np.arange(len(vectors)), seen)
    if not seen.size:
        return _unit(names)
    moved = _unit(names - names[seen].mean(0) + vectors[seen].mean(0))
    weight = np.full((len(vectors), 1), name_weight, dtype=np.float32)
    if unseen.size:
        vectors[unseen] = _from_neighbors(names[unseen], names[seen], vectors[seen])
        weight[unseen] = max(name_weight, _PLACING_NAME_WEIGHT)
    return _unit((1 - weight) * vectors + weight * moved)


def _from_neighbors(names: np.ndarray, known_names: np.ndarray, known_vectors: np.ndarray) -> np.ndarray:
    """Mean vectors of the labels with the nearest names: `(Q, H)`, `(K, H)` and `(K, H)` -> `(Q, H)`."""
    count = min(_NEIGHBORS, len(known_names))
    found = np.empty_like(names)
    step = max(1, SIMILARITIES_AT_ONCE // max(len(known_names), count * names.shape[1]))
    for start in range(0, len(names), step):
        similarity = names[start : start + step] @ known_names.T  # (q, K)
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        cosine = np.take_along_axis(similarity, nearest, axis=1)
        weight = np.exp((cosine - cosine.max(axis=1, keepdims=True)) / _NEIGHBOR_TEMPERATURE)
        found[start : start + step] = np.einsum("qk,qkh->qh", weight, known_vectors[nearest])
    return _unit(found)


def k_means(vectors: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    """Cluster label embeddings; as these have length 1, the nearest is the most similar by cosine.

    Args:
        vectors: one row for each label, `(L, H)`.
        num_clusters: clusters to make; fewer come out, with a warning, where fewer rows are different.
        seed: the same seed and rows give the same clusters.

    Returns:
        The cluster of each label, `(L,)`, int64.
    """
    distinct = len({row.tobytes() for row in vectors})
    if distinct < num_clusters:
        logger.warning(
            "%d clusters are too many: the %d labels have only %d different embeddings, so there are %d clusters.",
            *(num_clusters, len(vectors), distinct, distinct),
        )
        num_clusters = distinct
    work = len(vectors) * num_clusters
    if work > MINI_BATCH_ABOVE:
        # Each step should show each cluster some rows, and each row should be seen some times.
        size = max(4096, 8 * num_clusters)
        model = MiniBatchKMeans(num_clusters, n_init=1, batch_size=size, random_state=seed)
    else:
        model = KMeans(num_clusters, n_init=_STARTS if work < _MANY_STARTS_BELOW else 1, random_state=seed)
    with threadpool_limits(1, user_api="openmp"):  # threads add up in any order, which would move rows between runs
        return model.fit(vectors).labels_.astype(np.int64)


def map_labels(vectors: np.ndarray, assignment: np.ndarray, seed: int) -> LabelMap | None:
    """Place labels in a plane by t-SNE, so that neighbours in the space of embeddings are neighbours there.

    In a large label space 2,000 labels are placed, of each cluster its share, the most frequent ones.

    Args:
        vectors: label embeddings, `(L, H)`, in the order of frequency.
        assignment: the cluster of each label, `(L,)`.
        seed: the same seed and rows give the same map.

    Returns:
        The map; None for fewer than `FEWEST_ON_MAP` different embeddings.

    Measured on the bundled titles, 1,000 labels in 32 clusters: of a label's 10 nearest on the map, 0.66 are in its
    cluster; on that of the two main components, 0.23. It takes 1.3 seconds on one core.

    Source: van der Maaten and Hinton, "Visualizing Data using t-SNE", JMLR 2008.
    """
    by_cluster = np.argsort(assignment, kind="stable")
    sizes = np.bincount(assignment)
    starts = np.cumsum(sizes) - sizes
    rank = np.empty(len(assignment))  # of a label in its cluster, as a fraction: each cluster gives its share
    rank[by_cluster] = (np.arange(len(assignment)) - starts[assignment[by_cluster]]) / sizes[assignment[by_cluster]]
    labels = np.sort(np.argsort(rank, kind="stable")[:MOST_ON_MAP])
    chosen = np.ascontiguousarray(vectors[labels], dtype=np.float32)
    if len(np.unique(chosen, axis=0)) < FEWEST_ON_MAP:
        return None
    perplexity = min(_PERPLEXITY, (len(labels) - 1) / 3)
    with threadpool_limits(1, user_api="openmp"):  # see `k_means`
        model = TSNE(perplexity=perplexity, init="pca", random_state=seed, max_iter=_MAP_STEPS, angle=_MAP_ANGLE)
        positions = model.fit_transform(chosen)
    return LabelMap(labels.astype(np.int64), positions.astype(np.float32))


def _order_by_frequency(assignment: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Renumber clusters without gaps: the one whose labels occur most often in training first, then by first label."""
    _, first, dense = np.unique(assignment, return_index=True, return_inverse=True)
    occurrences = np.bincount(dense, weights=counts)
    rank = np.empty(len(first), dtype=np.int64)
    rank[np.lexsort((first, -occurrences))] = np.arange(len(first))
    return rank[dense]


def _centroids(vectors: np.ndarray, assignment: np.ndarray) -> np.ndarray:
    """Mean direction of each cluster's rows, `(C, H)`, float32, rows of length 1."""
    sizes = np.bincount(assignment)
    member = csr_matrix(
        (1 / sizes[assignment], (assignment, np.arange(len(assignment)))), shape=(len(sizes), len(assignment))
    )
    means = np.asarray(member @ vectors)
    # Members that cancel each other out have no mean direction; any of theirs is as good.
    opposed = np.linalg.norm(means, axis=1) < 1e-6
    means[opposed] = vectors[np.unique(assignment, return_index=True)[1][opposed]]
    return _unit(means)


def _cluster_names(assignment: np.ndarray, label_space: LabelSpace) -> list[str]:
    """Each cluster's most frequent labels, made unique where label names hold the joint itself."""
    members: list[list[str]] = [[] for _ in range(assignment.max() + 1)]
    for name, cluster in zip(label_space.names, assignment.tolist(), strict=True):  # in the order of frequency
        if len(members[cluster]) < _NAMED_BY:
            members[cluster].append(name)
    names: dict[str, None] = {}
    for labels in members:
        name, number = " / ".join(labels), 2
        while name in names:
            name, number = f"{' / '.join(labels)} ({number})", number + 1
        names[name] = None
    return list(names)
