"""Rows of text and labels from every format that people have them in, checked row by row."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Value, concatenate_datasets, load_dataset
from datasets.exceptions import DatasetsError

from ..errors import DataError
from .folders import SPLIT_NAMES, folder_splits, standard_split
from .formats import FILE_FORMATS, Columns, RawRow, label_names, read_file, reader_of

__all__ = ["FEATURES", "LABEL_SPACE_CONFIG", "load_label_names", "load_rows", "row_facts", "rows_sha256"]

logger = logging.getLogger(__name__)

FEATURES = Features({"text": Value("string"), "labels": List(Value("string"))})
"""Columns of every data set that `load_rows` returns."""

LABEL_SPACE_CONFIG = "label_space"
"""Configuration of a Hub data set that holds the names of its labels, in a column `label`."""

_GIVEN = "the given rows"
_CHUNK = 10_000  # rows that are Python objects at once
_HUB_ID = re.compile(r"[\w.-]+/[\w-]+(?:\.(?!txt$|gz$|tsv$|csv$)[\w-]+)*")  # owner/name that no file would be called
_SHOWN = 80  # characters of a bad value that an error shows


def load_rows(
    source: str | Path | Dataset,
    *,
    split: str | None = None,
    require_labels: bool = True,
    allow_empty_text: bool | None = None,
    text_column: str = "text",
    labels_column: str = "labels",
    label_separator: str = "|",
) -> Dataset:
    r"""Read and check rows of text and labels.

    Args:
        source: a file (`.jsonl`, `.json`, `.csv`, `.tsv`, each also with `.gz`, or `.parquet`); a folder with a file
            for each split or in one of the raw-text layouts of `data_folders`; the id of a data set on the Hub; or
            rows in memory, which are checked likewise.
        split: the part to read of a folder or a Hub data set, where there are several: `train`, `validation` (also
            found as `valid`, `val`, `dev`) or `test`. A file is read whole whatever this says.
        require_labels: if false, the source may lack the column of labels, or a row may have none (null): such rows
            get an empty list.
        allow_empty_text: whether a text may be empty or white space. By default this is so where labels are not
            required: there is nothing to learn from such a row, but asking for its prediction is no mistake.
        text_column: name of the column with the texts.
        labels_column: name of the column with the labels, lists of strings. In CSV and TSV a cell is a JSON list, or
            names with a separator between them and white space around them removed.
        label_separator: that separator.

    Returns:
        A data set with the columns `text` (string) and `labels` (list of strings, each once, in the given order). Rows
        without labels stay in it (evaluation counts them, training leaves them out) and are reported in the log, as
        are labels that a row repeats.

    Raises:
        DataError: if something cannot be read or a row is not as described; names file and row. Rows are lines in JSON
            Lines and raw text, and records behind the header in CSV and TSV, from 1.
    """
    columns = Columns(text_column, labels_column, require_labels, label_separator)
    name = _GIVEN if isinstance(source, Dataset) else source
    checker = _RowChecker(columns, (not require_labels) if allow_empty_text is None else allow_empty_text)
    rows = map(checker.check, _raw_rows(source, split, columns))
    chunks = []
    while chunk := list(islice(rows, _CHUNK)):
        content = {"text": [text for text, _ in chunk], "labels": [labels for _, labels in chunk]}
        chunks.append(Dataset.from_dict(content, features=FEATURES))
    if not chunks:
        raise DataError("There are no rows.", file=name)
    checker.report(name)
    return concatenate_datasets(chunks)


def load_label_names(path: str | Path) -> list[str]:
    """Read a vocabulary: UTF-8, a name a line, `.gz` too; or the label space of a data set on the Hub.

    Args:
        path: the file, or `owner/name` of a data set that `push_dataset` made. Lines without visible text are left
            out; nothing else of a name is changed.

    Returns:
        The names in the order of the file; of repeated ones, which are reported in the log, the first.

    Raises:
        DataError: if the file is missing, no UTF-8, or holds no name, or the data set has no label space.
    """
    from_hub = isinstance(path, str) and _HUB_ID.fullmatch(path) is not None and not Path(path).exists()
    lines = _hub_label_names(str(path)) if from_hub else label_names(Path(path))
    names = [name for name in lines if name.strip()]
    if not names:
        raise DataError("There is no label name in the file; a name a line is expected.", file=path)
    unique = list(dict.fromkeys(names))
    if len(unique) < len(names):
        logger.warning("%s: %d names are repeated and count once.", path, len(names) - len(unique))
    return unique


# ---------------------------------------------------------------------------------------------------- sources


def _raw_rows(source: str | Path | Dataset, split: str | None, columns: Columns) -> Iterator[RawRow]:
    if isinstance(source, Dataset):
        return _dataset_rows(source, _GIVEN, columns)
    path = Path(source).expanduser()
    if path.is_dir():
        splits = folder_splits(path, columns)
        return splits[_choose_split(splits, split, str(source))]()
    if path.is_file() or _looks_like_file(source):
        return read_file(path, columns)
    return _hub_rows(str(source), split, columns)


def _looks_like_file(source: str | Path) -> bool:
    """Whether a source that does not exist cannot be the id of a data set, `owner/name` or `name`."""
    name = str(source)
    odd = not name or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    return isinstance(source, Path) or odd or reader_of(Path(name)) is not None


def _choose_split(available: Iterable[str], wanted: str | None, source: str) -> str:
    names = list(available)
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted is None:
        raise DataError(f"It has the splits {sorted(names)}; say which one to read, with split=...", file=source)
    if wanted in names:
        return wanted
    for name in names:
        if standard_split(name) == standard_split(wanted):
            return name
    raise DataError(f"It has no split {wanted!r}, only {sorted(names)}.", file=source)


def _hub_rows(name: str, split: str | None, columns: Columns) -> Iterator[RawRow]:
    try:
        found = load_dataset(name)
    except (
        DatasetsError,
        OSError,
        RuntimeError,
        ValueError,
    ) as err:  # no network, no access, a loading script
        answer = (str(err).strip().splitlines() or [type(err).__name__])[0]
        raise DataError(
            f"There is no such file or folder, and no data set of this name can be loaded from the Hub: {answer}\n"
            f"Files end in {', '.join(FILE_FORMATS)}; a folder holds a file for each of {', '.join(SPLIT_NAMES)}.",
            file=name,
        ) from err
    if isinstance(found, DatasetDict):
        found = found[_choose_split(found, split, name)]
    return _dataset_rows(found, name, columns)


def _hub_label_names(name: str) -> list[str]:
    try:
        return load_dataset(name, LABEL_SPACE_CONFIG, split="train")["label"][:]
    except (DatasetsError, KeyError, OSError, RuntimeError, ValueError) as err:
        answer = (str(err).strip().splitlines() or [type(err).__name__])[0]
        raise DataError(
            f"There is no such file, and no data set of this name with a configuration {LABEL_SPACE_CONFIG!r} and a "
            f"column 'label' can be loaded from the Hub: {answer}",
            file=name,
        ) from err


def _dataset_rows(dataset: Dataset, name: str, columns: Columns) -> Iterator[RawRow]:
    dataset = dataset.select_columns(columns.among(dataset.column_names, name))
    classes = _class_names(dataset.features.get(columns.labels))
    for number, values in enumerate(dataset, 1):
        labels = values.get(columns.labels)
        if classes is not None and labels is not None:
            values = {**values, columns.labels: [classes.int2str(label) for label in labels]}
        yield RawRow(name, number, values)


def _class_names(feature: Any) -> ClassLabel | None:
    """The names behind a column that holds lists of class numbers, None for any other column."""
    inner = getattr(feature, "feature", None)
    return inner if isinstance(inner, ClassLabel) else None


# ---------------------------------------------------------------------------------------------------- checks


@dataclass
class _RowChecker:
    """Checks row by row, and counts what it mended or let pass."""

    columns: Columns
    allow_empty_text: bool
    rows: int = 0
    without_labels: int = 0
    empty_texts: int = 0
    repeated: int = 0

    def check(self, raw: RawRow) -> tuple[str, list[str]]:
        """Text and labels of a row.

        Raises:
            DataError: if the row cannot be used.
        """
        self.rows += 1
        problem = self._text_problem(raw.values.get(self.columns.text))
        labels = raw.values.get(self.columns.labels)
        problem = problem or self._labels_problem(labels)
        if problem:
            raise DataError(problem, file=raw.file, row=raw.row)
        unique = list(dict.fromkeys(labels or ()))
        self.without_labels += not unique
        self.repeated += len(labels or ()) - len(unique)
        return raw.values[self.columns.text], unique

    def _text_problem(self, text: object) -> str | None:
        name = self.columns.text
        if text is None:
            return f"The column {name!r} is null; a text is expected."
        if not isinstance(text, str):
            return f"The column {name!r} is {type(text).__name__} {_shown(text)}; a string is expected."
        if not _is_encodable(text):
            return f"The text holds half of a surrogate pair, which is no character: {_shown(text)}."
        if not text.strip():
            self.empty_texts += 1
            if not self.allow_empty_text:
                return "The text is empty. Leave the row out; nothing can be learned from it."
        return None

    def _labels_problem(self, labels: object) -> str | None:
        name = self.columns.labels
        if labels is None:
            if not self.columns.require_labels:
                return None
            return f"The column {name!r} is null; a list of strings is expected, [] where there are no labels."
        if isinstance(labels, str):
            return f"The column {name!r} is one string; a list of strings is expected: [{_shown(labels)}]."
        if not isinstance(labels, Sequence):
            return f"The column {name!r} is {type(labels).__name__} {_shown(labels)}; a list of strings is expected."
        return next(filter(None, map(_label_problem, labels)), None)

    def report(self, source: str | Path) -> None:
        """Log what was counted."""
        if self.without_labels and self.columns.require_labels:
            logger.warning(
                "%s: %d of %d rows have no labels. Training leaves them out, evaluation counts them.",
                source,
                self.without_labels,
                self.rows,
            )
        if self.empty_texts:
            logger.warning("%s: %d of %d texts are empty.", source, self.empty_texts, self.rows)
        if self.repeated:
            logger.warning("%s: %d labels were repeated in their row and count once.", source, self.repeated)


def _label_problem(label: object) -> str | None:
    if not isinstance(label, str):
        return f"The label {_shown(label)} is a {type(label).__name__}; write it as a string."
    if not label.strip():
        return f"There is a label without visible text: {label!r}. Leave it out."
    if not _is_encodable(label):
        return f"The label {_shown(label)} holds half of a surrogate pair, which is no character."
    return None


def _is_encodable(text: str) -> bool:
    """Whether UTF-8, and so Arrow, can hold the text."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _shown(value: object) -> str:
    """A value for an error message: one line, not too long, printable."""
    text = ascii(value) if isinstance(value, str) and not _is_encodable(value) else repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def rows_sha256(rows: Dataset) -> str:
    """SHA-256 of rows in their order, each a line of JSON `{"text": ..., "labels": [...]}` in UTF-8.

    It does not depend on the format or file that the rows came from, so it tells whether two people used one split.
    """
    digest = hashlib.sha256()
    for row in rows:
        line = json.dumps({"text": row["text"], "labels": row["labels"]}, ensure_ascii=False)
        digest.update(line.encode("utf-8") + b"\n")
    return digest.hexdigest()


def row_facts(rows: Dataset, source: str | None = None) -> dict[str, Any]:
    """Number of rows, mean number of labels, and hash.

    Args:
        rows: rows with `text` and `labels`.
        source: where they come from; left out if None.
    """
    labels = sum(map(len, rows["labels"]))
    facts: dict[str, Any] = {"rows": len(rows), "labels_per_row": labels / max(len(rows), 1)}
    return facts | {"sha256": rows_sha256(rows), "source": source}
