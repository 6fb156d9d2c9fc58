"""Folders that hold a data set: files named after splits, and the layouts of extreme classification.

| layout | files |
|---|---|
| splits | `train.jsonl`, `test.parquet`, `validation-00000-of-00002.parquet` ..., in the folder or in its `data` |
| `save_to_disk` | what `datasets` wrote: `dataset_dict.json` or `state.json`, and Arrow files |
| raw texts (AttentionXML, XLGen) | `train_raw_texts.txt` or `train_texts.txt`, `train_labels.txt` (`_` for a \
space; labels are separated by white space, or by what is given) |
| matrix (PECOS) | `X.trn.txt`, `Y.trn.npz`, `output-items.txt` |
| matrix (X-Transformer) | `train_raw_texts.txt`, `Y.trn.npz`, `label_map.txt` |
| sparse (Extreme Classification Repository) | `trn_X_Y.txt`, `raw_data/train.raw.txt`, `raw_data/label.raw.txt` |
| LF (Extreme Classification Repository) | `trn.json.gz` (title, content, target_ind), `lbl.json.gz` (title) |
| Annif | `train.tsv` (text, URIs) and `vocab.tsv` (URI, name); or `doc1.txt` with `doc1.key` or `doc1.tsv`, in the \
folder or in folders named after splits |
"""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import NoReturn, TypeAlias

from ..errors import DataError
from ..files.serialization import JSON
from .annif import document_files, read_documents
from .blocks import Block, Splits, batches
from .formats import FILE_FORMATS, read_file
from .label_ids import distinct_names
from .label_matrices import read_label_matrix, read_sparse_text
from .options import RowOptions, shown_names
from .tables import dataset_blocks, saved_splits
from .text_files import iter_lines, line_list
from .values import shown

__all__ = ["SPLIT_NAMES", "choose_split", "folder_splits", "split_file_names", "standard_split"]

SPLIT_NAMES = {
    "train": ("train", "trn"),
    "validation": ("validation", "valid", "val", "validate", "dev"),
    "test": ("test", "tst"),
}
"""The three splits, and what files and data sets call them."""

_ALIASES = {alias: split for split, aliases in SPLIT_NAMES.items() for alias in aliases}
_TABLES = [suffix for suffix in FILE_FORMATS if not suffix.startswith(".txt")]  # texts alone are not a split
_SPLIT_FILE = re.compile(rf"({'|'.join(_ALIASES)})(-\d+-of-\d+)?({'|'.join(map(re.escape, _TABLES))})", re.IGNORECASE)
_RAW_TEXTS = ("{}_raw_texts.txt", "{}_raw_text.txt", "{}_texts.txt", "X.{}.txt")
_MATRIX_NAMES = ("output-items.txt", "label_map.txt", "Y.txt")
_LF_LABELS = ("lbl.json.gz", "lbl.json")
_SPARSE_TEXTS = ("raw_data/{}.raw.txt", "{}_X.txt", "{}.raw.txt")
_SPARSE_NAMES = ("raw_data/label.raw.txt", "Y.txt", "label.raw.txt")
_SAVED = ("dataset_dict.json", "state.json")

_Reader: TypeAlias = "Callable[[], Iterator[Block]]"


def split_file_names(folder: Path) -> list[str]:
    """Names of the files in a folder that are read as splits of a data set; none if there is no folder."""
    return [path.name for path in folder.iterdir() if _SPLIT_FILE.fullmatch(path.name)] if folder.is_dir() else []


def standard_split(name: str) -> str:
    """`train`, `validation` or `test` for one of their other names; any other name unchanged."""
    return _ALIASES.get(name.lower(), name)


