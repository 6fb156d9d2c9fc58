"""XLGen's variants as systems of a comparison."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from ...decoding.decoded_sets import DecodingOptions
from ...encoders.loaded import own_device
from ...errors import ConfigurationError
from ...files.saving import current_folder
from ...files.schema import read_object
from ...files.serialization import write_json
from ...labels.space import LabelSpace
from ...loading import load_model
from ...modeling_xlgen import XLGenForConditionalGeneration
from ...prediction.generator import Generator
from ...prediction.predictor import Predictor
from ...processing_xlgen import XLGenProcessor
from ...ranking.score_model import ScoreModel
from ...ranking.scored_labels import ScoredLabels
from ...settings import BATCH_SIZE
from ...training.arguments import XLGenTrainingArguments
from ...training.run import train_model
from ...training.settings import TrainingSettings
from .base import SystemData

__all__ = ["XLGenSystem"]

logger = logging.getLogger(__name__)

_CANDIDATES = 12  # of a text, that the decision chooses from
_MARKER = "system.json"  # what a folder was started with; the model of other settings is not reused


@dataclass
class XLGenSystem:
    """A variant of XLGen: trained by [`train_model`], candidates found by a search.

    `fit` continues from a checkpoint in the folder, and reuses a model that is complete there, so that several
    searches can share one training. Scores are the generator's own, not calibrated.

    Attributes:
        settings: what is trained; its vocabulary is that of the data.
        arguments: fields of [`XLGenTrainingArguments`]; folder and seed are those of the data.
        search: how labels are searched for. The candidates are all labels that the beams or samples hold, or 12 by
            greedy search, and those in the input (rcl).
        batch_size: texts in a batch of the search.
        model: folder of a model that was trained before, on the same rows; it is reused.
    """

    settings: TrainingSettings
    arguments: dict[str, object] = field(default_factory=dict)
    search: DecodingOptions = field(default_factory=lambda: DecodingOptions(num_beams=5, pool="union"))
    batch_size: int = BATCH_SIZE
    model: str | None = None
    _trained: tuple[XLGenForConditionalGeneration, XLGenProcessor] | None = field(default=None, init=False, repr=False)
    _space: LabelSpace | None = field(default=None, init=False, repr=False)

    def fit(self, data: SystemData) -> None:
        """Train, or reuse what the folder holds.

        Raises:
            ConfigurationError: if the folder holds a training with other settings, or settings contradict the data.
            KeyboardInterrupt: after an interrupt, once a checkpoint is written.
        """
        if self.model is not None:
            model, processor = self._load(self.model)
            self._check_labels(self.model, processor.label_space, data.label_space)
        else:
            self._check_folder(data)
            space, index = data.label_space, self.settings.retriever
            if index is not None:
                self._check_labels(index, LabelSpace.load(current_folder(index)), space)
            unseen = [name for name, count in zip(space.names, space.counts, strict=True) if not count]
            settings = replace(self.settings, vocabulary=unseen)
            args = XLGenTrainingArguments(**{**self.arguments, "output_dir": str(data.folder), "seed": data.seed})  # type: ignore[arg-type]
            model, processor, _ = train_model(settings, args, data.train, data.validation)
        # Its calibrator fits the search that training chose; the comparison calibrates every system alike. What a
        # candidate head says is fused with what retrieval says of the same candidates, which is no calibration.
        kept = processor.score_model if model.config.predicts_with == "candidate_head" else ScoreModel()
        self._trained = (model.eval(), processor.with_score_model(kept))
        self._space = data.label_space

    def _load(self, folder: str) -> tuple[XLGenForConditionalGeneration, XLGenProcessor]:
        logger.info("%s holds a finished model; it is reused.", folder)
        return load_model(folder, device=self._device)

    @property
    def _device(self) -> str:
        return "cpu" if self.arguments.get("use_cpu") else own_device()

    def _check_labels(self, folder: str | Path, own: LabelSpace, given: LabelSpace) -> None:
        """Refuse a model or an index of other training rows: it would have seen labels that this setting drops."""
        if own.train_label_counts() != given.train_label_counts():
            raise ConfigurationError(
                f"{folder} was made from other rows or with another vocabulary: it has {len(own)} labels and "
                f"{int(own.counts.sum())} of them on training rows, the experiment has {len(given)} and "
                f"{int(given.counts.sum())}."
            )

    def use_score_model(self, score_model: ScoreModel) -> None:
        """Score candidates by this from now on.

        Raises:
            ConfigurationError: if the system is not fitted.
        """
        model, processor = self.trained
        self._trained = (model, processor.with_score_model(score_model))

    @property
    def trained(self) -> tuple[XLGenForConditionalGeneration, XLGenProcessor]:
        """Model and processor.

        Raises:
            ConfigurationError: if the system is not fitted.
        """
        if self._trained is None:
            raise ConfigurationError("The system is not fitted; call fit first.")
        return self._trained

    def _check_folder(self, data: SystemData) -> None:
        """Refuse a folder of a training with other settings."""
        given = {"settings": _plain(vars(self.settings)), "arguments": _plain(self.arguments), "seed": data.seed}
        path = data.folder / _MARKER
        if not path.is_file():
            write_json(path, given)
            return
        found = read_object(path)
        different = sorted(name for name in given if found.get(name) != given[name])
        if different:
            raise ConfigurationError(
                f"{data.folder} holds a training with other {' and '.join(different)}. Choose another folder, or "
                "remove that one."
            )

    def score(self, texts: Sequence[str]) -> ScoredLabels:
        """Candidates that the search finds.

        Raises:
            ConfigurationError: if the system is not fitted.
        """
        model, processor = self.trained
        search = replace(self.search, min_candidates=max(_CANDIDATES, self.search.min_candidates))
        predictor = Predictor.from_model(model, processor)
        decoding = search if isinstance(predictor.source, Generator) else None  # a candidate head does not search
        scored = predictor.rank(texts, decoding=decoding, batch_size=self.batch_size, progress=True)
        names = processor.label_space.names
        if self._space is None or names == self._space.names:
            return scored
        return replace(scored, labels=np.array(self._space.encode(names))[scored.labels])


def _plain(values: Mapping[str, object]) -> dict[str, object]:
    """Settings as JSON gives them back; vocabulary and names of sources are those of the data, not settings."""
    left_out = ("vocabulary", "sources")
    return {
        name: str(value) if isinstance(value, Path) else value
        for name, value in values.items()
        if name not in left_out
    }
