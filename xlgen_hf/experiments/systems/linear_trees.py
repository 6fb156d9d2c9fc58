"""Linear baselines that run in this process: Parabel and Bonsai by Omikuji, probabilistic label trees by napkinXC."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import ClassVar, Protocol

import numpy as np
from scipy.sparse import csr_matrix

from ...errors import MissingExtraError, ModelFolderError
from ...ranking.label_trees import LabelTrees, Ranked, TreeModel, load_trees, rank_by_trees
from ...training.label_trees import TREE_KINDS, TreeSettings, train_trees
from .base import System
from .frequency import MostFrequent
from .linear import LinearSystem
from .pecos import PecosXRLinear

__all__ = ["SYSTEMS", "NapkinXC", "Omikuji", "bonsai", "parabel"]


@dataclass
class Omikuji(LinearSystem):
    """Partitioned label trees by Omikuji, as Annif has them; the extra `baselines` brings it.

    Omikuji draws numbers that no seed reaches where it clusters labels, so two trainings on the same rows differ a
    little; a model that is reused is the same one.

    Attributes:
        trees: see [`TreeSettings`].
        beam_size: nodes per level from which prediction continues, at least 1.
    """

    trees: TreeSettings = field(default_factory=TreeSettings)
    beam_size: int = 10
    _model: TreeModel = field(init=False, repr=False, compare=False)

    _packages: ClassVar[tuple[str, ...]] = ("omikuji",)

    def _settings(self) -> dict[str, object]:
        return super()._settings() | {"trees": asdict(self.trees)}

    def _require(self) -> None:
        if find_spec("omikuji") is None:
            raise MissingExtraError("omikuji", "baselines")

    def _train(self, features: csr_matrix, targets: csr_matrix, folder: Path, seed: int) -> None:
        train_trees(features, targets, self.trees, folder, self.num_threads)

    def _load(self, folder: Path, seed: int) -> None:
        self._model = load_trees(folder, self.num_threads)

    def _predict(self, features: csr_matrix) -> Ranked:
        return rank_by_trees(self._model, features, self.top_k, self.beam_size)

    @property
    def ranker(self) -> LabelTrees:
        """What a hybrid keeps of the system.

        Raises:
            ConfigurationError: before [`fit`].
        """
        return LabelTrees(self.features, self._fitted_vectorizer(), self._labels, self._model, self.beam_size)


class _PLT(Protocol):
    """What is used of napkinXC's `PLT`."""

    def fit(self, features: csr_matrix, targets: list[list[int]]) -> object:
        """Train on features `(rows, F)` and the columns of each row."""

    def load(self) -> object:
        """Read the model of its folder."""

    def predict_proba(self, features: csr_matrix, *, top_k: int) -> list[list[tuple[int, float]]]:
        """Best columns of each row with their probabilities."""


@dataclass
class NapkinXC(LinearSystem):
    """Probabilistic label trees by napkinXC; the extra `baselines` brings it.

    Labels are clustered by balanced 2-means, as in Parabel, and classifiers are logistic regressions, so that scores
    are probabilities; search in the tree is exact.

    Attributes:
        ensemble: trees whose scores are averaged.
        liblinear_c: how much errors on training rows cost a node's classifier.

    Source: Jasinska-Kobus et al., "Probabilistic Label Trees for Extreme Multi-label Classification", 2020.
    """

    ensemble: int = 3
    liblinear_c: float = 10.0
    _model: _PLT = field(init=False, repr=False, compare=False)

    _packages: ClassVar[tuple[str, ...]] = ("napkinxc",)

    def _settings(self) -> dict[str, object]:
        return super()._settings() | {"ensemble": self.ensemble, "liblinear_c": self.liblinear_c}

    def _require(self) -> None:
        if find_spec("napkinxc") is None:
            raise MissingExtraError("napkinxc", "baselines")

    def _make(self, folder: Path, seed: int) -> _PLT:
        from napkinxc.models import PLT

        settings = {"ensemble": self.ensemble, "liblinear_c": self.liblinear_c}
        model: _PLT = PLT(str(folder), loss="log", seed=seed, threads=self.num_threads, **settings)
        return model

    def _train(self, features: csr_matrix, targets: csr_matrix, folder: Path, seed: int) -> None:
        columns = np.split(targets.indices, targets.indptr[1:-1])
        self._make(folder, seed).fit(features, [row.tolist() for row in columns])

    def _load(self, folder: Path, seed: int) -> None:
        self._model = self._make(folder, seed)
        try:
            self._model.load()
        except (RuntimeError, ValueError, MemoryError) as err:  # the latter for numbers that are none
            raise ModelFolderError(f"napkinXC cannot read the model in {folder}: {err}") from err

    def _predict(self, features: csr_matrix) -> Ranked:
        found = self._model.predict_proba(features, top_k=self.top_k)
        # Where there are fewer labels than asked for, napkinXC fills its answer up with label 0 and score 0.
        rows = [[(column, score) for column, score in row if score > 0] for row in found]
        return [([column for column, _ in row], [score for _, score in row]) for row in rows]


def parabel() -> Omikuji:
    """Parabel: balanced binary trees, see [`TREE_KINDS`]."""
    trees, features = TREE_KINDS["parabel"]
    return Omikuji(features=features, trees=trees)


def bonsai() -> Omikuji:
    """Bonsai: shallow trees of a hundred branches, not balanced, see [`TREE_KINDS`]."""
    trees, features = TREE_KINDS["bonsai"]
    return Omikuji(features=features, trees=trees)


SYSTEMS: dict[str, Callable[[], System]] = {
    "most-frequent": MostFrequent,
    "parabel": parabel,
    "bonsai": bonsai,
    "napkinxc": NapkinXC,
    "pecos": PecosXRLinear,
}
"""The systems of this module by name, each made with its defaults, not fitted."""
