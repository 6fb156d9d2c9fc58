"""Whole folders of models: a save changes them at one moment, and a reader sees the state before or after it.

A save is written aside. Its commit is one rename, to `.xlgen-finished`: that folder then holds the whole new state of
the model (new files, and links to those that stay), and readers go there. The saver then moves the new files to their
places and takes the folder away. Where it dies in between, readers go on reading `.xlgen-finished`, and the next save
moves the files. Reading never changes anything.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext, suppress
from pathlib import Path, PurePosixPath
from stat import S_ISDIR
from typing import TypedDict, TypeVar

from ..errors import ModelFolderError, SaveError
from .atomic import discard, follow_umask, is_unfinished, lock_folder, reason_of, save_errors, unfinished_folder
from .model_folder import download_patterns, files_of_model, obsolete_files, variant_of
from .schema import Fields, integer, strings

__all__ = [
    "current_folder",
    "finish_interrupted_save",
    "folder_state",
    "link_or_copy",
    "local_model",
    "plain_folder",
    "read_folder",
    "replace_files",
]

_READY = ".xlgen-finished"
_NEW = ".new"  # in it: the new files, to be moved to their places
_MANIFEST = ".save.json"


class _Manifest(TypedDict):
    inode: int
    obsolete: list[str]


_FORM = Fields[_Manifest](
    {"inode": integer(), "obsolete": strings()}, format_version=1, made_by="the command that saved"
)
_ATTEMPTS = 5
_LONGEST_WAIT = 60.0  # seconds that a save waits for readers before it continues: they notice, and read again

_Loaded = TypeVar("_Loaded")


# ---------------------------------------------------------------------------------------------------- reading


def read_folder(folder: str | Path, load: Callable[[Path], _Loaded]) -> _Loaded:
    """Load something from a model's folder as of one moment, whatever is saved there meanwhile.

    Args:
        folder: the folder, or what [`current_folder`] said of it.
        load: loads from the folder that it is given, and changes nothing. It is called again if the files changed
            while it was reading.

    Returns:
        What `load` returns.

    Raises:
        ModelFolderError: if the folder changes all the time, or holds an interrupted save of elsewhere.
    """
    if __package__ == "xlgen_hf.files":
        return _as_of_one_moment(plain_folder(Path(folder)), load)
    return load(Path(folder))  # nothing saves where a copy of the code is used without the package


def _as_of_one_moment(folder: Path, load: Callable[[Path], _Loaded]) -> _Loaded:
    for attempt in range(_ATTEMPTS):
        # Who has been disturbed once asks saves to wait, by a lock that they respect.
        waiting = lock_folder(folder, exclusive=False, timeout=_LONGEST_WAIT) if attempt else nullcontext()
        with waiting:
            source = current_folder(folder)
            before = _state(source)
            try:
                loaded = load(source)
            except Exception:
                if _is_still(folder, source, before):
                    raise
                continue
            if _is_still(folder, source, before):
                return loaded
    raise ModelFolderError(f"{folder} was changed each of the {_ATTEMPTS} times that it was read. Try again later.")


def _is_still(folder: Path, source: Path, state: list[tuple[int, ...] | None]) -> bool:
    """Whether no save has changed what was read; the order matters, as a save may end between the two looks."""
    return current_folder(folder) == source and _state(source) == state


def current_folder(folder: str | Path) -> Path:
    """Where the files of a model's folder are at the moment: in it, or, where a save was interrupted, set aside in it.

    Args:
        folder: the folder.

    Raises:
        ModelFolderError: if there is such a save, but of another folder: it came with a copy or a clone.
    """
    folder = Path(folder)
    ready = folder / _READY
    for last in (False, True):
        if not os.path.lexists(ready):
            break
        try:
            _read_manifest(ready)
        except ModelFolderError:
            if last:
                raise  # the first time, the save may have been finished just then
        else:
            return ready
    return folder


def local_model(name: str | Path, options: dict[str, object], *parts: str) -> Path:
    """The folder of a model; one on the Hub is brought here first, all files of one commit.

    Args:
        name: a folder, or a Hub id.
        options: those of `from_pretrained`; the ones about the Hub are taken out where they served.
        parts: the parts of the model that are needed (see `model_folder.PARTS`); all if none is named.

    Raises:
        HubError: if it is not a folder, and the Hub does not give it.
        ModelFolderError: if it is a file, or the folder holds an interrupted save of elsewhere.
    """
    folder, below = Path(name), str(options.pop("subfolder", None) or "")
    if folder.is_dir():
        folder = folder / below
        if __package__ == "xlgen_hf.files":
            return current_folder(folder)
        return folder
    if folder.is_file():
        raise ModelFolderError(f"{folder} is a file, where the folder of a model is needed.")
    from .downloads import HUB_OPTIONS, download, hub_options  # the Hub's client, which a folder does without

    of_hub, variant = hub_options(options), None if parts else variant_of(options)
    for key in (*HUB_OPTIONS, "_commit_hash"):
        options.pop(key, None)
    patterns = download_patterns(*parts, variant=variant)
    return download(str(name), [str(PurePosixPath(below, one)) for one in patterns], of_hub) / below


def plain_folder(folder: Path) -> Path:
    """The folder that a save belongs to, given it or what [`current_folder`] said of it."""
    return folder.parent if folder.name == _READY else folder


def folder_state(folder: str | Path) -> object:
    """What tells the files of a model's folder from others that take their places: equal as long as no file changed.

    Args:
        folder: the folder; one that is missing has no files.

    Raises:
        ModelFolderError: if the folder holds an interrupted save of elsewhere.
    """
    source = current_folder(folder)
    return (source, *_state(source))


def _read_manifest(ready: Path) -> list[str]:
    """The files that a finished save removes, after a check that it was made here, in this very folder.

    A copy, a clone or an archive cannot know the inode that the folder will have.
    """
    with suppress(OSError, ModelFolderError):
        info = os.lstat(ready)
        content = _FORM.read(ready / _MANIFEST) if S_ISDIR(info.st_mode) else None
        if content and content["inode"] == info.st_ino and all(map(_stays_inside, content["obsolete"])):
            return content["obsolete"]
    raise ModelFolderError(
        f"{ready} was not left by a save of {ready.parent}: it came with a copy of a folder. Remove it; where the "
        "model does not load then, copy it again."
    )


def _state(folder: Path) -> list[tuple[int, ...] | None]:
    """What tells the files of a model from others that take their places."""
    return [_identity(folder), *(_identity(folder / name) for name in files_of_model(folder))]


def _identity(path: Path) -> tuple[int, ...] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return (info.st_ino,) if S_ISDIR(info.st_mode) else (info.st_ino, info.st_mtime_ns, info.st_size)


# ---------------------------------------------------------------------------------------------------- saving


@contextmanager
def replace_files(folder: str | Path) -> Iterator[Path]:
    """Give a folder to write into; its files take their places in `folder` at one moment, when the block ends well.

    Of the files that were there, those go that belong to a part of the model which is saved again (see
    `model_folder.PARTS`); all others stay.

    Args:
        folder: the folder of a model; it need not exist.

    Raises:
        SaveError: if the files cannot be written, because the disk is full or there is no permission, or would take
            their places outside of the folder, through a link in it. `folder` is then as it was.
        ModelFolderError: if the folder holds an interrupted save of elsewhere, or the files cannot take their places
            though they were written.
    """
    folder = Path(folder)
    if is_unfinished(folder):  # a part of a save that is written aside as a whole
        with save_errors(folder):
            yield folder
        return
    with save_errors(folder), unfinished_folder(folder) as aside:
        yield aside
        follow_umask(aside)
        with lock_folder(folder, exclusive=True, timeout=_LONGEST_WAIT):
            _finish(folder)
            _prepare(folder, aside)
            os.replace(aside, folder / _READY)
            _finish(folder)


def finish_interrupted_save(folder: str | Path) -> None:
    """Put files in their places that a process wrote whole and had no time to put there.

    For commands that are about to write into the folder; those that read it see these files in any case.

    Args:
        folder: the folder of a model; nothing is done where there is no such folder, or nothing to finish.

    Raises:
        ModelFolderError: if the save was made elsewhere, or the files cannot take their places.
    """
    folder = Path(folder)
    if os.path.lexists(folder / _READY):
        with lock_folder(folder, exclusive=True, timeout=_LONGEST_WAIT):
            _finish(folder)


def _prepare(folder: Path, aside: Path) -> None:
    """Make the whole new state of the model out of the new files, and say what is to be done in the end."""
    new = _files_below(aside)
    obsolete = obsolete_files(folder, new)
    for name in (*new, *obsolete):
        _check_place(folder, name)
    for name in new:
        link_or_copy(aside / name, aside / _NEW / name)
    for name in set(files_of_model(folder)) - {*new, *obsolete}:
        (aside / name).parent.mkdir(parents=True, exist_ok=True)
        os.symlink(Path(*[".."] * (name.count("/") + 1), name), aside / name)
    _FORM.write(aside / _MANIFEST, {"inode": aside.stat().st_ino, "obsolete": obsolete})


def link_or_copy(source: Path, target: Path) -> None:
    """Put a file into a further place on the same disk, without taking room where the file system has hard links.

    Args:
        source: the file; what a link leads to.
        target: the further place; its folder is made where it is missing.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(source.resolve(), target)
    except FileExistsError:
        raise
    except OSError:  # a file system without hard links
        shutil.copy2(source, target)


