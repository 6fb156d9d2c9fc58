"""The journal of a model's folder: what updates changed in it, and the files that stood there before, to undo them.

An update is one save (`replace_files`): new files, the journal, and links to the former files appear at one moment. A
save that is not an update removes the journal, which would no longer be that of the files.
"""

from __future__ import annotations

import filecmp
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime, timezone
from pathlib import Path
from typing import TypedDict

from ..errors import ConfigurationError
from ..version import __version__
from .atomic import discard
from .json_lines import read_jsonl, write_jsonl
from .model_folder import UPDATES_FILE, files_of_model, obsolete_files
from .saving import link_or_copy, replace_files
from .schema import Fields, anything, integer, mapping_of, optional, string
from .serialization import JSON

__all__ = ["PREVIOUS_FOLDER", "UpdateRecord", "read_updates", "save_update", "undo_update"]

PREVIOUS_FOLDER = ".xlgen-previous"
"""In a model's folder: a folder for each update, named by its number, with the files that were there before it."""


class UpdateRecord(TypedDict):
    """An update of a model's folder.

    Attributes:
        number: of the updates of the folder, from 1.
        time: when it was made, ISO 8601.
        xlgen_hf: version of the package.
        request: a digest of what was asked for, by which a repeated command is recognised.
        changes: what changed, by name.
        undone: when it was undone; None if it was not.
    """

    number: int
    time: str
    xlgen_hf: str
    request: str
    changes: dict[str, JSON]
    undone: str | None


_FORM = Fields[UpdateRecord](
    {
        "number": integer(minimum=1),
        "time": string(),
        "xlgen_hf": string(),
        "request": string(),
        "changes": mapping_of(anything()),
        "undone": optional(string()),
    }
)


def read_updates(folder: str | Path) -> list[UpdateRecord]:
    """The updates of a model's folder, oldest first, with those that were undone; none where there is no journal.

    Args:
        folder: the folder.

    Raises:
        ModelFolderError: if the journal is damaged.
    """
    path = Path(folder) / UPDATES_FILE
    if not path.is_file():
        return []
    return [_FORM.check(line, f"{path}, line {number}") for number, line in read_jsonl(path)]


@contextmanager
def save_update(folder: str | Path, request: str, changes: dict[str, JSON], *, keep: int) -> Iterator[Path]:
    """Give a folder to write into, as [`replace_files`] does; the save can be undone.

    Args:
        folder: the model's folder, which no other process may write into.
        request: a digest of what was asked for.
        changes: what changed; read when the block ends.
        keep: number of updates that can be undone; the former files of older ones are removed.

    Raises:
        ConfigurationError: if a file of the folder is a link, as in a cache of the Hub.
        SaveError: if the files cannot be written. The folder is then as it was.
    """
    folder = Path(folder)
    _refuse_links(folder)
    records = read_updates(folder)
    number = len(records) + 1
    _forget(folder, [one["number"] for one in _in_force(records)])  # those of models that stood here before
    with replace_files(folder) as aside:
        yield aside
        if keep:
            _keep_previous(folder, aside, number)
        record = UpdateRecord(
            number=number, time=_now(), xlgen_hf=__version__, request=request, changes=changes, undone=None
        )
        write_jsonl(aside / UPDATES_FILE, [*records, record])
    _forget(folder, [one["number"] for one in _in_force([*records, record])[-keep:]] if keep else [])


def undo_update(folder: str | Path) -> UpdateRecord:
    """Put the files back that stood in a model's folder before its last update that was not undone.

    Args:
        folder: the folder, which no other process may write into.

    Returns:
        The update.

    Raises:
        ConfigurationError: if there is none, or its former files were not kept.
        SaveError: if the files cannot be written. The folder is then as it was.
    """
    folder = Path(folder)
    records = read_updates(folder)
    in_force = _in_force(records)
    if not in_force:
        raise ConfigurationError(f"{folder} has no update that could be undone.")
    last = in_force[-1]
    previous = folder / PREVIOUS_FOLDER / str(last["number"])
    names = files_of_model(previous)
    if not names:
        raise ConfigurationError(
            f"Update {last['number']} of {folder} cannot be undone: the files from before it were not kept. "
            "--keep-previous says how many updates can be undone; it counts from the update on that it is given with."
        )
    undone: UpdateRecord = {**last, "undone": _now()}
    _refuse_links(previous)
    with replace_files(folder) as aside:
        for name in names:
            if name != UPDATES_FILE:
                link_or_copy(previous / name, aside / name)
        write_jsonl(aside / UPDATES_FILE, [undone if one is last else one for one in records])
    _forget(folder, [one["number"] for one in in_force[:-1]])
    return undone


def _keep_previous(folder: Path, aside: Path, number: int) -> None:
    """Put links to the former files of all parts that are saved aside; files that did not change stay the same."""
    new = [path.relative_to(aside).as_posix() for path in aside.rglob("*") if path.is_file()]
    present = set(files_of_model(folder))
    for name in sorted({*present.intersection(new), *obsolete_files(folder, new)}):
        link_or_copy(folder / name, aside / PREVIOUS_FOLDER / str(number) / name)
        if name in new and filecmp.cmp(folder / name, aside / name, shallow=False):
            (aside / name).unlink()
            link_or_copy(folder / name, aside / name)


def _refuse_links(folder: Path) -> None:
    """Refuse a folder whose files are elsewhere, and might be anything of the user's."""
    for name in files_of_model(folder):
        if (folder / name).is_symlink():
            raise ConfigurationError(
                f"{folder / name} is a link, which an update does not follow. Make a copy of the folder (cp -rL), and "
                "update that."
            )


def _in_force(records: Sequence[UpdateRecord]) -> list[UpdateRecord]:
    return [one for one in records if one["undone"] is None]


def _forget(folder: Path, kept: Sequence[int]) -> None:
    """Remove former files but those of some updates; what is no folder of an update stays."""
    place = folder / PREVIOUS_FOLDER
    for found in list(place.iterdir()) if place.is_dir() and not place.is_symlink() else []:
        of_update = found.name.isdecimal() and found.is_dir() and not found.is_symlink()
        if of_update and found.name not in map(str, kept):
            discard(found)
    with suppress(OSError):  # it is not there, or holds something
        os.rmdir(place)


def _now() -> str:
    return datetime.now(timezone.utc).astimezone().isoformat(timespec="seconds")
