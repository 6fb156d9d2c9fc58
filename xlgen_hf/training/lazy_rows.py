"""Training rows that are encoded when a batch needs them: memory and time before the first step stay small."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from datasets import Dataset as Table
from torch.utils.data import Dataset

from ..data.label_lists import LabelLists, label_lists
from ..data.transforms import learns_from_none
from ..errors import LabelSpaceError
from ..processing_xlgen import XLGenProcessor
from .collator import EncodedRow, RowEncoder

__all__ = ["LazyRows"]

_SAMPLE = 1000  # rows that tell beforehand what truncation will lose, and how many bytes make a token


class LazyRows(Dataset[EncodedRow]):
    """Encodes rows as [`encode_dataset`] does, each time that a batch needs them.

    The labels of all rows are looked up beforehand, so that an unknown one is found before the training. What
    truncation loses is reported of a sample of the rows, and the lengths that part rows into batches are estimated: as
    many tokens for a byte as in the sample. With candidates, these are searched for again in every epoch.

    Args:
        rows: rows with `text` and `labels`, as `load_rows` gives them.
        processor: of the model that will be trained.
        what: how errors and the report of losses call these rows.

    Attributes:
        lengths: estimated tokens of input and target of each row that is trained on, shape `(N,)`.

    Raises:
        DataError: if no row has a label that fits into a target.
        LabelSpaceError: if a label is not in the label space; names the row.
    """

    def __init__(self, rows: Table, processor: XLGenProcessor, what: str = "Training data") -> None:
        self._rows = rows
        self._encoder = RowEncoder(processor, what, allow_unknown=False, training=True, learns_none=True)
        labels = label_lists(rows.with_format("arrow")["labels"].combine_chunks())
        ids = _label_ids(labels, processor, what)
        tokens = np.asarray(processor.label_tokenizer.name_lengths)[ids] + 1
        fitting = _sums(tokens < processor.max_target_length, labels)
        lost = int((labels.lengths > 0).sum()) - int((fitting > 0).sum())
        if not fitting.any():
            self._encoder.report.rows_lost = lost
            self._encoder.fail_without_rows()
        teach = fitting > 0 if not learns_from_none(rows) else (fitting > 0) | (labels.lengths == 0)
        self._numbers = np.flatnonzero(teach)
        targets = np.minimum(_sums(tokens, labels) + 1, processor.max_target_length)[self._numbers]
        self.lengths: np.ndarray = targets + self._input_lengths(targets, processor, what, lost)

    def __len__(self) -> int:
        """The number of rows that are trained on."""
        return len(self._numbers)

    def __getitem__(self, place: int) -> EncodedRow:
        """One encoded row."""
        return self.__getitems__([place])[0]

    def __getitems__(self, places: Sequence[int]) -> list[EncodedRow]:
        """The encoded rows of a batch."""
        numbers = self._numbers[places].tolist()
        columns = self._encoder(self._rows[numbers], numbers)
        return [dict(zip(columns, values, strict=True)) for values in zip(*columns.values(), strict=True)]  # type: ignore[misc]

    def _input_lengths(self, targets: np.ndarray, processor: XLGenProcessor, what: str, lost: int) -> np.ndarray:
        """Estimated tokens of the inputs, `(N,)`; reports what truncation loses in the rows that tell it."""
        places = np.unique(np.linspace(0, len(self) - 1, min(_SAMPLE, len(self))).astype(int))
        of_sample = what if len(places) == len(self) else f"{what}, a sample of {len(places)} rows"
        sample = RowEncoder(processor, of_sample, allow_unknown=False, training=True, learns_none=True)
        numbers = self._numbers[places].tolist()
        inputs = np.asarray(sample(self._rows[numbers], numbers)["length"]) - targets[places]
        sample.report.rows_lost = lost
        sample.log()
        texts = self._rows.with_format("arrow")["text"]
        sizes = pc.binary_length(texts).to_numpy(zero_copy_only=False)[self._numbers]
        known = sizes[places]
        whole = inputs < processor.max_source_length  # of those that were cut, nobody counted the tokens
        used = whole if whole.any() else np.ones_like(whole)
        tokens = sizes * (inputs[used].sum() / max(known[used].sum(), 1))
        return np.minimum(tokens, processor.max_source_length).astype(np.int64)


def _label_ids(labels: LabelLists, processor: XLGenProcessor, what: str) -> np.ndarray:
    """The id of each label of the rows, `(entries,)`."""
    space = processor.label_space
    found = pc.index_in(labels.names, pa.array(space.names, labels.names.type))
    if found.null_count:
        entry = int(np.flatnonzero(found.is_null().to_numpy(zero_copy_only=False))[0])
        try:
            space.encode([labels.names[entry].as_py()])
        except LabelSpaceError as err:
            raise LabelSpaceError(f"{what}, row {labels.row_of(entry) + 1}: {err}") from err
    ids: np.ndarray = found.to_numpy(zero_copy_only=False)
    return ids


def _sums(values: np.ndarray, labels: LabelLists) -> np.ndarray:
    """The sum of what the labels of each row have, `(N,)`."""
    before = np.concatenate([[0], np.cumsum(values)])
    sums: np.ndarray = before[labels.offsets[1:]] - before[labels.offsets[:-1]]
    return sums
