"""JSON Lines: written whole, or piece by piece so that an interrupted run can be resumed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import IO, TypedDict

from ..errors import ConfigurationError, ModelFolderError, SaveError
from .atomic import atomic_path, discard, save_errors
from .outputs import Record, claim_file, differences, refuse_existing
from .schema import Fields, anything, boolean, mapping_of, string
from .serialization import JSON, parse_json, read_errors

__all__ = ["BlockFolder", "PartialOutput", "digest", "is_begun", "read_jsonl", "write_jsonl"]

logger = logging.getLogger(__name__)


class _Run(TypedDict):
    """What a [`Record`] holds."""

    command: str
    settings: dict[str, JSON]


class _Begun(_Run, total=False):
    """The same in a file that may say that the output is being put into its place."""

    finishing: bool


_FORM = Fields[_Begun](
    {"command": string(), "settings": mapping_of(anything()), "finishing": boolean()},
    optional=["finishing"],
    format_version=1,
    made_by="xlgen predict",
)


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, object]]) -> int:
    """Write rows as JSON Lines in UTF-8; equal rows give equal files, `.gz` too.

    Args:
        path: the file, compressed if its name ends in `.gz`. It appears when all is written.
        rows: anything that JSON can hold.

    Returns:
        The number of rows.

    Raises:
        SaveError: if the file cannot be written.
        ValueError: if a row holds NaN or infinity, which JSON cannot.
    """
    count = 0
    with _written(Path(path)) as raw, io.TextIOWrapper(raw, encoding="utf-8", newline="\n") as file:
        for row in rows:
            file.write(_line(row))
            count += 1
    return count


def read_jsonl(path: str | Path) -> Iterator[tuple[int, JSON]]:
    """Parse the lines of a JSON Lines file of a model folder, with their numbers from 1.

    Args:
        path: the file, not compressed.

    Raises:
        ModelFolderError: if it is missing, unreadable, not UTF-8, not JSON, or holds NaN or infinity.
    """
    path = Path(path)
    with read_errors(path, "JSON Lines in UTF-8"), path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, parse_json(line)
            except (ValueError, RecursionError) as err:
                raise ValueError(f"line {number}: {err}") from err


@contextmanager
def _written(path: Path) -> Iterator[IO[bytes]]:
    """The file aside to write bytes to, which are compressed if its name says so."""
    with atomic_path(path) as aside, aside.open("wb") as raw:
        if path.suffix.lower() == ".gz":
            # No name and no time in the header of the compressed file: only rows decide its bytes.
            with gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as packed:
                yield packed  # type: ignore[misc]
        else:
            yield raw


def _line(row: Mapping[str, object]) -> str:
    return json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n"


def digest(parts: Iterable[str]) -> str:
    """A short digest that tells apart sequences of strings."""
    content = hashlib.blake2b(digest_size=16)
    for part in parts:
        content.update(f"{len(part)}:{part}".encode("utf-8", "surrogatepass"))
    return content.hexdigest()


def is_begun(path: Path) -> bool:
    """Whether a run has begun to write a [`PartialOutput`] and has not finished.

    Args:
        path: the file.
    """
    return _record_of(path).is_file()


def _record_of(path: Path) -> Path:
    return path.with_name(f"{path.name}.partial.json")


class PartialOutput:
    """JSON Lines that grow next to their final place, `NAME.partial`, until they are complete.

    A context manager: until it ends, no other process can write the same file. What is there is never replaced unless
    `overwrite` is set, but for rows that a run with the same settings has left, which are continued.

    Other processes may work for it: they write blocks of rows by [`BlockFolder`], and the one that has the output puts
    these in order in the end.

    Args:
        path: the file to write in the end; compressed if it ends in `.gz`.
        settings: all that the rows depend on, as JSON.
        block: rows that belong together; a block that is not whole is written again.
        rows: rows of the whole file, where that is known; counted before the file takes its place.
        command: what writes, for messages.
        overwrite: whether a file that is there, and rows that a run with other settings has left, may be replaced.

    Attributes:
        done: number of rows that an earlier run has left.
        blocks: rows that processes have written which work for this output.

    Raises:
        ConfigurationError: if the file is there, a run with other settings has left rows, or another process is
            writing the file.
        SaveError: if the folder cannot be written.
    """

    def __init__(
        self,
        path: str | Path,
        settings: Mapping[str, object],
        block: int = 1,
        *,
        rows: int | None = None,
        command: str = "xlgen predict",
        overwrite: bool = False,
    ) -> None:
        self.path = Path(path)
        self._rows = self.path.with_name(f"{self.path.name}.partial")
        self._record = _record_of(self.path)
        self._expected = rows
        self.blocks = BlockFolder(self.path)
        record: _Begun = {"command": command, "settings": json.loads(json.dumps(settings))}
        self._about = record
        with ExitStack() as claim:
            own = overwrite or self._was_finishing(record)
            claim.enter_context(claim_file(self.path, command=command, overwrite=own))
            if self._was_finishing(record):
                self._take_back()
            else:
                refuse_existing(self.path, overwrite=overwrite)  # the process that was finishing it has just ended
            self.done = self._take_up(record, block, overwrite)
            self._written = self.done
            if not self.done:
                with save_errors(self.path):
                    self._rows.unlink(missing_ok=True)
                    if self._foreign(record) is not None:
                        self.blocks.remove()
                _FORM.write(self._record, record)
            self._claim = claim.pop_all()

    def __enter__(self) -> PartialOutput:
        """The output itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let others write the file; what is not finished stays, to be continued."""
        self._claim.close()

    def _take_up(self, record: Record, block: int, overwrite: bool) -> int:
        """Cut off what was not written whole; number of rows that stay."""
        if not self._rows.exists() and not self.blocks.folder.exists():
            return 0
        problem = self._foreign(record)
        if problem is None:
            return self._cut(block) if self._rows.exists() else 0
        if not overwrite:
            raise ConfigurationError(problem)
        return 0

    def _was_finishing(self, record: Record) -> bool:
        """Whether the file is there because a run with the same settings was killed while it finished."""
        if not (self.path.is_file() and self._record.is_file()):
            return False
        return self._foreign(record) is None and bool(_FORM.read(self._record).get("finishing"))

    def _take_back(self) -> None:
        """Bring the rows of such a run back to where it had them, or begin again where they are in another format."""
        with save_errors(self.path):
            if not self._rows.exists() and self.path.suffix.lower() == ".jsonl":
                os.replace(self.path, self._rows)
            else:
                self.path.unlink()

    def _foreign(self, record: Record) -> str | None:
        """Say why the rows that are there are not those of this run, if so."""
        try:
            before = _FORM.read(self._record)
        except ModelFolderError as err:
            return (
                f"{self._rows} exists already, and nothing tells which run has left it ({err}). Choose another output "
                "file, or give --overwrite."
            )
        different = differences(
            {"command": before["command"], **before["settings"]}, {"command": record["command"], **record["settings"]}
        )
        if not different:
            return None
        return (
            f"{self._rows} was left by a run with other settings, model or texts: {different}. Repeat its command to "
            "continue it, choose another output file, or give --overwrite to begin again."
        )

    def _cut(self, block: int) -> int:
        """Keep whole blocks of rows; their number."""
        ends = [0]
        with self._rows.open("rb") as file:
            for line in file:
                if line.endswith(b"\n"):
                    ends.append(ends[-1] + len(line))
        done = (len(ends) - 1) // block * block
        os.truncate(self._rows, ends[done])
        if done:
            logger.info("Continuing after row %d of %s.", done, self._rows)
        return done

    def append(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Write rows, so that they outlive the process.

        Raises:
            SaveError: if they cannot be written; those before stay, to be continued.
        """
        lines = "".join(map(_line, rows))
        with save_errors(self.path), self._rows.open("a", encoding="utf-8", newline="\n") as file:
            file.write(lines)
        self._written += len(rows)

    def finish(self, write: Callable[[Path, Iterable[dict[str, JSON]]], object] | None = None) -> None:
        """Put the file into its place.

        Args:
            write: writes rows in the format that the name of the file says; JSON Lines if None.

        Raises:
            SaveError: if it cannot be written, or its rows are not those that were appended.
        """
        with save_errors(self.path):
            self._rows.touch()
            self._check_rows()
            _FORM.write(self._record, {**self._about, "finishing": True})
            if write is not None:
                with self._rows.open(encoding="utf-8") as lines:
                    write(self.path, map(json.loads, lines))
                self._rows.unlink()
            elif self.path.suffix.lower() == ".gz":
                with self._rows.open("rb") as file, _written(self.path) as packed:
                    shutil.copyfileobj(file, packed)
                self._rows.unlink()
            else:
                os.replace(self._rows, self.path)
            self.blocks.remove()
            self._record.unlink()

    def _check_rows(self) -> None:
        with self._rows.open("rb") as file:
            found = sum(line.endswith(b"\n") for line in file)
        expected = self._written if self._expected is None else self._expected
        if (found, self._written) != (expected, expected):
            raise SaveError(
                self.path,
                f"{self._rows.name} holds {found} of {expected} rows, of which {self._written} were written. "
                "If something else has changed it, remove it",
            )


class BlockFolder:
    """Blocks of rows that processes write which work for one [`PartialOutput`], next to it in `NAME.partial.blocks`.

    Args:
        path: the file that the output writes in the end.
    """

    def __init__(self, path: Path) -> None:
        self.folder = path.with_name(f"{path.name}.partial.blocks")

    def _file(self, first: int) -> Path:
        return self.folder / f"{first:012d}.jsonl"

    def __contains__(self, first: int) -> bool:
        """Whether there is the block that begins with a row; blocks are there whole, or not at all."""
        return self._file(first).is_file()

    def write(self, first: int, rows: Sequence[Mapping[str, object]]) -> None:
        """Write a block.

        Args:
            first: the number of its first row.
            rows: the rows.

        Raises:
            SaveError: if it cannot be written.
        """
        write_jsonl(self._file(first), rows)

    def read(self, first: int) -> list[dict[str, JSON]]:
        """The rows of a block.

        Raises:
            ModelFolderError: if it is missing, or not what [`write`] wrote.
        """
        return [row for _, row in read_jsonl(self._file(first)) if isinstance(row, dict)]

    def remove(self) -> None:
        """Remove all blocks."""
        if self.folder.exists():
            discard(self.folder)
