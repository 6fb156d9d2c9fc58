"""Folders with a layout, as other programs read them: Annif, the Extreme Classification Repository, PECOS."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import quote

import numpy as np

from .label_lists import column_batches

if TYPE_CHECKING:
    from datasets import Dataset

__all__ = ["CORPUS_FORMATS", "CorpusFormat"]

_SHORT = {"train": "trn", "validation": "val", "test": "tst"}
_BREAKS = "\r\n\0"
_URN = "<urn:label:{}>"  # Annif needs a URI for each subject; this one follows from a name that stands for no concept
_URI = re.compile(r"[A-Za-z][\w+.-]*:[^\s<>]+")

Rows = Mapping[str, "Dataset"]


class CorpusFormat(NamedTuple):
    """A layout of a folder.

    Attributes:
        write: writes the splits into a folder, with label names beyond those of the rows, or these with the ids of
            their concepts; returns the files.
        problem: what the layout cannot hold, None for nothing.
        files: the files of some splits that must not be there.
    """

    write: Callable[[Path, Rows, Iterable[str]], list[Path]]
    problem: Callable[[Rows, Iterable[str]], str | None]
    files: Callable[[Sequence[str]], list[str]]


# ---------------------------------------------------------------------------------------------------- what fits


def _problem(
    splits: Rows, vocabulary: Iterable[str], text_signs: str, name_problem: Callable[[str], str | None]
) -> str | None:
    """What a layout of lines cannot hold: further columns, signs in texts, and some names."""
    for split, rows in splits.items():
        further = [name for name in rows.column_names if name not in ("text", "labels")]
        if further:
            return f"further columns such as {further[0]!r}"
        if split not in _SHORT:
            return f"a split {split!r}, only {', '.join(_SHORT)}"
        for number, text in enumerate(_texts(rows), 1):
            sign = next((sign for sign in text_signs if sign in text), None)
            if sign is not None or text.startswith("\ufeff"):
                return f"the text of row {number} of {split}, which holds {sign or text[0]!r} (--join-lines: a space)"
    for name in _label_names(splits, vocabulary):
        found = name_problem(name)
        if found is not None:
            return f"the label {name!r}, which {found}"
    return None


def _line_problem(name: str) -> str | None:
    """What keeps a name from being a line."""
    if any(sign in name for sign in _BREAKS) or name.startswith("\ufeff"):
        return "holds a line break or a sign that is none"
    return "begins or ends with white space" if name != name.strip() else None


def _cell_problem(name: str) -> str | None:
    """What keeps a name from being a cell of Annif's tables."""
    if "\t" in name:
        return "holds a tab"
    if name.startswith("<") and name.endswith(">"):
        return "looks like a URI"
    return _line_problem(name)


def _texts(rows: Dataset) -> Iterator[str]:
    for (texts,) in column_batches(rows, "text"):
        yield from texts.to_pylist()


def _labels(rows: Dataset) -> Iterator[list[str]]:
    for (labels,) in column_batches(rows, "labels"):
        yield from labels.to_pylist()


def _label_names(splits: Rows, vocabulary: Iterable[str]) -> list[str]:
    """The names of all labels, in the order in which they occur, then those of the vocabulary."""
    names: dict[str, None] = {}
    for rows in splits.values():
        for (labels,) in column_batches(rows, "labels"):
            names.update(dict.fromkeys(labels.flatten().unique().to_pylist()))
    names.update(dict.fromkeys(vocabulary))
    return list(names)


def _write_lines(path: Path, lines: Iterable[str]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="\n") as file:
        file.writelines(f"{line}\n" for line in lines)
    return path


# ---------------------------------------------------------------------------------------------------- Annif


def _uris(names: Iterable[str], vocabulary: Iterable[str]) -> dict[str, str]:
    """The URI of each label: its concept's where that has one."""
    ids = vocabulary if isinstance(vocabulary, Mapping) else {}
    return {
        name: f"<{ids[name]}>" if _URI.fullmatch(ids.get(name, "")) else _URN.format(quote(name, safe=""))
        for name in names
    }


def _write_annif(folder: Path, splits: Rows, vocabulary: Iterable[str]) -> list[Path]:
    uris = _uris(_label_names(splits, vocabulary), vocabulary)
    written = [_write_lines(folder / "vocab.tsv", (f"{uri}\t{name}" for name, uri in uris.items()))]
    for split, rows in splits.items():
        pairs = zip(_texts(rows), _labels(rows), strict=True)
        lines = (f"{text}\t{' '.join(uris[label] for label in labels)}" for text, labels in pairs)
        written.append(_write_lines(folder / f"{split}.tsv", lines))
    return written


