"""Clusters of labels by the tree of broader concepts: branches, cut where they are too large."""

from __future__ import annotations

import logging
from collections.abc import Callable

import numpy as np

from ..errors import ConfigurationError
from .space import LabelSpace
from .vocabulary import Vocabulary

__all__ = ["branch_clusters"]

logger = logging.getLogger(__name__)

_SMALL = 4  # a tree with less than this part of the largest cluster's labels is too small for a cluster of its own


def branch_clusters(
    vocabulary: Vocabulary,
    label_space: LabelSpace,
    num_clusters: int,
    cluster_rest: Callable[[np.ndarray, int], np.ndarray],
) -> np.ndarray:
    """Cluster labels by their broader concepts.

    A cluster is a branch of the tree: a concept with those below it, or a few sibling branches. Branches with too
    many labels are cut below their top; the size that is too much is the least that gives `num_clusters` clusters. Of
    several broader concepts of a concept the first counts, and one that would close a loop does not. Labels without a
    concept, and trees that are too small for a cluster, or what is left of them at their top (concepts that stand
    alone above all), get their fraction of the clusters, and are clustered in another way.

    Args:
        vocabulary: the concepts.
        label_space: the `L` labels.
        num_clusters: number of clusters `C`; some less may come out.
        cluster_rest: ids of labels `(R,)`, and a number of clusters -> a cluster of each, `(R,)`, from 0.

    Returns:
        The cluster of each label, `(L,)`, int64.

    Raises:
        ConfigurationError: if no concept has a broader one.
    """
    tree = _Tree(vocabulary, label_space)
    low, high = 1, _SMALL * (len(label_space) + 1)  # with the latter all trees are too small
    while low < high:  # the least size of the largest cluster
        size = (low + high) // 2
        pieces = tree.pieces(size)
        if pieces.max() + 1 + _num_rest(pieces, num_clusters) <= num_clusters:
            high = size
        else:
            low = size + 1
    pieces = tree.pieces(high)
    rest = np.flatnonzero(pieces < 0)
    logger.info(
        "Labels that are clustered by their broader concepts: %d of %d, in clusters of at most %d; the others by "
        "embeddings.",
        len(pieces) - len(rest), len(pieces), high,
    )  # fmt: skip
    if len(rest) == len(pieces):
        logger.warning("The trees of broader concepts are too small, or too many, for %d clusters.", num_clusters)
    if len(rest):
        pieces[rest] = pieces.max() + 1 + cluster_rest(rest, _num_rest(pieces, num_clusters))
    return pieces


def _num_rest(pieces: np.ndarray, num_clusters: int) -> int:
    """Clusters of the labels that are in no piece: by their fraction of all labels, at least one if there are some."""
    rest = int((pieces < 0).sum())
    return min(rest, max(1, round(num_clusters * rest / len(pieces)))) if rest else 0


class _Tree:
    """The labels' concepts, each below at most one other.

    Args:
        vocabulary, label_space: see [`branch_clusters`].
    """

    def __init__(self, vocabulary: Vocabulary, label_space: LabelSpace) -> None:
        place = {concept_id: number for number, concept_id in enumerate(vocabulary.concepts)}
        labels = (label_space.index.get(vocabulary.labels[one], -1) for one in place)
        self._label = np.fromiter(labels, dtype=np.int64, count=len(place))
        self._num_labels = len(label_space)
        parent = _parents([[place[one] for one in vocabulary.parents(concept_id)] for concept_id in place])
        self._children: list[list[int]] = [[] for _ in parent]
        for child, above in enumerate(parent):
            if above >= 0:
                self._children[above].append(child)
        self._roots = [one for one, above in enumerate(parent) if above < 0]
        if len(self._roots) == len(parent):
            raise ConfigurationError(
                "No concept of the vocabulary has a broader one, so there is no hierarchy to cluster by; cluster by "
                "embeddings."
            )
        self._downwards = list(self._roots)
        for one in self._downwards:  # grows while it is read
            self._downwards += self._children[one]

    def pieces(self, size: int) -> np.ndarray:
        """Cut the trees into pieces of at most so many labels; those of each label, `(L,)`, -1 for none."""
        cut = np.full(len(self._label), -1, dtype=np.int64)  # the piece that begins at a concept
        labels = (self._label >= 0).astype(np.int64).tolist()  # at a concept and below it, but for what is cut off
        number = 0
        for one in reversed(self._downwards):
            below = self._children[one]
            labels[one] += sum(labels[child] for child in below)
            if labels[one] > size:
                number = self._cut_children(one, size, labels, cut, number)
        for root in self._roots:
            if _SMALL * labels[root] >= size and labels[root]:
                cut[root] = number
                number += 1
        return self._of_labels(cut)

    def _cut_children(self, one: int, size: int, labels: list[int], cut: np.ndarray, number: int) -> int:
        """Cut branches off below a concept, the largest first and together as far as they fit, until it is small."""
        room = 0
        for child in sorted(self._children[one], key=lambda child: -labels[child]):
            if labels[child] > room:
                if labels[one] <= size:
                    break
                number, room = number + 1, size
            room -= labels[child]
            labels[one] -= labels[child]
            cut[child] = number - 1
        return number

    def _of_labels(self, cut: np.ndarray) -> np.ndarray:
        for one in self._downwards:
            for child in self._children[one]:
                if cut[child] < 0:
                    cut[child] = cut[one]
        found = np.full(self._num_labels, -1, dtype=np.int64)
        known = self._label >= 0
        found[self._label[known]] = cut[known]
        return _numbered(found)


def _numbered(pieces: np.ndarray) -> np.ndarray:
    """Pieces numbered without gaps, which those without labels would leave; -1 stays."""
    used = np.unique(pieces[pieces >= 0])
    return np.where(pieces >= 0, np.searchsorted(used, pieces), -1)


def _parents(broader: list[list[int]]) -> list[int]:
    """The first broader concept of each concept that closes no loop, -1 for none."""
    parent = [-1] * len(broader)
    top = list(range(len(broader)))  # a concept above each, the highest where that is known
    for one, above in enumerate(broader):
        for other in above:
            highest = other
            while top[highest] != highest:
                top[highest] = top[top[highest]]
                highest = top[highest]
            if highest != one:
                parent[one] = top[one] = other
                break
    return parent