def choose_split(available: Sequence[str], wanted: str | None, source: str) -> str:
    """The split to read: the wanted one, under any of its names, or the only one; `""` is whole, whatever is wanted.

    Raises:
        DataError: if there is no such split, or several and none is wanted.
    """
    if len(available) == 1 and (wanted is None or not available[0]):
        return available[0]
    if wanted is None:
        raise DataError(
            f"It has the splits {shown_names(available)}; say which one to read, with split=...", file=source
        )
    if wanted in available:
        return wanted
    named = [name for name in available if standard_split(name) == standard_split(wanted)]
    if len(named) > 1:
        raise DataError(
            f"Several splits could be {wanted!r}: {shown_names(named)}. Name one, split={named[0]!r}, or write it to "
            f"a file: `xlgen convert {source} rows.jsonl --source-split {named[0]}`.",
            file=source,
        )
    if named:
        return named[0]
    advice = (
        f" `xlgen convert {source} rows.jsonl` writes the rows of one split into a file."
        if len(available) == 1
        else ""
    )
    raise DataError(f"It has no split {wanted!r}, only {shown_names(available)}.{advice}", file=source)


def folder_splits(folder: Path, options: RowOptions, require_labels: bool = True) -> Splits:
    """The splits of a folder, each with a function that reads it.

    Args:
        folder: the folder.
        options: the columns of tables; the other layouts have their own.
        require_labels: whether texts without a file of labels are not a data set.

    Returns:
        The splits by their names; a folder of documents, which is read whole as a file is, under `""`.

    Raises:
        DataError: if the folder has none of the known layouts.
    """
    layouts: tuple[Callable[[Path, RowOptions, bool], Splits], ...] = (
        _saved_splits, _lf_splits, _sparse_splits, _matrix_splits, _raw_text_splits, _split_files, _document_splits,
    )  # fmt: skip
    for layout in layouts:
        splits = layout(folder, options, require_labels)
        if splits:
            return splits
    raise DataError(
        f"The folder has none of the known layouts; it holds {shown_names(path.name for path in folder.iterdir())}. "
        "Name files after splits, such as train.jsonl, validation.jsonl and test.jsonl, or give one file. A "
        "matrix such as Y.trn.npz needs texts (X.trn.txt) and names of labels (output-items.txt) beside it.",
        file=folder,
    )


def _first_file(folder: Path, names: Sequence[str]) -> Path | None:
    return next((folder / name for name in names if (folder / name).is_file()), None)


def _one_each(found: Iterable[tuple[str, Path, _Reader]], folder: Path) -> Splits:
    """The splits of what a layout finds: the split, the file or folder with its labels or rows, and what reads it.

    Raises:
        DataError: if there are two of these for a split, of which one would be left out.
    """
    splits: Splits = {}
    sources: dict[str, Path] = {}
    for split, source, read in found:
        if sources.setdefault(split, source) != source:
            _refuse_several(split, [sources[split], source], folder)
        splits[split] = read
    return splits


def _refuse_several(split: str, paths: Sequence[Path], folder: Path) -> NoReturn:
    names = [str(path.relative_to(folder)) for path in paths]
    what = "folders" if paths[0].is_dir() else "files"
    raise DataError(f"Several {what} could be the split {split!r}: {names}. Keep one.", file=folder)


def _saved_splits(folder: Path, options: RowOptions, _: bool) -> Splits:
    if _first_file(folder, _SAVED) is None:
        return {}
    return {
        name: partial(dataset_blocks, part, f"{folder} ({name})", options)
        for name, part in saved_splits(folder).items()
    }


def _document_splits(folder: Path, options: RowOptions, require_labels: bool) -> Splits:
    """Annif's folders of documents: one, or one for each split."""
    whole: Splits = {"": partial(read_documents, folder, options)}
    if any(subjects for _, subjects in document_files(folder)):
        return whole
    named = (below for below in sorted(folder.iterdir()) if below.name.lower() in _ALIASES and below.is_dir())
    found = (
        (_ALIASES[below.name.lower()], below, partial(read_documents, below, options))
        for below in named
        if any(subjects or not require_labels for _, subjects in document_files(below))
    )
    splits = _one_each(found, folder)
    return whole if not splits and not require_labels and document_files(folder) else splits


# ---------------------------------------------------------------------------------------------------- files of splits


