"""Predictions as files: written with the ids and columns of their rows, so that they can be joined, and read back."""

from __future__ import annotations

import csv
import gzip
import io
import json
import logging
import math
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from ..errors import ConfigurationError, DataError
from ..files.atomic import atomic_path
from ..files.json_lines import write_jsonl
from .blocks import MISSING, Block, batches
from .formats import read_file
from .label_cells import (
    COMMAS,
    DEFAULT_SEPARATOR,
    PLAIN_SEPARATORS,
    CellError,
    join_labels,
    recognise_separator,
    split_cell,
)
from .options import RowOptions, shown_names
from .values import fail, kind_of, no_column, shown, to_list

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

__all__ = [
    "CONFIDENCE_FIELDS",
    "PREDICTION_FORMATS",
    "Predictions",
    "check_prediction_file",
    "csv_writer",
    "join_columns",
    "open_text",
    "read_predictions",
    "write_predictions",
]

logger = logging.getLogger(__name__)

PREDICTION_FORMATS = (".jsonl", ".jsonl.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")
"""Ends of the names of files that predictions can be written to."""

CONFIDENCE_FIELDS = ("expected_f1", "best_label_probability")
"""Fields of a prediction that say how far it can be trusted."""

_FIELDS = ("labels", "scores", "clusters", "novel_labels")  # of a prediction
_BETWEEN_NUMBERS = re.compile(rf"[\s{re.escape(''.join((*PLAIN_SEPARATORS, *COMMAS)))}]+")
_CONCEPTS = "ids"  # field of a prediction: the concept that each label stands for


# ---------------------------------------------------------------------------------------------------- writing


def check_prediction_file(path: str | Path) -> None:
    """Check that predictions can be written under a name, before the work that makes them.

    Raises:
        ConfigurationError: if the name says no format.
    """
    if not str(path).lower().endswith(PREDICTION_FORMATS):
        raise ConfigurationError(f"{path}: the name must end in one of {', '.join(PREDICTION_FORMATS)}.")


def join_columns(
    predictions: Sequence[Mapping[str, object]], rows: Dataset, options: RowOptions, start: int = 0
) -> list[dict[str, object]]:
    """Predictions with the id and the kept columns of their rows before them.

    Args:
        predictions: what was predicted for the rows from `start` on, as dictionaries.
        rows: the rows, read by `load_rows` with the same options.
        options: `id_column` and `keep_columns` say which columns.
        start: the row of the first prediction, from 0.

    Raises:
        ConfigurationError: if a column has the name of a part of the prediction.
    """
    wanted = [options.id_column] if options.id_column is not None else []
    wanted += [part for name in options.keep_columns for part in _names(name, rows.column_names)]
    names = list(dict.fromkeys(wanted))
    if not names:
        return [dict(prediction) for prediction in predictions]
    taken = sorted({*names} & {key for prediction in predictions[:1] for key in (*_FIELDS, *prediction)})
    if taken:
        raise ConfigurationError(f"Predictions have {taken} of their own; rename the column to keep it.")
    columns = rows.select_columns(names)[start : start + len(predictions)]
    joined = (dict(zip(names, values, strict=True)) for values in zip(*columns.values(), strict=True))
    return [{**of_row, **prediction} for of_row, prediction in zip(joined, predictions, strict=True)]


def _names(given: str, available: Sequence[str]) -> list[str]:
    return [given] if given in available else [part.strip() for part in given.split(",")]


