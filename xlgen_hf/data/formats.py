"""Readers of single files: JSON Lines, JSON, CSV, TSV and Parquet, row by row, with the place of every problem."""

from __future__ import annotations

import csv
import gzip
import itertools
import json
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

from ..errors import DataError

__all__ = ["FILE_FORMATS", "Columns", "RawRow", "iter_lines", "label_names", "read_file", "reader_of"]

FILE_FORMATS = (".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".parquet")

_BATCH = 1000  # Parquet rows that are in memory at once
_SHOWN = 80  # characters of a bad value that an error shows
_EXAMPLE = '{"text": "...", "labels": ["...", "..."]}'
_MAX_CELL = 2**31 - 1  # characters; the csv module refuses cells of more than 131,072 unless told


class RawRow(NamedTuple):
    """A row as it stands in its file.

    Attributes:
        file: the file, or the name of the data set.
        row: its number, from 1. Lines count in JSON Lines and plain text, records behind the header in CSV and TSV.
        values: the row's columns; only JSON rows may lack one.
    """

    file: str
    row: int
    values: dict[str, Any]


@dataclass(frozen=True)
class Columns:
    """Which columns to read.

    Args:
        text: name of the column with the texts.
        labels: name of the column with the labels.
        require_labels: whether a source without labels is an error.
        separator: what stands between two labels in a cell of CSV or TSV.
    """

    text: str = "text"
    labels: str = "labels"
    require_labels: bool = True
    separator: str = "|"

    def among(self, available: Iterable[str], file: str, row: int | None = None) -> list[str]:
        """The wanted columns that exist.

        Raises:
            DataError: if one is missing that must be there; names the columns that are.
        """
        names = list(available)
        for wanted in (self.text, self.labels) if self.require_labels else (self.text,):
            if wanted not in names:
                raise DataError(
                    f"There is no column {wanted!r}, only {sorted(names)}. Rename one or say which to read.",
                    file=file,
                    row=row,
                )
        return [name for name in (self.text, self.labels) if name in names]


Reader = Callable[[Path, Columns], Iterator[RawRow]]


def reader_of(path: Path) -> Reader | None:
    """The reader for a file of this name, None where no reader knows it."""
    name = path.name.lower()
    for suffix, reader in _READERS.items():
        if name.endswith(suffix) or (name.endswith(f"{suffix}.gz") and suffix != ".parquet"):
            return reader
    return None


def read_file(path: Path, columns: Columns) -> Iterator[RawRow]:
    """Rows of a data file.

    Args:
        path: a file with one of the names in `FILE_FORMATS`.
        columns: the columns to read.

    Raises:
        DataError: if the file cannot be read as what its name says; from the first row on.
    """
    reader = reader_of(path)
    if reader is None:
        raise DataError(f"Files of this name cannot be read; known are {', '.join(FILE_FORMATS)}.", file=path)
    return reader(path, columns)


# ---------------------------------------------------------------------------------------------------- lines


@contextmanager
def _open_binary(path: Path) -> Iterator[BinaryIO]:
    """A file's bytes, decompressed if its name ends in .gz."""
    try:
        with gzip.open(path, "rb") if path.name.lower().endswith(".gz") else path.open("rb") as file:
            yield file  # type: ignore[misc]  # GzipFile has all that is used here
    except (gzip.BadGzipFile, EOFError, zlib.error) as err:
        raise DataError(f"The file is no complete gzip file ({err}).", file=path) from err
    except FileNotFoundError as err:
        raise DataError("There is no such file.", file=path) from err


def iter_lines(path: Path) -> Iterator[tuple[int, str]]:
    r"""Lines of a UTF-8 text file with their numbers from 1; a byte order mark is dropped, `\n` kept.

    Raises:
        DataError: if a line is no UTF-8; says where.
    """
    offset = 0
    with _open_binary(path) as file:
        for number, line in enumerate(file, 1):
            try:
                yield number, line.decode("utf-8-sig" if number == 1 else "utf-8")
            except UnicodeDecodeError as err:
                raise _not_utf8(err, line, offset, path, number) from err
            offset += len(line)


def _not_utf8(err: UnicodeDecodeError, line: bytes, offset: int, path: Path, number: int) -> DataError:
    utf16 = number == 1 and line[:2] in (b"\xff\xfe", b"\xfe\xff")
    what = "looks like UTF-16" if utf16 else f"is no UTF-8: byte {offset + err.start} is 0x{line[err.start]:02x}"
    return DataError(f"The file {what}. Save it as UTF-8.", file=path, row=number)


def label_names(path: Path) -> list[str]:
    """The lines of a file of names without their ends; one may be empty."""
    return [line.rstrip("\r\n") for _, line in iter_lines(path)]


# ---------------------------------------------------------------------------------------------------- JSON


def _read_json(path: Path, columns: Columns) -> Iterator[RawRow]:
    """Rows of JSON Lines, or of one JSON list."""
    lines = ((number, line) for number, line in iter_lines(path) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    if first[1].lstrip().startswith("["):
        content = first[1] + "".join(line for _, line in lines)
        rows: Iterable[tuple[int, Any]] = enumerate(_parse_json(content, path, None), 1)
    else:
        rows = ((number, _parse_json(line, path, number)) for number, line in itertools.chain([first], lines))
    for number, row in rows:
        yield _json_row(row, path, number, columns)


def _parse_json(content: str, path: Path, number: int | None) -> Any:
    try:
        return json.loads(content.rstrip())
    except json.JSONDecodeError as err:
        place = f"column {err.colno}" if number else f"line {err.lineno}, column {err.colno}"
        shown = content.strip()[:_SHOWN]
        message = (
            f'No valid JSON ({err.msg} at {place}): {shown}. A row is {{"text": "...", "labels": ["...", "..."]}}.'
        )
        raise DataError(message, file=path, row=number) from err
    except RecursionError as err:
        raise DataError("The JSON is nested too deeply.", file=path, row=number) from err


def _json_row(row: Any, path: Path, number: int, columns: Columns) -> RawRow:
    if not isinstance(row, dict):
        raise DataError(
            f"The row is a {type(row).__name__}; an object is expected: {_EXAMPLE}.",
            file=path,
            row=number,
        )
    columns.among(row, str(path), number)
    return RawRow(str(path), number, row)


# ---------------------------------------------------------------------------------------------------- CSV and TSV


def _read_csv(path: Path, columns: Columns, delimiter: str = ",") -> Iterator[RawRow]:
    """Rows of a table with a header."""
    csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL))
    records = _csv_records(path, delimiter)
    header = next(records, None)
    if header is None:
        return
    names = [name.strip() for name in header]
    if len(set(names)) < len(names):
        raise DataError(f"The header names a column twice: {names}.", file=path)
    wanted = columns.among(names, str(path))
    for number, record in enumerate(records, 1):
        if not record:
            continue
        if len(record) != len(names):
            raise DataError(
                f"The row has {len(record)} cells, the header {len(names)}. Put cells that hold {delimiter!r}, a "
                'quote or a line break in double quotes, and write a quote inside as "".',
                file=path,
                row=number,
            )
        cells = dict(zip(names, record, strict=True))
        values: dict[str, Any] = {name: cells[name] for name in wanted}
        if columns.labels in values:
            values[columns.labels] = _labels_of_cell(values[columns.labels], columns.separator, path, number)
        yield RawRow(str(path), number, values)


