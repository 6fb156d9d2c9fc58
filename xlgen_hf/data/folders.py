"""Folders that hold a data set: files named after splits, and the raw-text layouts of extreme classification.

| layout | files |
|---|---|
| splits | `train.jsonl`, `test.parquet`, `validation-00000-of-00002.parquet` ..., in the folder or in its `data` |
| raw texts (AttentionXML, XLGen) | `train_raw_texts.txt` or `train_texts.txt`, `train_labels.txt` (`_` for a space) |
| matrix (PECOS) | `X.trn.txt`, `Y.trn.npz`, `output-items.txt` |
| matrix (X-Transformer) | `train_raw_texts.txt`, `Y.trn.npz`, `label_map.txt` |
| LF (Extreme Classification Repository) | `trn.json.gz` (title, content, target_ind), `lbl.json.gz` (title) |
| Annif | `train.tsv` (text, URIs), `vocab.tsv` or `subjects.tsv` (URI, name) |
"""

from __future__ import annotations

import itertools
import json
import logging
import re
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..errors import DataError
from .formats import FILE_FORMATS, Columns, RawRow, iter_lines, label_names, read_file

__all__ = ["SPLIT_NAMES", "folder_splits", "standard_split"]

logger = logging.getLogger(__name__)

SPLIT_NAMES = {"train": ("train", "trn"), "validation": ("validation", "valid", "val", "dev"), "test": ("test", "tst")}
"""The three splits, and what files and data sets call them."""

Splits = dict[str, Callable[[], Iterator[RawRow]]]

_ALIASES = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
_SPLIT_FILE = re.compile(
    rf"({'|'.join(_ALIASES)})(-\d+-of-\d+)?({'|'.join(re.escape(suffix) for suffix in FILE_FORMATS)})", re.IGNORECASE
)
_RAW_TEXTS = ("{}_raw_texts.txt", "{}_raw_text.txt", "{}_texts.txt", "X.{}.txt")
_MATRIX_NAMES = ("output-items.txt", "label_map.txt", "Y.txt")
_LF_LABELS = ("lbl.json.gz", "lbl.json")


def standard_split(name: str) -> str:
    """`train`, `validation` or `test` for one of their other names; any other name unchanged."""
    return _ALIASES.get(name.lower(), name)


def folder_splits(folder: Path, columns: Columns) -> Splits:
    """The splits of a folder, each with a function that reads it.

    Args:
        folder: the folder.
        columns: the columns of tables; the raw-text layouts have their own.

    Raises:
        DataError: if the folder has none of the known layouts.
    """
    for layout in (_lf_splits, _matrix_splits, _raw_text_splits, _split_files):
        splits = layout(folder, columns)
        if splits:
            return splits
    present = sorted(path.name for path in folder.iterdir())
    raise DataError(
        f"The folder has none of the known layouts; it holds {present[:12]}. Name files after splits, such as "
        "train.jsonl, validation.jsonl and test.jsonl, or give one file.",
        file=folder,
    )


