"""Hybrids: an XLGen model's scores fused with those of dense retrieval, on the candidates of both."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from sklearn.linear_model import LogisticRegression

from ._io import read_json, write_json
from .decisions import DecisionRule, tune_threshold
from .errors import ConfigurationError, ModelFolderError
from .hub_files import HYBRID_FILE
from .retrieval import DenseRetriever
from .scored_labels import ScoredLabels

if TYPE_CHECKING:
    from .processing_xlgen import XLGenProcessor

__all__ = ["Hybrid"]

logger = logging.getLogger(__name__)

_FORMAT_VERSION = 1
_FEATURES = (
    "retrieval", "log_retrieval", "retrieval_rank", "generated", "log_generated", "forced", "log_forced",
)  # fmt: skip
_LEAST = 1e-6  # probability that logarithms start from
_MOST_CANDIDATES = 1000


@dataclass
class Hybrid:
    """A logistic regression over what retrieval and generator say of a candidate label.

    Candidates are the labels that retrieval ranks first and those that the generator found. What the generator did not
    find it scores by teacher forcing, as the next label at its place among those that it did find. The training
    frequency of a label is no feature: it gained nothing on validation rows.

    Attributes:
        retriever: ranks the labels.
        num_candidates: labels of a text that it contributes.
        weights: of the features, `(F,)`.
        intercept: of the regression.
        threshold: probability from which on a label is predicted.

    Source: stacking of scores, Wolpert 1992; that a generator should score a retriever's candidates: De Cao et al.,
    "Highly Parallel Autoregressive Entity Linking with Discriminative Correction", EMNLP 2021.
    """

    retriever: DenseRetriever
    num_candidates: int
    weights: np.ndarray
    intercept: float
    threshold: float

    def __post_init__(self) -> None:
        """Check the values."""
        self.weights = np.asarray(self.weights, dtype=np.float64)
        if type(self.num_candidates) is not int or not 1 <= self.num_candidates <= _MOST_CANDIDATES:
            raise ConfigurationError(
                f"num_candidates={self.num_candidates!r}; a whole number from 1 to {_MOST_CANDIDATES} is needed."
            )
        numbers = np.array([*self.weights, self.intercept, self.threshold], dtype=np.float64)
        if self.weights.shape != (len(_FEATURES),) or not np.isfinite(numbers).all():
            raise ConfigurationError(f"A hybrid has {len(_FEATURES)} finite weights, an intercept and a threshold.")

    @classmethod
    def fit(
        cls,
        model: Any,
        processor: XLGenProcessor,
        retriever: DenseRetriever,
        texts: Sequence[str],
        references: Sequence[Sequence[int]],
        generated: ScoredLabels,
        *,
        num_candidates: int = 20,
    ) -> Hybrid:
        """Learn the weights, and the threshold with the best micro F1, on validation rows.

        Args:
            model: the generator.
            processor: its processor.
            retriever: ranks the labels; made from training rows alone.
            texts: validation texts.
            references: their label ids.
            generated: what the generator found for them.
            num_candidates: labels of a text that retrieval contributes.

        Raises:
            ConfigurationError: if the candidates are all right or all wrong, so that nothing can be learned.
        """
        untrained = cls(retriever, num_candidates, np.zeros(len(_FEATURES)), 0.0, 0.5)
        text_ids = processor.encode_texts(texts)
        candidates, features = untrained._features(model, processor, texts, text_ids, generated)
        correct = candidates.correct(references)
        if len(np.unique(correct)) < 2:
            raise ConfigurationError(f"All of {len(correct)} candidates are {'right' if correct.all() else 'wrong'}.")
        spread = np.maximum(features.std(0), 1e-9)
        regression = LogisticRegression(max_iter=1000).fit(features / spread, correct)
        weights, intercept = regression.coef_[0] / spread, float(regression.intercept_[0])
        fitted = cls(retriever, num_candidates, weights, intercept, 0.5)
        fitted.threshold, f1 = tune_threshold(fitted._scored(candidates, features), references, "micro")
        shown = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(_FEATURES, weights, strict=True))
        logger.info("Hybrid: micro F1 %.4f on the validation rows with the weights %s.", f1, shown)
        return fitted

    def score(
        self,
        model: Any,
        processor: XLGenProcessor,
        texts: Sequence[str],
        text_ids: Sequence[Sequence[int]],
        generated: ScoredLabels,
        allowed: np.ndarray | None = None,
    ) -> ScoredLabels:
        """Probabilities of the candidates of each text; those from the threshold on are chosen.

        Args:
            model: the generator.
            processor: its processor.
            texts: the texts.
            text_ids: what the processor makes of them.
            generated: what the generator found for them.
            allowed: ids of the labels to choose from; all if None.
        """
        fused = self._scored(*self._features(model, processor, texts, text_ids, generated, allowed))
        return DecisionRule("threshold", self.threshold).apply(fused)

    def _scored(self, candidates: ScoredLabels, features: np.ndarray) -> ScoredLabels:
        return candidates.with_scores(1 / (1 + np.exp(-(features @ self.weights + self.intercept))))

    def _features(
        self,
        model: Any,
        processor: XLGenProcessor,
        texts: Sequence[str],
        text_ids: Sequence[Sequence[int]],
        generated: ScoredLabels,
        allowed: np.ndarray | None = None,
    ) -> tuple[ScoredLabels, np.ndarray]:
        """The candidates of each text, in no order of scores, and `(M, F)` features of each."""
        retrieved = self.retriever.retrieve(texts, self.num_candidates, allowed=allowed)
        span = len(processor.label_space)
        keys = np.unique(np.concatenate([one.text * span + one.labels for one in (retrieved, generated)]))
        text, label = keys // span, keys % span
        start = np.searchsorted(text, np.arange(len(texts) + 1))
        forced = model.score_ids(
            text_ids,
            [ids.tolist() for ids in np.split(label, start[1:-1])],
            processor,
            given=[labels for labels, _ in generated.sets()],
        )
        values = {"forced": np.array([value for row in forced for value in row])}
        for name, one, of_one in (
            ("retrieval", retrieved, retrieved.scores),
            ("generated", generated, generated.scores),
            ("retrieval_rank", retrieved, 1 / (1 + retrieved.rank)),
        ):
            values[name] = np.zeros(len(keys))
            values[name][np.searchsorted(keys, one.text * span + one.labels)] = of_one
        for name in ("retrieval", "generated", "forced"):
            values[f"log_{name}"] = np.log(values[name] + _LEAST)
        candidates = ScoredLabels(start, label, np.zeros(len(keys)), np.ones(len(keys), dtype=bool))
        return candidates, np.stack([values[name] for name in _FEATURES], axis=1).astype(np.float64)

    # ------------------------------------------------------------------------------------------------ saving

    def save(self, folder: str | Path) -> None:
        """Write the weights into a model's folder; the retriever has a folder of its own."""
        content = {
            "format_version": _FORMAT_VERSION,
            "num_candidates": self.num_candidates,
            "weights": dict(zip(_FEATURES, self.weights.tolist(), strict=True)),
            "intercept": self.intercept,
            "threshold": self.threshold,
        }
        write_json(Path(folder) / HYBRID_FILE, content)

    @classmethod
    def load(cls, folder: str | Path, retriever: DenseRetriever) -> Hybrid:
        """Read and check what [`save`] wrote.

        Raises:
            ModelFolderError: if the file is missing, damaged, or holds other fields.
        """
        path = Path(folder) / HYBRID_FILE
        content = read_json(path)
        wanted = {"format_version", "num_candidates", "weights", "intercept", "threshold"}
        if not isinstance(content, dict) or set(content) != wanted or content["format_version"] != _FORMAT_VERSION:
            raise ModelFolderError(
                f"{path}: format_version {_FORMAT_VERSION} and the fields {sorted(wanted)} are needed."
            )
        weights = content["weights"]
        if not isinstance(weights, dict) or set(weights) != set(_FEATURES):
            raise ModelFolderError(f"{path}: 'weights' must hold a number for each of {list(_FEATURES)}.")
        numbers = [*(weights[name] for name in _FEATURES), content["intercept"], content["threshold"]]
        if not all(type(number) in (int, float) for number in numbers):
            raise ModelFolderError(f"{path}: weights, intercept and threshold must be numbers.")
        try:
            return cls(retriever, content["num_candidates"], np.array(numbers[:-2]), *numbers[-2:])
        except ConfigurationError as err:
            raise ModelFolderError(f"{path}: {err}") from err
