"""What runs leave that no model needs: caches of embeddings, and checkpoints. Found with their sizes, and removed.

Only folders that this package wrote are found, by their name and the file that describes them; links are not followed.
"""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from .atomic import save_errors
from .model_folder import REPORT_FILE, SCORE_MODEL_FILE
from .outputs import sole_writer, written_around

__all__ = [
    "ABOUT_EMBEDDINGS_FILE",
    "ABOUT_TRIMMED_FILE",
    "CHECKPOINT_FILE",
    "CHECKPOINT_PREFIX",
    "EMBEDDINGS_PREFIX",
    "STATE_FILE",
    "STATE_PREFIX",
    "TRIMMED_PREFIX",
    "UNFINISHED",
    "Leftover",
    "find_leftovers",
    "folder_size",
    "remove_folder",
    "remove_leftovers",
    "size_text",
]

CHECKPOINT_PREFIX = "checkpoint-"  # that of transformers
CHECKPOINT_FILE = "checkpoint.json"
"""List of a checkpoint's files, written when all of them are there."""
UNFINISHED = ".unfinished-"
"""Before the name of a checkpoint that is being written, and of any of these folders that is being removed."""
EMBEDDINGS_PREFIX = "embeddings-"
ABOUT_EMBEDDINGS_FILE = "about.json"
"""In a folder of cached embeddings: what they are of."""
TRIMMED_PREFIX = "trimmed-"
ABOUT_TRIMMED_FILE = "trimmed.json"
"""In a folder of a checkpoint whose vocabulary was trimmed: what it was made of."""
STATE_PREFIX, STATE_FILE = "state-", "encoder.safetensors"
"""Folder of an encoder after some epochs of its training, and the file of its weights."""

_CHECKPOINT = re.compile(rf"{CHECKPOINT_PREFIX}\d+")
_HALF = re.compile(rf"{re.escape(UNFINISHED)}(.+?)(\.old)?")
_EMBEDDINGS = re.compile(rf"{EMBEDDINGS_PREFIX}[0-9a-f]{{32}}")
_TRIMMED = re.compile(rf"{TRIMMED_PREFIX}[0-9a-f]{{32}}")
_STATE = re.compile(rf"{STATE_PREFIX}\d+(\.\d+)?")
# Folders inside an output folder that hold nothing but leftovers; those that are empty go with these.
_HOLDERS = re.compile(rf"cache|retriever|embeddings|encoder(-[0-9a-f]+)?|{_STATE.pattern}")
_RESULT_FILE = "result.json"  # of a finished run of an experiment
_Kind = Literal["checkpoint", "embeddings", "trimmed"]
# Name of a folder, the file that tells it from others of that name, and its kind.
_FORMS: tuple[tuple[re.Pattern[str], str, _Kind], ...] = (
    (_EMBEDDINGS, ABOUT_EMBEDDINGS_FILE, "embeddings"),
    (_TRIMMED, ABOUT_TRIMMED_FILE, "trimmed"),
    (_STATE, STATE_FILE, "checkpoint"),
    (_CHECKPOINT, CHECKPOINT_FILE, "checkpoint"),
)
_UNITS = ("bytes", "kB", "MB", "GB", "TB")


@dataclass(frozen=True)
class Leftover:
    """A folder that can be removed without harm to a model.

    Attributes:
        path: the folder.
        kind: `embeddings`, and a checkpoint whose vocabulary was `trimmed`, are made again where they are needed; a
            `checkpoint` serves to continue a run.
        size: bytes of its files.
        is_needed: whether it is the checkpoint of a run that is not finished.
    """

    path: Path
    kind: _Kind
    size: int
    is_needed: bool

    @property
    def owner(self) -> Path:
        """The output folder of the run that left it."""
        owner = self.path.parent
        while _HOLDERS.fullmatch(owner.name) and not _is_finished(owner):
            owner = owner.parent
        return owner


def find_leftovers(folder: str | Path) -> list[Leftover]:
    """The caches and checkpoints in a folder and below it, sorted by path.

    Args:
        folder: where to look.
    """
    found = []
    for place, names, _ in os.walk(folder, followlinks=False):
        names.sort()
        for name in list(names):
            path = Path(place, name)
            kind = _kind(path)
            if kind is not None:
                names.remove(name)  # it is not looked into
                one = Leftover(path, kind, folder_size(path), is_needed=False)
                found.append(replace(one, is_needed=kind == "checkpoint" and not _is_finished(one.owner)))
    return sorted(found, key=lambda one: one.path)


def _kind(path: Path) -> _Kind | None:
    if path.is_symlink():
        return None
    half = _HALF.fullmatch(path.name)  # what was being written or removed when its process died
    for pattern, file, kind in _FORMS:
        if pattern.fullmatch(half[1] if half else path.name) and (half or (path / file).is_file()):
            return kind
    return None


def _is_finished(folder: Path) -> bool:
    """Whether an output folder holds a model, an index, or the result of a run of an experiment."""
    return any((folder / name).is_file() for name in (REPORT_FILE, SCORE_MODEL_FILE, _RESULT_FILE))


def remove_leftovers(leftovers: list[Leftover], root: str | Path) -> None:
    """Remove folders, and those around them, below `root`, that held nothing else.

    Args:
        leftovers: what [`find_leftovers`] found.
        root: the folder that was looked through.

    Raises:
        ConfigurationError: if a command is writing into the folder that one of them is of, or into one around it, as
            an experiment does.
        SaveError: if there is no permission.
    """
    for one in leftovers:
        with ExitStack() as stack:
            for folder in (one.owner, *written_around(one.owner)):
                stack.enter_context(sole_writer(folder, command="xlgen clean"))
            with save_errors(one.path):
                remove_folder(one.path)
        for parent in _holders_of(one.path, Path(root)):
            with suppress(OSError):  # it holds something else
                parent.rmdir()


def remove_folder(folder: Path) -> None:
    """Remove a checkpoint or a cache; it loses its name first, so that no part of it is taken for the whole.

    Args:
        folder: the folder.
    """
    aside = folder
    if not folder.name.startswith(UNFINISHED):
        aside = folder.with_name(f"{UNFINISHED}{folder.name}.old")
        shutil.rmtree(aside, ignore_errors=True)
        os.replace(folder, aside)
    shutil.rmtree(aside)


def _holders_of(path: Path, root: Path) -> Iterator[Path]:
    for parent in path.parents:
        if parent == root or not _HOLDERS.fullmatch(parent.name):
            return
        yield parent


def folder_size(folder: str | Path) -> int:
    """Bytes of the files in a folder and below it; links count nothing."""
    return sum(path.lstat().st_size for path in Path(folder).rglob("*") if path.is_file() and not path.is_symlink())


def size_text(size: float) -> str:
    """A number of bytes for people to read, such as `102 MB`."""
    for unit in _UNITS[:-1]:
        if round(size) < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.0f} {_UNITS[-1]}"
