"""Rows of text and labels from every format that people have them in, with the place of every problem."""

from __future__ import annotations

import hashlib
import json
import logging
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

from datasets import Dataset, DatasetDict, Features, IterableDataset, List, Value, load_dataset
from datasets.exceptions import DatasetsError

from ..errors import DataError
from ..files.training_report import RowFacts
from .blocks import Block, Splits, batches, block_of_rows
from .folders import SPLIT_NAMES, choose_split, folder_splits
from .formats import FILE_FORMATS, read_file, reader_of
from .label_lists import column_batches
from .options import RowOptions
from .row_store import RowStore, merge_long
from .shaping import RowShaper
from .suspicion import log_suspicions, row_suspicions
from .tables import dataset_blocks, frame_blocks, stream_table_blocks
from .text_files import line_list

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa

__all__ = [
    "FEATURES",
    "LABEL_SPACE_CONFIG",
    "RowSource",
    "load_label_names",
    "load_rows",
    "report_rows",
    "row_facts",
    "row_ids",
    "rows_sha256",
    "source_splits",
    "stream_blocks",
]

logger = logging.getLogger(__name__)

FEATURES = Features({"text": Value("string"), "labels": List(Value("string"))})
"""Columns of every data set that `load_rows` returns."""

LABEL_SPACE_CONFIG = "label_space"
"""Configuration of a Hub data set that holds the names of its labels, in a column `label`."""

RowSource: TypeAlias = (
    "str | Path | Dataset | Mapping[str, Dataset] | pd.DataFrame | pa.Table | Iterable[Mapping[str, object]]"
)
"""What `load_rows` reads."""

_GIVEN = "the given rows"
_HUB_ID = re.compile(r"[\w.-]+/[\w-]+(?:\.(?!txt$|gz$|tsv$|csv$)[\w-]+)*")  # owner/name that no file would be called
_LONG_FRACTION = 0.1  # of the rows that repeat a text with another label, which makes a long table


def load_rows(
    source: RowSource,
    options: RowOptions | None = None,
    *,
    split: str | None = None,
    require_labels: bool = True,
    require_text: bool = True,
    allow_empty_text: bool | None = None,
    suspicions: bool = True,
    name: str | None = None,
    **changes: object,
) -> Dataset:
    r"""Read and check rows of text and labels.

    What is recognised (encoding, delimiter, separator of labels, layout) and what looks wrong is reported in the log;
    see `xlgen_hf.data.suspicion`.

    Args:
        source: a file (`.jsonl`, `.json`, `.csv`, `.tsv`, each also with `.gz`; `.parquet`, `.arrow`, `.xlsx`; where
            labels are not required, also `.txt`, one text per line); a folder with a file for each split, or that
            `save_to_disk` wrote, or in one of the layouts of `xlgen_hf.data.folders`; the id of a data set on the Hub;
            or rows in memory: a data set of `datasets` or torch, a stream of rows (all of it is read), several data
            sets by split, a data frame, an Arrow table, or dictionaries.
        options: the columns to read, and how; see `RowOptions`.
        split: the part to read of a source with several: `train`, `validation` (also found as `valid`, `val`,
            `validate`, `dev`) or `test`. A file or a folder of documents is read whole whatever this says.
        require_labels: if false, the source may lack the column of labels, or a row may have none (null): such rows
            get an empty list.
        require_text: if false, the source may lack the column of texts; texts are empty then.
        allow_empty_text: whether a text may be empty or white space. By default this is so where labels or texts are
            not required: there is nothing to learn from such a row, but asking for its prediction is not a mistake.
        suspicions: whether to log what looks wrong in rows that must have texts and labels.
        name: what errors and the log call the source; by default its path (of a folder, that of the split's file), or
            "the given rows".
        **changes: fields of `RowOptions` that are other than in `options`, such as `labels_column="subjects"`.

    Returns:
        A data set with the columns `text` (string) and `labels` (list of strings, each once, in the given order), and
        those that the options keep. Rows without labels stay in it (of training, see [`rows_that_teach`]) and are
        reported in the log, as are labels that a row repeats. More than 512 MiB of rows are kept in a
        temporary file instead of memory.

    Raises:
        DataError: if something cannot be read or a row is not as described; names file and row. Rows are lines in JSON
            Lines and raw text, and records after the header in CSV, TSV and Excel, from 1.
        ConfigurationError: if the options contradict each other.
        TypeError: if there is no such option.
    """
    options = (options or RowOptions()).changed(**changes)
    if allow_empty_text is None:
        allow_empty_text = not (require_labels and require_text)
    shaper = RowShaper(
        options, require_labels=require_labels, require_text=require_text, allow_empty_text=allow_empty_text
    )
    called, store, files = name or _name_of(source), RowStore(), set[str]()
    for block in _blocks(source, called, split, options, require_labels):
        store.add(shaper.shape(block))
        files.add(block.file)
    if not store.rows:
        raise DataError("There are no rows.", file=called)
    if name is None and len(files) == 1:
        called = files.pop()  # of a folder, the file that rows are counted in
    rows = _merge(store.dataset(called), shaper, options, called)
    report_rows(shaper, called)
    if options.id_column is not None:
        _report_ids(rows, options.id_column, called)
    if suspicions and require_labels and require_text:
        guessed = shaper.label_reader.separator is not None and options.label_separator is None
        log_suspicions(row_suspicions(rows, guessed_separator=guessed), called)
    return rows


