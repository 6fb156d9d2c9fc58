"""What a run in an output folder is about: the same run continues or is complete, another one is refused."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from pathlib import Path
from typing import TypeAlias

from datasets import Dataset

from ..data.rows import row_ids
from ..errors import ConfigurationError, ModelFolderError
from ..files.adapter_base import BASE_FOLDER
from ..files.json_lines import digest
from ..files.model_folder import CONFIG_FILE, REPORT_FILE, model_files
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
    "contents_of",
    "describe_run",
    "digest_of_names",
    "digest_of_rows",
    "finished_scores",
    "holds_earlier_work",
    "start_record",
]

logger = logging.getLogger(__name__)

RECORD_FILE = "run.json"
"""Settings, arguments and rows of the run that writes into a folder."""

_READ_AT_ONCE = 1000
_BYTES_AT_ONCE = 2**20
_SHOWN = 8  # differences that an error spells out
_BATCH = "per_device_train_batch_size"
_CONTENT = ("*.json", "*.safetensors")
_PASSED_OVER = {"cache", "training_report.json", RECORD_FILE}
_FOLDERS = ("retriever", "clusters", "start_from", "backbone", "encoder")  # settings that name what is read of them
# Arguments that decide the result as well, and that few people set; a record has those that are set.
_SELDOM_SET = (
    "adam_beta1", "adam_beta2", "adam_epsilon", "lr_scheduler_kwargs", "optim_args", "data_seed",
    "dataloader_drop_last", "train_sampling_strategy", "neftune_noise_alpha", "generation_num_beams",
    "fp16_full_eval", "bf16_full_eval", "load_best_model_at_end", "ignore_data_skip",
)  # fmt: skip
_OF_THE_BEST = (
    "eval_strategy", "eval_steps", "eval_delay", "save_strategy", "save_steps", "metric_for_best_model",
    "greater_is_better",
)  # fmt: skip

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
    arguments |= _seldom_set(args)
    of_settings |= contents_of(of_settings)
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


def _seldom_set(args: XLGenTrainingArguments) -> dict[str, object]:
    usual = {one.name: one.default for one in fields(args)}
    names = [*_SELDOM_SET, *(_OF_THE_BEST if args.load_best_model_at_end else ())]
    values = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return {name: value for name, value in values.items() if value != usual.get(name)}


def contents_of(settings: Mapping[str, object]) -> dict[str, str]:
    """What tells the folders that settings name from what stood in the same places before.

    Args:
        settings: values by name; folders are those of a model, an encoder, an index or clusters.

    Returns:
        `content of` each name -> a digest of the files, but for those of caches. What is no folder is left out.
    """
    folders = {name: Path(str(settings[name])) for name in (*_FOLDERS, "model") if settings.get(name)}
    return {f"content of {name}": _digest_of_files(folder) for name, folder in folders.items() if folder.is_dir()}


def _digest_of_files(folder: Path) -> str:
    files = []
    for path in sorted(path for kind in _CONTENT for path in folder.rglob(kind)):
        place = path.relative_to(folder)
        if path.is_file() and not _PASSED_OVER & {*place.parts}:
            about = path.stat()
            files.append((place.as_posix(), path, about.st_size, about.st_mtime_ns))
    return _digest_of_content(tuple(files))


@lru_cache(maxsize=64)  # an experiment asks for each of its cells
def _digest_of_content(files: tuple[tuple[str, Path, int, int], ...]) -> str:
    found = hashlib.blake2b(digest_size=6)
    for place, path, size, _ in files:
        found.update(f"{place}:{size}\n".encode())
        with path.open("rb") as file:
            while part := file.read(_BYTES_AT_ONCE):
                found.update(part)
    return found.hexdigest()


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
        if before is not None and (folder / BASE_FOLDER / CONFIG_FILE).is_file():
            shutil.rmtree(folder / BASE_FOLDER)  # of a LoRA run that ended before its first checkpoint
        _FORM.write(path, record)
    return False


def holds_earlier_work(cache: Path) -> bool:
    """Whether a folder of caches and checkpoints holds something, so that who goes on with it takes less time.

    Args:
        cache: the folder, which need not exist.
    """
    return cache.is_dir() and any(cache.iterdir())


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
