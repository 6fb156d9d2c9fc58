"""JSON Lines: written whole, or piece by piece so that an interrupted run can be resumed."""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from ..errors import ModelFolderError
from .atomic import atomic_path
from .serialization import read_json, write_json

__all__ = ["PartialOutput", "digest", "write_jsonl"]

logger = logging.getLogger(__name__)


def write_jsonl(path: str | Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Write rows as JSON Lines in UTF-8; equal rows give equal files, `.gz` too.

    Args:
        path: the file, compressed if its name ends in `.gz`. It appears when all is written.
        rows: anything that JSON can hold.

    Returns:
        The number of rows.
    """
    count = 0
    with atomic_path(path) as aside, aside.open("wb") as raw:
        # No name and no time in the header of the compressed file: only rows decide its bytes.
        packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if str(path).endswith(".gz") else None
        with io.TextIOWrapper(packed or raw, encoding="utf-8", newline="\n") as file:
            for row in rows:
                file.write(json.dumps(row, ensure_ascii=False, allow_nan=False) + "\n")
                count += 1
    return count


def digest(parts: Iterable[str]) -> str:
    """A short digest that tells apart sequences of strings."""
    content = hashlib.blake2b(digest_size=16)
    for part in parts:
        content.update(f"{len(part)}:{part}".encode("utf-8", "surrogatepass"))
    return content.hexdigest()


class PartialOutput:
    """JSON Lines that grow beside their final place, `NAME.partial`, until they are complete.

    Args:
        path: the file to write in the end; compressed if it ends in `.gz`.
        settings: all that the rows depend on, as JSON. Rows of a run with other settings are not taken up.
        block: rows that belong together; a block that is not whole is written again.

    Attributes:
        done: number of rows that an earlier run has left.
    """

    def __init__(self, path: str | Path, settings: dict[str, Any], block: int = 1) -> None:
        self.path = Path(path)
        self._rows = self.path.with_name(f"{self.path.name}.partial")
        self._settings = self.path.with_name(f"{self.path.name}.partial.json")
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.done = self._take_up(settings, block)
        if not self.done:
            self._rows.unlink(missing_ok=True)
            write_json(self._settings, settings)

    def _take_up(self, settings: dict[str, Any], block: int) -> int:
        """Cut off what was not written whole; number of rows that stay."""
        try:
            same = read_json(self._settings) == json.loads(json.dumps(settings))
        except ModelFolderError:  # there is none, or it was not written whole
            return 0
        if not same:
            logger.warning("%s is of a run with other settings, model or texts; it is written anew.", self._rows)
            return 0
        if not self._rows.exists():
            return 0
        lines = self._rows.read_bytes().splitlines(keepends=True)
        whole = [line for line in lines if line.endswith(b"\n")]
        done = len(whole) // block * block
        os.truncate(self._rows, sum(map(len, whole[:done])))
        if done:
            logger.info("Going on behind row %d of %s.", done, self._rows)
        return done

    def append(self, rows: Sequence[dict[str, Any]]) -> None:
        """Write rows, so that they outlive the process."""
        with self._rows.open("a", encoding="utf-8") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)

    def finish(self) -> None:
        """Put the file into its place."""
        self._rows.touch()
        if self.path.suffix == ".gz":
            with self._rows.open(encoding="utf-8") as file:
                write_jsonl(self.path, map(json.loads, file))
            self._rows.unlink()
        else:
            os.replace(self._rows, self.path)
        self._settings.unlink()