def load_label_names(path: str | Path) -> list[str]:
    """Read a vocabulary: one name per line, in an encoding of `load_rows`, `.gz` too; or a Hub data set's label space.

    Args:
        path: the file, or `owner/name` of a data set that `push_dataset` made. Lines without visible text are left
            out; nothing else of a name is changed.

    Returns:
        The names in the order of the file; of repeated ones, which are reported in the log, the first.

    Raises:
        DataError: if the file is missing, in another encoding, or holds no name, or the data set has no label space.
    """
    from_hub = isinstance(path, str) and _HUB_ID.fullmatch(path) is not None and not Path(path).exists()
    lines = _hub_label_names(str(path)) if from_hub else line_list(Path(path))
    names = [name for name in lines if name.strip()]
    if not names:
        raise DataError("There is no label name in the file; one name per line is expected.", file=path)
    unique = list(dict.fromkeys(names))
    if len(unique) < len(names):
        logger.warning("%s: repeated names, which count once: %d.", path, len(names) - len(unique))
    return unique


# ---------------------------------------------------------------------------------------------------- sources


def source_splits(source: RowSource, options: RowOptions | None = None, *, require_labels: bool = True) -> list[str]:
    """The names of the splits of a source; none where it is one file, one folder of documents, or one set of rows.

    Raises:
        DataError: if it cannot be read.
    """
    found = _found_splits(source, options or RowOptions(), require_labels)
    return [name for name in found or () if name]


def _name_of(source: RowSource) -> str:
    return str(source) if isinstance(source, (str, Path)) else _GIVEN


def _blocks(
    source: RowSource, name: str, split: str | None, options: RowOptions, require_labels: bool
) -> Iterator[Block]:
    splits = _found_splits(source, options, require_labels)
    if splits is not None:
        return splits[choose_split(list(splits), split, name)]()
    if isinstance(source, (str, Path)):
        return read_file(Path(source).expanduser(), options)
    makes_rows = isinstance(source, Dataset) and source.format["type"] == "custom"  # by a transform
    if isinstance(source, Dataset) and not makes_rows:
        return dataset_blocks(source, name, options)
    if hasattr(source, "__arrow_c_stream__") and not makes_rows:  # data frames of pandas and Polars, Arrow tables
        return frame_blocks(source, name, options)
    return stream_blocks(source, name, options)


