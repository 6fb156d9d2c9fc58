"""The rows that a trainer is given, in any form that `load_rows` reads or as a stream, made ready for its collator."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import datasets
from datasets import Dataset

from ..data.options import RowOptions
from ..data.rows import RowSource, load_rows
from ..errors import ConfigurationError, DataError
from ..processing_xlgen import XLGenProcessor
from .collator import encode_dataset, is_encoded, reading_options
from .lazy_rows import LazyRows
from .streaming import EncodedStream, is_stream

__all__ = ["EvaluationRows", "encode_evaluation_rows", "encode_test_rows", "encode_training_rows"]

EvaluationRows: TypeAlias = "RowSource | Mapping[str, RowSource] | None"
"""Rows that evaluate a training: one set, several by name, or none."""


def encode_training_rows(
    rows: RowSource | LazyRows | None,
    processor: XLGenProcessor,
    row_options: RowOptions | None = None,
    *,
    lazily: bool = False,
) -> Dataset | EncodedStream | LazyRows | None:
    """Encode rows, unless they are encoded; those of a stream are encoded as the training reads them.

    Args:
        rows: rows that `load_rows` reads, an `IterableDataset` of `datasets` or torch, or None.
        processor: the model's processor.
        row_options: the columns to read, and how; by default `text` and `labels`.
        lazily: encode the others as the training needs them, too.

    Raises:
        ConfigurationError: if these are several sets of rows, or the name of one.
        DataError: if a row is not as `load_rows` wants it, or none can be trained on.
    """
    if rows is None or isinstance(rows, LazyRows) or is_encoded(rows):
        return rows
    _refuse_name(rows, "train_dataset")
    if isinstance(rows, Mapping):
        first = next(iter(rows), "train")
        raise ConfigurationError(
            f"train_dataset is {type(rows).__name__} with {list(rows)}; give one of them, such as "
            f"train_dataset=rows[{first!r}]."
        )
    if is_stream(rows):
        return EncodedStream(rows, processor, row_options=row_options)
    if lazily:
        options = reading_options(rows, row_options)
        return LazyRows(load_rows(rows, options, name="Training data", suspicions=False), processor)
    return encode_dataset(rows, processor, "Training data", row_options=row_options, training=True)


def encode_evaluation_rows(
    rows: EvaluationRows, processor: XLGenProcessor, row_options: RowOptions | None = None
) -> Dataset | dict[str, Dataset] | None:
    """Encode rows, or several sets of them, unless they are encoded; labels outside the label space are reported.

    Args:
        rows: rows that `load_rows` reads, several sets by name, or None.
        processor: the model's processor.
        row_options: the columns to read, and how; by default `text` and `labels`.

    Raises:
        ConfigurationError: if rows are a stream, which cannot be evaluated, or the name of rows.
        DataError: if a row is not as `load_rows` wants it, or no row has labels.
    """
    if rows is None:
        return None
    if isinstance(rows, Mapping):
        return {
            name: _evaluated(part, processor, row_options, f"eval_dataset[{name!r}]", f"Evaluation data {name!r}")
            for name, part in rows.items()
        }
    return _evaluated(rows, processor, row_options, "eval_dataset", "Evaluation data")


def encode_test_rows(rows: RowSource, processor: XLGenProcessor, row_options: RowOptions | None = None) -> Dataset:
    """Encode rows that are predicted, unless they are encoded; they need no labels.

    Args:
        rows: rows that `load_rows` reads.
        processor: the model's processor.
        row_options: the columns to read, and how; by default `text` and `labels`.

    Raises:
        ConfigurationError: if rows are a stream, or the name of rows.
        DataError: if a row is not as `load_rows` wants it.
    """
    if is_encoded(rows):
        return rows
    _refuse_name(rows, "test_dataset")
    _refuse_stream(rows, "test_dataset")
    return encode_dataset(
        rows, processor, "Test data", row_options=row_options, allow_unknown=True, require_labels=False
    )


def _evaluated(
    rows: RowSource, processor: XLGenProcessor, row_options: RowOptions | None, argument: str, what: str
) -> Dataset:
    """Encoded rows of an argument that this names."""
    if is_encoded(rows):
        return rows
    _refuse_name(rows, argument)
    _refuse_stream(rows, argument)
    encoded = encode_dataset(rows, processor, what, row_options=row_options, allow_unknown=True)
    if not any(map(len, encoded["label_ids"])) and not any(map(len, encoded["unknown_ids"])):
        raise DataError("No row has labels, so there is nothing to evaluate by; `predict` needs none.", file=what)
    return encoded


def _refuse_name(rows: object, argument: str) -> None:
    if isinstance(rows, (str, Path)):
        raise ConfigurationError(
            f"{argument}={str(rows)!r} is a name. Read the rows first, {argument}=load_rows({str(rows)!r}) with "
            "xlgen_hf.load_rows."
        )


def _refuse_stream(rows: object, argument: str) -> None:
    if is_stream(rows):
        taken = "stream.take(1000)" if isinstance(rows, datasets.IterableDataset) else "itertools.islice(stream, 1000)"
        raise ConfigurationError(
            f"{argument} is a stream ({type(rows).__name__}). Rows are scored each once, in their order, and as often "
            "as there is an evaluation. Read as many as you want to score into memory, "
            f"{argument}=load_rows({taken}) with xlgen_hf.load_rows."
        )
