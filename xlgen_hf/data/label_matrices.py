"""Matrices of rows and labels: scipy's `.npz`, and the text form of the Extreme Classification Repository."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from ..errors import DataError
from .text_files import iter_lines

__all__ = ["read_label_matrix", "read_sparse_text"]


def read_label_matrix(path: Path, num_labels: int, names_file: Path) -> Iterator[list[int]]:
    """The labels of each row of a sparse matrix of scipy; nothing in the file is unpickled.

    Args:
        path: the `.npz` file.
        num_labels: `L`, the columns that it must have.
        names_file: the file that names them, for the error.

    Raises:
        DataError: if it is not such a matrix.
    """
    from scipy.sparse import csr_matrix, load_npz

    try:
        rows = csr_matrix(load_npz(path))
        rows.check_format(full_check=True)
    except (ValueError, TypeError, OSError, LookupError, EOFError, ArithmeticError, MemoryError, AttributeError,
            NotImplementedError, zipfile.BadZipFile, zlib.error) as err:  # fmt: skip  # of a damaged archive
        raise DataError(f"The file is not a sparse matrix of scipy: {err}", file=path) from err
    if rows.shape[1] != num_labels:
        raise DataError(f"It has {rows.shape[1]} columns, {names_file} {num_labels} names.", file=path)
    rows.eliminate_zeros()
    for row in range(rows.shape[0]):
        yield rows.indices[rows.indptr[row] : rows.indptr[row + 1]].tolist()


def read_sparse_text(path: Path, num_labels: int, names_file: Path) -> Iterator[list[int]]:
    """The labels of each row of a matrix as text: a line `rows columns`, then a line `label:value ...` per row.

    Args:
        path: the file.
        num_labels: `L`, the columns that it must have.
        names_file: the file that names them, for the error.

    Raises:
        DataError: if it is not such a matrix; names the line.

    Source: the data format of the Extreme Classification Repository.
    """
    lines = iter_lines(path)
    header = next(lines, (1, ""))[1].split()
    if len(header) == 3:
        raise DataError("The file holds bags of words, not texts, which XLGen needs; get the raw texts.", file=path)
    if len(header) != 2 or not all(part.isascii() and part.isdigit() and len(part) < 19 for part in header):
        raise DataError("The first line must be the numbers of rows and of labels.", file=path, row=1)
    if int(header[1]) != num_labels:
        raise DataError(f"It has {int(header[1])} columns, {names_file} {num_labels} names.", file=path)
    number = 1
    for number, line in lines:
        yield [_label_of(entry, num_labels, path, number) for entry in line.split() if not _is_zero(entry)]
    if number - 1 != int(header[0]):
        raise DataError(f"It has {number - 1} rows, its first line says {int(header[0])}.", file=path)


def _is_zero(entry: str) -> bool:
    value = entry.partition(":")[2]
    return bool(value) and not value.strip("0.")


def _label_of(entry: str, num_labels: int, path: Path, number: int) -> int:
    digits = entry.partition(":")[0]
    label = int(digits) if digits.isascii() and digits.isdigit() and len(digits) < 19 else -1
    if not 0 <= label < num_labels:
        raise DataError(
            f"{entry[:40]!r} is not label:value with a label from 0 to {num_labels - 1}.", file=path, row=number
        )
    return label
