"""What a run in an output folder is about: the same run continues or is complete, another one is refused."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from datasets import Dataset

from ..data.rows import row_ids
from ..errors import ConfigurationError, ModelFolderError
from ..files.json_lines import digest
from ..files.model_folder import REPORT_FILE, model_files
from ..files.schema import Fields, anything, mapping_of
from ..files.serialization import JSON
from ..files.training_report import read_report
from ..labels.vocabulary import Vocabulary
from ..settings import default_cluster_loss_weight, default_conditioning
from .arguments import XLGenTrainingArguments
from .checkpoints import newest_checkpoint
from .report import deciding_arguments
from .settings import TrainingSettings

__all__ = [
    "RECORD_FILE",
    "Record",
    "describe_run",
    "digest_of_names",
    "digest_of_rows",
    "finished_scores",
    "start_record",
]

logger = logging.getLogger(__name__)

RECORD_FILE = "run.json"
"""Settings, arguments and rows of the run that writes into a folder."""

_READ_AT_ONCE = 1000
_SHOWN = 8  # differences that an error spells out
_BATCH = "per_device_train_batch_size"

Record: TypeAlias = "dict[str, dict[str, JSON]]"

_SECTIONS = ("settings", "arguments", "rows", "labels")
_FORM = Fields[Record](
    {section: mapping_of(anything()) for section in _SECTIONS},
    optional=_SECTIONS,
    format_version=1,
    made_by="xlgen train",
)


def describe_run(
    settings: TrainingSettings, args: XLGenTrainingArguments, rows: Mapping[str, Dataset | None]
) -> Record:
    """All that decides the result of a run, by section and name, as JSON holds it.

    The number of processes does not decide it, only the rows that they process together in a step.

    Args:
        settings: what is trained.
        args: how it is trained.
        rows: split -> rows, None where there are none.
    """
    of_settings = {name: value for name, value in vars(settings).items() if name not in ("sources", "vocabulary")}
    # What the variant decides is the same run, whether somebody chose it or not: `train_config.yaml` says it.
    if settings.conditioning == default_conditioning(settings.variant):
        of_settings["conditioning"] = None
    if settings.cluster_loss_weight is None:
        of_settings["cluster_loss_weight"] = default_cluster_loss_weight(settings.variant)
    if settings.variant == "mcg":
        of_settings["own_cluster_start"] = True  # runs of before that are not finished have other targets
    arguments = deciding_arguments(args, settings.variant, candidates=settings.candidates)
    arguments[_BATCH] = args.train_batch_size * args.world_size
    content: dict[str, dict[str, object]] = {
        "settings": of_settings,
        "arguments": arguments,
        "rows": {name: digest_of_rows(part) for name, part in rows.items() if part is not None},
        "labels": {"vocabulary": None if settings.vocabulary is None else digest_of_names(settings.vocabulary)},
    }
    if settings.id_column is not None and (train := rows.get("train")) is not None:
        content["rows"]["ids"] = digest(row_ids(train, settings.id_column))
    described: Record = json.loads(json.dumps(content, default=str))
    return described


def start_record(folder: Path, record: Record, *, write: bool) -> bool:
    """Take a folder for a run.

    Args:
        folder: the output folder.
        record: what [`describe_run`] gave.
        write: whether this process writes.

    Returns:
        Whether the folder has held this run before.

    Raises:
        ConfigurationError: if the folder has checkpoints or the model of another run.
        ModelFolderError: if the folder's record is damaged or of another version.
    """
    path = folder / RECORD_FILE
    before = _FORM.read(path) if path.is_file() else None
    if before == record:
        return True
    if (folder / REPORT_FILE).is_file() or newest_checkpoint(folder) is not None:
        differences = ["what it was trained with is not known"] if before is None else [*_differences(before, record)]
        more = f" and {len(differences) - _SHOWN} more" if len(differences) > _SHOWN else ""
        raise ConfigurationError(
            f"{folder} holds another run: {'; '.join(differences[:_SHOWN])}{more}. Choose another output folder, "
            "repeat the command of that run to continue it, or remove the folder."
        )
    if write:
        _FORM.write(path, record)
    return False


def finished_scores(folder: Path) -> dict[str, float] | None:
    """Scores on the validation rows of a run that is complete, empty without such rows; None if it is not complete.

    Args:
        folder: the output folder; [`start_record`] says whether it holds this run.
    """
    path = folder / REPORT_FILE
    if not path.is_file():
        return None
    try:
        model_files(folder)
    except ModelFolderError as err:
        logger.warning("The model is made again: %s", err)
        return None
    return read_report(folder).get("scores", {})


def _differences(before: Record, now: Record) -> Iterator[str]:
    for section, values in now.items():
        known = before.get(section, {})
        for name in sorted({*values, *known}):
            if values.get(name) != known.get(name):
                yield f"{name if section != 'rows' else f'{name} rows'} ({values.get(name)}, was {known.get(name)})"


def digest_of_rows(rows: Dataset) -> str:
    """What tells rows from others: their number, and a digest of their texts and labels."""
    digest = hashlib.blake2b(digest_size=16)
    for batch in rows.select_columns(["text", "labels"]).iter(_READ_AT_ONCE):
        digest.update(json.dumps([batch["text"], batch["labels"]]).encode())
    return f"{len(rows)} rows, {digest.hexdigest()[:12]}"


def digest_of_names(names: Vocabulary | Sequence[str]) -> str:
    """What tells a list of names, or a vocabulary, from others: their number and a digest."""
    lines = names.lines() if isinstance(names, Vocabulary) else [list(names)]
    digest = hashlib.blake2b(digest_size=6)
    for line in lines:
        digest.update(json.dumps(line).encode())
    return f"{len(names)} names, {digest.hexdigest()}"
