"""The rows of an experiment, kept in its folder: what every cell reads, whatever becomes of the given files."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypedDict, get_args

from datasets import Dataset, load_from_disk

from ..data.options import RowOptions
from ..data.rows import load_label_names, load_rows
from ..data.transforms import drop_labels, rows_that_teach
from ..errors import ConfigurationError, ModelFolderError
from ..files.atomic import discard, save_errors, unfinished_folder
from ..files.json_lines import digest
from ..files.schema import Fields, integer, mapping_of, read_strings, string
from ..files.serialization import write_json
from ..labels.space import LabelSpace
from ..training.report import source_name

__all__ = ["DataFacts", "ExperimentData", "PositiveUnlabelled", "Setting", "check_settings"]

Setting = Literal["full", "pu"]

_SPLITS = ("train", "validation", "test")
_FACTS = "data.json"


class DataFacts(TypedDict):
    """What an experiment's rows are, as JSON holds it.

    Attributes:
        digest: of texts, labels and vocabulary.
        rows: number of rows of each split.
        sources: where the rows of each split come from.
        labels: number of labels.
        unseen_labels: those without training rows.
    """

    digest: str
    rows: dict[str, int]
    sources: dict[str, str]
    labels: int
    unseen_labels: int


_FORM = Fields[DataFacts](
    {
        "digest": string(),
        "rows": mapping_of(integer(minimum=0)),
        "sources": mapping_of(string()),
        "labels": integer(minimum=1),
        "unseen_labels": integer(minimum=0),
    }
)


@dataclass(frozen=True)
class PositiveUnlabelled:
    """How the labels of training rows are dropped in the setting `pu`; the same ones for all systems and seeds.

    Attributes:
        rate: fraction of each row's labels that are dropped, in (0, 1).
        seed: of what is dropped.
    """

    rate: float = 0.5
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the values."""
        if not 0 < self.rate < 1:
            raise ConfigurationError(f"pu_rate={self.rate}; it must be a number > 0 and < 1.")


@dataclass(frozen=True)
class ExperimentData:
    """Rows and vocabulary of an experiment.

    Attributes:
        train: training rows, see [`rows_that_teach`].
        validation: rows that settings, calibration and decisions are chosen on.
        test: rows that are scored.
        vocabulary: names beyond those of the training rows.
        facts: what the rows are.
    """

    train: Dataset
    validation: Dataset
    test: Dataset
    vocabulary: list[str]
    facts: DataFacts

    @classmethod
    def prepare(
        cls,
        sources: Mapping[str, str],
        labels: str | None,
        folder: Path,
        options: RowOptions | None = None,
        *,
        replace: bool = True,
    ) -> ExperimentData:
        """Read and check the rows, and keep them in `folder`.

        Args:
            sources: `train`, `validation` and `test` -> what `load_rows` reads.
            labels: what `load_label_names` reads, None for the labels of the training rows alone.
            folder: where the rows are kept; those of an earlier run stay if they are the same.
            options: how the rows are read.
            replace: whether the rows of another experiment may be replaced.

        Raises:
            DataError: if rows cannot be read.
            ConfigurationError: if the folder holds something else, or other rows that may not be replaced.
        """
        _refuse_others(folder)
        rows = {split: load_rows(sources[split], options, split=split) for split in _SPLITS}
        rows["train"] = rows["train"].select(rows_that_teach(rows["train"]))
        vocabulary = [] if labels is None else load_label_names(labels)
        space = LabelSpace.from_label_lists(rows["train"]["labels"], vocabulary)
        facts: DataFacts = {
            "digest": digest(_content(rows, vocabulary)),
            "rows": {split: len(part) for split, part in rows.items()},
            "sources": {split: source_name(str(sources[split])) for split in _SPLITS},
            "labels": len(space),
            "unseen_labels": int((space.counts == 0).sum()),
        }
        before = _FORM.read(folder / _FACTS) if (folder / _FACTS).is_file() else None
        if not replace and (before is None or before["digest"] != facts["digest"]):
            raise ConfigurationError(
                f"{folder.parent} holds no cells of these rows: its experiment was run on other rows, or never."
            )
        if before != facts and replace:
            _write(folder, rows, vocabulary, facts)
        return cls.load(folder)

    @classmethod
    def load(cls, folder: Path) -> ExperimentData:
        """Map what [`prepare`] kept into memory.

        Raises:
            ModelFolderError: if the folder is not complete.
        """
        facts = _FORM.read(folder / _FACTS)
        rows = {split: load_from_disk(folder / split) for split in _SPLITS}
        return cls(**rows, vocabulary=read_strings(folder / "vocabulary.json"), facts=facts)

    @property
    def label_space(self) -> LabelSpace:
        """The labels of all training rows and the vocabulary, with the counts of the setting `full`."""
        return LabelSpace.from_label_lists(self.train["labels"], self.vocabulary)

    def training_rows(self, setting: Setting, pu: PositiveUnlabelled) -> Dataset:
        """The training rows of a setting; a row that has labels keeps one at least."""
        return self.train if setting == "full" else drop_labels(self.train, pu.rate, pu.seed)


def _refuse_others(folder: Path) -> None:
    """Refuse a folder that is not of an experiment: the rows of the next one would take its place."""
    if not folder.is_dir() or not any(folder.iterdir()):
        return
    try:
        _FORM.read(folder / _FACTS)
    except ModelFolderError as err:
        raise ConfigurationError(
            f"{folder} holds something else than the rows of an experiment, which would take its place. Choose "
            "another --output-dir."
        ) from err


def _write(folder: Path, rows: Mapping[str, Dataset], vocabulary: list[str], facts: DataFacts) -> None:
    with save_errors(folder), unfinished_folder(folder.parent) as aside:
        new = aside / folder.name
        for split, part in rows.items():
            part.save_to_disk(new / split)
        write_json(new / "vocabulary.json", vocabulary)
        write_json(new / _FACTS, facts)
        if folder.exists():
            discard(folder)
        os.replace(new, folder)


def check_settings(settings: Iterable[str]) -> None:
    """Refuse unknown settings, before any work.

    Raises:
        ConfigurationError: if a setting is unknown.
    """
    for name in settings:
        if name not in get_args(Setting):
            raise ConfigurationError(f"There is no setting {name!r}; choose one of {', '.join(get_args(Setting))}.")


def _content(rows: Mapping[str, Dataset], vocabulary: list[str]) -> Iterator[str]:
    """All that decides results, as strings."""
    for split, part in rows.items():
        yield split
        for row in part:
            yield row["text"]
            yield json.dumps(row["labels"], ensure_ascii=False)
    yield from vocabulary
