"""Hybrids: the scores of a model, of retrieval and of label trees, fused by weights that validation rows teach."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Protocol

from datasets import Dataset

from ..data.blocks import each_value
from ..encoders.exported import refuse_exported
from ..encoders.loaded import own_device
from ..errors import ConfigurationError
from ..files.saving import local_model, read_folder, replace_files
from ..files.training_report import read_report, write_report
from ..labels.space import LabelSpace
from ..labels.vocabulary import Vocabulary
from ..loading import holds_model, load_model
from ..prediction.kinds import name_of_source
from ..prediction.predictor import RANKED, Predictor
from ..ranking.fitting import encode_references
from ..ranking.score_model import ScoreModel
from ..ranking.sources import SavedSource
from ..retrieval.model_sources import SOURCE_FOLDERS, load_source_alone, save_source_alone
from ..retrieval.retriever import LabelRetriever
from ..settings import PredictsWith
from .report import hybrid_report
from .tuning import fuse_sources

__all__ = ["HybridBase", "load_base", "write_hybrid"]


class HybridBase(Protocol):
    """What becomes a hybrid.

    Attributes:
        name: its folder or Hub id.
        label_space: its labels.
        vocabulary: the concepts that labels stand for; None without.
        sources: the sources that it brings, by name.
        depth: labels of a text that each source contributes unless told otherwise.
    """

    name: str
    label_space: LabelSpace
    vocabulary: Vocabulary | None
    sources: Mapping[str, SavedSource]
    depth: int

    def with_further(self, sources: Mapping[str, SavedSource]) -> tuple[Predictor, dict[str, SavedSource]]:
        """What predicts at first, and all sources that are fused with it: its own, and these."""

    def save(self, folder: Path, predictor: Predictor, score_model: ScoreModel) -> Predictor:
        """Write what predicted at first with a score model that fuses; the hybrid."""


def load_base(name: str, predict_with: PredictsWith | None = None, candidate_scores: str = "all") -> HybridBase:
    """Load what becomes a hybrid.

    Args:
        name: folder or Hub id of a model, an adapter, an index, or label trees.
        predict_with: what of a model is fused; what it predicts with if None.
        candidate_scores: how a model scores what other sources find: `teacher_forced`, `candidate_head` or `all`.

    Raises:
        ConfigurationError: if it was exported, or options do not fit it.
        ModelFolderError: if files are damaged, or do not belong together.
    """
    if holds_model(local_model(name, {})):
        return _Model(name, predict_with, candidate_scores)
    if predict_with is not None or candidate_scores != "all":
        option = "--candidate-scores" if predict_with is None else "--predict-with"
        raise ConfigurationError(f"{option} is for models; {name} holds no model, but an index or label trees.")
    return _Index(name)


def write_hybrid(
    folder: Path,
    base: HybridBase,
    sources: Mapping[str, SavedSource],
    validation: Dataset,
    candidates_per_source: int | None = None,
    features: Collection[str] | None = None,
) -> None:
    """Learn the weights of the sources, and write the hybrid with its report.

    Args:
        folder: the folder to write.
        base: what becomes a hybrid.
        sources: further sources by name, besides those that it brings.
        validation: rows that the weights are learned on.
        candidates_per_source: labels of a text that each source contributes; `base.depth` if None.
        features: see [`fuse_sources`].

    Raises:
        ConfigurationError: if there is nothing to fuse, or nothing can be learned.
        SaveError: if the disk is full, or the folder cannot be written.
    """
    for source in (*base.sources.values(), *sources.values()):
        if isinstance(source, LabelRetriever):
            source.encoder[0].to(own_device())
    predictor, further = base.with_further(sources)
    score_model = fuse_sources(
        predictor,
        further,
        validation["text"][:],
        encode_references(base.label_space, each_value(validation, "labels")),
        candidates_per_source=candidates_per_source or base.depth,
        features=features,
    )
    with replace_files(folder) as aside:
        fused = base.save(aside, predictor, score_model)
        if report := read_report(local_model(base.name, {})):
            write_report(aside, hybrid_report(report, fused, validation))


class _Model:
    """A model that becomes a hybrid; it has to score every candidate."""

    depth = 20

    def __init__(self, name: str, predict_with: PredictsWith | None, candidate_scores: str) -> None:
        self._model, self._processor = load_model(name, predict_with=predict_with)
        refuse_exported(self._model.backbone, name)
        self._model.to(own_device())
        if candidate_scores == "candidate_head" and not self._model.config.candidate_head:
            raise ConfigurationError(
                "--candidate-scores candidate_head: the model has no candidate head. Choose teacher_forced, or train "
                "the model with --variant rcl and a --candidate-loss-weight above 0."
            )
        self.name = name
        self.label_space, self.vocabulary = self._processor.label_space, self._processor.vocabulary
        retriever = self._processor.retriever
        own: dict[str, SavedSource] = {} if retriever is None else {"retrieval": retriever}
        self.sources: Mapping[str, SavedSource] = {**own, **self._processor.score_model.sources}

    def with_further(self, sources: Mapping[str, SavedSource]) -> tuple[Predictor, dict[str, SavedSource]]:
        return Predictor.from_model(self._model, self._processor), {**self.sources, **sources}

    def save(self, folder: Path, predictor: Predictor, score_model: ScoreModel) -> Predictor:
        processor = self._processor.with_score_model(score_model)
        self._model.save_pretrained(folder)
        processor.save_pretrained(folder)
        return Predictor.from_model(self._model, processor)


class _Index:
    """An index or label trees that become a hybrid of both."""

    depth = RANKED

    def __init__(self, name: str) -> None:
        found = read_folder(local_model(name, {}), load_source_alone)
        self.name = name
        self.label_space, self.vocabulary = found.label_space, found.vocabulary
        self.sources: Mapping[str, SavedSource] = {found.name: found.source, **found.score_model.sources}
        if isinstance(retriever := self.sources.get("retrieval"), LabelRetriever):
            refuse_exported(retriever.encoder[0], name)

    def with_further(self, sources: Mapping[str, SavedSource]) -> tuple[Predictor, dict[str, SavedSource]]:
        known = {**self.sources, **sources}
        first, *others = sorted(known, key=list(SOURCE_FOLDERS).index)
        if not others:
            raise ConfigurationError(
                f"Nothing to fuse with {first}: an index needs label trees, which --linear makes, and label trees "
                "need an index (--retriever)."
            )
        predictor = Predictor(self.label_space, known[first], vocabulary=self.vocabulary)
        return predictor, {name: known[name] for name in others}

    def save(self, folder: Path, predictor: Predictor, score_model: ScoreModel) -> Predictor:
        space, source = self.label_space, predictor.source
        assert isinstance(source, SavedSource)
        save_source_alone(folder, space, name_of_source(source), source, score_model, self.vocabulary)
        return Predictor(space, source, score_model, vocabulary=self.vocabulary)
