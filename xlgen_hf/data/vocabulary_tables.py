"""Vocabularies in CSV and TSV: with a header, or as Annif has them, URI, name and notation without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .delimited import DelimitedFile
from .field_names import ID_FIELDS, field_of, names_column, refuse_header
from .raw_concepts import ConceptReader, RawConcept
from .vocabulary_fields import FieldReader

__all__ = ["read_table"]

_SEPARATOR = "|"  # of the values of a cell
_DELIMITERS = ",;\t"


def read_table(path: Path, reader: ConceptReader) -> Iterator[RawConcept]:
    """Concepts of a table.

    Args:
        path: `.csv` or `.tsv`, also with `.gz`.
        reader: where columns that are not read are reported.

    Raises:
        DataError: if it is not a table, its header names no column of ids, or a row has too many cells or no id; names
            the row.
    """
    records = _records(path)
    first = next(records, None)
    if first is None:
        raise DataError("The file is empty.", file=path)
    number, cells = first
    names = [cell.strip() for cell in cells]
    if not any(name.lower() in ID_FIELDS for name in names):
        refuse_header(cells, path, number)
        yield _annif_concept(path, number, cells)
        for number, cells in records:
            yield _annif_concept(path, number, cells)
        return
    if names_column(names) is None:
        raise DataError(f"There is no column of names such as label or label_en, only {names}.", file=path)
    fields = FieldReader(path, reader)
    for number, cells in records:
        if len(cells) > len(names):
            raise DataError(f"The row has {len(cells)} cells, the header {len(names)}.", file=path, row=number)
        yield fields.concept({name: _values(name, cell) for name, cell in zip(names, cells, strict=False)}, number)


def _values(name: str, cell: str) -> str | list[str]:
    """The values of a cell; an id, a name, a definition and a notation are one, whatever they hold."""
    known = field_of(name)
    several = known is not None and known[0] in ("aliases", "broader", "related", "replaces", "replaced_by")
    return [part.strip() for part in cell.split(_SEPARATOR) if part.strip()] if several else cell.strip()


def _annif_concept(path: Path, number: int, cells: list[str]) -> RawConcept:
    if not 2 <= len(cells) <= 3:
        raise DataError(
            "A URI, a name and perhaps a notation are expected, with tabs between them, or a header with the names of "
            "the columns, such as uri and label_en.",
            file=path,
            row=number,
        )
    return RawConcept(cells[0], number, names=[("", cells[1])], notation=cells[2] if len(cells) == 3 else "")


def _records(path: Path) -> Iterator[tuple[int, list[str]]]:
    """The records that are not empty, each with the number of its last line."""
    file = DelimitedFile(path)
    is_tsv = path.name.lower().removesuffix(".gz").endswith(".tsv")  # no quotes there: a name may begin with one
    delimiter = file.declared_delimiter or ("\t" if is_tsv else _delimiter(file))
    for number, cells in file.records(delimiter, quotes=not is_tsv):
        if any(cell.strip() for cell in cells):
            yield number, cells


def _delimiter(file: DelimitedFile) -> str:
    """The delimiter that the first line has most of; a comma where it has none."""
    first = next(file.lines(), "")
    return max(_DELIMITERS, key=first.count)