def write_predictions(
    path: str | Path, predictions: Iterable[Mapping[str, object]], *, label_separator: str | None = None
) -> int:
    """Write predictions in the format that the name of the file says; the file appears when all is written.

    Args:
        path: `.jsonl`, `.csv` or `.tsv`, each also with `.gz`, or `.parquet`.
        predictions: dictionaries of equal keys, such as `join_columns` returns.
        label_separator: what stands between the labels, scores and clusters of a cell in CSV and TSV, by default `|`.
            Names that hold it or another usual separator make the cell a JSON list.

    Returns:
        The number of predictions.

    Raises:
        ConfigurationError: if the name says no format.
        DataError: if there is a column that the first prediction does not have.
    """
    check_prediction_file(path)
    name = str(path).lower()
    if name.endswith((".jsonl", ".jsonl.gz")):
        return write_jsonl(path, predictions)
    if name.endswith(".parquet"):
        return _write_parquet(Path(path), predictions)
    delimiter = "\t" if ".tsv" in name[-7:] else ","
    return _write_csv(Path(path), predictions, delimiter, label_separator or DEFAULT_SEPARATOR)


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A text file to write in UTF-8, compressed if its name ends in .gz; it appears when the block ends well.

    Equal content gives equal files: there is no name and no time in the header of a compressed file.
    """
    with atomic_path(path) as aside, aside.open("wb") as raw:
        packed = gzip.GzipFile("", "wb", fileobj=raw, mtime=0) if path.name.lower().endswith(".gz") else None
        with io.TextIOWrapper(packed or raw, encoding="utf-8", newline="") as file:
            yield file


def csv_writer(file: TextIO, delimiter: str) -> Callable[[Collection[object]], None]:
    """What writes a row of CSV, its line ended by a line feed alone.

    The csv module leaves a carriage return unquoted where lines end otherwise, so such rows are quoted as a whole.
    """
    plain = csv.writer(file, delimiter=delimiter, lineterminator="\n")
    quoted = csv.writer(file, delimiter=delimiter, lineterminator="\n", quoting=csv.QUOTE_ALL)

    def write(row: Collection[object]) -> None:
        has_return = any(isinstance(value, str) and "\r" in value for value in row)
        (quoted if has_return else plain).writerow(row)

    return write


def _write_csv(path: Path, predictions: Iterable[Mapping[str, object]], delimiter: str, separator: str) -> int:
    count = 0
    names: list[str] | None = None
    with open_text(path) as file:
        write_row = csv_writer(file, delimiter)
        for count, prediction in enumerate(predictions, 1):
            if names is None:
                names = list(prediction)
                write_row(names)
            _check_names(prediction, names, path, count)
            write_row([_cell(prediction.get(name), separator) for name in names])
    return count


def _check_names(prediction: Mapping[str, object], names: Sequence[str], path: Path, number: int) -> None:
    new = sorted(set(prediction) - set(names))
    if new:
        raise DataError(
            f"There is a column {new[0]!r} that the first prediction does not have.", file=path, row=number
        )


def _cell(value: object, separator: str) -> object:
    """A value as a cell of CSV: names and numbers with separators between them, anything deeper as JSON."""
    if isinstance(value, (list, tuple)):
        if all(isinstance(one, str) and one for one in value):
            return join_labels(value, separator)
        if all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in value):
            return separator.join(map(repr, value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (list, tuple, dict)) else value


def _write_parquet(path: Path, predictions: Iterable[Mapping[str, object]]) -> int:
    """Tables of some thousand predictions are kept until the type of every column is known; they are compact."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    tables, count = [], 0
    for part in batches(predictions):
        count += len(part)
        tables.append(_prediction_table(part, path, count - len(part)))
    tables = tables or [pa.table({name: pa.array([], kind) for name, kind in _prediction_types().items()})]
    try:
        schema = pa.unify_schemas([table.schema for table in tables], promote_options="permissive")
        whole = pa.concat_tables([table.cast(schema) for table in tables])
    except (pa.ArrowException, ValueError, TypeError) as err:
        raise DataError(f"The kept columns are not of one kind in all rows: {err}", file=path) from err
    with atomic_path(path) as aside:
        pq.write_table(whole, aside)
    return count


def _prediction_types() -> dict[str, pa.DataType]:
    """Arrow types of what predictions have, whatever the first ones look like."""
    import pyarrow as pa

    return {"labels": pa.list_(pa.string()), "scores": pa.list_(pa.float64()), "clusters": pa.list_(pa.string())}


def _prediction_table(part: Sequence[Mapping[str, object]], path: Path, start: int) -> pa.Table:
    import pyarrow as pa

    names, types = list(part[0]), _prediction_types()
    for number, prediction in enumerate(part, start + 1):
        _check_names(prediction, names, path, number)
    columns = {}
    for name in names:
        values = [prediction.get(name) for prediction in part]
        try:
            columns[name] = pa.array(values, types.get(name))
        except (pa.ArrowException, ValueError, TypeError, OverflowError) as err:
            raise DataError(f"The column {name!r} is not of one kind in all rows: {err}", file=path) from err
    return pa.table(columns)


