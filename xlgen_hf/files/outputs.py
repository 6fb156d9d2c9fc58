"""Claims on outputs: a command replaces nothing that it did not begin, and one process writes at a time."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TypedDict

from ..errors import ConfigurationError, ModelFolderError, SaveError
from .atomic import (
    follow_umask,
    is_running,
    is_unfinished,
    remove_dead_below,
    save_errors,
    try_lock,
    unfinished_folder,
)
from .saving import finish_interrupted_save, link_or_copy
from .schema import Fields, anything, integer, mapping_of, shown, string
from .serialization import JSON

__all__ = [
    "RECORD_FILE",
    "Record",
    "change_folder",
    "claim_file",
    "claim_files",
    "claim_folder",
    "differences",
    "record_form",
    "refuse_existing",
    "refuse_source",
    "sole_writer",
    "written_around",
]

RECORD_FILE = ".xlgen-output.json"
"""In an output folder: the command that began it."""

_LOCK = ".xlgen-lock"
_POLL = 0.1  # seconds between two looks at a lock that another process holds
_SHOWN = 5  # names, or differences, that a message spells out


class _Owner(TypedDict):
    process: int
    host: str
    command: str
    since: str


class Record(TypedDict):
    """What was run to make an output, and with which settings."""

    command: str
    settings: dict[str, JSON]


def record_form(made_by: str) -> Fields[Record]:
    """The form of a file that holds a [`Record`]; `made_by` as for [`Fields`]."""
    return Fields[Record]({"command": string(), "settings": mapping_of(anything())}, format_version=1, made_by=made_by)


_LOCK_FORM = Fields[_Owner]({"process": integer(), "host": string(), "command": string(), "since": string()})
_RECORD_FORM = record_form("xlgen")


@contextmanager
def claim_file(path: str | Path, *, command: str, overwrite: bool = False) -> Iterator[Path]:
    """Be the one process that writes a file, which must not be there yet.

    Args:
        path: the file; its folder is made where it is missing.
        command: what writes it, for others' messages, e.g. `xlgen evaluate`.
        overwrite: whether a file that is there may be replaced.

    Raises:
        ConfigurationError: if the file is there and `overwrite` is not set, or another process is writing it.
        SaveError: if its folder cannot be written.
    """
    path = Path(path)
    refuse_existing(path, overwrite=overwrite)
    with sole_writer(path, command=command):
        refuse_existing(path, overwrite=overwrite)  # the process that was writing it has just finished
        yield path


@contextmanager
def claim_files(
    paths: Iterable[str | Path | None], *, command: str, overwrite: bool = False
) -> Iterator[Callable[[str | Path], Path]]:
    """Be the one process that writes some files, which take their places together when the block ends well.

    Args:
        paths: the files, as [`claim_file`] takes one; None stands for none.
        command: what writes them, for others' messages.
        overwrite: whether files that are there may be replaced.

    Yields:
        What says where a file is to be written until then. One that is not written is left out; what stood in its
        place, of an earlier run, is removed.

    Raises:
        ConfigurationError: see [`claim_file`]; or if a file is named twice.
        SaveError: if a file cannot be written. All that stood there before is as it was.
    """
    aside: dict[Path, Path] = {}
    with ExitStack() as stack:
        for path in (Path(one) for one in paths if one is not None):
            if path in aside:
                raise ConfigurationError(f"{path} is to be written twice by one command. Give different names.")
            stack.enter_context(claim_file(path, command=command, overwrite=overwrite))
            with save_errors(path):
                aside[path] = stack.enter_context(unfinished_folder(path.parent)) / path.name
        try:
            yield lambda path: aside[Path(path)]
        except SaveError as err:
            final = next((path for path, place in aside.items() if place == err.target), err.target)
            raise SaveError(final, err.reason) from err
        _take_places(aside)


def _take_places(aside: Mapping[Path, Path]) -> None:
    """Put files in their places; where one fails, those that stood there before come back."""
    before = {path: place.with_name(f"{place.name}.before") for path, place in aside.items()}
    try:
        for path, place in aside.items():
            with save_errors(path):
                if path.is_file():
                    link_or_copy(path, before[path])
                if place.exists():
                    follow_umask(place.parent)
                    os.replace(place, path)
                elif path.is_file():
                    path.unlink()
    except BaseException:
        for path, kept in before.items():
            if os.path.lexists(kept):
                os.replace(kept, path)
        raise


def refuse_source(folder: Path, source: str | Path) -> None:
    """Refuse to write a model into the folder that it is made of.

    Args:
        folder: the folder that is to be written.
        source: the folder, or id on the Hub, of the model that is read.

    Raises:
        ConfigurationError: if both are the same.
    """
    if folder.is_dir() and Path(source).is_dir() and folder.samefile(source):
        raise ConfigurationError(
            f"{folder} is the model that is read, which the new one would replace. Choose another output folder."
        )


def refuse_existing(path: Path, *, overwrite: bool) -> None:
    """Refuse to replace a file.

    Args:
        path: the file.
        overwrite: whether it may be replaced.

    Raises:
        ConfigurationError: if it is there and may not, or is a folder.
    """
    if path.is_dir():
        raise ConfigurationError(f"{path} is a folder, where a file is to be written. Give the name of a file in it.")
    if os.path.lexists(path) and not overwrite:
        _remove_dead_lock(_lock_of(path))  # of a process that was killed when all but that was done
        raise ConfigurationError(
            f"{path} exists already and is not replaced. Choose another name, or give --overwrite."
        )


@contextmanager
def claim_folder(
    folder: str | Path, *, command: str, settings: Mapping[str, object] | None = None, overwrite: bool = False
) -> Iterator[Path]:
    """Be the one process that writes into a folder, which must be new, empty, or begun by the same command.

    A save into the folder that was interrupted is finished first, and what killed processes left is removed. A block
    that fails before it has written anything leaves no folder.

    Args:
        folder: the folder; it is made where it is missing.
        command: the command, e.g. `xlgen index`. It is noted in the folder.
        settings: what the command was given, as JSON, where the same command with other settings must not write into
            the folder; None where it may.
        overwrite: whether a folder that holds something else may be written into; what is there stays, unless a file
            of the same name is written.

    Raises:
        ConfigurationError: if the folder holds something else and `overwrite` is not set, or another process is
            writing into it.
        SaveError: if the folder cannot be written.
    """
    folder = Path(folder)
    if folder.exists() and not folder.is_dir():
        raise ConfigurationError(f"{folder} is a file, where a folder is to be written. Choose another name.")
    record: Record = {"command": command, "settings": json.loads(json.dumps(settings or {}, default=str))}
    if not overwrite:
        _refuse_others(folder, record)
    with ExitStack() as stack:
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        stack.callback(_remove_empty, missing)
        with save_errors(folder):
            folder.mkdir(parents=True, exist_ok=True)
        stack.enter_context(change_folder(folder, command=command))
        if not overwrite:
            _refuse_others(folder, record)
        if not _is_noted(folder, record):
            _RECORD_FORM.write(folder / RECORD_FILE, record)
        try:
            yield folder
        except BaseException:
            if _content(folder) == [RECORD_FILE]:  # it has begun nothing
                (folder / RECORD_FILE).unlink()
            raise


@contextmanager
def change_folder(folder: str | Path, *, command: str) -> Iterator[Path]:
    """Be the one process that changes what is in a folder.

    A save into it that was interrupted is finished first, and what killed processes left is removed.

    Args:
        folder: the folder.
        command: the command, for others' messages.

    Raises:
        ConfigurationError: if there is no such folder, or another process is writing into it.
        SaveError: if it cannot be written.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ConfigurationError(f"There is no folder {str(folder)!r} to change.")
    with sole_writer(folder, command=command):
        finish_interrupted_save(folder)
        remove_dead_below(folder)
        yield folder


