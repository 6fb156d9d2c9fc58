"""Training rows that come one after another, without a known end: checked and encoded while the training runs."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from itertools import count

import datasets
from torch.utils.data import IterableDataset

from ..data.options import RowOptions
from ..data.rows import report_rows, stream_blocks
from ..data.shaping import RowShaper
from ..errors import ConfigurationError, DataError
from ..processing_xlgen import XLGenProcessor
from .collator import EncodedRow, RowEncoder, reading_options

__all__ = ["EncodedStream", "is_stream"]

logger = logging.getLogger(__name__)

_BLOCK = 1000  # rows that are encoded together


def is_stream(rows: object) -> bool:
    """Whether rows come one after another, as those of an `IterableDataset` of `datasets` or torch."""
    return isinstance(rows, (datasets.IterableDataset, IterableDataset))


class EncodedStream(IterableDataset[EncodedRow]):
    """Encodes the rows of a stream as [`encode_dataset`] does, pass after pass without an end.

    The number of a row counts on from pass to pass, so each pass draws again what the collator draws for a row, and a
    run that is resumed draws what it would have drawn. `set_epoch` of the source, where there is one, is told the
    number of each pass, so a stream that is shuffled comes in another order. Rows without labels are left out. What
    was lost and left out is logged after the first pass.

    Args:
        source: the rows.
        processor: of the model that will be trained.
        what: how errors and the report of losses call these rows.
        row_options: the columns to read, and how; by default `text` and `labels`.

    Raises:
        ConfigurationError: if the rows are those of a long table, which cannot be put together here.
    """

    def __init__(
        self,
        source: datasets.IterableDataset | IterableDataset[object],
        processor: XLGenProcessor,
        what: str = "Training data",
        row_options: RowOptions | None = None,
    ) -> None:
        options = reading_options(source, row_options)
        if options.layout == "long":
            raise ConfigurationError(
                "layout='long': the rows of one text may be anywhere in a stream. Read all of it with load_rows."
            )
        self.source = source
        self.what = what
        self.options = options
        self.encoder = RowEncoder(processor, what, allow_unknown=False, training=True)
        self.shaper = RowShaper(options)
        self._has_ended = False

    def __iter__(self) -> Iterator[EncodedRow]:
        """Encoded rows.

        Raises:
            DataError: if a row is not as `load_rows` wants it, or none can be trained on; names the row.
            LabelSpaceError: if a label is not in the label space; names the row.
        """
        if self._has_ended:
            return
        number = 0
        for epoch in count():
            if hasattr(self.source, "set_epoch"):
                self.source.set_epoch(epoch)
            encoded = 0
            for block in stream_blocks(self.source, self.what, self.options, _BLOCK):
                rows = self.shaper.shape(block).to_pydict()
                columns = self.encoder(rows, list(range(number, number + len(block.numbers))))
                number += len(block.numbers)
                for values in zip(*columns.values(), strict=True):
                    encoded += 1
                    yield dict(zip(columns, values, strict=True))  # type: ignore[misc]
            if epoch == 0:
                report_rows(self.shaper, self.what)
                self.encoder.log()
            if encoded:
                continue
            if number == 0:
                raise DataError("There are no rows.", file=self.what)
            if epoch == 0:
                self.encoder.fail_without_rows()
            self._has_ended = True
            logger.warning(
                "%s: the stream gave %d rows and cannot be read again, so the training ends here. A stream that is "
                "made by a function (IterableDataset.from_generator) can be read as often as it is needed.",
                *(self.what, number),
            )
            return
