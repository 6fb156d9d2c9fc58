"""Clusters of related labels: label embeddings from the training documents and the label names, then k-means."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.cluster import KMeans, MiniBatchKMeans
from threadpoolctl import threadpool_limits

from ._io import atomic_path, read_json, read_tensors, write_json, write_tensors
from .embedding import Encoder, embed_texts
from .errors import ConfigurationError, DataError, LabelSpaceError, ModelFolderError
from .labels import LabelSpace

__all__ = ["CLUSTERS_FILE", "CLUSTER_TENSORS_FILE", "LabelClusters", "default_num_clusters", "label_embeddings"]

logger = logging.getLogger(__name__)

CLUSTERS_FILE = "label_clusters.json"
CLUSTER_TENSORS_FILE = "label_clusters.safetensors"
_FORMAT_VERSION = 1
_NAMED_BY = 3  # labels in the name of a cluster
_NEIGHBORS = 10  # labels with documents that place one without
_NEIGHBOR_TEMPERATURE = 0.1  # of the softmax over their names' cosines
_PLACING_NAME_WEIGHT = 0.5  # least share of the name in the embedding of a label without documents
_SIMILARITIES_AT_ONCE = 20_000_000
_MINI_BATCH_ABOVE = 20_000_000  # distances of one k-means iteration, above which it works on samples
_MANY_STARTS_BELOW = 1_000_000  # distances of one iteration, below which several starts cost nothing
_STARTS = 4


def default_num_clusters(num_labels: int) -> int:
    """Take the square root of the number of labels, at least 2: as many clusters as labels in a cluster.

    A decision among `C` clusters and one among a cluster's labels are then equally hard, and both lists stay short
    at any size: 63 for EUR-Lex' 3,956 labels, 708 for Wiki-500K's 501,070. The paper uses 30 for every data set.

    Args:
        num_labels: size of the label space, at least 1.
    """
    return min(max(2, round(num_labels**0.5)), num_labels)


class LabelClusters:
    """A partition of the label space into `C` clusters of related labels.

    Args:
        assignment: the cluster of each label, shape `(L,)`, int64, from 0 to `C - 1`, none of them unused.
        centroids: one row of length 1 for each cluster, shape `(C, H)`, float32.
        names: a readable name for each cluster, all different.
        metadata: how the clusters were made; anything that JSON can hold.

    Raises:
        ConfigurationError: if shapes, types or values do not fit each other.

    Source: Jung et al., "Cluster-Guided Label Generation in Extreme Multi-Label Classification", EACL 2023.
    """

    def __init__(
        self,
        assignment: np.ndarray,
        centroids: np.ndarray,
        names: Sequence[str],
        metadata: dict[str, Any] | None = None,
    ) -> None:
        self.assignment = np.asarray(assignment)
        self.centroids = np.asarray(centroids)
        self.names = list(names)
        self.metadata = dict(metadata or {})
        problem = self._problem()
        if problem:
            raise ConfigurationError(problem)

    @property
    def num_clusters(self) -> int:
        """The number of clusters `C`."""
        return len(self.names)

    def __repr__(self) -> str:
        """Numbers of clusters and labels."""
        return f"LabelClusters({self.num_clusters} clusters of {len(self.assignment)} labels)"

    def _problem(self) -> str | None:
        """Say what does not fit, if anything."""
        count = len(self.names)
        if self.assignment.ndim != 1 or self.assignment.dtype != np.int64 or not self.assignment.size:
            return f"'assignment' must be (L,) int64, not {self.assignment.shape} {self.assignment.dtype}."
        if self.centroids.ndim != 2 or self.centroids.dtype != np.float32 or not self.centroids.shape[1]:
            return f"'centroids' must be (C, H) float32, not {self.centroids.shape} {self.centroids.dtype}."
        if len(self.centroids) != count:
            return f"{count} cluster names come with {len(self.centroids)} centroids."
        if not np.isfinite(self.centroids).all():
            return "'centroids' holds NaN or infinity."
        if np.abs(np.linalg.norm(self.centroids, axis=1) - 1).max() > 1e-3:
            return "'centroids' must have rows of length 1."
        low, high = int(self.assignment.min()), int(self.assignment.max())
        if low < 0 or high >= count:
            return f"'assignment' runs from {low} to {high}, outside of 0 to {count - 1}."
        unused = np.flatnonzero(np.bincount(self.assignment, minlength=count) == 0)
        if unused.size:
            return f"Clusters {unused[:5].tolist()} have no labels."
        return self._name_problem()

    def _name_problem(self) -> str | None:
        bad = [name for name in self.names if not isinstance(name, str) or not name.strip()]
        if bad:
            return f"{bad[0]!r} is no cluster name; a string with visible text is expected."
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        return f"Cluster names stand twice: {twice[:5]}." if twice else None

    # ------------------------------------------------------------------------------------------------ making

    @classmethod
    def fit(
        cls,
        label_space: LabelSpace,
        texts: Sequence[str],
        label_ids: Sequence[Sequence[int]],
        encoder: Encoder,
        *,
        num_clusters: int | None = None,
        name_weight: float = 0.0,
        seed: int = 0,
        cache_dir: str | Path | None = None,
        max_length: int = 256,
        batch_size: int = 64,
        device: str | None = None,
        progress: bool = True,
    ) -> LabelClusters:
        """Embed training documents and label names, make label embeddings out of them, and cluster those.

        Args:
            label_space: the `L` labels.
            texts: `N` training documents.
            label_ids: each document's label ids.
            encoder: see `embed_texts`.
            num_clusters: `C`, from 1 to `L`; `default_num_clusters(L)` if None, 30 in the paper. Fewer come out, with
                a warning, where fewer label embeddings are different.
            name_weight: share of the name in a label's embedding, from 0 (documents alone, as in the paper) to 1; see
                `label_embeddings`, where 0.5 was best.
            seed: of k-means. The same seed and embeddings give the same clusters.
            cache_dir: see `embed_texts`.
            max_length: see `embed_texts`.
            batch_size: see `embed_texts`.
            device: see `embed_texts`.
            progress: see `embed_texts`.

        Raises:
            ConfigurationError: if `num_clusters` or `name_weight` is out of range.
            DataError: if texts and label ids differ in number, or a label id is none of the label space.
        """
        wanted = default_num_clusters(len(label_space)) if num_clusters is None else num_clusters
        _check_settings(wanted, name_weight, len(label_space))
        incidence = _incidence(texts, label_ids, len(label_space))
        embed = partial(
            embed_texts,
            encoder=encoder,
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
        assignment = _order_by_frequency(_k_means(vectors, wanted, seed), label_space.counts)
        metadata = {
            "encoder": encoder if isinstance(encoder, str) else type(encoder[0]).__name__,
            "name_weight": name_weight,
            "seed": seed,
            "num_documents": len(texts),
            "num_labels_without_documents": int((incidence.getnnz(axis=0) == 0).sum()),
        }
        return cls(assignment, _centroids(vectors, assignment), _cluster_names(assignment, label_space), metadata)

    def extended(self, names: Sequence[str], encoder: Encoder | None = None) -> LabelClusters:
        """The clusters with further labels, each placed by its name: in the cluster with the nearest centroid.

        Args:
            names: names of the further labels, which get the ids behind those at hand.
            encoder: what embedded the texts; the name in the metadata if None.

        Raises:
            CheckpointError: if the encoder cannot be loaded.
            ConfigurationError: if its vectors are not those of the centroids.
        """
        vectors = embed_texts(names, encoder or str(self.metadata.get("encoder")), progress=False)
        if vectors.shape[1] != self.centroids.shape[1]:
            raise ConfigurationError(
                f"The encoder gives vectors of {vectors.shape[1]} numbers, the clusters were made with "
                f"{self.centroids.shape[1]}. Give the encoder that made them: {self.metadata.get('encoder')!r}."
            )
        placed = (vectors @ self.centroids.T).argmax(1).astype(np.int64)
        return LabelClusters(np.concatenate([self.assignment, placed]), self.centroids, self.names, self.metadata)

    # ------------------------------------------------------------------------------------------------ use

    def bits(self, label_ids: Iterable[int]) -> np.ndarray:
        """Mark the clusters that hold one of the labels with 1, shape `(C,)`, float32.

        Raises:
            LabelSpaceError: if an id is none of the label space.
        """
        bits = np.zeros(self.num_clusters, dtype=np.float32)
        bits[self.assignment[self._checked(label_ids)]] = 1
        return bits

    def clusters_of(self, label_ids: Iterable[int]) -> list[int]:
        """List the clusters of some labels, each once: that with most of the labels first, ties by cluster id.

        Raises:
            LabelSpaceError: if an id is none of the label space.
        """
        covered = Counter(self.assignment[self._checked(label_ids)].tolist())
        return sorted(covered, key=lambda cluster: (-covered[cluster], cluster))

    def _checked(self, label_ids: Iterable[int]) -> np.ndarray:
        ids = np.fromiter(label_ids, dtype=np.int64)
        outside = ids[(ids < 0) | (ids >= len(self.assignment))]
        if outside.size:
            raise LabelSpaceError(f"Label id {outside[0]} is outside of 0 to {len(self.assignment) - 1}.")
        return ids

    def labels_of(self, names: Iterable[str]) -> np.ndarray:
        """Label ids of the clusters with these names, sorted.

        Raises:
            ConfigurationError: if there is no such cluster; names close matches.
        """
        wanted = list(names)
        for name in wanted:
            if name not in self.names:
                near = get_close_matches(name, self.names, n=3)
                hint = f" Close names: {near}." if near else ""
                raise ConfigurationError(f"{name!r} is none of the {len(self.names)} clusters.{hint}")
        return np.flatnonzero(np.isin(self.assignment, [self.names.index(name) for name in wanted]))

    def sizes(self) -> np.ndarray:
        """Count the labels of each cluster, shape `(C,)`, int64."""
        return np.bincount(self.assignment, minlength=self.num_clusters)

    # ------------------------------------------------------------------------------------------------ files

    def save(self, folder: str | Path) -> Path:
        """Write `label_clusters.json` and `label_clusters.safetensors` into `folder`; return the former's path."""
        tensors = {"assignment": self.assignment, "centroids": self.centroids}
        path = Path(folder) / CLUSTERS_FILE
        content = {
            "version": _FORMAT_VERSION,
            "num_labels": len(self.assignment),
            "num_clusters": self.num_clusters,
            "digest": _digest(tensors),
            "names": self.names,
            "metadata": self.metadata,
        }
        # Both are whole before either takes its place; the digest tells if only one did.
        with atomic_path(Path(folder) / CLUSTER_TENSORS_FILE) as tensors_aside, atomic_path(path) as json_aside:
            write_tensors(tensors_aside, tensors)
            write_json(json_aside, content)
        return path

    @classmethod
    def load(cls, folder: str | Path, *, num_labels: int | None = None) -> LabelClusters:
        """Read what `save` wrote.

        Args:
            folder: the folder.
            num_labels: size of the label space that the clusters have to fit, where that is known.

        Raises:
            ModelFolderError: if a file is missing or damaged, or the files do not fit each other or the label space.
        """
        path, tensors_path = Path(folder) / CLUSTERS_FILE, Path(folder) / CLUSTER_TENSORS_FILE
        content = read_json(path)
        problem = _content_problem(content)
        if problem:
            raise ModelFolderError(f"{path}: {problem}")
        tensors = read_tensors(tensors_path)
        if set(tensors) != {"assignment", "centroids"}:
            raise ModelFolderError(f"{tensors_path} holds {sorted(tensors)}, not 'assignment' and 'centroids'.")
        if content["digest"] != _digest(tensors):
            raise ModelFolderError(f"{tensors_path} was not written together with {path}. Make the clusters again.")
        try:
            clusters = cls(tensors["assignment"], tensors["centroids"], content["names"], content["metadata"])
        except ConfigurationError as err:
            raise ModelFolderError(f"{tensors_path} or {path}: {err}") from err
        if content["num_labels"] != len(clusters.assignment) or content["num_clusters"] != clusters.num_clusters:
            raise ModelFolderError(
                f"{path}: num_labels={content['num_labels']} and num_clusters={content['num_clusters']}, but "
                f"{tensors_path.name} holds {len(clusters.assignment)} and {clusters.num_clusters}."
            )
        if num_labels is not None and num_labels != len(clusters.assignment):
            raise ModelFolderError(
                f"{path}: clusters of {len(clusters.assignment)} labels, but the label space has {num_labels}."
            )
        return clusters


