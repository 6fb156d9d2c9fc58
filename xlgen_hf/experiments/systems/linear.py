"""What linear systems have in common: TF-IDF features, models that are reused, rankings of labels."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import ClassVar

import numpy as np
from datasets import Dataset
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import TfidfVectorizer

from ...data.blocks import each_value
from ...data.rows import rows_sha256
from ...data.transforms import rows_that_teach
from ...errors import ConfigurationError, ModelFolderError
from ...files.serialization import read_json, write_json
from ...ranking.label_trees import Ranked, TfidfSettings
from ...ranking.scored_labels import ScoredLabels
from ...retrieval.index_parts import label_matrix
from ...training.label_trees import default_threads
from .base import SystemData

__all__ = ["LinearSystem"]

logger = logging.getLogger(__name__)

MARKER_FILE = "fitted.json"
MODEL_FOLDER = "model"
_FORMAT_VERSION = 1


@dataclass
class LinearSystem(ABC):
    """A linear classifier of TF-IDF features, trained by another library.

    The trained model stays in the folder `model` of the data's folder, and `fitted.json` next to it says what it was
    trained on. A later fit on the same rows, labels, seed and settings reuses it and only counts the features again,
    which the training rows determine; anything else trains from scratch.

    Labels are those that the training rows have: no other label ever is a candidate. Rows whose text has no feature
    teach nothing and are left out; so are rows without labels, unless there are many.

    Attributes:
        features: how texts become features.
        top_k: candidates for a text, at least 1.
        threads: threads of training and prediction; where None, what the environment variable `OMP_NUM_THREADS` says,
            else all cores.
    """

    features: TfidfSettings = field(default_factory=TfidfSettings)
    top_k: int = 50
    threads: int | None = None
    _vectorizer: TfidfVectorizer | None = field(default=None, init=False, repr=False)
    _labels: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64), init=False, repr=False)

    _packages: ClassVar[tuple[str, ...]] = ()  # whose versions decide what a stored model means

    def fit(self, data: SystemData) -> None:
        """Train, or reuse the model that an earlier fit on the same data left in the folder.

        Raises:
            ConfigurationError: if there is nothing to train on.
            LabelSpaceError: if a label is not in the label space.
            MissingExtraError: if the system's library is not installed.
        """
        self._require()
        rows = data.train.select(rows_that_teach(data.train))
        vectorizer = self.features.vectorizer()
        try:
            features = csr_matrix(vectorizer.fit_transform(rows["text"][:]))
        except ValueError as err:  # scikit-learn's word for texts without a single feature
            raise ConfigurationError(f"The {len(rows)} training texts give no features: {err}") from err
        marker = {"version": _FORMAT_VERSION, "digest": self._digest(data, rows)}
        model, path = data.folder / MODEL_FOLDER, data.folder / MARKER_FILE
        label_ids = [data.label_space.encode(labels) for labels in each_value(rows, "labels")]
        self._labels = np.unique([label for ids in label_ids for label in ids]).astype(np.int64)
        if path.is_file() and read_json(path) == marker and model.is_dir() and self._can_load(model, data.seed):
            logger.info("Reusing the model in %s.", model)
        else:
            path.unlink(missing_ok=True)
            if model.exists():
                shutil.rmtree(model)
            model.mkdir(parents=True)
            kept = np.flatnonzero(np.diff(features.indptr))
            if len(kept) < len(rows):
                logger.warning("%d training texts have no features and are left out.", len(rows) - len(kept))
            self._train(features[kept], self._targets([label_ids[row] for row in kept]), model, data.seed)
            write_json(path, marker)
            self._load(model, data.seed)
        self._vectorizer = vectorizer

    def _can_load(self, model: Path, seed: int) -> bool:
        """Load what an earlier fit left; it is trained again where it is gone or damaged."""
        try:
            self._load(model, seed)
        except ModelFolderError as err:
            logger.warning("The model is trained again: %s", err)
            return False
        return True

    def score(self, texts: Sequence[str]) -> ScoredLabels:
        """The `top_k` best labels of each text, fewer where the system finds fewer; scores are clipped into [0, 1].

        Raises:
            ConfigurationError: before [`fit`].
        """
        vectorizer = self._fitted_vectorizer()
        if not len(texts):
            return ScoredLabels.from_rows([])
        features = csr_matrix(vectorizer.transform(texts))
        features.sort_indices()
        return ScoredLabels.from_rows(
            (self._labels[columns], np.clip(scores, 0.0, 1.0), [False] * len(columns))
            for columns, scores in self._predict(features)
        )

    def _fitted_vectorizer(self) -> TfidfVectorizer:
        if self._vectorizer is None:
            raise ConfigurationError("The system is not fitted; call fit before score.")
        return self._vectorizer

    @property
    def num_threads(self) -> int:
        """Threads of training and prediction."""
        return self.threads or default_threads()

    def _settings(self) -> dict[str, object]:
        """All that decides the trained model besides data and seed, as JSON holds it."""
        return {"system": type(self).__name__, "features": asdict(self.features)}

    def _digest(self, data: SystemData, rows: Dataset) -> str:
        known = {
            "settings": self._settings(),
            "packages": {name: version(name) for name in ("scikit-learn", *self._packages)},
            "rows": rows_sha256(rows),
            "labels": data.label_space.names,
            "seed": data.seed,
        }
        return hashlib.sha256(json.dumps(known, sort_keys=True).encode()).hexdigest()

    def _targets(self, label_ids: Sequence[Sequence[int]]) -> csr_matrix:
        """Label ids of each row -> its columns, shape `(rows, labels that training saw)`, float32 ones."""
        columns = {label: column for column, label in enumerate(self._labels.tolist())}
        targets = label_matrix([[columns[label] for label in ids] for ids in label_ids], len(columns))
        targets.sort_indices()
        return targets

    @abstractmethod
    def _require(self) -> None:
        """Check that the library is there.

        Raises:
            MissingExtraError: if it is not.
        """

    @abstractmethod
    def _train(self, features: csr_matrix, targets: csr_matrix, folder: Path, seed: int) -> None:
        """Train, and leave the model in the empty folder.

        Args:
            features: shape `(rows, F)`.
            targets: shape `(rows, labels that training saw)`, see [`_targets`].
            folder: where the model is kept.
            seed: of whatever is random.
        """

    @abstractmethod
    def _load(self, folder: Path, seed: int) -> None:
        """Read the model that `_train` left.

        Raises:
            ModelFolderError: if it cannot be read.
        """

    @abstractmethod
    def _predict(self, features: csr_matrix) -> Ranked:
        """Rank labels for features `(texts, F)`, at most `top_k` each."""