def _annif_problem(splits: Rows, vocabulary: Iterable[str]) -> str | None:
    for split, rows in splits.items():
        pairs = enumerate(zip(_texts(rows), _labels(rows), strict=True), 1)
        empty = next((number for number, (text, labels) in pairs if not text.strip() and not labels), None)
        if empty is not None:
            return f"row {empty} of {split}, which has neither text nor labels"
        if not any(_labels(rows)):
            return f"the split {split}, since none of its rows has a label"
    return _problem(splits, vocabulary, f"\t{_BREAKS}", _cell_problem)


def _write_documents(folder: Path, splits: Rows, vocabulary: Iterable[str]) -> list[Path]:
    written = []
    for split, rows in splits.items():
        digits = len(str(len(rows)))
        (folder / split).mkdir(parents=True)
        for number, (text, labels) in enumerate(zip(_texts(rows), _labels(rows), strict=True), 1):
            path = folder / split / f"{number:0{digits}}.txt"
            path.write_bytes(text.encode("utf-8"))
            written += [path, _write_lines(path.with_suffix(".key"), labels)]
    return written


# ---------------------------------------------------------------------------------------------------- matrices


def _positions(rows: Dataset, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Row pointers and label numbers of a matrix."""
    index = {name: number for number, name in enumerate(names)}
    lengths, numbers = [np.zeros(1, dtype=np.int64)], [np.empty(0, dtype=np.int64)]
    for (labels,) in column_batches(rows, "labels"):
        coded = labels.flatten().dictionary_encode()
        known = np.array([index[name] for name in coded.dictionary.to_pylist()], dtype=np.int64)
        if len(known):
            numbers.append(known[coded.indices.to_numpy(zero_copy_only=False)])
        lengths.append(labels.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64))
    return np.cumsum(np.concatenate(lengths)), np.concatenate(numbers)


def _write_sparse(folder: Path, splits: Rows, vocabulary: Iterable[str]) -> list[Path]:
    names = _label_names(splits, vocabulary)
    written = [_write_lines(folder / "raw_data" / "label.raw.txt", names)]
    for split, rows in splits.items():
        bounds, numbers = _positions(rows, names)
        lines = (
            " ".join(f"{label}:1" for label in numbers[bounds[row] : bounds[row + 1]]) for row in range(len(rows))
        )
        header = f"{len(rows)} {len(names)}"
        written.append(_write_lines(folder / f"{_SHORT[split]}_X_Y.txt", chain([header], lines)))
        written.append(_write_lines(folder / "raw_data" / f"{split}.raw.txt", _texts(rows)))
    return written


def _write_pecos(folder: Path, splits: Rows, vocabulary: Iterable[str]) -> list[Path]:
    from scipy.sparse import csr_matrix, save_npz

    names = _label_names(splits, vocabulary)
    written = [_write_lines(folder / "output-items.txt", names)]
    for split, rows in splits.items():
        bounds, numbers = _positions(rows, names)
        ones = np.ones(len(numbers), dtype=np.float32)
        matrix = csr_matrix((ones, numbers, bounds), shape=(len(rows), len(names)))
        matrix.sort_indices()  # PECOS wants the labels of a row in order
        path = folder / f"Y.{_SHORT[split]}.npz"
        save_npz(path, matrix)
        written += [path, _write_lines(folder / f"X.{_SHORT[split]}.txt", _texts(rows))]
    return written


def _line_layout_problem(splits: Rows, vocabulary: Iterable[str]) -> str | None:
    if not _label_names(splits, vocabulary):
        return "rows without any label"
    return _problem(splits, vocabulary, _BREAKS, _line_problem)


CORPUS_FORMATS = {
    "annif": CorpusFormat(
        _write_annif, _annif_problem, lambda splits: ["vocab.tsv", *(f"{split}.tsv" for split in splits)]
    ),
    "annif-documents": CorpusFormat(
        _write_documents,
        lambda splits, vocabulary: _problem(splits, vocabulary, "", _cell_problem),
        lambda splits: list(splits),
    ),
    "xc": CorpusFormat(
        _write_sparse,
        _line_layout_problem,
        lambda splits: ["raw_data/label.raw.txt", *(f"{_SHORT.get(split, split)}_X_Y.txt" for split in splits)],
    ),
    "pecos": CorpusFormat(
        _write_pecos,
        _line_layout_problem,
        lambda splits: ["output-items.txt", *(f"Y.{_SHORT.get(split, split)}.npz" for split in splits)],
    ),
}
"""Layouts by name: Annif's tables, Annif's folders of documents, sparse text with names, PECOS's matrices."""