def _first_file(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


# ---------------------------------------------------------------------------------------------------- files of splits


def _split_files(folder: Path, columns: Columns) -> Splits:
    found: dict[str, list[Path]] = {}
    for place in (folder, folder / "data"):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            match = _SPLIT_FILE.fullmatch(path.name)
            if match:
                found.setdefault(_ALIASES[match[1].lower()], []).append(path)
    for split, paths in found.items():
        if len(paths) > 1 and not all("-of-" in path.name for path in paths):
            names = [str(path.relative_to(folder)) for path in paths]
            raise DataError(f"Several files could be the split {split!r}: {names}. Keep one.", file=folder)
    return {split: partial(_read_all, paths, columns) for split, paths in found.items()}


def _read_all(paths: Sequence[Path], columns: Columns) -> Iterator[RawRow]:
    return itertools.chain.from_iterable(read_file(path, columns) for path in paths)


# ---------------------------------------------------------------------------------------------------- lines of text


def _raw_text_splits(folder: Path, columns: Columns) -> Splits:
    splits: Splits = {}
    for alias, split in _ALIASES.items():
        texts = _first_file(folder, [name.format(alias) for name in _RAW_TEXTS])
        labels = folder / f"{alias}_labels.txt"
        if texts is not None and (labels.is_file() or not columns.require_labels):
            splits[split] = partial(_read_raw_texts, texts, labels if labels.is_file() else None, columns)
    return splits


def _read_raw_texts(texts: Path, labels: Path | None, columns: Columns) -> Iterator[RawRow]:
    names = None if labels is None else ([_spoken(token) for token in line.split()] for _, line in iter_lines(labels))
    return _paired(texts, names, labels, columns)


def _spoken(token: str) -> str:
    """A label's name from its token. Tokens hold no space, so a space stands for nothing but `_`."""
    name = token.replace("_", " ")
    return name if name == name.strip() else token


def _paired(
    texts: Path, labels: Iterator[list[str]] | None, label_file: Path | None, columns: Columns
) -> Iterator[RawRow]:
    """Rows of a file of texts and an iterator over label lists of the same length."""
    lines = ((number, line.rstrip("\r\n")) for number, line in iter_lines(texts))
    if labels is None:
        yield from (RawRow(str(texts), number, {columns.text: text}) for number, text in lines)
        return
    for line, names in itertools.zip_longest(lines, labels):
        if line is None or names is None:
            shorter, longer = (texts, label_file) if line is None else (label_file, texts)
            raise DataError(f"The file ends before {longer} does; both need a line for each text.", file=shorter)
        yield RawRow(str(texts), line[0], {columns.text: line[1], columns.labels: names})


# ---------------------------------------------------------------------------------------------------- label matrices


def _matrix_splits(folder: Path, columns: Columns) -> Splits:
    names = _first_file(folder, _MATRIX_NAMES)
    splits: Splits = {}
    for alias, split in _ALIASES.items():
        short = SPLIT_NAMES[split][-1] if split != "validation" else alias
        matrix = _first_file(folder, [f"Y.{alias}.npz", f"Y.{short}.npz"])
        texts = _first_file(folder, [name.format(alias) for name in _RAW_TEXTS])
        if names is not None and matrix is not None and texts is not None:
            splits[split] = partial(_read_matrix, texts, matrix, names, columns)
    return splits


def _read_matrix(texts: Path, matrix: Path, names_file: Path, columns: Columns) -> Iterator[RawRow]:
    return _paired(texts, _labels_of_matrix(matrix, names_file), matrix, columns)


def _labels_of_matrix(matrix: Path, names_file: Path) -> Iterator[list[str]]:
    from scipy.sparse import csr_matrix, load_npz

    names = [name.strip() for name in label_names(names_file)]
    _report_merged(names, names_file)
    try:
        rows = csr_matrix(load_npz(matrix))
    except (ValueError, OSError, KeyError, zipfile.BadZipFile) as err:
        raise DataError(f"The file is no sparse matrix of scipy: {err}", file=matrix) from err
    if rows.shape[1] != len(names):
        raise DataError(f"It has {rows.shape[1]} columns, {names_file} {len(names)} names.", file=matrix)
    rows.eliminate_zeros()
    for row in range(rows.shape[0]):
        yield [names[label] for label in rows.indices[rows.indptr[row] : rows.indptr[row + 1]]]


def _report_merged(names: Sequence[str], file: Path) -> None:
    repeated = [name for name, count in Counter(names).items() if count > 1]
    if repeated:
        logger.warning(
            "%s gives %d names to several labels each, which become one label, e.g. %s.",
            file,
            len(repeated),
            repeated[:3],
        )


# ---------------------------------------------------------------------------------------------------- LF data sets


def _lf_splits(folder: Path, columns: Columns) -> Splits:
    labels = _first_file(folder, _LF_LABELS)
    if labels is None:
        return {}
    splits: Splits = {}
    for alias, split in _ALIASES.items():
        documents = _first_file(folder, [f"{alias}.json.gz", f"{alias}.json"])
        if documents is not None:
            splits[split] = partial(_read_lf, documents, labels, columns)
    return splits


def _read_lf(documents: Path, labels: Path, columns: Columns) -> Iterator[RawRow]:
    names = [str(row.get("title", "")).strip() for _, row in _json_objects(labels)]
    _report_merged(names, labels)
    for number, row in _json_objects(documents):
        targets = row.get("target_ind")
        if not isinstance(targets, list) or not all(type(i) is int and 0 <= i < len(names) for i in targets):
            raise DataError(
                f"'target_ind' is {str(targets)[:60]}; line numbers of {labels}, 0 to {len(names) - 1}, are expected.",
                file=documents,
                row=number,
            )
        text = " ".join(part for part in (row.get("title"), row.get("content")) if part)
        yield RawRow(str(documents), number, {columns.text: text, columns.labels: [names[i] for i in targets]})


def _json_objects(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in iter_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (json.JSONDecodeError, RecursionError) as err:
            raise DataError(f"No valid JSON: {err}", file=path, row=number) from err
        if not isinstance(row, dict):
            raise DataError(f"The row is a {type(row).__name__}; an object is expected.", file=path, row=number)
        yield number, row
