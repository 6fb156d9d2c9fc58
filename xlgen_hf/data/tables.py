"""Readers of tables with types: Parquet, Arrow files, data sets in memory or on disk, data frames, Excel sheets."""

from __future__ import annotations

import logging
import re
import warnings
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree.ElementTree import ParseError

from ..errors import DataError, MissingExtraError
from .blocks import BLOCK_ROWS, Block, Column, batches
from .options import RowOptions, shown_names

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    from datasets import Dataset, IterableDataset

__all__ = [
    "EXCEL_SUFFIXES",
    "dataset_blocks",
    "frame_blocks",
    "read_arrow",
    "read_excel",
    "read_parquet",
    "saved_splits",
    "stream_table_blocks",
]

logger = logging.getLogger(__name__)

EXCEL_SUFFIXES = (".xlsx", ".xlsm")
_ESCAPED = re.compile("_x([0-9A-Fa-f]{4})_")


# ---------------------------------------------------------------------------------------------------- Arrow


@contextmanager
def _arrow_errors(path: str | Path, what: str) -> Iterator[None]:
    """Errors of damaged files, which Arrow raises in many kinds, with the name of the file."""
    import pyarrow as pa

    try:
        yield
    except DataError:
        raise
    except FileNotFoundError as err:
        raise DataError("There is no such file.", file=path) from err
    # Arrow's own classes also derive from ValueError, TypeError, OSError, KeyError, IndexError, NotImplementedError
    # and MemoryError; a length in damaged metadata gives OverflowError, a damaged name UnicodeDecodeError.
    # Damaged JSON next to Arrow files gives AttributeError in datasets, or RecursionError.
    except (
        pa.ArrowException, OSError, ValueError, TypeError, LookupError, MemoryError, ArithmeticError, AttributeError,
        RecursionError,
    ) as err:  # fmt: skip
        answer = (str(err).strip().splitlines() or [type(err).__name__])[0]
        raise DataError(f"The file cannot be read as {what}: {answer[:200]}", file=path) from err


def read_parquet(path: Path, options: RowOptions) -> Iterator[Block]:
    """Blocks of a Parquet file; only the columns that are needed are read."""
    import pyarrow.parquet as pq

    with _arrow_errors(path, "Parquet"), pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        wanted = _wanted_columns(schema.names, options, path)
        classes = _class_names(schema, options.labels)
        rows = _block_rows(len(wanted))
        yield from _arrow_blocks(str(path), file.iter_batches(batch_size=rows, columns=wanted), classes)


def read_arrow(path: Path, options: RowOptions) -> Iterator[Block]:
    """Blocks of an Arrow file, as `datasets` and Feather write them."""
    import pyarrow as pa

    with _arrow_errors(path, "Arrow"), pa.OSFile(str(path)) as file:
        try:
            reader = pa.ipc.open_stream(file)
            found: Iterable[pa.RecordBatch] = reader
        except pa.ArrowInvalid:  # the other form, with an index at its end
            reader = pa.ipc.open_file(file)
            found = map(reader.get_batch, range(reader.num_record_batches))
        wanted = _wanted_columns(reader.schema.names, options, path)
        parts = (batch.slice(start, BLOCK_ROWS) for batch in found for start in range(0, batch.num_rows, BLOCK_ROWS))
        selected = (part.select(wanted) for part in parts)
        yield from _arrow_blocks(str(path), selected, _class_names(reader.schema, options.labels))


def _wanted_columns(names: Sequence[str], options: RowOptions, file: str | Path) -> list[str]:
    wanted = options.needed(names)
    twice = sorted({name for name in wanted if wanted.count(name) > 1}) if len(set(wanted)) < len(wanted) else []
    if twice:
        raise DataError(f"Duplicate column names: {shown_names(twice)}. Rename one.", file=file)
    return wanted


