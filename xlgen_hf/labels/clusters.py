"""Clusters of related labels: which label is in which cluster, and what a cluster is about."""

from __future__ import annotations

import hashlib
import logging
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple, TypedDict

import numpy as np

from ..encoders.embedding import Encoder, embed_texts, recipe_of
from ..errors import ConfigurationError, LabelSpaceError, ModelFolderError
from ..files.atomic import atomic_path
from ..files.schema import Fields, anything, integer, mapping_of, named_after, string, strings
from ..files.tensor_schema import Tensors, tensor
from .changes import LabelChange

__all__ = ["CLUSTERS_FILE", "CLUSTER_TENSORS_FILE", "LabelClusters", "LabelMap", "digest_of"]

logger = logging.getLogger(__name__)

CLUSTERS_FILE = "label_clusters.json"
CLUSTER_TENSORS_FILE = "label_clusters.safetensors"


class _ClustersContent(TypedDict):
    num_labels: int
    num_clusters: int
    digest: str
    names: list[str]
    metadata: Mapping[str, object]


_CLUSTERS_FORM = Fields[_ClustersContent](
    {
        "num_labels": integer(minimum=1),
        "num_clusters": integer(minimum=1),
        "digest": string(),
        "names": strings(min_length=1, unique=True, visible=True),
        "metadata": mapping_of(anything()),
    },
    format_version=2,
    made_by="xlgen cluster",
)
_TENSORS = Tensors(
    {
        "centroids": tensor(np.float32, "C", "H"),
        "assignment": tensor(np.int64, "L", minimum=0, maximum="C-1"),
        "map_labels": tensor(np.int64, "M", minimum=0, maximum="L-1"),
        "map_positions": tensor(np.float32, "M", 2),
    },
    optional=["map_labels", "map_positions"],
    not_empty=["C", "H", "L", "M"],
    made_by="xlgen cluster",
)


class LabelMap(NamedTuple):
    """Labels in a plane, related ones near each other: what a picture of the clusters shows.

    Attributes:
        labels: ids of the `M` labels on the map, rising, `(M,)`, int64; in a large label space not all are.
        positions: where each is, without unit, `(M, 2)`, float32.
    """

    labels: np.ndarray
    positions: np.ndarray

    def problem(self, num_labels: int) -> str | None:
        """Say what does not fit, if anything."""
        labels, positions = self
        if labels.ndim != 1 or labels.dtype != np.int64 or positions.shape != (len(labels), 2):
            return (
                f"a map of {positions.shape} positions for {labels.shape} labels; (M, 2) for (M,) int64 is expected."
            )
        if (np.diff(labels) <= 0).any() or labels.min(initial=0) < 0 or labels.max(initial=0) >= num_labels:
            return f"The labels of the map must rise, within 0 to {num_labels - 1}."
        return None if np.isfinite(positions).all() else "The map's positions hold NaN or infinity."

    def relabelled(self, change: LabelChange) -> LabelMap | None:
        """The map of a changed label space, without new labels; None where no label of it is left."""
        kept = np.flatnonzero(np.isin(change.origin, self.labels))
        places = np.searchsorted(self.labels, change.origin[kept])
        return LabelMap(kept.astype(np.int64), self.positions[places]) if len(kept) else None


