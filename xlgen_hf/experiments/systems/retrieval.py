"""Retrieval, and hybrids of it with an XLGen model, as systems of a comparison."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from importlib.util import find_spec

import numpy as np

from ...data.blocks import each_value
from ...errors import ConfigurationError
from ...labels.space import LabelSpace
from ...prediction.candidate_ranker import model_source
from ...prediction.generator import Generator
from ...prediction.predictor import Predictor
from ...ranking.scored_labels import ScoredLabels
from ...ranking.sources import SavedSource
from ...retrieval.retriever import LabelRetriever
from ...training.retriever import ContrastiveSettings, fit_retriever, remove_encoder_checkpoints
from ...training.tuning import fuse_sources
from .base import System, SystemData
from .linear_trees import bonsai
from .xlgen import XLGenSystem

__all__ = ["SYSTEMS", "DenseRetrieval", "HybridSystem"]

logger = logging.getLogger(__name__)

_ENCODER = "sentence-transformers/all-MiniLM-L6-v2"
_CANDIDATES = 50


@dataclass
class DenseRetrieval:
    """Labels of similar training texts and labels with similar names; see [`LabelRetriever`].

    Attributes:
        encoder: checkpoint of the encoder.
        epochs: epochs in which it learns to match texts and label names; 0 leaves it as it is.
        lexical: let character n-grams count as well; then it is what `xlgen index` makes.
    """

    encoder: str = _ENCODER
    epochs: float = 0.0
    lexical: bool = False
    _retriever: LabelRetriever | None = field(default=None, init=False, repr=False)
    _space: LabelSpace | None = field(default=None, init=False, repr=False)

    def fit(self, data: SystemData) -> None:
        """Train the encoder, if it is to be, embed the rows, and choose the weights on the validation rows."""
        contrastive = ContrastiveSettings(epochs=self.epochs)
        self._space = data.label_space
        self._retriever = fit_retriever(
            data.label_space,
            data.train,
            data.validation,
            self.encoder,
            data.folder,
            contrastive=contrastive,
            lexical=self.lexical,
            seed=data.seed,
        )
        remove_encoder_checkpoints(data.folder)

    def score(self, texts: Sequence[str]) -> ScoredLabels:
        """The 50 best labels of each text.

        Raises:
            ConfigurationError: if the system is not fitted.
        """
        if self._retriever is None or self._space is None:
            raise ConfigurationError("The system is not fitted; call fit first.")
        return Predictor(self._space, self._retriever).rank(texts, _CANDIDATES, progress=True)


@dataclass
class HybridSystem:
    """An XLGen-RCL model fused with its own retriever and, where Omikuji is installed, Bonsai; see [`Fusion`].

    With Bonsai two runs differ a little, for no seed reaches all of Omikuji's random numbers.

    Attributes:
        generator: the system that trains the model, or reuses it where it is trained.
    """

    generator: XLGenSystem

    def fit(self, data: SystemData) -> None:
        """Train generator and label trees, and learn the weights on the validation rows.

        Raises:
            ConfigurationError: if the generator has no retriever.
        """
        self.generator.fit(data)
        model, processor = self.generator.trained
        if processor.retriever is None:
            raise ConfigurationError("The generator of a hybrid brings the retriever; train the variant rcl.")
        space = processor.label_space
        sources: dict[str, SavedSource] = {"retrieval": processor.retriever}
        if find_spec("omikuji") is not None:
            trees = bonsai()
            trees.fit(replace(data, folder=data.folder / "linear"))
            columns = np.array(space.encode(data.label_space.names))[trees.ranker.labels]
            sources["label_trees"] = replace(trees.ranker, labels=columns)
        else:
            logger.warning("Omikuji (extra baselines) is not installed: the hybrid goes without label trees.")
        own = model_source(model, processor)
        searching = own.searching(self.generator.search) if isinstance(own, Generator) else own
        fused = fuse_sources(
            Predictor(space, searching, processor.score_model),
            sources,
            data.validation["text"][:],
            [space.encode_known(names)[0] for names in each_value(data.validation, "labels")],
            batch_size=self.generator.batch_size,
        )
        self.generator.use_score_model(fused)

    def score(self, texts: Sequence[str]) -> ScoredLabels:
        """Candidates of generator and retriever with fused scores."""
        return self.generator.score(texts)


SYSTEMS: dict[str, Callable[[], System]] = {
    "dense-retrieval": DenseRetrieval,
    "dense-retrieval-trained": partial(DenseRetrieval, epochs=1.0),
    "retrieval": partial(DenseRetrieval, epochs=1.0, lexical=True),
}
