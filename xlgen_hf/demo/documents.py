"""The text of files that people bring: .txt, and .pdf and .docx where their readers are installed."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from ..errors import DataError, MissingExtraError

__all__ = ["LONGEST_WAIT", "WORKER", "Document", "read_document", "readable_endings"]

WORKER = Path(__file__).with_name("document_worker.py")
"""The program that reads a document, in a process of its own."""
_PACKAGES = {".txt": None, ".pdf": "pypdf", ".docx": "docx"}  # ending -> package that reads it
LONGEST_WAIT = 40.0
"""Seconds that it may take."""


@dataclass(frozen=True)
class Document:
    """The text of a file.

    Attributes:
        text: its first characters.
        is_whole: whether that is all of it.
    """

    text: str
    is_whole: bool


def readable_endings() -> list[str]:
    """Endings of the files that can be read here."""
    return [ending for ending, package in _PACKAGES.items() if package is None or find_spec(package) is not None]


def read_document(path: Path, max_characters: int) -> Document:
    """Read a file in a process of its own, whose time and memory are limited.

    Args:
        path: the file.
        max_characters: characters that are wanted.

    Raises:
        DataError: if it is of another kind, damaged, without text, or takes too much.
        MissingExtraError: if the package that reads its kind is not installed.
    """
    ending = path.suffix.lower()
    if ending not in _PACKAGES:
        raise DataError(f"The file ends in {ending or 'nothing'!r}; open one of {', '.join(_PACKAGES)}.")
    package = _PACKAGES[ending]
    if package is not None and find_spec(package) is None:
        raise MissingExtraError(package, "documents")
    command = [sys.executable, "-I", str(WORKER), str(path), str(max_characters)]
    try:
        done = subprocess.run(command, capture_output=True, timeout=LONGEST_WAIT, check=False)
    except subprocess.TimeoutExpired as err:
        raise DataError("The file takes too long to read; save its text as a .txt file.") from err
    if done.returncode:  # ended by the system
        raise DataError("The file takes too much time or memory to read; save its text as a .txt file.")
    answer = json.loads(done.stdout)
    if "problem" in answer:
        raise DataError(answer["problem"])
    if not answer["text"]:
        raise DataError("The file has no text.")
    return Document(answer["text"], not answer["more"])