# ---------------------------------------------------------------------------------------------------- reading


@dataclass(frozen=True)
class Predictions:
    """Predictions as a file has them.

    Attributes:
        labels: label names of each text, best first.
        scores: a score for each label, where every row has them.
        ids: the value of the id column of each row, where one is asked for.
        concepts: the id of the concept that each label stands for, None for a label without one, where they are asked
            for.
        confidence: what the rows say of how far they can be trusted, by the names in `CONFIDENCE_FIELDS`, where every
            row does.
    """

    labels: list[list[str]]
    scores: list[list[float]] | None = None
    ids: list[object] | None = None
    concepts: list[list[str | None]] | None = None
    confidence: Mapping[str, list[float]] = field(default_factory=dict)


def read_predictions(
    path: str | Path, options: RowOptions | None = None, *, with_concepts: bool = False
) -> Predictions:
    """Read a file of predictions.

    Args:
        path: a file with `labels`, and perhaps `scores`, in a format that `load_rows` reads.
        options: `labels_column`, `id_column`, `encoding`, `delimiter`; and `label_separator`, which counts where cells
            hold it, since predictions may be written with another one than references.
        with_concepts: whether the ids of the labels' concepts are read, where the file has them (`ids`).

    Raises:
        DataError: if a row has no list of labels, or its scores or ids do not fit; names file and row.
    """
    options = options or RowOptions()
    # Predictions have no text; their labels stand in for it, so that a reader finds all that it needs.
    columns = [options.labels, "scores", *CONFIDENCE_FIELDS, *([options.id_column] if options.id_column else [])]
    columns += [_CONCEPTS] if with_concepts else []
    reading = options.changed(text_column=options.labels, keep_columns=columns[1:], layout="rows")
    labels: list[list[str]] = []
    scores: list[list[float]] = []
    ids: list[object] = []
    concepts: list[list[str | None]] = []
    cells = _Cells(options)
    confidence: dict[str, list[float]] = {name: [] for name in CONFIDENCE_FIELDS}
    for block in read_file(Path(path), reading):
        for name, values in confidence.items():
            values += _fractions(block, name)
        _read_block(block, options, cells, labels, scores, ids)
        if with_concepts:
            concepts += _concepts(block, cells, labels[len(concepts) :])
    if not labels:
        raise DataError("There are no rows.", file=path)
    known = {name: values for name, values in confidence.items() if len(values) == len(labels)}
    return Predictions(
        labels, scores or None, ids if options.id_column else None, concepts if with_concepts else None, known
    )


class _Cells:
    """What separates the labels in the cells of a file."""

    def __init__(self, options: RowOptions) -> None:
        self._separator = options.label_separator
        self._in_cells: bool | None = None

    def lists(self, block: Block, name: str) -> list[object]:
        values = list(to_list(block.columns[name]))
        if self._in_cells is None and values:
            self._in_cells = isinstance(values[0], str)
            if self._in_cells:
                scores = to_list(block.columns["scores"]) if "scores" in block.columns else ()
                self._separator = self._used([value for value in values if isinstance(value, str)], scores)
        return [self._list(block, row, value) for row, value in enumerate(values)]

    def _used(self, cells: Sequence[str], scores: Sequence[object]) -> str:
        """The separator of the cells: the given one, unless there is another one and that is nowhere."""
        if self._separator is not None and any(self._separator in cell for cell in cells if cell[:1] != "["):
            return self._separator
        found = recognise_separator(cells) or _separator_of_scores(cells, scores)
        return found or self._separator or DEFAULT_SEPARATOR

    def _list(self, block: Block, row: int, value: object) -> object:
        if not isinstance(value, str) or not self._in_cells:
            return value
        try:
            return split_cell(value, self._separator or "")
        except CellError as err:
            fail(block, row, str(err), err)

    def numbers(self, value: object) -> object:
        """Scores of a cell; anything that is not a cell of numbers unchanged.

        What stands between numbers is plain, whatever stands between the labels: these may all be JSON lists.
        """
        if not isinstance(value, str):
            return value
        for parts in (_BETWEEN_NUMBERS.split(value.strip("[] ")), value.split(self._separator or DEFAULT_SEPARATOR)):
            try:
                return [float(part) for part in parts if part.strip()]
            except ValueError:
                continue
        return value


