"""Hybrids: an XLGen model's scores fused with those of retrieval and label trees, on the candidates of all."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
from scipy.special import expit
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ..errors import ConfigurationError, ModelFolderError
from ..files.model_folder import HYBRID_FILE, LINEAR_FOLDER
from ..files.serialization import read_json, write_json
from ..retrieval.retriever import DenseRetriever
from ..retrieval.weighing import PARTS
from .decisions import DecisionRule, Objective
from .label_trees import LinearRanker
from .scored_labels import ScoredLabels
from .thresholds import PRICE, balanced_weights, best_within, threshold_curves, tune_thresholds

if TYPE_CHECKING:
    from ..processing_xlgen import XLGenProcessor

__all__ = ["Hybrid"]

logger = logging.getLogger(__name__)

_FORMAT_VERSION = 3
_SOURCES = ("retrieval", *PARTS, "generated", "forced", "linear")
_FEATURES = (*_SOURCES, *(f"log_{name}" for name in _SOURCES), *(f"relative_{name}" for name in _SOURCES), "rank")
_FIELDS = ("num_candidates", "intercept", "rarity", "threshold")
_LEAST = 1e-6  # probability that logarithms start from
_MOST_CANDIDATES = 1000
_RARITIES = tuple(round(0.05 * step, 2) for step in range(21))


@dataclass
class Hybrid:
    """A logistic regression over what retrieval, generator and label trees say of a candidate label.

    Candidates are the labels that retrieval, and the trees if there are some, rank first, and those that the generator
    found. What it did not find it scores by teacher forcing, as the next label at its place among those that it did.
    A feature is a source's score of a label, its logarithm, or its share of the text's best one.

    The regression learns how often a label is right, and of rare labels that is seldom. So the fused logit of a label
    with `n` training documents is lowered by `rarity * log(1 + n)`. Validation rows choose rarity and threshold: of
    those that cost at most [`PRICE`] of the best micro F1 the ones with the best macro F1, see [`balanced_weights`].

    Attributes:
        retriever: ranks the labels.
        num_candidates: labels of a text that retrieval contributes, and likewise the trees.
        weights: of the features, `(F,)`.
        intercept: of the regression.
        rarity: how much rare labels are favoured, at least 0.
        threshold: score from which on a label is predicted.
        thresholds: measure of quality -> the score from which on a label is predicted for its sake.
        linear: label trees, the further source; None without them.

    Source: stacking of scores, Wolpert 1992; that a generator should score a retriever's candidates: De Cao et al.,
    "Highly Parallel Autoregressive Entity Linking with Discriminative Correction", EMNLP 2021; logits lowered by
    frequency: Menon et al., "Long-tail learning via logit adjustment", ICLR 2021.
    """

    retriever: DenseRetriever
    num_candidates: int
    weights: np.ndarray
    intercept: float
    rarity: float
    threshold: float
    thresholds: dict[str, float] = field(default_factory=dict)
    linear: LinearRanker | None = None

    def __post_init__(self) -> None:
        """Check the values."""
        self.weights = np.asarray(self.weights, dtype=np.float64)
        if type(self.num_candidates) is not int or not 1 <= self.num_candidates <= _MOST_CANDIDATES:
            raise ConfigurationError(
                f"num_candidates={self.num_candidates!r}; a whole number from 1 to {_MOST_CANDIDATES} is needed."
            )
        if self.weights.shape != (len(_FEATURES),) or not np.isfinite(self.weights).all():
            raise ConfigurationError(f"weights={self.weights.tolist()}; {len(_FEATURES)} finite numbers are needed.")
        for name in ("intercept", "rarity", "threshold"):
            value = getattr(self, name)
            if not math.isfinite(value) or (name == "rarity" and value < 0):
                raise ConfigurationError(
                    f"{name}={value}; a finite number{' from 0 on' if name == 'rarity' else ''} is needed."
                )

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
        linear: LinearRanker | None = None,
        batch_size: int = 64,
    ) -> Hybrid:
        """Learn weights, rarity and threshold on validation rows.

        Args:
            model: the generator.
            processor: its processor.
            retriever: ranks the labels; made from training rows alone.
            texts: validation texts.
            references: their label ids.
            generated: what the generator found for them.
            num_candidates: labels of a text that retrieval contributes, and likewise the trees.
            linear: label trees, trained on training rows alone.
            batch_size: texts in a batch of the generator.

        Raises:
            ConfigurationError: if the candidates are all right or all wrong, so that nothing can be learned.
        """
        fitted = cls(retriever, num_candidates, np.zeros(len(_FEATURES)), 0.0, 0.0, 0.5, linear=linear)
        text_ids = processor.encode_texts(texts)
        candidates, features = fitted._features(model, processor, texts, text_ids, generated, batch_size=batch_size)
        correct = candidates.correct(references)
        if len(np.unique(correct)) < 2:
            raise ConfigurationError(f"All of {len(correct)} candidates are {'right' if correct.all() else 'wrong'}.")
        scaler = StandardScaler().fit(features)
        regression = LogisticRegression(max_iter=1000).fit(scaler.transform(features), correct)
        fitted.weights = regression.coef_[0] / scaler.scale_
        fitted.intercept = float(regression.intercept_[0] - fitted.weights @ scaler.mean_)
        fitted._favour_rare_labels(candidates, features, references, processor.label_space.counts)
        return fitted

    def _favour_rare_labels(
        self, candidates: ScoredLabels, features: np.ndarray, references: Sequence[Sequence[int]], counts: np.ndarray
    ) -> None:
        """Choose rarity and thresholds."""
        weights = balanced_weights(references, counts)
        tried = []
        for rarity in _RARITIES:
            scored = self._scored(candidates, features, counts, rarity)
            thresholds, f1 = threshold_curves(scored, references, ("micro", "macro"), weights)
            tried.append(np.stack([np.full(len(thresholds), rarity), thresholds, *f1]))
        rarities, thresholds, micro, macro = np.concatenate(tried, axis=1)
        best = best_within(micro, macro, PRICE)
        self.rarity, self.threshold = float(rarities[best]), float(thresholds[best])
        self.thresholds = tune_thresholds(self._scored(candidates, features, counts, self.rarity), references)
        shown = ", ".join(f"{name} {weight:.2f}" for name, weight in zip(_FEATURES, self.weights, strict=True))
        logger.info(
            "Hybrid: micro F1 %.4f, mean macro F1 of labels never, once and more often seen %.4f on the validation "
            "rows with rarity %g, threshold %.3f, weights %s.",
            micro[best], macro[best], self.rarity, self.threshold, shown,
        )  # fmt: skip

    def score(
        self,
        model: Any,
        processor: XLGenProcessor,
        texts: Sequence[str],
        text_ids: Sequence[Sequence[int]],
        generated: ScoredLabels,
        allowed: np.ndarray | None = None,
        batch_size: int = 64,
    ) -> ScoredLabels:
        """Fused scores of the candidates of each text; those from the threshold on are chosen.

        Args:
            model: the generator.
            processor: its processor.
            texts: the texts.
            text_ids: what the processor makes of them.
            generated: what the generator found for them.
            allowed: ids of the labels to choose from; all if None.
            batch_size: texts in a batch of the generator.
        """
        candidates, features = self._features(model, processor, texts, text_ids, generated, allowed, batch_size)
        fused = self._scored(candidates, features, processor.label_space.counts, self.rarity)
        return DecisionRule("threshold", self.threshold).apply(fused)

    def _scored(
        self, candidates: ScoredLabels, features: np.ndarray, counts: np.ndarray, rarity: float
    ) -> ScoredLabels:
        logits = features @ self.weights + self.intercept - rarity * np.log1p(counts[candidates.labels])
        return candidates.with_scores(expit(logits))

    def _features(
        self,
        model: Any,
        processor: XLGenProcessor,
        texts: Sequence[str],
        text_ids: Sequence[Sequence[int]],
        generated: ScoredLabels,
        allowed: np.ndarray | None = None,
        batch_size: int = 64,
    ) -> tuple[ScoredLabels, np.ndarray]:
        """The candidates of each text, in no order of scores, and `(M, F)` features of each."""
        retrieved, parts = self.retriever.retrieve_parts(texts, self.num_candidates, allowed=allowed)
        linear = ScoredLabels.from_rows([([], [], [])] * len(texts))
        if self.linear is not None:
            linear = self.linear.rank(texts, self.num_candidates, allowed)
        span = len(processor.label_space)
        keys = np.unique(np.concatenate([one.text * span + one.labels for one in (retrieved, generated, linear)]))
        text, label = keys // span, keys % span
        start = np.searchsorted(text, np.arange(len(texts) + 1))
        rows = [label[begin:end].tolist() for begin, end in pairwise(start)]
        values = {"forced": _forced(model, processor, text_ids, rows, generated, batch_size)}
        for name, one, of_one in (
            ("retrieval", retrieved, retrieved.scores),
            *((name, retrieved, part) for name, part in parts.items()),
            ("generated", generated, generated.scores),
            ("linear", linear, linear.scores),
            ("rank", retrieved, 1 / (1 + retrieved.rank)),
        ):
            values[name] = np.zeros(len(keys))
            values[name][np.searchsorted(keys, one.text * span + one.labels)] = of_one
        candidates = ScoredLabels(start, label, np.zeros(len(keys)), np.ones(len(keys), dtype=bool))
        values |= _relations(values, text, len(texts))
        return candidates, np.stack([values[name] for name in _FEATURES], axis=1)

    # ------------------------------------------------------------------------------------------------ saving

    def save(self, folder: str | Path) -> None:
        """Write weights and label trees into a model's folder; the retriever is saved by the processor."""
        content = {
            "format_version": _FORMAT_VERSION,
            "num_candidates": self.num_candidates,
            "weights": dict(zip(_FEATURES, self.weights.tolist(), strict=True)),
            "intercept": self.intercept,
            "rarity": self.rarity,
            "threshold": self.threshold,
            "thresholds": self.thresholds,
            "linear": self.linear is not None,
        }
        write_json(Path(folder) / HYBRID_FILE, content)
        if self.linear is not None:
            self.linear.save(Path(folder) / LINEAR_FOLDER)

    @staticmethod
    def remove(folder: str | Path) -> None:
        """Remove what [`save`] wrote, if there is something."""
        (Path(folder) / HYBRID_FILE).unlink(missing_ok=True)
        LinearRanker.remove(Path(folder) / LINEAR_FOLDER)

    @classmethod
    def load(cls, folder: str | Path, retriever: DenseRetriever) -> Hybrid:
        """Read and check what [`save`] wrote.

        Raises:
            MissingExtraError: if it has label trees, and Omikuji is not installed.
            ModelFolderError: if a file is missing, damaged, or holds other fields.
        """
        path = Path(folder) / HYBRID_FILE
        content = read_json(path)
        wanted = {*_FIELDS, "format_version", "weights", "thresholds", "linear"}
        version = content.get("format_version") if isinstance(content, dict) else None
        if not isinstance(content, dict) or set(content) != wanted or version != _FORMAT_VERSION:
            raise ModelFolderError(
                f"{path} has format_version {version}; {_FORMAT_VERSION} and the fields {sorted(wanted)} are needed. "
                "`xlgen hybrid` makes a hybrid anew from the model that it was made of."
            )
        weights = content["weights"]
        if not isinstance(weights, dict) or set(weights) != set(_FEATURES):
            raise ModelFolderError(f"{path}: 'weights' must hold a number for each of {list(_FEATURES)}.")
        thresholds, given = content["thresholds"], {name: content[name] for name in _FIELDS}
        if not isinstance(thresholds, dict) or not set(thresholds) <= set(get_args(Objective)):
            raise ModelFolderError(f"{path}: 'thresholds' must hold numbers for some of {get_args(Objective)}.")
        numbers = [weights[name] for name in _FEATURES]
        if (
            not all(type(n) in (int, float) for n in (*numbers, *thresholds.values(), *given.values()))
            or type(content["linear"]) is not bool
        ):
            raise ModelFolderError(
                f"{path}: weights, thresholds and {sorted(_FIELDS)} must be numbers, linear a bool."
            )
        linear = None
        if content["linear"]:
            linear = LinearRanker.load(Path(folder) / LINEAR_FOLDER, num_labels=len(retriever))
        try:
            return cls(retriever, weights=np.array(numbers, float), thresholds=thresholds, linear=linear, **given)
        except (ConfigurationError, OverflowError) as err:  # JSON has numbers that no float holds
            raise ModelFolderError(f"{path}: {err}") from err


def _forced(
    model: Any,
    processor: XLGenProcessor,
    text_ids: Sequence[Sequence[int]],
    candidates: Sequence[Sequence[int]],
    generated: ScoredLabels,
    batch_size: int,
) -> np.ndarray:
    """Probability of each candidate by teacher forcing after the labels that the generator chose, `(M,)`."""
    given = [labels for labels, _ in generated.sets()]
    scores = model.score_ids(text_ids, candidates, processor, given=given, batch_size=batch_size, least=_LEAST / 10)
    return np.array([value for row in scores for value in row], dtype=np.float64)


def _relations(values: dict[str, np.ndarray], text: np.ndarray, num_texts: int) -> dict[str, np.ndarray]:
    """Each source's scores as logarithms, and as shares of the best one of the text."""
    found = {}
    for name in _SOURCES:
        best = np.zeros(num_texts)
        np.maximum.at(best, text, values[name])
        found[f"log_{name}"] = np.log(values[name] + _LEAST)
        found[f"relative_{name}"] = values[name] / np.maximum(best[text], _LEAST)
    return found