def stream_blocks(source: object, name: str, options: RowOptions, size: int | None = None) -> Iterator[Block]:
    """Blocks of rows that are read one after another: a stream, dictionaries, or a data set of torch.

    Args:
        source: the rows.
        name: what errors call them.
        options: the columns to read.
        size: most rows of a block; `BLOCK_ROWS` if None.

    Raises:
        DataError: if these are not rows.
    """
    if isinstance(source, IterableDataset):
        if source.features is not None:
            return stream_table_blocks(source, name, options, size)
        plain = source.with_format(None)
        plain.set_epoch(source.epoch)  # which a copy does not have
        return _dictionary_blocks(plain, name, options, size)
    if not isinstance(source, Iterable) and isinstance(source, Sized) and hasattr(source, "__getitem__"):
        source = map(source.__getitem__, range(len(source)))  # of torch: it need not end by itself
    return _dictionary_blocks(source, name, options, size)


def _found_splits(source: RowSource, options: RowOptions, require_labels: bool) -> Splits | None:
    """The splits of a folder, of a Hub data set or of several data sets; None for anything else."""
    if isinstance(source, Mapping):
        wrong = [name for name, part in source.items() if not isinstance(part, Dataset)]
        if wrong:
            kind = type(source[wrong[0]]).__name__
            raise DataError(f"A data set for each split is expected; {wrong[0]!r} is {kind}.", file=_GIVEN)
        return _dataset_splits(source, _GIVEN, options)
    if not isinstance(source, (str, Path)):
        return None
    path = Path(source).expanduser()
    if path.is_dir():
        return folder_splits(path, options, require_labels)
    if path.is_file() or _looks_like_file(source):
        return None
    return _dataset_splits(_from_hub(str(source)), str(source), options)


def _dataset_splits(parts: Mapping[str, Dataset], name: str, options: RowOptions) -> Splits:
    def reader(part: Dataset) -> Callable[[], Iterator[Block]]:
        return lambda: dataset_blocks(part, name, options)

    return {str(split): reader(part) for split, part in parts.items()}


def _looks_like_file(source: str | Path) -> bool:
    """Whether a source that does not exist cannot be the id of a data set, `owner/name` or `name`."""
    name = str(source)
    odd = not name or name.startswith((".", "/", "~")) or name.count("/") > 1 or "\\" in name
    return isinstance(source, Path) or odd or reader_of(Path(name)) is not None


def _from_hub(name: str) -> Mapping[str, Dataset]:
    try:
        found = load_dataset(name)
    except (DatasetsError, OSError, RuntimeError, ValueError) as err:  # no network, no access, a loading script
        answer = (str(err).strip().splitlines() or [type(err).__name__])[0]
        raise DataError(
            f"There is no such file or folder, and no data set of this name can be loaded from the Hub: {answer}\n"
            f"Files end in {', '.join(FILE_FORMATS)}; a folder holds a file for each of {', '.join(SPLIT_NAMES)}.",
            file=name,
        ) from err
    return found if isinstance(found, DatasetDict) else {"train": found}


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


def _dictionary_blocks(source: object, name: str, options: RowOptions, size: int | None) -> Iterator[Block]:
    if not isinstance(source, Iterable):
        raise DataError(f"Rows cannot be read from {type(source).__name__}.", file=name)
    for part in batches(enumerate(source, 1), size):
        wrong = next(((number, row) for number, row in part if not isinstance(row, Mapping)), None)
        if wrong is not None:
            message = f"The row is {type(wrong[1]).__name__}; a dictionary with a text and labels is expected."
            raise DataError(message, file=name, row=wrong[0])
        yield block_of_rows(
            name, [number for number, _ in part], [row for _, row in part if isinstance(row, Mapping)], options
        )


# ---------------------------------------------------------------------------------------------------- what was found


