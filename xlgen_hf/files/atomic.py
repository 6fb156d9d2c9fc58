"""Files and folders that are written aside and renamed, so that a write that is interrupted leaves what stood there.

Everything is written into a folder of its own next to its place, `.xlgen-unfinished-PID-N`, together with what the
libraries that write it leave. The folder is locked by its writer as long as that lives, so the next write in
the same place knows what nobody will ever finish, and removes it.
"""

from __future__ import annotations

import errno
import itertools
import os
import re
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from ..errors import SaveError

__all__ = [
    "atomic_path",
    "discard",
    "follow_umask",
    "is_running",
    "is_unfinished",
    "lock_folder",
    "reason_of",
    "remove_dead_below",
    "save_errors",
    "try_lock",
    "unfinished_folder",
]

_UNFINISHED = ".xlgen-unfinished-"  # + process id + "-" + a number
_NAME = re.compile(re.escape(_UNFINISHED) + r"(\d+)-\d+")
_OS_ERROR = re.compile(r"\(os error (\d+)\)")  # in what the Rust libraries (safetensors, tokenizers) raise
_OLD = 60.0  # seconds after which a folder that nobody locks is nobody's, even if its process id is in use again
_POLL = 0.01
_numbers = itertools.count()
_own: set[str] = set()  # names of the folders that this process has made and not removed yet
# Without it (Windows) writers are told apart by their process ids alone.
_fcntl: ModuleType | None = import_module("fcntl") if find_spec("fcntl") else None


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Give a path to write to; it takes the place of `path`, readable as the umask says, when the block ends well.

    Args:
        path: the file; its folder is made where it is missing.

    Raises:
        SaveError: if it cannot be written (disk full, no permission, quota).
    """
    path = Path(path)
    if path.exists() and not path.is_file():  # /dev/null would be gone
        raise SaveError(path, "it is there and is not a regular file")
    with save_errors(path), unfinished_folder(path.parent) as folder:
        yield folder / path.name
        follow_umask(folder)
        os.replace(folder / path.name, path)


@contextmanager
def unfinished_folder(parent: Path) -> Iterator[Path]:
    """Give a new folder to write into, inside of `parent`; it is removed in the end, with what is left in it.

    Args:
        parent: made where it is missing, and removed again if the block fails and it is empty.
    """
    missing = [place for place in (parent, *parent.parents) if not place.exists()]
    parent.mkdir(parents=True, exist_ok=True)
    _remove_dead(parent)
    folder = _make(parent)
    try:
        with lock_folder(folder, exclusive=True):
            yield folder
    except BaseException:
        _unmake(folder)
        for place in missing:
            with suppress(OSError):  # others have put something into it
                place.rmdir()
        raise
    _unmake(folder)


def is_unfinished(folder: Path) -> bool:
    """Whether a folder is one that [`unfinished_folder`] gave."""
    return _NAME.fullmatch(folder.name) is not None


def discard(folder: Path) -> None:
    """Remove a folder with all that is in it: at one moment for those who look for it.

    Args:
        folder: the folder; nothing is done where it is missing.
    """
    aside = _make(folder.parent)
    with suppress(FileNotFoundError):  # another process was faster
        os.replace(folder, aside)
    _unmake(aside)


def _make(parent: Path) -> Path:
    while True:
        folder = parent / f"{_UNFINISHED}{os.getpid()}-{next(_numbers)}"
        _own.add(folder.name)
        try:
            folder.mkdir()
        except FileExistsError:  # of a process that died and had the same id
            _own.discard(folder.name)
            continue
        except BaseException:
            _own.discard(folder.name)
            raise
        return folder


def _unmake(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    _own.discard(folder.name)


def _remove_dead(parent: Path) -> None:
    """Remove what processes left that died while they were writing here."""
    with os.scandir(parent) as entries:
        found = [
            entry.path for entry in entries if _NAME.fullmatch(entry.name) and entry.is_dir(follow_symlinks=False)
        ]
    for path in found:
        if _is_dead(Path(path)):
            shutil.rmtree(path, ignore_errors=True)


def remove_dead_below(folder: Path) -> None:
    """Remove what processes left that died while they were writing into a folder, or into one in it.

    Args:
        folder: the folder; links in it are not followed.
    """
    for place, names, _ in os.walk(folder):
        names[:] = [name for name in names if not _NAME.fullmatch(name)]
        _remove_dead(Path(place))


def _is_dead(folder: Path) -> bool:
    """Whether no process writes into an unfinished folder any more.

    A writer takes the lock a moment after it has made the folder; its process id covers that moment. In a container
    each process may have the id of the one before.
    """
    match = _NAME.fullmatch(folder.name)
    with suppress(OSError):
        process, age = int(match[1]) if match else 0, time.time() - folder.lstat().st_mtime
        of_own = process == os.getpid()
        if folder.name in _own if of_own else (is_running(process) and age < _OLD):
            return False
        with lock_folder(folder, exclusive=True, timeout=0) as locked:
            return locked or (_fcntl is None and (of_own or age > _OLD))
    return False


def is_running(process: int) -> bool:
    """Whether there is a process with an id on this machine."""
    import psutil

    try:
        return psutil.pid_exists(process)
    except OverflowError:
        return False


# ---------------------------------------------------------------------------------------------------- locks


@contextmanager
def lock_folder(folder: Path, *, exclusive: bool, timeout: float | None = None) -> Iterator[bool]:
    """Lock a folder itself, without a file for it; the system releases the lock of a process that dies.

    Args:
        folder: the folder.
        exclusive: whether nobody else may hold the lock; else others may share it.
        timeout: seconds to wait for others; as long as it takes if None.

    Yields:
        Whether the lock was taken; False after the timeout, and where the file system has no locks.
    """
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:  # unreadable, or a folder that Windows cannot open
        yield False
        return
    try:
        yield bool(try_lock(handle, exclusive=exclusive, timeout=timeout))
    finally:
        os.close(handle)


def try_lock(handle: int, *, exclusive: bool, timeout: float | None = 0) -> bool | None:
    """Lock an open file or folder.

    Args:
        handle: its file descriptor; closing it releases the lock.
        exclusive: see [`lock_folder`].
        timeout: see [`lock_folder`].

    Returns:
        Whether the lock was taken; None where the file system has no locks.
    """
    if _fcntl is None:
        return None
    how = _fcntl.LOCK_EX if exclusive else _fcntl.LOCK_SH
    end = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            _fcntl.flock(handle, how | _fcntl.LOCK_NB)
        except BlockingIOError:
            if end is not None and time.monotonic() >= end:
                return False
            time.sleep(_POLL)
        except OSError:  # a file system without locks
            return None
        else:
            return True


# ---------------------------------------------------------------------------------------------------- rights, errors


def follow_umask(folder: Path) -> None:
    """Give all files below a new folder the rights that the umask wants: safetensors writes files for the owner alone.

    Args:
        folder: a folder that this process made, whose own rights show the umask.
    """
    mode = folder.stat().st_mode & 0o666
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink() and path.stat().st_mode & 0o777 != mode:
            path.chmod(mode)


@contextmanager
def save_errors(target: Path) -> Iterator[None]:
    """Turn what system and libraries say of a write that fails into a `SaveError`; other errors pass.

    Args:
        target: the file or folder that is written.

    Raises:
        SaveError: if the disk is full, the file too large, or there is no permission.
    """
    target = Path(target)
    try:
        yield
    except SaveError as err:  # of a part that is saved in the same way
        if err.target == target:
            raise
        raise SaveError(target, err.reason) from err
    except Exception as err:  # the Rust library of tokenizers raises `Exception` itself
        number = _errno(err)
        if number is None or not _concerns(getattr(err, "filename", None), target):
            raise
        raise SaveError(target, os.strerror(number)) from err


def _concerns(name: object, target: Path) -> bool:
    """Whether an error about a file is one about the target: about itself, what is in it, around it, or aside."""
    if not isinstance(name, (str, bytes)):  # a write into an open file fails without a name
        return True
    path = Path(os.fsdecode(name))
    return target.is_relative_to(path) or path.is_relative_to(target) or _UNFINISHED in str(path)


def reason_of(err: OSError) -> str:
    """What the system says of an error, with the name of the file where it is known."""
    name = f" ({os.fsdecode(err.filename)})" if isinstance(err.filename, (str, bytes)) else ""
    return f"{err.strerror or err}{name}"


def _errno(err: Exception) -> int | None:
    """The system's number of an error, if it is of the system."""
    if isinstance(err, OSError):
        return err.errno
    match = _OS_ERROR.search(str(err))
    return int(match[1]) if match and int(match[1]) in errno.errorcode else None
