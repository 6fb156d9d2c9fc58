"""What an update changes: the parts of a folder that predicts, a model's or those of a source alone."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path

from ..configuration_xlgen import XLGenConfig
from ..errors import ConfigurationError
from ..files.adapter_base import is_adapter
from ..files.model_checks import load_config
from ..files.model_folder import CONFIG_FILE, PROCESSOR_FILE, holds_graphs
from ..labels.changes import LabelChange
from ..labels.space import LabelSpace
from ..labels.vocabulary import Vocabulary
from ..modeling_xlgen import XLGenForConditionalGeneration
from ..processing_xlgen import XLGenProcessor
from ..retrieval.model_sources import load_source_alone, save_source_alone
from ..retrieval.retriever import LabelRetriever

__all__ = ["HeldParts", "load_parts"]


class HeldParts(ABC):
    """The parts of a folder that follow its labels and documents.

    Attributes:
        vocabulary: the concepts that labels stand for; None without.
    """

    vocabulary: Vocabulary | None

    @property
    @abstractmethod
    def label_space(self) -> LabelSpace:
        """The labels."""

    @property
    @abstractmethod
    def retriever(self) -> LabelRetriever | None:
        """The retriever; None where the folder has none."""

    @abstractmethod
    def relabel(self, change: LabelChange) -> None:
        """Let every part follow a change of the labels."""

    @abstractmethod
    def take_retriever(self, retriever: LabelRetriever) -> None:
        """Use another retriever of the same labels."""

    @abstractmethod
    def save(self, folder: Path, aside: Path) -> None:
        """Write the parts.

        Args:
            folder: the folder that they are from, for what did not change.
            aside: where they are written.
        """


def load_parts(folder: Path) -> HeldParts:
    """Load what can change of a folder.

    Args:
        folder: the folder of a model, an adapter, an index or label trees.

    Raises:
        ConfigurationError: if it was exported.
        ModelFolderError: if it is not one of these, or a file is damaged.
        MissingExtraError: if it needs a package that is not installed.
    """
    if holds_graphs(folder):
        raise ConfigurationError(
            f"{folder} was exported, so that it only predicts. Update what it was exported from, and export again."
        )
    return _Model(folder) if (folder / PROCESSOR_FILE).is_file() else _SourceAlone(folder)


class _SourceAlone(HeldParts):
    def __init__(self, folder: Path) -> None:
        self._space, self._name, self._source, self._score_model, self.vocabulary = load_source_alone(folder)

    @property
    def label_space(self) -> LabelSpace:
        return self._space

    @property
    def retriever(self) -> LabelRetriever | None:
        return self._source if isinstance(self._source, LabelRetriever) else None

    def relabel(self, change: LabelChange) -> None:
        self._source, self._score_model = self._source.relabelled(change), self._score_model.relabelled(change)
        self._space = change.after

    def take_retriever(self, retriever: LabelRetriever) -> None:
        self._source = retriever

    def save(self, folder: Path, aside: Path) -> None:
        save_source_alone(aside, self._space, self._name, self._source, self._score_model, self.vocabulary)


class _Model(HeldParts):
    def __init__(self, folder: Path) -> None:
        self._processor = XLGenProcessor.from_pretrained(folder)
        self._config = load_config(folder) if (folder / CONFIG_FILE).is_file() else None
        self._spelled = self._spelling()

    @property
    def vocabulary(self) -> Vocabulary | None:
        return self._processor.vocabulary

    @vocabulary.setter
    def vocabulary(self, vocabulary: Vocabulary | None) -> None:
        self._processor.vocabulary = vocabulary

    @property
    def label_space(self) -> LabelSpace:
        return self._processor.label_space

    @property
    def retriever(self) -> LabelRetriever | None:
        return self._processor.retriever

    def relabel(self, change: LabelChange) -> None:
        self._processor.relabel(change)

    def take_retriever(self, retriever: LabelRetriever) -> None:
        self._processor.take_retriever(retriever)

    def save(self, folder: Path, aside: Path) -> None:
        self._processor.save_pretrained(aside)
        if self._spelling() == self._spelled:
            return
        if is_adapter(folder):
            raise ConfigurationError(
                f"{folder} holds an adapter, and its base cannot spell these labels. Merge both (`xlgen merge`), and "
                "update the model that it writes."
            )
        model = XLGenForConditionalGeneration.from_pretrained(folder)
        model.fit_output(self._processor)
        model.save_pretrained(aside)

    def _spelling(self) -> tuple[object, ...]:
        """What the model itself keeps of labels: the tokens that spell them, and their vectors by their ids."""
        config: XLGenConfig | None = self._config
        vectors = self.label_space.names if config is not None and config.has_label_vectors else ()
        if config is not None and config.num_output_tokens is None:
            return (vectors,)
        return (vectors, self._processor.label_tokenizer.output_token_ids())