def _split_files(folder: Path, options: RowOptions, _: bool) -> Splits:
    found: dict[str, list[Path]] = {}
    for place in (folder, folder / "data"):
        for path in sorted(place.iterdir()) if place.is_dir() else ():
            match = _SPLIT_FILE.fullmatch(path.name)
            if match:
                found.setdefault(_ALIASES[match[1].lower()], []).append(path)
    for split, paths in found.items():
        if len(paths) > 1 and not all("-of-" in path.name for path in paths):
            _refuse_several(split, paths, folder)
    return {split: partial(_read_all, paths, options) for split, paths in found.items()}


def _read_all(paths: Sequence[Path], options: RowOptions) -> Iterator[Block]:
    return itertools.chain.from_iterable(read_file(path, options) for path in paths)


# ---------------------------------------------------------------------------------------------------- lines of text


def _raw_text_splits(folder: Path, options: RowOptions, require_labels: bool) -> Splits:
    found = []
    for alias, split in _ALIASES.items():
        texts = _first_file(folder, [name.format(alias) for name in _RAW_TEXTS])
        labels = folder / f"{alias}_labels.txt"
        if texts is not None and (labels.is_file() or not require_labels):
            names = partial(_spoken_labels, labels, options) if labels.is_file() else None
            source = labels if labels.is_file() else texts
            found.append((split, source, partial(_paired, texts, names, labels, options)))
    return _one_each(found, folder)


def _spoken_labels(labels: Path, options: RowOptions) -> Iterator[list[str]]:
    """The labels of each line; white space is between them, or the separator that the user gave."""
    separator = options.label_separator
    for _, line in iter_lines(labels, options.encoding, guess=True):
        tokens = line.split() if separator is None else line.split(separator) if separator else [line]
        yield [_spoken(token) for part in tokens if (token := part.strip())]


def _spoken(token: str) -> str:
    """A label's name from its token, where `_` stands for a space, with or without a separator that the user gave."""
    name = token.replace("_", " ")
    return name if name == name.strip() else token


def _paired(
    texts: Path, labels: Callable[[], Iterator[list[str]]] | None, label_file: Path, options: RowOptions
) -> Iterator[Block]:
    """Blocks of a file of texts, one per line, and label lists of the same number."""
    lines = ((number, line.rstrip("\r\n")) for number, line in iter_lines(texts, options.encoding, guess=True))
    if labels is None:
        for part in batches(lines):
            yield Block(str(texts), [number for number, _ in part], {"text": [line for _, line in part]}, ready=True)
        return
    for rows in batches(itertools.zip_longest(lines, labels())):
        if rows[-1][0] is None or rows[-1][1] is None:
            shorter, longer = (texts, label_file) if rows[-1][0] is None else (label_file, texts)
            raise DataError(f"The file ends before {longer} does; both need one line per text.", file=shorter)
        columns = {"text": [line for (_, line), _ in rows], "labels": [names for _, names in rows]}
        yield Block(str(texts), [number for (number, _), _ in rows], columns, ready=True)


# ---------------------------------------------------------------------------------------------------- label matrices


def _matrix_splits(folder: Path, options: RowOptions, _: bool) -> Splits:
    """PECOS and X-Transformer: a matrix of scipy."""
    names = _first_file(folder, _MATRIX_NAMES)
    found = []
    for alias, split in _ALIASES.items():
        short = SPLIT_NAMES[split][-1] if split != "validation" else alias
        matrix = _first_file(folder, [f"Y.{alias}.npz", f"Y.{short}.npz"])
        texts = _first_file(folder, [name.format(alias) for name in _RAW_TEXTS])
        if names is not None and matrix is not None and texts is not None:
            labels = partial(_named_labels, partial(read_label_matrix, matrix), names)
            found.append((split, matrix, partial(_paired, texts, labels, matrix, options)))
    return _one_each(found, folder)


