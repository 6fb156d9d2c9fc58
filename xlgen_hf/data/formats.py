"""Readers of single files by their names: JSON Lines, JSON, CSV, TSV, Parquet, Arrow and Excel, as blocks of rows."""

from __future__ import annotations

import csv
import itertools
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path

from ..errors import DataError
from ..files.serialization import JSON
from .annif import is_annif_table, read_annif_table
from .blocks import Block, batches, block_of_rows
from .delimited import DelimitedFile
from .options import RowOptions, shown_names
from .tables import EXCEL_SUFFIXES, read_arrow, read_excel, read_parquet
from .text_files import detect_encoding, iter_lines
from .values import shown

__all__ = ["FILE_FORMATS", "read_file", "reader_of"]

logger = logging.getLogger(__name__)

FILE_FORMATS = (
    ".jsonl", ".jsonl.gz", ".json", ".json.gz", ".csv", ".csv.gz", ".tsv", ".tsv.gz", ".txt", ".txt.gz", ".parquet",
    ".arrow", *EXCEL_SUFFIXES,
)  # fmt: skip
"""Ends of the names of files that can be read."""

_EXAMPLE = '{"text": "...", "labels": ["...", "..."]}'
_DELIMITERS = (",", ";", "\t", "|")
_SNIFFED_LINES = 40
_CELLS_AT_ONCE = 1_000_000

Reader = Callable[[Path, RowOptions], Iterator[Block]]


def reader_of(path: Path) -> Reader | None:
    """The reader for a file of this name, None where no reader supports it."""
    name = path.name.lower()
    for suffix, reader in _READERS.items():
        if name.endswith(suffix) or (name.endswith(f"{suffix}.gz") and f"{suffix}.gz" in FILE_FORMATS):
            return reader
    return None


def read_file(path: Path, options: RowOptions) -> Iterator[Block]:
    """Blocks of a data file.

    Args:
        path: a file with one of the names in `FILE_FORMATS`.
        options: the columns to read, and how.

    Raises:
        DataError: if the file is missing or its name has no reader; from the first block on, if it cannot be read as
            what its name says.
    """
    reader = reader_of(path)
    if not path.exists():
        raise DataError("There is no such file or folder.", file=path)
    if reader is None:
        advice = " Save it as .xlsx." if path.suffix.lower() == ".xls" else ""
        raise DataError(
            f"Files of this name cannot be read; names end in {', '.join(FILE_FORMATS)}.{advice}", file=path
        )
    return reader(path, options)


# ---------------------------------------------------------------------------------------------------- JSON


def _read_json(path: Path, options: RowOptions) -> Iterator[Block]:
    """Blocks of JSON Lines, or of one JSON list."""
    lines = ((number, line) for number, line in iter_lines(path, options.encoding) if line.strip())
    first = next(lines, None)
    if first is None:
        return
    rows: Iterable[tuple[int, object]]
    if first[1].lstrip().startswith("["):
        content = first[1] + "".join(line for _, line in lines)
        parsed = _parse_json(content, path, None)
        rows = enumerate(parsed if isinstance(parsed, list) else [parsed], 1)
    else:
        rows = ((number, _parse_json(line, path, number)) for number, line in itertools.chain([first], lines))
    for part in batches(rows):
        wrong = next(((number, row) for number, row in part if not isinstance(row, dict)), None)
        if wrong is not None:
            message = f"The row is a {type(wrong[1]).__name__}; an object is expected: {_EXAMPLE}."
            raise DataError(message, file=path, row=wrong[0])
        yield block_of_rows(
            str(path), [number for number, _ in part], [row for _, row in part if isinstance(row, dict)], options
        )


def _parse_json(content: str, path: Path, number: int | None) -> JSON:
    try:
        parsed: JSON = json.loads(content.rstrip())
        return parsed
    except json.JSONDecodeError as err:
        place = f"column {err.colno}" if number else f"line {err.lineno}, column {err.colno}"
        message = f"Not valid JSON ({err.msg}: {place}): {shown(content.strip())}. A row is {_EXAMPLE}."
        raise DataError(message, file=path, row=number) from err
    except RecursionError as err:
        raise DataError("The JSON is nested too deeply.", file=path, row=number) from err
    except ValueError as err:  # an integer with more digits than Python converts
        raise DataError(f"The JSON holds a number that is too long: {err}.", file=path, row=number) from err