def _separator_of_scores(cells: Sequence[str], scores: Sequence[object]) -> str | None:
    """The sign between scores, where it makes as many labels of each cell as there are scores; None for none."""
    texts = [score for score in scores if isinstance(score, str)]
    signs = (sign for sign in (*PLAIN_SEPARATORS, *COMMAS) if any(sign in text for text in texts if text[:1] != "["))
    sign = next(signs, None)
    if sign is None or not len(cells) == len(scores) == len(texts):
        return None
    pairs = ((cell, text) for cell, text in zip(cells, texts, strict=True) if text.strip())
    try:
        return sign if all(len(split_cell(cell, sign)) == len(text.split(sign)) for cell, text in pairs) else None
    except CellError:  # which reading the cell reports
        return None


def _read_block(
    block: Block,
    options: RowOptions,
    cells: _Cells,
    labels: list[list[str]],
    scores: list[list[float]],
    ids: list[object],
) -> None:
    name = options.labels
    if name not in block.columns:
        no_column(block, None, name, "--labels-column", "labels_column")
    given = list(to_list(block.columns["scores"])) if "scores" in block.columns else [MISSING] * len(block.numbers)
    for row, found in enumerate(cells.lists(block, name)):
        if found is MISSING:
            no_column(block, row, name, "--labels-column", "labels_column")
        if not isinstance(found, list) or not all(isinstance(label, str) and label for label in found):
            fail(block, row, f"`{name}` must be a list of label names, the best first, got {shown(found)}.")
        labels.append(found)
        of_row = cells.numbers(given[row])
        if of_row is not None and of_row is not MISSING:
            scores.append(_checked_scores(block, row, of_row, len(found)))
        if len(scores) not in (0, len(labels)):
            fail(block, row, "Some rows have `scores`, others have none.")
    if options.id_column is not None:
        if options.id_column not in block.columns:
            message = f"There is no column {options.id_column!r} of ids, only {shown_names(block.columns)}."
            raise DataError(message, file=block.file)
        ids += to_list(block.columns[options.id_column])


def _concepts(block: Block, cells: _Cells, labels: Sequence[Sequence[str]]) -> list[list[str | None]]:
    """The id of each label's concept; None for a label without one, and where the file has no ids."""
    if _CONCEPTS not in block.columns:
        return [[None] * len(names) for names in labels]
    found: list[list[str | None]] = []
    for row, (ids, names) in enumerate(zip(cells.lists(block, _CONCEPTS), labels, strict=True)):
        if ids is None or ids is MISSING:
            found.append([None] * len(names))
            continue
        if (
            not isinstance(ids, list)
            or len(ids) != len(names)
            or not all(one is None or isinstance(one, str) for one in ids)
        ):
            message = f"`{_CONCEPTS}` must be a list of {len(names)} ids of concepts, one or null for each label"
            fail(block, row, f"{message}, got {shown(ids)}. Rename a column of this name that is something else.")
        found.append(ids)
    return found


def _fractions(block: Block, name: str) -> list[float]:
    """The numbers of a column; none where a row lacks it."""
    found: list[float] = []
    for row, value in enumerate(to_list(block.columns[name]) if name in block.columns else ()):
        if value is None or value is MISSING or value == "":
            continue
        try:
            number = float(value) if isinstance(value, (str, int, float)) else math.nan
        except ValueError:
            number = math.nan
        if not 0 <= number <= 1:
            fail(block, row, f"`{name}` must be a number from 0 to 1, got {shown(value)}.")
        found.append(number)
    return found


def _checked_scores(block: Block, row: int, scores: object, count: int) -> list[float]:
    numbers = isinstance(scores, list) and all(type(score) in (int, float) for score in scores)
    if not isinstance(scores, list) or not numbers or len(scores) != count:
        message = f"`scores` must be a list of {count} numbers, one for each label, got {shown(scores)}"
        fail(block, row, f"{message} ({kind_of(scores)}).")
    if any(map(math.isnan, scores)):
        fail(block, row, f"`scores` hold NaN, which is no number: {shown(scores)}.")
    return scores