def _sparse_splits(folder: Path, options: RowOptions, _: bool) -> Splits:
    """The Extreme Classification Repository: a matrix as text, or one of scipy under the same name."""
    names = _first_file(folder, _SPARSE_NAMES)
    found = []
    for alias, split in _ALIASES.items():
        matrix = _first_file(folder, [f"{alias}_X_Y.txt", f"{alias}_X_Y.npz"])
        others = (name for name in _ALIASES if _ALIASES[name] == split)
        texts = _first_file(folder, [name.format(other) for other in others for name in _SPARSE_TEXTS])
        if names is not None and matrix is not None and texts is not None:
            read = read_label_matrix if matrix.suffix == ".npz" else read_sparse_text
            labels = partial(_named_labels, partial(read, matrix), names)
            found.append((split, matrix, partial(_paired, texts, labels, matrix, options)))
    return _one_each(found, folder)


def _named_labels(read: Callable[[int, Path], Iterator[list[int]]], names_file: Path) -> Iterator[list[str]]:
    """The label names of each row of a matrix; labels of one name are kept apart by their numbers."""
    lines = line_list(names_file)
    names = distinct_names([str(number) for number in range(len(lines))], lines, names_file)
    for row, labels in enumerate(read(len(names), names_file), 1):
        empty = next((label for label in labels if not names[label]), None)
        if empty is not None:
            raise DataError(f"Line {empty + 1} is empty; row {row} has that label.", file=names_file)
        yield [names[label] for label in labels]


# ---------------------------------------------------------------------------------------------------- LF data sets


def _lf_splits(folder: Path, options: RowOptions, _: bool) -> Splits:
    labels = _first_file(folder, _LF_LABELS)
    if labels is None:
        return {}
    found = []
    for alias, split in _ALIASES.items():
        documents = _first_file(folder, [f"{alias}.json.gz", f"{alias}.json"])
        if documents is not None:
            found.append((split, documents, partial(_read_lf, documents, labels)))
    return _one_each(found, folder)


def _read_lf(documents: Path, labels: Path) -> Iterator[Block]:
    given = [_lf_text(row, "title", labels, number) for number, row in _json_objects(labels)]
    names = distinct_names([str(number) for number in range(len(given))], given, labels)
    for part in batches(_json_objects(documents)):
        label_column = [_lf_labels(row, names, documents, number, labels) for number, row in part]
        titles, contents, ids = (
            [_lf_text(row, field, documents, number) for number, row in part] for field in ("title", "content", "uid")
        )
        texts = [" ".join(filter(None, both)) for both in zip(titles, contents, strict=True)]
        columns = {"text": texts, "labels": label_column, "id": ids}
        yield Block(str(documents), [number for number, _ in part], columns, ready=True)


def _lf_text(row: Mapping[str, JSON], field: str, file: Path, number: int) -> str:
    """A field of text, or a number as text; nothing where it is missing or null."""
    value = row.get(field)
    if value is None:
        return ""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        raise DataError(f"{field!r} is {shown(value)}; a text is expected.", file=file, row=number)
    return str(value)


def _lf_labels(row: Mapping[str, JSON], names: Sequence[str], file: Path, number: int, labels: Path) -> list[str]:
    targets = row.get("target_ind")
    ids = [i for i in targets if isinstance(i, int) and 0 <= i < len(names)] if isinstance(targets, list) else []
    if not isinstance(targets, list) or len(ids) < len(targets) or any(isinstance(i, bool) for i in ids):
        raise DataError(
            f"'target_ind' is {str(targets)[:60]}; line numbers of {labels}, 0 to {len(names) - 1}, are expected.",
            file=file,
            row=number,
        )
    return [names[i] for i in ids]


def _json_objects(path: Path) -> Iterator[tuple[int, dict[str, JSON]]]:
    for number, line in iter_lines(path):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as err:
            raise DataError(f"Not valid JSON: {err}", file=path, row=number) from err
        if not isinstance(row, dict):
            raise DataError(f"The row is a {type(row).__name__}; an object is expected.", file=path, row=number)
        yield number, row
