"""Where rows go as they are read: into memory, and beyond some size into a file that is mapped and removed at exit."""

from __future__ import annotations

import atexit
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pyarrow as pa
from datasets import Dataset, Features
from datasets.arrow_writer import ArrowWriter
from datasets.fingerprint import generate_random_fingerprint
from datasets.table import InMemoryTable

from ..errors import DataError
from .kept_columns import final_schema, widened
from .label_lists import lists_of_lengths

__all__ = ["RowStore", "merge_long"]

IN_MEMORY = 1 << 29  # bytes of rows that are kept in memory


class RowStore:
    """Collects tables of equal columns into one data set, in bounded memory.

    Args:
        in_memory: bytes that may be in memory; rows of more go to a file in the system's temporary folder (TMPDIR),
            which is removed when the process ends.
    """

    def __init__(self, in_memory: int | None = None) -> None:
        self._limit = IN_MEMORY if in_memory is None else in_memory
        self._tables: list[pa.Table] = []
        self._bytes = 0
        self._folder: Path | None = None
        self._writer: ArrowWriter | None = None
        self._schema: pa.Schema | None = None  # of the rows that the writer takes
        self._parts: list[tuple[Path, pa.Schema]] = []  # files of rows with their schemas, the writer's the last
        self.rows = 0

    def add(self, table: pa.Table) -> None:
        """Take some rows; the type of a column may be wider than before, see `kept_columns`.

        Raises:
            DataError: if the disk is full.
        """
        self.rows += table.num_rows
        self._tables.append(table)
        self._bytes += table.nbytes
        if self._bytes > self._limit:
            with self._disk_errors():
                self._spill()

    def dataset(self, file: str) -> Dataset:
        """The rows as a data set; the store is empty then.

        Args:
            file: where they come from, for errors.

        Raises:
            DataError: if the disk is full, or rows do not fit the type that later ones need.
        """
        if not self._parts:
            found = _in_memory(widened(self._tables, final_schema(table.schema for table in self._tables), file))
            self._tables = []
            return found
        with self._disk_errors():
            self._spill()
            self._close()
            return Dataset.from_file(str(self._one_file(file)))

    @contextmanager
    def _disk_errors(self) -> Iterator[None]:
        try:
            yield
        except OSError as err:
            raise DataError(
                f"The rows need more than memory, and cannot be written there: {err.strerror or err}. Free some space "
                "or let TMPDIR name another folder.",
                file=self._folder,
            ) from err

    def _spill(self) -> None:
        for table in self._tables:
            self._write(table)
        self._tables, self._bytes = [], 0

    def _write(self, table: pa.Table) -> None:
        """Write rows to the file of their schema, a new one where a column has become wider."""
        if self._writer is None or table.schema != self._schema:
            self._close()
            if self._folder is None:
                self._folder = Path(tempfile.mkdtemp(prefix="xlgen-rows-"))
                atexit.register(shutil.rmtree, self._folder, ignore_errors=True)
            path = self._folder / f"rows-{len(self._parts)}.arrow"
            features = Features.from_arrow_schema(table.schema)
            self._writer, self._schema = ArrowWriter(path=str(path), features=features), table.schema
            self._parts.append((path, features.arrow_schema))
        self._writer.write_table(table)

    def _close(self) -> None:
        if self._writer is not None:
            self._writer.finalize()
            self._writer = None

    def _one_file(self, file: str) -> Path:
        """The file of all rows: the only one, or a new one with the types that hold the rows of all."""
        parts = tuple(self._parts)
        schema = final_schema(of_part for _, of_part in parts)
        if [of_part for _, of_part in parts] != [schema]:
            for path, _ in parts:
                with pa.memory_map(str(path)) as source:
                    for batch in pa.ipc.open_stream(source):
                        self._write(widened([pa.Table.from_batches([batch]).replace_schema_metadata()], schema, file))
                path.unlink()
            self._close()
        return self._parts[-1][0]


def merge_long(rows: Dataset, key: str) -> tuple[Dataset, int]:
    """Rows that have the same key become one, with the labels of all, each once; the first gives the other columns.

    Args:
        rows: rows with `labels`.
        key: a column; rows with equal values in it belong together, those without a value to no other.

    Returns:
        The rows in the order of the first of each group, and the number of rows whose text is not that of the first.
    """
    table = rows.data.table if rows._indices is None else rows.flatten_indices().data.table
    codes = _codes(table.column(key), alone=True)
    _, first = np.unique(codes, return_index=True)
    order = np.argsort(codes, kind="stable")
    labels = pa.chunked_array(table.column("labels").chunks, table.schema.field("labels").type).combine_chunks()
    sorted_labels = labels.take(pa.array(order))
    each = sorted_labels.value_lengths().to_numpy(zero_copy_only=False).astype(np.int64)
    lengths = np.bincount(codes[order], weights=each, minlength=len(first)).astype(np.int64)
    merged = lists_of_lengths(lengths, sorted_labels.flatten()).each_once()
    texts = _codes(table.column("text"))
    other = int((texts != texts[first][codes]).sum())
    taken = table.take(pa.array(first))
    place = taken.schema.get_field_index("labels")
    result = taken.set_column(place, taken.schema.field("labels"), merged.to_array())
    return _in_memory(result), other


def _in_memory(table: pa.Table) -> Dataset:
    """A data set of a table; without a fingerprint of the content, for which `datasets` would pickle all of it."""
    return Dataset(InMemoryTable(table), fingerprint=generate_random_fingerprint())


def _codes(column: pa.ChunkedArray, *, alone: bool = False) -> np.ndarray:
    """A number for each value, equal ones alike, in the order in which they first occur.

    Args:
        column: the values.
        alone: whether values that say nothing, null and "", are like no other; else they are values as well.
    """
    coded = column.dictionary_encode()
    indices = [chunk.indices.fill_null(-1).to_numpy(zero_copy_only=False) for chunk in coded.chunks]
    codes = np.concatenate(indices).astype(np.int64)
    if not alone:
        return codes
    nothing = np.array([value == "" for value in coded.chunk(0).dictionary.to_pylist()], dtype=bool)
    codes[np.isin(codes, np.flatnonzero(nothing))] = -1
    codes[codes < 0] = codes.max(initial=-1) + 1 + np.arange((codes < 0).sum())
    _, first, codes = np.unique(codes, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[codes]
