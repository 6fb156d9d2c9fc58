"""Checkpoints of a run that are complete or not there: written aside, listed with their sizes, renamed last."""

from __future__ import annotations

import logging
import os
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

from safetensors import SafetensorError
from transformers.trainer import TRAINER_STATE_NAME

from ..errors import ModelFolderError, SaveError
from ..files.leftovers import CHECKPOINT_FILE, CHECKPOINT_PREFIX, UNFINISHED, remove_folder
from ..files.schema import Fields, boolean, integer, mapping_of, number

__all__ = [
    "Checkpoint",
    "finish_checkpoint",
    "newest_checkpoint",
    "read_checkpoint",
    "remove_checkpoints",
    "remove_incomplete",
    "rotate_checkpoints",
    "writing_checkpoint",
]

logger = logging.getLogger(__name__)


class _Content(TypedDict):
    step: int
    evaluation_due: bool
    saved: float
    files: dict[str, int]


_FORM = Fields[_Content](
    {
        "step": integer(minimum=0),
        "evaluation_due": boolean(),
        "saved": number(minimum=0),
        "files": mapping_of(integer(minimum=0)),
    },
    optional=("saved",),
    format_version=1,
    made_by="xlgen train",
)


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint.

    Attributes:
        folder: where it is.
        step: optimizer steps that were done.
        evaluation_due: whether the run was stopped after this step and before the evaluation that follows it.
    """

    folder: Path
    step: int
    evaluation_due: bool


def read_checkpoint(folder: str | Path) -> Checkpoint | None:
    """A checkpoint, if it is complete: each of the files that were written is there, in the size that it had.

    Args:
        folder: the folder of a checkpoint.
    """
    folder = Path(folder)
    try:
        content = _FORM.read(folder / CHECKPOINT_FILE)
        for name, size in content["files"].items():
            if (folder / name).stat().st_size != size:
                return None
        return Checkpoint(folder, content["step"], content["evaluation_due"])
    except (ModelFolderError, OSError, ValueError):  # ValueError: a name that holds a null character
        return None


def newest_checkpoint(run: str | Path) -> Checkpoint | None:
    """The complete checkpoint that was saved last; None without any. Those that are not complete are reported.

    Args:
        run: the output folder of the run, in which there may be checkpoints of an earlier one.
    """
    for folder in reversed(_checkpoints(Path(run))):
        checkpoint = read_checkpoint(folder)
        if checkpoint is not None:
            return checkpoint
        logger.warning("%s is not a complete checkpoint of this version and is ignored.", folder)
    return None


def remove_incomplete(run: str | Path) -> None:
    """Remove what is left of checkpoints that were not finished; what others may have put there stays.

    Args:
        run: the output folder of a run that continues. No other process may write into it.
    """
    for folder in Path(run).glob(f"{UNFINISHED}{CHECKPOINT_PREFIX}*"):
        shutil.rmtree(folder)
    for folder in _checkpoints(Path(run)):
        ours = (folder / CHECKPOINT_FILE).is_file() or not (folder / TRAINER_STATE_NAME).is_file()
        if ours and read_checkpoint(folder) is None:
            logger.info("%s is removed.", folder)
            remove_folder(folder)


@contextmanager
def writing_checkpoint(run: str | Path, step: int) -> Iterator[Path]:
    """Give a folder to write a checkpoint into; nothing is left of it where that fails.

    Every process of a run writes into the same folder; [`finish_checkpoint`] is for the first one, when all are done.

    Args:
        run: the output folder of the run.
        step: optimizer steps that were done.

    Raises:
        SaveError: if the disk is full, or the folder cannot be written.
    """
    folder = Path(run) / f"{UNFINISHED}{CHECKPOINT_PREFIX}{step}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder
    except BaseException as err:  # Ctrl-C too
        shutil.rmtree(folder, ignore_errors=True)
        reason = _reason(err)
        if reason is None:
            raise
        raise SaveError(_final(folder), reason) from err


def _reason(err: BaseException) -> str | None:
    """What the system says in an error of writing; None for any other error."""
    if isinstance(err, SaveError):  # of the model, which names the folder aside
        return err.reason
    if isinstance(err, SafetensorError):
        return str(err)
    return err.strerror if isinstance(err, OSError) and err.errno is not None else None


def finish_checkpoint(folder: Path, step: int, *, evaluation_due: bool) -> Path:
    """List the files of a checkpoint and give it its name.

    Args:
        folder: what [`writing_checkpoint`] gave.
        step: optimizer steps that were done.
        evaluation_due: see [`Checkpoint`].

    Returns:
        The folder of the checkpoint.
    """
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    content: _Content = {
        "step": step,
        "evaluation_due": evaluation_due,
        "saved": time.time(),
        "files": {path.relative_to(folder).as_posix(): path.stat().st_size for path in files},
    }
    for path in files:
        _to_disk(path)
    _FORM.write(folder / CHECKPOINT_FILE, content)
    final = _final(folder)
    if final.exists():  # saved twice at one step, before and after an evaluation
        remove_folder(final)
    os.replace(folder, final)
    return final


def rotate_checkpoints(run: str | Path, limit: int | None, best: str | None) -> None:
    """Remove the oldest checkpoints, of whichever run; the newest and the best one stay, and those of others.

    Args:
        run: the output folder of the run.
        limit: the number of checkpoints that are kept; all if None.
        best: folder of the best checkpoint, where it is known.
    """
    found = [folder for folder in _checkpoints(Path(run)) if (folder / CHECKPOINT_FILE).is_file()]
    if not limit or len(found) <= limit:
        return
    protected = {found[-1].name, Path(best).name if best else found[-1].name}
    removable = [folder for folder in found if folder.name not in protected]
    for folder in removable[: len(found) - limit]:
        remove_folder(folder)


def remove_checkpoints(run: str | Path) -> None:
    """Remove all complete checkpoints of a run that is finished; what others may have put there stays.

    Args:
        run: the output folder of the run.
    """
    for folder in _checkpoints(Path(run)):
        if (folder / CHECKPOINT_FILE).is_file():
            remove_folder(folder)


def _final(folder: Path) -> Path:
    return folder.with_name(folder.name.removeprefix(UNFINISHED))


def _checkpoints(run: Path) -> list[Path]:
    """Folders that have the name of a checkpoint, the one that was saved last at the end.

    An earlier run with the same output folder may have left some of later steps.
    """
    found = [
        path
        for path in run.glob(f"{CHECKPOINT_PREFIX}*")
        if path.is_dir() and path.name[len(CHECKPOINT_PREFIX) :].isdecimal()
    ]
    return sorted(found, key=lambda path: (_saved(path), int(path.name[len(CHECKPOINT_PREFIX) :])))


def _saved(folder: Path) -> float:
    """When a checkpoint was saved, in seconds since 1970."""
    with suppress(ModelFolderError, OSError, ValueError, KeyError):  # KeyError: an earlier version saved it
        return _FORM.read(folder / CHECKPOINT_FILE)["saved"]  # which a copy of the folder keeps
    return folder.stat().st_mtime


def _to_disk(path: Path) -> None:
    """Wait until a file is on the disk; some systems say only here that there is no room for it."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())