def _block_rows(columns: int) -> int:
    """Fewer rows at once where there are many columns, as in one-hot tables."""
    return max(100, min(BLOCK_ROWS, 1_000_000 // max(columns, 1)))


def _arrow_blocks(
    name: str, tables: Iterable[pa.Table | pa.RecordBatch], classes: Sequence[str] | None
) -> Iterator[Block]:
    """Blocks of Arrow tables or record batches; strings that are not UTF-8 are found here."""
    import pyarrow as pa

    start = 0
    for table in tables:
        try:
            table.validate(full=True)
        except pa.ArrowException as err:
            raise _invalid_row(table, name, start, err) from err
        columns = {column: _one_array(table.column(column)) for column in table.schema.names}
        if table.num_rows:
            yield Block(name, range(start + 1, start + table.num_rows + 1), columns, classes)
        start += table.num_rows


def _one_array(column: pa.Array | pa.ChunkedArray) -> pa.Array:
    if not hasattr(column, "chunks"):
        return column
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def _invalid_row(table: pa.Table | pa.RecordBatch, name: str, start: int, err: Exception) -> DataError:
    import pyarrow as pa

    for row in range(table.num_rows):
        try:
            table.slice(row, 1).validate(full=True)
        except pa.ArrowException as of_row:
            answer = str(of_row).strip().splitlines()[0]
            return DataError(
                f"The row holds text that is not UTF-8, or is damaged: {answer[:200]}", file=name, row=start + row + 1
            )
    return DataError(f"The file is damaged: {str(err)[:200]}", file=name)


def _class_names(schema: pa.Schema, column: str) -> Sequence[str] | None:
    """Names of the class numbers of a column, as `datasets` writes them into the metadata."""
    from datasets import Features

    if column not in schema.names or b"huggingface" not in (schema.metadata or {}):
        return None
    try:
        return _names_of_feature(Features.from_arrow_schema(schema).get(column))
    except (ValueError, TypeError, LookupError, AttributeError) as err:
        logger.debug("Metadata that datasets cannot read: %s", err)
        return None


def _names_of_feature(feature: object) -> Sequence[str] | None:
    from datasets import ClassLabel

    inner = getattr(feature, "feature", feature)
    return inner.names if isinstance(inner, ClassLabel) else None


# ---------------------------------------------------------------------------------------------------- data sets


def dataset_blocks(dataset: Dataset, name: str, options: RowOptions) -> Iterator[Block]:
    """Blocks of a data set of `datasets`; an index, as `select` and `shuffle` leave it, is respected."""
    wanted = _wanted_columns(dataset.column_names, options, name)
    classes = _names_of_feature(dataset.features.get(options.labels))
    selected = dataset.select_columns(wanted).with_format("arrow")
    with _arrow_errors(name, "a data set"):
        yield from _arrow_blocks(name, selected.iter(batch_size=_block_rows(len(wanted))), classes)


def stream_table_blocks(
    dataset: IterableDataset, name: str, options: RowOptions, size: int | None = None
) -> Iterator[Block]:
    """Blocks of a stream of `datasets` whose columns are known; what its source raises is passed on as it is.

    Args:
        dataset: the stream.
        name: what errors call it.
        options: the columns to read.
        size: most rows of a block; `BLOCK_ROWS` if None.
    """
    import pyarrow as pa
    from datasets import Features

    wanted = _wanted_columns(list(dataset.features), options, name)
    classes = _names_of_feature(dataset.features.get(options.labels))
    rows = min(size or BLOCK_ROWS, _block_rows(len(wanted)))
    selected = dataset.select_columns(wanted).with_format(None)
    selected.set_epoch(dataset.epoch)  # which a copy does not have
    # Not with_format("arrow"): datasets then guesses a type for each row, and an empty list is one of nulls.
    schema = Features({column: dataset.features[column] for column in wanted}).arrow_schema
    tables = (pa.Table.from_pydict(batch, schema) for batch in selected.iter(batch_size=rows))
    yield from _arrow_blocks(name, tables, classes)


def saved_splits(folder: Path) -> dict[str, Dataset]:
    """The splits of a folder that `save_to_disk` wrote, mapped into memory; one split is called `train`.

    Raises:
        DataError: if the folder is damaged.
    """
    from datasets import DatasetDict, load_from_disk

    with _arrow_errors(folder, "a data set of save_to_disk"):
        found = load_from_disk(str(folder))
    if isinstance(found, DatasetDict):
        return {str(split): part for split, part in found.items()}
    return {"train": found}


def frame_blocks(frame: pd.DataFrame | pa.Table, name: str, options: RowOptions) -> Iterator[Block]:
    """Blocks of anything that hands out Arrow data: data frames of pandas and Polars, Arrow tables."""
    import pyarrow as pa

    if hasattr(frame, "iloc"):  # pandas, whose columns of objects may hold anything
        names = [str(column) for column in frame.columns]
        wanted = _wanted_columns(names, options, name)
        rows = _block_rows(len(wanted))
        for start in range(0, len(frame), rows):
            part = frame.iloc[start : start + rows]
            values = {column: _pandas_values(part.iloc[:, names.index(column)]) for column in wanted}
            yield Block(name, range(start + 1, start + len(part) + 1), values)
        return
    with _arrow_errors(name, "a table"):
        table = frame if isinstance(frame, pa.Table) else pa.table(frame)
        wanted = _wanted_columns(table.schema.names, options, name)
        rows = _block_rows(len(wanted))
        parts = (table.select(wanted).slice(start, rows) for start in range(0, table.num_rows, rows))
        yield from _arrow_blocks(name, parts, _class_names(table.schema, options.labels))


def _pandas_values(series: pd.Series) -> Column:
    """A column of a data frame: an Arrow array where all is of one kind, else Python objects, None for missing."""
    import pyarrow as pa

    try:
        return _one_array(pa.array(series, from_pandas=True))
    except (pa.ArrowException, ValueError, TypeError):
        return [None if value is None or value != value else value for value in series.tolist()]


# ---------------------------------------------------------------------------------------------------- Excel


def read_excel(path: Path, options: RowOptions) -> Iterator[Block]:
    """Blocks of the first sheet of an Excel file; the first row that is not empty names the columns.

    Raises:
        MissingExtraError: if openpyxl is not installed.
        DataError: if the file is not an Excel file.
    """
    try:
        from openpyxl import load_workbook
        from openpyxl.utils.exceptions import InvalidFileException
    except ImportError as err:
        raise MissingExtraError("openpyxl", "excel") from err
    try:
        with warnings.catch_warnings():  # of styles and extensions that openpyxl leaves out
            warnings.simplefilter("ignore", UserWarning)
            book = load_workbook(path, read_only=True, data_only=True)
            sheet = book.worksheets[0]
            if len(book.worksheets) > 1:
                logger.info("%s: the sheet %r is read, the first of %d.", path, sheet.title, len(book.worksheets))
            yield from _sheet_blocks(path, sheet.iter_rows(values_only=True))
            book.close()
    except FileNotFoundError as err:
        raise DataError("There is no such file.", file=path) from err
    except DataError:
        raise
    except (
        InvalidFileException, zipfile.BadZipFile, zlib.error, ParseError, OSError, EOFError, ValueError, TypeError,
        LookupError, AttributeError, NotImplementedError, ArithmeticError,
    ) as err:  # fmt: skip  # whatever a damaged archive or sheet makes openpyxl raise
        answer = (str(err).strip().splitlines() or [type(err).__name__])[0]
        raise DataError(f"The file cannot be read as an Excel file (.xlsx): {answer[:200]}", file=path) from err


def _sheet_blocks(path: Path, records: Iterable[Sequence[object]]) -> Iterator[Block]:
    filled = ((number, record) for number, record in enumerate(records, 1) if any(cell is not None for cell in record))
    header = next(filled, None)
    if header is None:
        return
    names = [_cell_text(cell).strip() for cell in header[1]]
    used = [position for position, name in enumerate(names) if name]
    if len({names[position] for position in used}) < len(used):
        raise DataError(f"Duplicate column names in the header: {shown_names(filter(None, names))}.", file=path)
    for part in batches(filled, _block_rows(len(used))):
        columns = {
            names[position]: [_cell_text(record[position]) if position < len(record) else "" for _, record in part]
            for position in used
        }
        yield Block(str(path), [number - header[0] for number, _ in part], columns)


def _cell_text(cell: object) -> str:
    """A cell as text: numbers as Excel shows them without a format, nothing for an empty cell."""
    if cell is None:
        return ""
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    if not isinstance(cell, str):
        return str(cell)
    # XML cannot hold a carriage return or a control character: the file has _x000D_ for it, which openpyxl leaves.
    return _ESCAPED.sub(lambda match: chr(int(match[1], 16)), cell) if "_x" in cell else cell