class LabelClusters:
    """A partition of the label space into `C` clusters of related labels.

    Args:
        assignment: the cluster of each label, shape `(L,)`, int64, from 0 to `C - 1`. A cluster whose labels were
            all removed stays, since models have learned its number.
        centroids: one row of length 1 for each cluster, shape `(C, H)`, float32.
        names: a readable name for each cluster, all different.
        metadata: how the clusters were made; anything that JSON can hold.
        label_map: where labels are on a map, for pictures; None where there is none.

    Raises:
        ConfigurationError: if shapes, types or values do not fit each other.

    Source: Jung et al., "Cluster-Guided Label Generation in Extreme Multi-Label Classification", EACL 2023.
    """

    def __init__(
        self,
        assignment: np.ndarray,
        centroids: np.ndarray,
        names: Sequence[str],
        metadata: Mapping[str, object] | None = None,
        label_map: LabelMap | None = None,
    ) -> None:
        self.assignment = np.asarray(assignment)
        self.centroids = np.asarray(centroids)
        self.names = list(names)
        self.metadata = dict(metadata or {})
        self.label_map = label_map
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
        no_map = None if self.label_map is None else self.label_map.problem(len(self.assignment))
        return no_map or self._name_problem()

    def _name_problem(self) -> str | None:
        bad = [name for name in self.names if not isinstance(name, str) or not name.strip()]
        if bad:
            return f"{bad[0]!r} is not a cluster name; a string with visible text is expected."
        twice = [name for name, times in Counter(self.names).items() if times > 1]
        return f"Duplicate cluster names: {twice[:5]}." if twice else None

    def relabelled(self, change: LabelChange, encoder: Encoder | None = None) -> LabelClusters:
        """The clusters of a changed label space.

        A label stays in its cluster whatever it is called; a new one is placed by its name, in the cluster with the
        nearest centroid.

        Args:
            change: what has become of the labels.
            encoder: what embedded the texts; the name in the metadata if None.

        Raises:
            CheckpointError: if there are new labels, and the encoder cannot be loaded.
            ConfigurationError: if its vectors are not those of the centroids.
        """
        assignment = np.where(change.origin >= 0, self.assignment[change.origin], 0)
        new = np.flatnonzero(change.origin < 0)
        if len(new):
            assignment[new] = self._nearest(change.after.decode(new.tolist()), encoder)
        label_map = None if self.label_map is None else self.label_map.relabelled(change)
        return LabelClusters(assignment, self.centroids, self.names, self.metadata, label_map)

    @property
    def _encoder(self) -> str:
        """The checkpoint that embedded the labels."""
        known = self.metadata.get("encoder")
        if not isinstance(known, str):
            raise ConfigurationError(
                "The clusters do not say which encoder made them, so that they cannot take new labels. Make them "
                "again with `xlgen cluster`."
            )
        return known

    def _nearest(self, names: Sequence[str], encoder: Encoder | None) -> np.ndarray:
        """The cluster with the centroid nearest to each name, `(len(names),)`, int64."""
        encoder = encoder or self._encoder
        given = self.metadata.get("passage_prompt")
        recipe = recipe_of(encoder, passage_prompt=None if given is None else str(given))
        vectors = embed_texts(names, encoder, recipe=recipe, progress=False)
        if vectors.shape[1] != self.centroids.shape[1]:
            raise ConfigurationError(
                f"The encoder gives vectors of {vectors.shape[1]} numbers, the clusters were made with "
                f"{self.centroids.shape[1]}. Give the encoder that made them: {self.metadata.get('encoder')!r}."
            )
        return (vectors @ self.centroids.T).argmax(1).astype(np.int64)

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
                hint = f" Close names: {near}." if near else f" Their names are like {list(self.names[:3])}."
                raise ConfigurationError(f"{name!r} is none of the {len(self.names)} clusters.{hint}")
        return np.flatnonzero(np.isin(self.assignment, [self.names.index(name) for name in wanted]))

    def sizes(self) -> np.ndarray:
        """Count the labels of each cluster, shape `(C,)`, int64."""
        return np.bincount(self.assignment, minlength=self.num_clusters)

    # ------------------------------------------------------------------------------------------------ files

    def save(self, folder: str | Path) -> Path:
        """Write `label_clusters.json` and `label_clusters.safetensors` into `folder`; return the former's path."""
        tensors = {"assignment": self.assignment, "centroids": self.centroids}
        if self.label_map is not None:
            tensors |= {"map_labels": self.label_map.labels, "map_positions": self.label_map.positions}
        path = Path(folder) / CLUSTERS_FILE
        content: _ClustersContent = {
            "num_labels": len(self.assignment),
            "num_clusters": self.num_clusters,
            "digest": digest_of(tensors),
            "names": self.names,
            "metadata": self.metadata,
        }
        # Both are whole before either takes its place; the digest tells if only one did.
        with atomic_path(Path(folder) / CLUSTER_TENSORS_FILE) as tensors_aside, atomic_path(path) as json_aside:
            _TENSORS.write(tensors_aside, tensors)
            _CLUSTERS_FORM.write(json_aside, content)
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
        content = _CLUSTERS_FORM.read(path)
        tensors, _ = _TENSORS.read(tensors_path)
        found = {
            "num_labels": len(tensors["assignment"]),
            "num_clusters": len(tensors["centroids"]),
            "names": len(tensors["centroids"]),
        }
        given = {
            "num_labels": content["num_labels"],
            "num_clusters": content["num_clusters"],
            "names": len(content["names"]),
        }
        for name, size in found.items():
            if given[name] != size:
                raise ModelFolderError(f"{path}: {name} is {given[name]}, but {tensors_path.name} holds {size}.")
        if content["digest"] != digest_of(tensors):
            raise ModelFolderError(f"{tensors_path} was not written together with {path}. Make the clusters again.")
        with named_after(f"{tensors_path} or {path.name}"):
            has_map = "map_labels" in tensors
            label_map = LabelMap(tensors["map_labels"], tensors["map_positions"]) if has_map else None
            clusters = cls(
                tensors["assignment"], tensors["centroids"], content["names"], content["metadata"], label_map
            )
        if num_labels is not None and num_labels != len(clusters.assignment):
            raise ModelFolderError(
                f"{path}: clusters of {len(clusters.assignment)} labels, but the label space has {num_labels}."
            )
        return clusters


def digest_of(tensors: Mapping[str, np.ndarray]) -> str:
    """What tells the tensors of one save from those of another: names, types, shapes and values as hex digits."""
    digest = hashlib.blake2b(digest_size=16)
    for name in sorted(tensors):
        digest.update(f"{name}:{tensors[name].dtype}:{tensors[name].shape}".encode())
        digest.update(np.ascontiguousarray(tensors[name]).data)
    return digest.hexdigest()
