"""Training of label trees (Parabel, Bonsai) by Omikuji."""

from __future__ import annotations

import logging
import os
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Literal

import numpy as np
from scipy.sparse import csr_matrix
from sklearn.datasets import dump_svmlight_file

from ..encoders.threads import told_threads
from ..errors import ConfigurationError, MissingExtraError
from ..labels.space import LabelSpace
from ..ranking.label_trees import LabelTrees, TfidfSettings, load_trees, quiet_omikuji
from ..ranking.thresholds import often_without_labels

__all__ = ["TREE_KINDS", "TreeKind", "TreeSettings", "default_threads", "fit_label_trees", "train_trees"]

logger = logging.getLogger(__name__)

TreeKind = Literal["bonsai", "parabel"]


@dataclass(frozen=True)
class TreeSettings:
    """Omikuji's hyper-parameters, named as Omikuji names them; the defaults are those of Parabel.

    Attributes:
        n_trees: trees whose scores are averaged.
        min_branch_size: labels from which a node is split further.
        max_depth: most levels of a tree.
        cluster_balanced: whether a node's labels are split into parts of one size.
        cluster_k: parts that a node's labels are split into.
        linear_c: how much errors on training rows cost a node's classifier.
        linear_weight_threshold: weights below it are 0.

    Source: Prabhu et al., "Parabel", WWW 2018; Khandagale et al., "Bonsai", 2019; as in Omikuji's README.
    """

    n_trees: int = 3
    min_branch_size: int = 100
    max_depth: int = 20
    cluster_balanced: bool = True
    cluster_k: int = 2
    linear_c: float = 1.0
    linear_weight_threshold: float = 0.1


TREE_KINDS: dict[TreeKind, tuple[TreeSettings, TfidfSettings]] = {
    # Features that one training text alone has are left out of Parabel: on 2,000 validation titles of YSO, with 20,000
    # training titles, that gave a micro F1 of 0.116 instead of 0.111. With Bonsai it changed nothing: 0.129 both ways.
    "parabel": (TreeSettings(), TfidfSettings(min_df=2)),
    "bonsai": (TreeSettings(cluster_balanced=False, cluster_k=100, max_depth=3), TfidfSettings()),
}
"""Balanced binary trees (Parabel) and shallow trees of a hundred branches (Bonsai), with the features of each."""


def fit_label_trees(
    label_space: LabelSpace,
    texts: Sequence[str],
    label_ids: Sequence[Sequence[int]],
    kind: TreeKind = "bonsai",
    *,
    threads: int | None = None,
) -> LabelTrees:
    """Train label trees that rank the labels of the training texts.

    Omikuji draws numbers that no seed reaches where it clusters labels, so two trainings on the same rows differ a
    little.

    Args:
        label_space: the labels.
        texts: training texts.
        label_ids: each text's label ids. Texts without labels teach what has none where there are many of them, see
            `often_without_labels`, and nothing elsewhere, as texts without features do.
        kind: see [`TREE_KINDS`].
        threads: of training; what `OMP_NUM_THREADS` says, or all cores, if None.

    Raises:
        ConfigurationError: if there is nothing to train on.
        MissingExtraError: if Omikuji is not installed.
    """
    if find_spec("omikuji") is None:
        raise MissingExtraError("omikuji", "baselines")
    trees, settings = TREE_KINDS[kind]
    vectorizer = settings.vectorizer()
    rows = [row for row, ids in enumerate(label_ids) if ids]
    without = len(texts) - len(rows)
    teach = bool(rows) and often_without_labels([*map(len, label_ids)])
    if without:
        use = "show the label trees what has none" if teach else "are left out"
        logger.warning("%d of %d training texts have no labels; they %s.", without, len(texts), use)
    if teach:
        rows = list(range(len(texts)))
    try:
        features = csr_matrix(vectorizer.fit_transform([texts[row] for row in rows]))
    except ValueError as err:  # scikit-learn's word for texts without a single feature
        raise ConfigurationError(f"The {len(rows)} training texts give no features: {err}") from err
    labels = np.unique([label for ids in label_ids for label in ids]).astype(np.int64)
    kept = np.flatnonzero(np.diff(features.indptr))
    columns = [np.searchsorted(labels, sorted(set(label_ids[rows[row]]))) for row in kept]
    start = np.cumsum([0, *map(len, columns)])
    flat = np.concatenate(columns)
    targets = csr_matrix((np.ones(len(flat), np.float32), flat, start), shape=(len(kept), len(labels)))
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place) / "trees"
        train_trees(features[kept], targets, trees, folder, threads or default_threads())
        model = load_trees(folder, threads=1)
    logger.info("%s: %d trees over %d labels and %d features.", kind, trees.n_trees, len(labels), features.shape[1])
    return LabelTrees(settings, vectorizer, labels, model)


def default_threads() -> int:
    """What the environment variable `OMP_NUM_THREADS` says (the first number of a list), or all cores."""
    return told_threads() or os.cpu_count() or 1


def train_trees(features: csr_matrix, targets: csr_matrix, trees: TreeSettings, folder: Path, threads: int) -> None:
    """Have Omikuji train, and leave its model in a folder.

    Args:
        features: `(rows, F)`.
        targets: `(rows, columns)`, 1 where a row has the label of a column.
        trees: hyper-parameters.
        folder: where the model is kept.
        threads: of the training.

    Raises:
        ConfigurationError: if Omikuji cannot train on them.
    """
    from omikuji import Model

    settings = Model.default_hyper_param()
    for name, value in asdict(trees).items():
        setattr(settings, name, value)
    features.sort_indices()
    with tempfile.TemporaryDirectory() as place:
        path = Path(place) / "train.txt"
        with path.open("wb") as file:
            file.write(f"{features.shape[0]} {features.shape[1]} {targets.shape[1]}\n".encode())
            dump_svmlight_file(features, targets, file, multilabel=True)
        with quiet_omikuji("Omikuji cannot train", ConfigurationError):
            Model.train_on_data(str(path), settings, n_threads=threads).save(str(folder))
