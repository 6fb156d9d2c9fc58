"""Annif's corpora: a table of texts and subject URIs, and folders with a text file per document.

| layout | files |
|---|---|
| table | `train.tsv`: a text, a tab, URIs with spaces between them; no header |
| folder | `doc1.txt` with the text, `doc1.tsv` (a URI and a name per line) or `doc1.key` (a name per line) |
| vocabulary | `vocab.tsv`, `vocabulary.tsv` or `subjects.tsv` next to the documents: a URI, a tab, a name |
"""

from __future__ import annotations

import itertools
import logging
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from ..errors import DataError
from .blocks import Block, batches
from .label_ids import clean_id, distinct_names, read_label_ids
from .options import RowOptions
from .text_files import iter_lines, line_list, open_binary

__all__ = ["ANNIF_VOCABULARIES", "document_files", "is_annif_table", "read_annif_table", "read_documents"]

logger = logging.getLogger(__name__)

ANNIF_VOCABULARIES = ("vocab.tsv", "vocabulary.tsv", "subjects.tsv")
"""Names of the vocabulary that is looked for next to the documents."""

_URI = re.compile(r"<[^<>\s]+>|https?://\S+")
_SUBJECT_SUFFIXES = (".tsv", ".key")  # in the order in which Annif looks for them
_FIRST_LINES = 20
_AT_ONCE = 1_000  # documents of a block


class _Document(NamedTuple):
    text: Path
    subjects: Path | None


# ---------------------------------------------------------------------------------------------------- tables


def is_annif_table(path: Path, options: RowOptions) -> bool:
    """Whether the first lines, up to one with a URI, are texts and URIs; a text may have none, a header has others."""
    lines = (line.rstrip("\r\n") for _, line in iter_lines(path, options.encoding) if line.strip())
    has_uris = False
    for number, line in enumerate(lines, 1):
        _, tab, subjects = line.partition("\t")
        if not tab or not all(map(_URI.fullmatch, subjects.split())):
            return False
        has_uris = has_uris or bool(subjects.strip())
        if has_uris and number >= _FIRST_LINES:
            return True
    return has_uris


def read_annif_table(path: Path, options: RowOptions) -> Iterator[Block]:
    """Blocks of a table of texts and subject URIs; the vocabulary gives the names of the URIs.

    Raises:
        DataError: if there is no vocabulary, or it does not name a URI.
    """
    names = _vocabulary(path.parent, options)
    if names is None and options.vocabulary is None:
        raise DataError(
            "The labels are URIs, which say nothing to a language model. Put a vocabulary (URI, tab, name) named "
            f"{' or '.join(ANNIF_VOCABULARIES)} next to the file, or give one (vocabulary=..., --vocabulary, or "
            "label_names=..., --label-names).",
            file=path,
        )
    lines = ((number, line.rstrip("\r\n")) for number, line in iter_lines(path, options.encoding) if line.strip())
    for part in batches(lines):
        texts, labels = [], []
        for number, line in part:
            text, tab, subjects = line.partition("\t")
            if not tab:
                raise DataError("There is no tab between the text and its subjects.", file=path, row=number)
            texts.append(text)
            labels.append([_name_of(uri, names, path, number) for uri in subjects.split()])
        yield Block(str(path), [number for number, _ in part], {"text": texts, "labels": labels}, ready=True)


def _vocabulary(folder: Path, options: RowOptions) -> dict[str, str] | None:
    """URI -> label name, of the file that the user names or that lies next to the documents.

    None where there is no such file, and where the labels become concepts later, see `RowOptions.vocabulary`.
    """
    if options.vocabulary is not None:
        return None
    if options.label_names is not None:
        return read_label_ids(options.label_names)
    found = next((folder / name for name in ANNIF_VOCABULARIES if (folder / name).is_file()), None)
    return None if found is None else read_label_ids(found)


def _name_of(uri: str, names: dict[str, str] | None, path: Path, number: int | None) -> str:
    if names is None:
        return clean_id(uri)
    name = names.get(clean_id(uri))
    if not name:
        raise DataError(f"The vocabulary does not name {uri}.", file=path, row=number)
    return name


# ---------------------------------------------------------------------------------------------------- folders


def document_files(folder: Path) -> list[tuple[Path, Path | None]]:
    """The documents of a folder in the order of their names: text file, and file of subjects where there is one.

    Args:
        folder: a folder of `.txt` files.
    """
    texts = sorted(path for path in folder.glob("*.txt") if path.is_file())
    found = []
    for path in texts:
        subjects = (path.with_suffix(suffix) for suffix in _SUBJECT_SUFFIXES)
        found.append((path, next((other for other in subjects if other.is_file()), None)))
    return found


def read_documents(folder: Path, options: RowOptions) -> Iterator[Block]:
    """Blocks of a folder of documents, each identified by the name of its file; the row is its position.

    URIs get their names from a vocabulary next to the documents (or their folder), else from the subject files.
    """
    files = [_Document(*pair) for pair in document_files(folder)]
    names = _vocabulary(folder, options) or _vocabulary(folder.parent, options)
    if names is None and options.vocabulary is None:
        names = _names_in(files, folder, options)
    without = 0
    for part in batches(enumerate(files, 1), _AT_ONCE):
        texts = [_read_text(document.text, options) for _, document in part]
        labels = [_subjects_of(document, names, options) for _, document in part]
        without += sum(document.subjects is None for _, document in part)
        columns = {"text": texts, "labels": labels, "id": [document.text.stem for _, document in part]}
        yield Block(str(folder), [number for number, _ in part], columns, ready=True)
    if without:
        logger.info("%s: %d of %d texts have no file of subjects.", folder, without, len(files))


def _read_text(path: Path, options: RowOptions) -> str:
    if options.encoding is not None:
        return "".join(line for _, line in iter_lines(path, options.encoding))
    with open_binary(path) as file:
        content = file.read()
    if b"\0" not in content:  # which UTF-16 has in Latin letters, and UTF-8 can decode
        with suppress(UnicodeDecodeError):
            return content.decode("utf-8-sig")
    return "".join(line for _, line in iter_lines(path))  # names the place, or reads UTF-16


def _subject_lines(path: Path, options: RowOptions) -> Iterator[tuple[str, str]]:
    """URI ("" where there is none) and name ("" where there is none) of each line."""
    for line in line_list(path, options.encoding):
        cells = [cell.strip() for cell in line.split("\t")]
        uri = next((cell for cell in cells if cell.startswith("<") and cell.endswith(">")), "")
        name = next((cell for cell in cells if cell and cell != uri), "")
        if uri or name:
            yield uri, name


def _subjects_of(document: _Document, names: dict[str, str] | None, options: RowOptions) -> list[str]:
    if document.subjects is None:
        return []
    lines = _subject_lines(document.subjects, options)
    return [_name_of(uri, names, document.subjects, None) if uri else name for uri, name in lines]


def _names_in(files: list[_Document], folder: Path, options: RowOptions) -> dict[str, str]:
    """URI -> name as the subject files have them."""
    lines = itertools.chain.from_iterable(
        _subject_lines(document.subjects, options) for document in files if document.subjects is not None
    )
    found: dict[str, str] = {}
    for uri, name in lines:
        if uri and name:
            found.setdefault(clean_id(uri), name)
    return dict(zip(found, distinct_names(list(found), list(found.values()), folder), strict=True))
