"""Writing rows in every format that can be read; what a format cannot hold is refused before anything is written."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from ..errors import ConfigurationError, DataError
from ..files.atomic import atomic_path
from ..files.json_lines import write_jsonl
from ..files.outputs import refuse_existing, sole_writer
from ..files.saving import replace_files
from .corpora import CORPUS_FORMATS
from .folders import split_file_names, standard_split
from .label_cells import join_labels
from .label_lists import column_batches
from .predictions import csv_writer, open_text
from .suspicion import text_keys

if TYPE_CHECKING:
    import pyarrow as pa
    from datasets import Dataset

__all__ = ["CONVERT_FORMATS", "format_of", "join_lines", "write_rows"]


_COMMAND = "xlgen convert"
_BREAKS = re.compile(r" *[\r\n\t][ \r\n\t]*")


class _FileFormat(NamedTuple):
    """A format with one file for each split.

    Attributes:
        suffixes: ends of the names of its files, the usual one first.
        write: writes rows to a file.
        problem: what it cannot hold of the rows of a split, None for nothing.
    """

    suffixes: tuple[str, ...]
    write: Callable[[Path, Dataset], None]
    problem: Callable[[Dataset], str | None]


# ---------------------------------------------------------------------------------------------------- files


def _dictionaries(rows: Dataset) -> Iterator[dict[str, object]]:
    names = rows.column_names
    for columns in column_batches(rows, *names):
        for values in zip(*(column.to_pylist() for column in columns), strict=True):
            yield dict(zip(names, values, strict=True))


def _write_jsonl(path: Path, rows: Dataset) -> None:
    write_jsonl(path, _dictionaries(rows))


def _jsonl_problem(rows: Dataset) -> str | None:
    for name, kind in _kept(rows):
        if not _is_json(kind):
            return f"the column {name!r} of {kind}"
        for number, (column,) in enumerate(column_batches(rows, name)):
            try:
                json.dumps(column.to_pylist(), allow_nan=False)
            except ValueError:
                return f"NaN or infinity in the column {name!r}, near row {number * 10_000 + 1}"
    return None


def _is_json(kind: pa.DataType) -> bool:
    import pyarrow as pa

    if pa.types.is_struct(kind):
        return all(_is_json(field.type) for field in kind)
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        return _is_json(kind.value_type)
    return _is_scalar(kind)


def _is_scalar(kind: pa.DataType) -> bool:
    import pyarrow.types as types

    checks = (
        types.is_string,
        types.is_large_string,
        types.is_integer,
        types.is_floating,
        types.is_boolean,
        types.is_null,
    )
    return any(check(kind) for check in checks)


def _kept(rows: Dataset) -> list[tuple[str, pa.DataType]]:
    """Name and Arrow type of the columns other than text and labels."""
    schema = rows.features.arrow_schema
    return [(name, schema.field(name).type) for name in rows.column_names if name not in ("text", "labels")]


def _write_table(path: Path, rows: Dataset) -> None:
    delimiter = "\t" if ".tsv" in path.name.lower()[-7:] else ","
    listed = _needs_lists(rows)
    with open_text(path) as file:
        write_row = csv_writer(file, delimiter)
        write_row(rows.column_names)
        for row in _dictionaries(rows):
            labels: list[str] = row["labels"]  # type: ignore[assignment]
            row["labels"] = json.dumps(labels, ensure_ascii=False) if listed and labels else join_labels(labels)
            write_row(row.values())


def _needs_lists(rows: Dataset) -> bool:
    """Whether cells of one label each would be taken for a long table, since texts are repeated."""
    for (labels,) in column_batches(rows, "labels"):
        if (labels.value_lengths().to_numpy(zero_copy_only=False) > 1).any():
            return False
    keys = text_keys(rows, fold=False)
    return len(np.unique(keys)) < len(keys)


def _table_problem(rows: Dataset) -> str | None:
    for name, kind in _kept(rows):
        if not _is_scalar(kind):
            return f"the column {name!r} of {kind}; only text and numbers fit in its cells"
    for name in ("text", "labels"):
        found = _row_holding(rows, name, "\0")
        if found is not None:
            return f"the {name} of row {found}, with a zero character"
    return None


def _row_holding(rows: Dataset, name: str, sign: str) -> int | None:
    """The first row, from 1, with a sign in its text or in a label."""
    start = 1
    for (column,) in column_batches(rows, name):
        for number, value in enumerate(column.to_pylist(), start):
            if sign in value if isinstance(value, str) else any(sign in label for label in value):
                return number
        start += len(column)
    return None


def _write_parquet(path: Path, rows: Dataset) -> None:
    with atomic_path(path) as aside:
        rows.to_parquet(aside)


_FILE_FORMATS = {
    "jsonl": _FileFormat((".jsonl", ".jsonl.gz"), _write_jsonl, _jsonl_problem),
    "csv": _FileFormat((".csv", ".csv.gz"), _write_table, _table_problem),
    "tsv": _FileFormat((".tsv", ".tsv.gz"), _write_table, _table_problem),
    "parquet": _FileFormat((".parquet",), _write_parquet, lambda rows: None),
}

CONVERT_FORMATS = (*_FILE_FORMATS, *CORPUS_FORMATS)
"""Formats that rows can be written in: files, and folders with a layout."""


# ---------------------------------------------------------------------------------------------------- all formats


def format_of(output: Path, wanted: str | None) -> str:
    """The format to write: the wanted one, or the one that the name of the output says; JSON Lines for a folder.

    Raises:
        ConfigurationError: if there is no such format, or the name says another.
    """
    named = next((name for name, one in _FILE_FORMATS.items() if output.name.lower().endswith(one.suffixes)), None)
    if wanted is not None and wanted not in CONVERT_FORMATS:
        raise ConfigurationError(f"There is no format {wanted!r}; choose one of {', '.join(CONVERT_FORMATS)}.")
    if wanted is not None and named not in (None, wanted):
        raise ConfigurationError(f"{output} is named as {named}, and {wanted} is wanted; change one of them.")
    if named is None and wanted is None and output.suffix and not output.is_dir():
        raise ConfigurationError(
            f"{output}: the name says no format; names end in "
            f"{', '.join(suffix for one in _FILE_FORMATS.values() for suffix in one.suffixes)}, or are of a folder."
        )
    return wanted or named or "jsonl"


def write_rows(
    splits: Mapping[str, Dataset],
    output: str | Path,
    form: str | None = None,
    *,
    vocabulary: Iterable[str] = (),
    overwrite: bool = False,
) -> list[Path]:
    """Write rows.

    Args:
        splits: rows by split, with `text`, `labels` and perhaps further columns; `""` names the only one of a file.
        output: a file for one split in one of the file formats, else a folder.
        form: one of `CONVERT_FORMATS`; by default what the name of the output says.
        vocabulary: label names beyond those of the rows, for formats that list the labels; or label names and the
            ids of their concepts, which Annif's format writes where they are URIs.
        overwrite: whether files that are there already are replaced.

    Returns:
        The files.

    Raises:
        DataError: if the format cannot hold the rows; says what and in which row. Nothing is written then.
        ConfigurationError: if files are there already, another process writes them, or the format is unknown or needs
            a folder.
    """
    output, vocabulary = Path(output), vocabulary if isinstance(vocabulary, Mapping) else list(vocabulary)
    form = format_of(output, form)
    is_file = form in _FILE_FORMATS and output.name.lower().endswith(_FILE_FORMATS[form].suffixes)
    if is_file and len(splits) > 1:
        raise ConfigurationError(f"{output} is one file, there are {len(splits)} splits; name a folder.")
    if form in _FILE_FORMATS:
        return _write_files(splits, output, _FILE_FORMATS[form], form, is_file, overwrite)
    corpus = CORPUS_FORMATS[form]
    names = {standard_split(name): rows for name, rows in splits.items()}
    names = {name or "train": rows for name, rows in names.items()}
    found = corpus.problem(names, vocabulary)
    if found is not None:
        raise DataError(f"The format {form} cannot hold {found}.", file=output)
    _refuse_existing(output, corpus.files(list(names)), overwrite)
    _refuse_old_splits(output, corpus.files(list(names)))
    with sole_writer(output, command=_COMMAND), replace_files(output) as folder:
        return [output / path.relative_to(folder) for path in corpus.write(folder, names, vocabulary)]


def _write_files(
    splits: Mapping[str, Dataset], output: Path, form: _FileFormat, name: str, is_file: bool, overwrite: bool
) -> list[Path]:
    for split, rows in splits.items():
        found = form.problem(rows)
        if found is not None:
            of_split = f" of {split}" if split else ""
            raise DataError(f"The format {name} cannot hold {found}{of_split}.", file=output)
    if is_file:
        _refuse_existing(output.parent, [output.name], overwrite)
        with sole_writer(output, command=_COMMAND):
            form.write(output, next(iter(splits.values())))
        return [output]
    files = {f"{standard_split(split) or 'train'}{form.suffixes[0]}": rows for split, rows in splits.items()}
    _refuse_existing(output, list(files), overwrite)
    _refuse_old_splits(output, list(files))
    with sole_writer(output, command=_COMMAND), replace_files(output) as folder:
        for file, rows in files.items():
            form.write(folder / file, rows)
    return [output / file for file in files]


def _refuse_existing(folder: Path, names: Sequence[str], overwrite: bool) -> None:
    for name in names:
        if (folder / name).is_dir():  # old documents would stay among the new ones
            raise ConfigurationError(f"{folder / name} is there already. Remove it, or choose another folder.")
        refuse_existing(folder / name, overwrite=overwrite)


def _refuse_old_splits(folder: Path, names: Sequence[str]) -> None:
    """Refuse a folder with splits beside those to be written: an old one may hold rows of the new training file."""
    old = sorted({*split_file_names(folder)} - {*names})
    if old:
        raise ConfigurationError(
            f"{folder} holds {', '.join(old)} of an earlier conversion, which would be read beside "
            f"{', '.join(names)}. Remove what is old, or choose another folder."
        )


def join_lines(rows: Dataset) -> tuple[Dataset, int]:
    """Rows with runs of line breaks and tabs in their texts replaced by a space, and how many texts had any."""
    changed = 0

    def join(texts: list[str]) -> dict[str, list[str]]:
        nonlocal changed
        joined = [_BREAKS.sub(" ", text) for text in texts]
        changed += sum(one != other for one, other in zip(texts, joined, strict=True))
        return {"text": joined}

    return rows.map(join, batched=True, input_columns="text", keep_in_memory=True, load_from_cache_file=False), changed