def _content_problem(content: Any) -> str | None:
    """Say what is wrong with the parsed `label_clusters.json`, if anything."""
    if not isinstance(content, dict):
        return f"a JSON object is expected, not {type(content).__name__}."
    if content.get("version") != _FORMAT_VERSION:
        return f"version {content.get('version')!r} is not {_FORMAT_VERSION}; it needs another release of xlgen_hf."
    kinds = {"num_labels": int, "num_clusters": int, "digest": str, "names": list, "metadata": dict}
    for key, kind in kinds.items():
        if type(content.get(key)) is not kind:
            return f"{key!r} must be a {kind.__name__}, not {type(content.get(key)).__name__}."
    return None


def _digest(tensors: dict[str, np.ndarray]) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name}:{tensors[name].dtype}:{tensors[name].shape}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()


# ---------------------------------------------------------------------------------------------------- embeddings


def _check_settings(num_clusters: int, name_weight: float, num_labels: int) -> None:
    if not 1 <= num_clusters <= num_labels:
        raise ConfigurationError(f"num_clusters={num_clusters}; with {num_labels} labels, give 1 to {num_labels}.")
    if not 0 <= name_weight <= 1:
        raise ConfigurationError(f"name_weight={name_weight}; it must lie in [0, 1].")


def _incidence(texts: Sequence[str], label_ids: Sequence[Sequence[int]], num_labels: int) -> csr_matrix:
    """Which document has which label, `(N, L)`, float32, rows of length 1."""
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
    one of 30 clusters, and 0.478 of 136, against 0.528 and 0.446 by the bare name. With `name_weight` 0.5 in place of
    0, a test title's 5 nearest of 30 centroids held 0.810 of its labels in place of 0.798, of 166 centroids 0.623 in
    place of 0.600 (means of two seeds). Of validation labels never seen in training, 5 of 30 held 0.76, against 0.07
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
    step = max(1, _SIMILARITIES_AT_ONCE // len(known_names))
    for start in range(0, len(names), step):
        similarity = names[start : start + step] @ known_names.T  # (q, K)
        nearest = np.argpartition(-similarity, count - 1, axis=1)[:, :count]
        cosine = np.take_along_axis(similarity, nearest, axis=1)
        weight = np.exp((cosine - cosine.max(axis=1, keepdims=True)) / _NEIGHBOR_TEMPERATURE)
        found[start : start + step] = np.einsum("qk,qkh->qh", weight, known_vectors[nearest])
    return _unit(found)


# ---------------------------------------------------------------------------------------------------- clustering


def _k_means(vectors: np.ndarray, num_clusters: int, seed: int) -> np.ndarray:
    """Cluster the rows, `(L, H)` -> `(L,)`; as these have length 1, the nearest is the most similar by cosine."""
    distinct = len({row.tobytes() for row in vectors})
    if distinct < num_clusters:
        logger.warning(
            "%d clusters are too many: the %d labels have only %d different embeddings, so there are %d clusters.",
            *(num_clusters, len(vectors), distinct, distinct),
        )
        num_clusters = distinct
    work = len(vectors) * num_clusters
    if work > _MINI_BATCH_ABOVE:
        # Each step should show each cluster some rows, and each row should be seen some times.
        size = max(4096, 8 * num_clusters)
        model = MiniBatchKMeans(num_clusters, n_init=1, batch_size=size, random_state=seed)
    else:
        model = KMeans(num_clusters, n_init=_STARTS if work < _MANY_STARTS_BELOW else 1, random_state=seed)
    with threadpool_limits(1, user_api="openmp"):  # threads add up in any order, which would move rows between runs
        return model.fit(vectors).labels_.astype(np.int64)


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
