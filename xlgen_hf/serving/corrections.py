"""Corrections by people: training rows that `xlgen update --add-rows` takes, appended to a JSON Lines file."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..errors import ConfigurationError, DataError
from ..files.atomic import save_errors

__all__ = ["CorrectionsFile"]


class CorrectionsFile:
    """A JSON Lines file that grows by whole rows.

    Args:
        path: the file; made if there is none.

    Raises:
        ConfigurationError: if its name does not end in .jsonl.
        SaveError: if it cannot be written.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        if self.path.suffix != ".jsonl":
            raise ConfigurationError(f"corrections file {path}: the name must end in .jsonl.")
        self._lock = threading.Lock()
        self.append([])

    def append(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Write rows behind those that are there; all of them, or none.

        Args:
            rows: the rows, as JSON holds them.

        Raises:
            DataError: if a row is not valid Unicode.
            SaveError: if the disk is full, or the file cannot be written.
        """
        try:
            lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows).encode()
        except UnicodeEncodeError as err:
            raise DataError("A text or label holds half of a character (a lone surrogate); nothing is saved.") from err
        with self._lock, save_errors(self.path), self.path.open("ab", buffering=0) as file:
            size = file.tell()
            if lines and size and not _ends_with_newline(self.path):
                lines = b"\n" + lines
            try:
                while lines:  # a system may write less than it is given
                    lines = lines[file.write(lines) :]
                os.fsync(file.fileno())
            except OSError:
                file.truncate(size)
                raise


def _ends_with_newline(path: Path) -> bool:
    with path.open("rb") as file:
        file.seek(-1, os.SEEK_END)
        return file.read(1) == b"\n"