def _merge(rows: Dataset, shaper: RowShaper, options: RowOptions, name: str) -> Dataset:
    """Make one row of the rows of a text, where the table is a long one."""
    single = shaper.label_reader.single_cells and (shaper.has_texts or options.id_column is not None)
    if options.layout not in ("auto", "long") or (options.layout == "auto" and (not single or len(rows) < 2)):
        return rows
    if not single:
        raise DataError(
            "The table is not a long one: rows have several labels, or neither a text nor an id.", file=name
        )
    merged, other_texts = merge_long(rows, options.id_column or "text")
    labels = sum(len(names.flatten()) for (names,) in column_batches(merged, "labels"))
    if options.layout == "auto" and (other_texts or labels - len(merged) < _LONG_FRACTION * len(rows)):
        return rows  # what has another text is another row, whatever its id says
    logger.info(
        "%s: a long table; its %d rows of one label each are %d texts. --layout rows would keep each row.",
        name,
        len(rows),
        len(merged),
    )
    if other_texts:
        logger.warning(
            "%s: %d rows have another text than the first row of the same %r; the first text counts.",
            name,
            other_texts,
            options.id_column,
        )
    shaper.rows = len(merged)
    lengths = (part.value_lengths().to_numpy(zero_copy_only=False) for (part,) in column_batches(merged, "labels"))
    shaper.without_labels.count = sum(int((part == 0).sum()) for part in lengths)
    return merged


def row_ids(rows: Dataset, column: str | None, after: int = 0) -> list[str]:
    """What each row is called: by a column, with nothing for a missing value, or by its number.

    Args:
        rows: what `load_rows` gave.
        column: the column of ids; None for numbers.
        after: what the first row's number is one more than.
    """
    if column is None:
        return [str(after + number) for number in range(1, len(rows) + 1)]
    return ["" if one is None else str(one) for one in rows[column][:]]


def report_rows(shaper: RowShaper, source: str) -> None:
    """Log what was let pass or repaired.

    Args:
        shaper: what has read the rows.
        source: what to call them.
    """
    without, empty, repeated = shaper.without_labels, shaper.empty_texts, shaper.label_reader.repeated
    if without.count and shaper.require_labels:
        logger.warning(
            "%s: rows without labels: %d of %d, e.g. row %d. Evaluation counts them; training leaves them out, unless"
            " there are many.",
            source,
            without.count,
            shaper.rows,
            without.example,
        )
    if empty.count and shaper.require_text:
        logger.warning("%s: empty texts: %d of %d, e.g. row %d.", source, empty.count, shaper.rows, empty.example)
    if repeated:
        logger.warning("%s: labels that a row repeats, which count once: %d.", source, repeated)
    if shaper.label_reader.concepts is not None:
        shaper.label_reader.concepts.report(source)


def _report_ids(rows: Dataset, column: str, source: str) -> None:
    """Log ids that do not tell rows apart."""
    ids = rows.data.column(column)
    different = len(ids.unique().drop_null())
    if different < len(rows):
        logger.warning(
            "%s: the column %r does not identify a row: different values: %d, rows: %d.",
            source,
            column,
            different,
            len(rows),
        )


def rows_sha256(rows: Dataset) -> str:
    """SHA-256 of rows in their order, each a line of JSON `{"text": ..., "labels": [...]}` in UTF-8.

    It does not depend on the format or file that the rows came from, so it tells whether two people used one split.
    """
    digest = hashlib.sha256()
    for texts, labels in column_batches(rows, "text", "labels"):
        for text, names in zip(texts.to_pylist(), labels.to_pylist(), strict=True):
            line = json.dumps({"text": text, "labels": names}, ensure_ascii=False)
            digest.update(line.encode("utf-8") + b"\n")
    return digest.hexdigest()


def row_facts(rows: Dataset, source: str | None = None) -> RowFacts:
    """Number of rows, mean number of labels, and hash.

    Args:
        rows: rows with `text` and `labels`.
        source: where they come from, if that is known.
    """
    labels = sum(len(names.flatten()) for (names,) in column_batches(rows, "labels"))
    return {
        "rows": len(rows),
        "labels_per_row": labels / max(len(rows), 1),
        "sha256": rows_sha256(rows),
        "source": source,
    }