def _csv_records(path: Path, delimiter: str) -> Iterator[list[str]]:
    reader = csv.reader((line for _, line in iter_lines(path)), delimiter=delimiter, strict=True)
    try:
        yield from reader
    except csv.Error as err:
        raise DataError(f"No valid CSV near line {reader.line_num}: {err}.", file=path) from err


def _labels_of_cell(cell: str, separator: str, path: Path, number: int) -> list[Any]:
    """Labels of a cell: a JSON list, or names with a separator between them."""
    cell = cell.strip()
    if cell.startswith("[") and cell.endswith("]"):
        try:
            parsed = json.loads(cell)
        except (json.JSONDecodeError, RecursionError) as err:
            raise DataError(
                f'The labels {cell[:_SHOWN]!r} look like a list but are no JSON. Write ["a", "b"], or a{separator}b.',
                file=path,
                row=number,
            ) from err
        return parsed  # a list, since it starts with "["
    return [name.strip() for name in cell.split(separator) if name.strip()]


def _read_tsv(path: Path, columns: Columns) -> Iterator[RawRow]:
    """Rows of a table, or of Annif's form: a text, a tab, URIs of its subjects, no header."""
    first = next(iter_lines(path), (1, ""))[1].rstrip("\r\n").split("\t")
    if len(first) == 2 and first[1].startswith("<"):
        yield from _read_annif(path, columns)
    else:
        yield from _read_csv(path, columns, delimiter="\t")


_ANNIF_VOCABULARIES = ("vocab.tsv", "vocabulary.tsv", "subjects.tsv")


def _read_annif(path: Path, columns: Columns) -> Iterator[RawRow]:
    names = _annif_vocabulary(path)
    for number, line in iter_lines(path):
        if not line.strip():
            continue
        text, tab, subjects = line.rstrip("\r\n").partition("\t")
        if not tab:
            raise DataError("There is no tab between the text and its subjects.", file=path, row=number)
        uris = subjects.split()
        unknown = next((uri for uri in uris if uri not in names), None)
        if unknown is not None:
            raise DataError(f"The vocabulary beside the file does not name {unknown}.", file=path, row=number)
        yield RawRow(str(path), number, {columns.text: text, columns.labels: [names[uri] for uri in uris]})


def _annif_vocabulary(path: Path) -> dict[str, str]:
    """URI in angle brackets -> label name."""
    for candidate in (path.with_name(name) for name in _ANNIF_VOCABULARIES):
        if candidate.is_file():
            pairs = (line.rstrip("\r\n").split("\t") for _, line in iter_lines(candidate))
            return {cells[0]: cells[1] for cells in pairs if len(cells) > 1 and cells[0].startswith("<")}
    raise DataError(
        "The labels are URIs, which say nothing to a language model. Put a vocabulary (URI, tab, name) beside the "
        f"file, named {' or '.join(_ANNIF_VOCABULARIES)}.",
        file=path,
    )


# ---------------------------------------------------------------------------------------------------- Parquet


def _read_parquet(path: Path, columns: Columns) -> Iterator[RawRow]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            wanted = columns.among(file.schema_arrow.names, str(path))
            number = 0
            for batch in file.iter_batches(batch_size=_BATCH, columns=wanted):
                for values in batch.to_pylist():
                    number += 1
                    yield RawRow(str(path), number, values)
    except FileNotFoundError as err:
        raise DataError("There is no such file.", file=path) from err
    except pa.ArrowException as err:
        raise DataError(f"The file cannot be read as Parquet: {err}", file=path) from err


_READERS: dict[str, Reader] = {
    ".jsonl": _read_json,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".parquet": _read_parquet,
}
