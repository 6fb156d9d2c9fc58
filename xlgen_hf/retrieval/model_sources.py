"""The sources that a model folder holds in addition to, or instead of, a generator: a retriever, label trees."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from ..encoders.exported import refuse_exported
from ..errors import ConfigurationError, ModelFolderError
from ..files.model_folder import LABEL_TREES_FOLDER, RETRIEVER_FOLDER, SCORE_MODEL_FILE
from ..files.saving import read_folder, replace_files
from ..labels.space import LabelSpace
from ..labels.vocabulary import Vocabulary
from ..ranking.score_model import ScoreModel
from ..ranking.sources import SavedSource
from .retriever import RETRIEVER_SETTINGS_FILE, LabelRetriever

__all__ = [
    "SOURCE_FOLDERS",
    "SourceAlone",
    "load_index",
    "load_indexed_sources",
    "load_source_alone",
    "load_sources",
    "save_source_alone",
    "save_sources",
]

SOURCE_FOLDERS = {"retrieval": RETRIEVER_FOLDER, "label_trees": LABEL_TREES_FOLDER}
"""Name of a source -> its folder in a model's folder."""


class SourceAlone(NamedTuple):
    """What predicts without a model: a source, and further ones in its score model; see [`save_source_alone`]."""

    label_space: LabelSpace
    name: str
    source: SavedSource
    score_model: ScoreModel
    vocabulary: Vocabulary | None


def save_sources(folder: Path, sources: Mapping[str, SavedSource]) -> None:
    """Write each source into its folder."""
    for name, source in sources.items():
        source.save(folder / SOURCE_FOLDERS[name])


def load_sources(folder: Path, num_labels: int) -> dict[str, SavedSource]:
    """Load what a model's folder holds of sources.

    Args:
        folder: the model's folder.
        num_labels: labels of the label space that they must fit.

    Raises:
        MissingExtraError: if there are label trees, and Omikuji is not installed.
        ModelFolderError: if a file is missing, damaged, or does not fit the others.
    """
    found: dict[str, SavedSource] = {}
    if (folder / RETRIEVER_FOLDER / RETRIEVER_SETTINGS_FILE).is_file():
        found["retrieval"] = LabelRetriever.load(folder / RETRIEVER_FOLDER, num_labels=num_labels)
    if (folder / SOURCE_FOLDERS["label_trees"]).is_dir():
        from ..ranking.label_trees import LabelTrees  # scikit-learn and Omikuji, which few models need

        found["label_trees"] = LabelTrees.load(folder / SOURCE_FOLDERS["label_trees"], num_labels=num_labels)
    return found


def save_source_alone(
    folder: Path,
    label_space: LabelSpace,
    name: str,
    source: SavedSource,
    score_model: ScoreModel,
    vocabulary: Vocabulary | None = None,
) -> None:
    """Write a folder that predicts without a model.

    Args:
        folder: the folder; what it holds of such a model is replaced.
        label_space: the labels.
        name: `retrieval` or `label_trees`.
        source: the source.
        score_model: how its candidates are scored and decided on; its sources are written, too.
        vocabulary: the concepts that labels stand for, if any.

    Raises:
        SaveError: if the disk is full, or the folder cannot be written.
    """
    with replace_files(folder) as aside:
        label_space.save(aside)
        if vocabulary is not None:
            vocabulary.save(aside)
        save_sources(aside, {name: source, **score_model.sources})
        score_model.save(aside)


def load_source_alone(folder: Path) -> SourceAlone:
    """Read what [`save_source_alone`] wrote.

    Raises:
        MissingExtraError: if there are label trees, and Omikuji is not installed.
        ModelFolderError: if a file is missing, damaged, or does not fit the others.
    """
    label_space = LabelSpace.load(folder)
    sources = load_sources(folder, len(label_space))
    if not sources:
        raise ModelFolderError(f"{folder} lacks the files of a retriever and of label trees; is it a whole index?")
    name = next(iter(sources))
    source = sources.pop(name)
    score_model = ScoreModel.load(folder, sources) if (folder / SCORE_MODEL_FILE).is_file() else ScoreModel()
    if set(score_model.sources) != set(sources):
        raise ModelFolderError(
            f"{folder} holds {sorted([name, *sources])} and nothing that weighs them; keep one of them."
        )
    return SourceAlone(label_space, name, source, score_model, Vocabulary.load(folder, label_space.names))


def load_index(folder: str | Path, label_space: LabelSpace) -> LabelRetriever:
    """Load the retriever that `xlgen index` wrote, for the labels that it was made for.

    Raises:
        ConfigurationError: if it was made for other labels, or exported, or the folder holds label trees.
        ModelFolderError: if a file is missing, damaged, or does not fit the others.
    """
    return read_folder(folder, lambda place: _load_index(place, label_space))


def _load_index(folder: Path, label_space: LabelSpace) -> LabelRetriever:
    _check_labels(folder, label_space)
    path = folder / RETRIEVER_FOLDER
    if not path.is_dir() and (folder / LABEL_TREES_FOLDER).is_dir():
        raise ConfigurationError(
            f"{folder} holds label trees, where a retriever is needed: `xlgen index --method retrieval` makes one."
        )
    retriever = LabelRetriever.load(path, num_labels=len(label_space))
    refuse_exported(retriever.encoder[0], folder)
    return retriever


def load_indexed_sources(folder: str | Path, label_space: LabelSpace) -> dict[str, SavedSource]:
    """Load what `xlgen index` wrote, a retriever or label trees, by the name of the source.

    Args:
        folder: the folder.
        label_space: the labels that it must have been made for.

    Raises:
        ConfigurationError: if it was made for other labels, or exported, or the folder holds neither.
        MissingExtraError: if it holds label trees, and Omikuji is not installed.
        ModelFolderError: if a file is missing, damaged, or does not fit the others.
    """
    return read_folder(folder, lambda place: _load_indexed_sources(place, label_space))


def _load_indexed_sources(folder: Path, label_space: LabelSpace) -> dict[str, SavedSource]:
    _check_labels(folder, label_space)
    found = load_sources(folder, len(label_space))
    if not found:
        raise ConfigurationError(f"{folder} holds neither a retriever nor label trees; `xlgen index` makes them.")
    if isinstance(retriever := found.get("retrieval"), LabelRetriever):
        refuse_exported(retriever.encoder[0], folder)
    return found


def _check_labels(folder: Path, label_space: LabelSpace) -> None:
    indexed = LabelSpace.load(folder)
    if indexed.names != label_space.names:
        lacking = [name for name in label_space.names if name not in indexed.index]
        why = f"It lacks {len(lacking)} of these, e.g. {lacking[0]!r}. " if lacking else ""
        raise ConfigurationError(
            f"The index in {folder} is for other labels ({len(indexed)}) than the model's ({len(label_space)}). "
            f"{why}Make it from the same training rows and vocabulary."
        )