def _is_noted(folder: Path, record: Record) -> bool:
    try:
        return _RECORD_FORM.read(folder / RECORD_FILE) == record
    except ModelFolderError:
        return False


def _remove_empty(folders: Iterable[Path]) -> None:
    """Remove folders, the deepest first, as far as nothing is in them."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _refuse_others(folder: Path, record: Record) -> None:
    """Refuse a folder that holds something which another command, or the same with other settings, has written."""
    content = _content(folder)
    if not content:
        return
    if RECORD_FILE not in content:
        raise ConfigurationError(
            f"{folder} holds {_listed(content)}, which `{record['command']}` did not write. Choose another folder, or "
            "give --overwrite."
        )
    before = _RECORD_FORM.read(folder / RECORD_FILE)
    if before["command"] != record["command"]:
        raise ConfigurationError(
            f"{folder} was written by `{before['command']}`, not by `{record['command']}`. Choose another folder, or "
            "give --overwrite."
        )
    different = differences(before["settings"], record["settings"])
    if different:
        raise ConfigurationError(
            f"{folder} was written by the same command with other settings: {different}. Choose another folder, or "
            "give --overwrite."
        )


def _content(folder: Path) -> list[str]:
    """The names in a folder, but for the lock and what is being written aside."""
    found = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return [name for name in found if name != _LOCK and not is_unfinished(Path(name))]


def _listed(names: list[str]) -> str:
    listed = ", ".join(names[:_SHOWN])
    return listed if len(names) <= _SHOWN else f"{listed} and {len(names) - _SHOWN} more"


def differences(before: Mapping[str, object], now: Mapping[str, object]) -> str:
    """In which settings two runs differ, in words; "" if in none.

    Args:
        before: settings of the earlier run, by name.
        now: those of this one.
    """
    names = [name for name in sorted({*before, *now}) if before.get(name) != now.get(name)]
    told = [f"{name} is {shown(now.get(name))}, was {shown(before.get(name))}" for name in names[:_SHOWN]]
    return "; ".join(told) + (f"; and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


# ---------------------------------------------------------------------------------------------------- locks


@contextmanager
def sole_writer(path: str | Path, *, command: str, timeout: float = 0) -> Iterator[None]:
    """Keep others from writing an output as long as the block runs; a process that dies keeps nobody out.

    Args:
        path: a file, or a folder that is there.
        command: what writes it, for others' messages.
        timeout: seconds to wait until another process has ended.

    Raises:
        ConfigurationError: if another process is writing it all that time; the message says which.
        SaveError: if the folder cannot be written.
    """
    place = Path(path)
    lock = _lock_of(place)
    missing = [folder for folder in lock.parents if not folder.exists()]
    with save_errors(place):
        lock.parent.mkdir(parents=True, exist_ok=True)
        handle = _take(lock, place, time.monotonic() + timeout)
    try:
        with save_errors(place):
            os.ftruncate(handle, 0)
            os.lseek(handle, 0, os.SEEK_SET)
            os.write(handle, json.dumps(_owner(command)).encode())
        yield
    finally:
        with suppress(OSError):
            lock.unlink()
        os.close(handle)
        _remove_empty(missing)


def written_around(folder: Path) -> list[Path]:
    """The folders around one that a process is writing into, or was when it died: those with its lock."""
    return [place for place in folder.absolute().parents if (place / _LOCK).is_file()]


def _lock_of(place: Path) -> Path:
    return place / _LOCK if place.is_dir() else place.with_name(f".{place.name}{_LOCK}")


def _remove_dead_lock(lock: Path) -> None:
    """Remove a lock file that no process holds."""
    with suppress(OSError):
        handle = os.open(lock, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
        try:
            if try_lock(handle, exclusive=True):
                lock.unlink()
        finally:
            os.close(handle)


def _owner(command: str) -> _Owner:
    since = datetime.now(timezone.utc).astimezone().isoformat(" ", "seconds")
    return {"process": os.getpid(), "host": socket.gethostname(), "command": command, "since": since}


def _take(lock: Path, place: Path, until: float) -> int:
    """Open a lock file and lock it, at a moment of the monotonic clock at the latest."""
    while True:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0), 0o666)
        try:
            taken = try_lock(handle, exclusive=True)
            if taken is False or (taken is None and _is_alive(_read_owner(lock))):
                if time.monotonic() >= until:
                    raise ConfigurationError(_busy(place, _read_owner(lock)))
                time.sleep(_POLL)
            # The former owner may have removed the file between our opening and our locking it.
            elif _is_same(handle, lock):
                return handle
        except BaseException:
            os.close(handle)
            raise
        os.close(handle)


def _is_same(handle: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(handle), os.stat(path))
    except FileNotFoundError:
        return False


def _read_owner(lock: Path) -> _Owner | None:
    """What a lock file says of its owner; None where that is still being written."""
    try:
        return _LOCK_FORM.read(lock)
    except ModelFolderError:
        return None


def _is_alive(owner: _Owner | None) -> bool:
    """Whether a lock still counts on a file system without locks."""
    return owner is not None and (owner["host"] != socket.gethostname() or is_running(owner["process"]))


def _busy(place: Path, owner: _Owner | None) -> str:
    who = "another process"
    if owner:
        who = f"process {owner['process']} on {owner['host']} (`{owner['command']}`, since {owner['since']})"
    return f"{place} is being written by {who}. Wait until it has ended, or choose another place."
