"""Files of cells with a delimiter between them (CSV, TSV): their encoding, line ends, delimiter and records."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .text_files import detect_encoding, iter_lines, line_end

__all__ = ["DelimitedFile"]

_MAX_CELL = 2**31 - 1  # characters; the csv module refuses cells of more than 131,072 unless told
_DECLARATION = re.compile(r'("?)sep=(\\t|[^\w"\r\n])\1[\r\n]*', re.IGNORECASE)  # Excel's first line, sep=;


class _Unquoted(csv.excel_tab):
    quoting = csv.QUOTE_NONE


class DelimitedFile:
    """Reads the records of a file.

    Args:
        path: the file, decompressed if its name ends in .gz.
        encoding: its encoding; recognised if None.

    Attributes:
        declared_delimiter: the delimiter that the first line declares to Excel, as in `sep=;`; None without such a
            line.

    Raises:
        DataError: if the file cannot be read, or is in another encoding.
    """

    def __init__(self, path: Path, encoding: str | None = None) -> None:
        csv.field_size_limit(max(csv.field_size_limit(), _MAX_CELL))
        self.path = path
        self._encoding = detect_encoding(path, encoding, guess=True)
        self._end = line_end(path, self._encoding)
        first = _DECLARATION.fullmatch(next(iter_lines(path, self._encoding, self._end), (1, ""))[1])
        self.declared_delimiter = None if first is None else first[2].replace("\\t", "\t")

    def lines(self) -> Iterator[str]:
        """The lines; one that declares the delimiter is empty, so that the others keep their numbers."""
        for number, line in iter_lines(self.path, self._encoding, self._end):
            yield self._end if number == 1 and self.declared_delimiter is not None else line

    def records(self, delimiter: str, *, quotes: bool = True) -> Iterator[tuple[int, list[str]]]:
        """The records, each with the number of its last line; empty lines are empty records.

        Args:
            delimiter: what stands between cells.
            quotes: whether cells may be in double quotes; in Annif's files they begin with them as they are.

        Raises:
            DataError: if a record is not valid; says where.
        """
        dialect = csv.excel if quotes else _Unquoted
        try:
            reader = csv.reader(self.lines(), dialect, delimiter=delimiter, strict=True)
        except (TypeError, ValueError) as err:  # a line break or a quote as delimiter
            raise DataError(f"{delimiter!r} cannot be the delimiter of CSV: {err}.", file=self.path) from err
        try:
            for cells in reader:
                yield reader.line_num, cells
        except csv.Error as err:
            problem = f"{err}."
            if "new-line character" in problem:
                other = "carriage return" if self._end == "\n" else "line feed"
                problem = f"there is a {other} where lines end otherwise. Put cells that hold one in double quotes."
            raise DataError(f"Not valid CSV near line {reader.line_num}: {problem}", file=self.path) from err