def _finish(folder: Path) -> None:
    """Move the files of a finished save to their places; a second call continues where the first one ended."""
    ready = folder / _READY
    if not os.path.lexists(ready):
        return
    obsolete = _read_manifest(ready)
    try:
        for name in obsolete:
            _check_place(folder, name)
            (folder / name).unlink(missing_ok=True)
        for name in _files_below(ready / _NEW):
            _check_place(folder, name)
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            with suppress(FileNotFoundError):  # another process has moved it
                os.replace(ready / _NEW / name, folder / name)
        for place in sorted({parent for name in obsolete for parent in PurePosixPath(name).parents}, reverse=True):
            with suppress(OSError):  # it holds files of others
                if place.name:
                    (folder / place).rmdir()
        discard(ready)
    except OSError as err:
        raise ModelFolderError(
            f"The files that were saved to {folder} are whole, but cannot take their places: {reason_of(err)}. They "
            f"are read from {ready.name} meanwhile; make the folder writable, and save again."
        ) from err


def _check_place(folder: Path, name: str) -> None:
    """Refuse a place to which a link inside of the folder leads, or where there is a folder."""
    for parent in PurePosixPath(name).parents:
        if parent.name and (folder / parent).is_symlink():
            raise SaveError(folder, f"{folder / parent} is a link, which a save does not follow")
    if (folder / name).is_dir() and not (folder / name).is_symlink():
        raise SaveError(folder, f"{folder / name} is a folder, where a file must be written")


def _files_below(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def _stays_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return bool(path.name) and not path.is_absolute() and ".." not in path.parts and "\\" not in name
