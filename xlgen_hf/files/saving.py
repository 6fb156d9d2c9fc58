"""Saving of whole folders: written aside, then renamed, so that an interrupted save leaves the old model whole."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from ..errors import ModelFolderError, SaveError
from .serialization import read_json, write_json

__all__ = ["finish_interrupted_save", "replace_files"]

_ASIDE = ".xlgen-unfinished"  # with the id of the process behind it
_READY = ".xlgen-finished"
_MANIFEST = ".manifest.json"
# Files that say what kind of model a folder holds: of these, none of an older model may stay beside a newer one.
_WEIGHTS = (
    "model*.safetensors", "model.safetensors.index.json", "pytorch_model*.bin*", "adapter_config.json",
    "adapter_model.*",
)  # fmt: skip


@contextmanager
def replace_files(folder: str | Path) -> Iterator[Path]:
    """Give a folder to write into; its files take their places in `folder` together, when the block ends well.

    Files of `folder` that are not written anew stay, but for weights of an older model. Where the process dies while
    the files take their places, the next load or save brings it to its end.

    Args:
        folder: the folder of a model; it need not exist.

    Raises:
        SaveError: if the files cannot be written, for want of space or of rights. `folder` is then as it was.
    """
    folder = Path(folder)
    aside = folder / f"{_ASIDE}-{os.getpid()}"
    existed = folder.is_dir()
    try:
        finish_interrupted_save(folder)
        shutil.rmtree(aside, ignore_errors=True)
        aside.mkdir(parents=True)
        yield aside
        write_json(aside / _MANIFEST, sorted(_relative_files(aside)))
        os.replace(aside, folder / _READY)
    except (OSError, SafetensorError) as err:
        _remove(aside, folder, existed)
        if isinstance(err, SaveError):  # of a part that is saved in the same way
            raise SaveError(folder, err.reason) from err
        if isinstance(err, OSError) and err.errno is None:
            raise  # not of the disk, but of the Hub
        raise SaveError(folder, str(getattr(err, "strerror", None) or err)) from err
    except BaseException:  # Ctrl-C too
        _remove(aside, folder, existed)
        raise
    finish_interrupted_save(folder)


def finish_interrupted_save(folder: str | Path) -> None:
    """Put files in their places that a process wrote whole and had no time to put there.

    Args:
        folder: the folder of a model; nothing is done where there is no such folder, or nothing to finish.

    Raises:
        ModelFolderError: if the files cannot be put in their places.
    """
    folder = Path(folder)
    ready = folder / _READY
    if not ready.is_dir():
        return
    names = read_json(ready / _MANIFEST)
    if not isinstance(names, list) or not all(isinstance(name, str) and _stays_inside(name) for name in names):
        raise ModelFolderError(f"{ready / _MANIFEST} is no list of file names. Remove {ready}, which no save wrote.")
    try:
        _remove_older_weights(folder, set(names))
        for name in names:
            if (ready / name).exists():  # else it is in its place already
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(ready / name, folder / name)
        shutil.rmtree(ready)
    except OSError as err:
        raise ModelFolderError(
            f"A save of {folder} was interrupted, and its files in {ready.name} cannot be put in their places: "
            f"{err.strerror}. Make the folder writable and load it once."
        ) from err


def _remove_older_weights(folder: Path, new: set[str]) -> None:
    """Remove weights that the new files do not replace; nothing where the new files hold no weights."""
    of_model = [name for name in new if "/" not in name]  # not those of a retriever's encoder in a folder below
    if any(Path(name).match(pattern) for name in of_model for pattern in _WEIGHTS):
        for pattern in _WEIGHTS:
            for path in folder.glob(pattern):
                if path.name not in new:
                    path.unlink()


def _relative_files(folder: Path) -> Iterator[str]:
    return (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _stays_inside(name: str) -> bool:
    return not name.startswith("/") and ".." not in Path(name).parts and "\\" not in name


def _remove(aside: Path, folder: Path, existed: bool) -> None:
    shutil.rmtree(aside, ignore_errors=True)
    if not existed and folder.is_dir() and not any(folder.iterdir()):
        folder.rmdir()