# ---------------------------------------------------------------------------------------------------- CSV and TSV


def _read_csv(path: Path, options: RowOptions, usual: str = ",") -> Iterator[Block]:
    """Blocks of a table with a header."""
    file = DelimitedFile(path, options.encoding)
    delimiter = options.delimiter or file.declared_delimiter or _sniff_delimiter(file, options, usual)
    records = (cells for _, cells in file.records(delimiter))
    header = next((record for record in records if record), None)
    if header is None:
        return
    names = [name.strip() for name in header]
    counts = Counter(filter(None, names))  # columns without a name are not read; Excel writes them after the others
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        raise DataError(f"Duplicate column names in the header: {shown_names(twice)}.", file=path)
    numbered = ((number, record) for number, record in enumerate(records, 1) if record)
    reported = False
    for part in batches(numbered, max(100, min(10_000, _CELLS_AT_ONCE // len(names)))):
        wrong = next(((number, record) for number, record in part if len(record) != len(names)), None)
        if wrong is not None:
            raise DataError(
                f"The row has {len(wrong[1])} cells, the header {len(names)}. Put cells that hold {delimiter!r}, a "
                'quote or a line break in double quotes, and write a quote inside as "".',
                file=path,
                row=wrong[0],
            )
        columns = list(zip(*(record for _, record in part), strict=True))
        unread = [any(map(str.strip, column)) for name, column in zip(names, columns, strict=True) if not name]
        if any(unread) and not reported:
            reported = True
            logger.info("%s: columns without a name, which are not read, hold something: %d.", path, sum(unread))
        named = {name: column for name, column in zip(names, columns, strict=True) if name}
        yield Block(str(path), [number for number, _ in part], named)


def _sniff_delimiter(file: DelimitedFile, options: RowOptions, usual: str) -> str:
    """The delimiter under which the header names the columns to read, else the one that makes the most of the file."""
    lines = list(itertools.islice(file.lines(), _SNIFFED_LINES))
    tables = {sign: _loose_records(lines, sign) for sign in dict.fromkeys((usual, *_DELIMITERS))}
    named = [
        sign for sign, table in tables.items() if table and set(options.texts) <= {name.strip() for name in table[0]}
    ]
    found = max(named or tables, key=lambda sign: _fit(tables[sign], options, is_usual=sign == usual))
    if found != usual:
        logger.info(
            "%s: cells are separated by %r. If that is wrong, give the delimiter (--delimiter).", file.path, found
        )
    return found


def _loose_records(lines: Sequence[str], delimiter: str) -> list[list[str]]:
    try:
        return [record for record in csv.reader(lines, delimiter=delimiter) if record]
    except csv.Error:
        return []


def _fit(
    table: Sequence[Sequence[str]], options: RowOptions, *, is_usual: bool
) -> tuple[bool, bool, float, bool, int]:
    """How well a delimiter fits; the greater, the better. The last record may be cut off, so it does not count."""
    if not table:
        return False, False, 0.0, is_usual, 0
    width = len(table[0])
    whole = table[1:-1] or table[1:]
    same = sum(len(record) == width for record in whole) / max(len(whole), 1)
    return options.labels in {name.strip() for name in table[0]}, width > 1, same, is_usual, width


def _read_tsv(path: Path, options: RowOptions) -> Iterator[Block]:
    """Blocks of a table, or of Annif's form: a text, a tab, URIs of its subjects, no header."""
    options = options.changed(encoding=detect_encoding(path, options.encoding, guess=True))
    if options.delimiter is None and is_annif_table(path, options):
        return read_annif_table(path, options)
    return _read_csv(path, options, usual="\t")


def _read_texts(path: Path, options: RowOptions) -> Iterator[Block]:
    """Blocks of plain texts, one per line, without labels."""
    lines = ((number, line.rstrip("\r\n")) for number, line in iter_lines(path, options.encoding, guess=True))
    for part in batches(lines):
        yield Block(str(path), [number for number, _ in part], {"text": [line for _, line in part]}, ready=True)


_READERS: dict[str, Reader] = {
    ".jsonl": _read_json,
    ".json": _read_json,
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".txt": _read_texts,
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    **dict.fromkeys(EXCEL_SUFFIXES, read_excel),
}
