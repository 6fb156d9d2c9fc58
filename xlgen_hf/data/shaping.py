"""From the columns that people have to text and labels: which columns are read, joined, kept, and checked."""

from __future__ import annotations

import functools
import logging
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..errors import ConfigurationError, DataError
from .blocks import MISSING, Block
from .kept_columns import kept_array
from .label_reading import LabelReader
from .one_hot import binary_columns, other_values
from .options import RowOptions, shown_names
from .values import encoded, fail, first_null, is_strings, no_column, text_problem, to_list

__all__ = ["RowShaper", "Tally"]

logger = logging.getLogger(__name__)

_TEXT, _LABELS, _ID = "text", "labels", "id"  # names of the columns in the result and in ready blocks
_LEAST_ONE_HOT = 3  # columns of 0 and 1 that make a one-hot table where nobody says that it is one
_LEAST_ADVISED = 2  # such columns that an error names where there are no labels; one may be anything


class _Chosen(NamedTuple):
    """The columns of a source that are read."""

    texts: list[str]
    labels: str | None
    one_hot: list[str]
    kept: dict[str, str]  # name in the result -> name in the source


@dataclass
class Tally:
    """Rows that were let pass, counted.

    Attributes:
        count: how many.
        example: the number of the first of them, None for none.
    """

    count: int = 0
    example: int | None = None

    def add(self, block: Block, found: np.ndarray) -> None:
        """Count the rows of a block that `found` marks, shape `(rows,)`."""
        if self.example is None and found.any():
            self.example = int(block.numbers[int(found.argmax())])
        self.count += int(found.sum())


class RowShaper:
    """Makes `text` and `labels` of blocks, checks them, and counts what was repaired or let pass.

    Args:
        options: which columns to read, and how.
        require_labels: if false, the column of labels, or the labels of a row, may be missing.
        require_text: if false, the column of texts may be missing.
        allow_empty_text: whether a text may be empty or white space.

    Attributes:
        label_reader: what reads the labels, with what it recognised and counted.
        rows: rows so far.
        without_labels: of them, rows without labels.
        empty_texts: rows with an empty text.
    """

    def __init__(
        self,
        options: RowOptions,
        *,
        require_labels: bool = True,
        require_text: bool = True,
        allow_empty_text: bool = False,
    ) -> None:
        self.options = options
        self.require_labels = require_labels
        self.require_text = require_text
        self.allow_empty_text = allow_empty_text
        self.label_reader = LabelReader(options, require_labels)
        self.rows = 0
        self.without_labels, self.empty_texts = Tally(), Tally()
        self._chosen: _Chosen | None = None
        self._kept_types: dict[str, pa.DataType] = {}

    def shape(self, block: Block) -> pa.Table:
        """Text, labels and kept columns of a block.

        Raises:
            DataError: if a row cannot be used; names file and row.
        """
        chosen = self._choose(block)
        texts = self._texts(block, chosen)
        if chosen.one_hot:
            labels = self.label_reader.read_one_hot(block, chosen.one_hot)
        else:
            labels = self.label_reader.read(block, chosen.labels or "")
        columns = {_TEXT: texts, _LABELS: labels.to_array()}
        for name, source in chosen.kept.items():
            columns[name] = self._kept(block, name, source)
        self.rows += len(block.numbers)
        self.without_labels.add(block, labels.lengths == 0)
        return pa.table(columns)

    @property
    def has_texts(self) -> bool:
        """Whether there is a column of texts."""
        return self._chosen is not None and bool(self._chosen.texts)

    # ------------------------------------------------------------------------------------------------ columns

    def _choose(self, block: Block) -> _Chosen:
        """The columns to read: those that the first block has; later ones must have them too."""
        if self._chosen is None:
            self._chosen = self._choose_ready(block) if block.ready else self._choose_columns(block)
        chosen = self._chosen
        if len(chosen.texts) == 1:
            self._demand(block, chosen.texts[0], "--text-column", "text_column")
        needed = [*chosen.one_hot, *([chosen.labels] if chosen.labels and self.require_labels else [])]
        for name in needed:
            self._demand(block, name, "--labels-column", "labels_column")
        return chosen

    def _demand(self, block: Block, name: str, option: str, keyword: str) -> None:
        if name not in block.columns:
            no_column(block, None, name, option, keyword)

    def _choose_ready(self, block: Block) -> _Chosen:
        kept = {}
        if self.options.id_column is not None:
            self._demand(block, _ID, "--id-column", "id_column")
            kept[self.options.id_column] = _ID
        for name in self.options.keep_columns:
            self._demand(block, name, "--keep-columns", "keep_columns")
        if self.require_labels:
            self._demand(block, _LABELS, "--labels-column", "labels_column")
        return _Chosen([_TEXT], _LABELS, [], kept)

    def _choose_columns(self, block: Block) -> _Chosen:
        options = self.options
        texts = list(options.texts)
        if not self.require_text and not set(texts) <= set(block.columns):
            texts = []
        for name in texts:
            self._demand(block, name, "--text-column", "text_column")
        kept = self._kept_columns(block)
        if options.labels in block.columns and options.layout != "one-hot":
            return _Chosen(texts, options.labels, [], kept)
        one_hot = self._one_hot_columns(block, {*texts, *kept.values()})
        if not one_hot and self.require_labels and options.labels not in block.columns:
            advice = self._one_hot_advice(block, {*texts, *kept.values()})
            no_column(block, None, options.labels, "--labels-column", "labels_column", advice)
        return _Chosen(texts, None if one_hot else options.labels, one_hot, kept)

    def _kept_columns(self, block: Block) -> dict[str, str]:
        names = [] if self.options.id_column is None else [self.options.id_column]
        for given in self.options.keep_columns:
            names += [given] if given in block.columns else [part.strip() for part in given.split(",")]
        sources = {_TEXT: self.options.texts, _LABELS: (self.options.labels,)}
        for name in names:
            self._demand(block, name, "--id-column, --keep-columns, --by, --group-column", "id_column or keep_columns")
            if name in sources and sources[name] != (name,):
                raise ConfigurationError(
                    f"The column {name!r} cannot be kept with the {name!r} made of {list(sources[name])}; rename it."
                )
        return {name: name for name in names if name not in sources}

    def _one_hot_columns(self, block: Block, others: set[str]) -> list[str]:
        options = self.options
        asked = options.layout == "one-hot"
        if not asked and (options.layout != "auto" or options.labels_column is not None or not self.require_labels):
            return []
        rest = {name: column for name, column in block.columns.items() if name not in others}
        found = binary_columns(rest)
        if not asked and (len(found) < _LEAST_ONE_HOT or 2 * len(found) <= len(rest)):
            return []
        if not found:
            problem = f"No column holds only 0 and 1, as a one-hot table has for each label{other_values(rest)}."
            raise DataError(problem, file=block.file)
        left = shown_names(name for name in rest if name not in found)
        logger.info(
            "%s: a one-hot table; %d columns of 0 and 1 are labels%s.",
            block.file,
            len(found),
            f"; not read are {left}" if len(found) < len(rest) else "",
        )
        return found

    def _one_hot_advice(self, block: Block, others: set[str]) -> str:
        """What the error of missing labels adds where there are columns of 0 and 1, too few to be taken for labels."""
        if self.options.labels_column is not None:
            return ""
        found = binary_columns({name: column for name, column in block.columns.items() if name not in others})
        if len(found) < _LEAST_ADVISED:
            return ""
        return (
            f" If {shown_names(found)}, of 0 and 1 or of true and false, are labels, give --layout one-hot "
            "(layout='one-hot' in Python)."
        )

    # ------------------------------------------------------------------------------------------------ texts

    def _texts(self, block: Block, chosen: _Chosen) -> pa.Array:
        if not chosen.texts:
            return pa.array([""] * len(block.numbers), pa.string())
        if len(chosen.texts) == 1:
            texts = self._strings(block, chosen.texts[0], optional=False)
        else:
            parts = [pc.utf8_trim_whitespace(self._strings(block, name, optional=True)) for name in chosen.texts]
            texts = functools.reduce(self._joined, parts)
        empty = pc.equal(pc.utf8_trim_whitespace(texts), "").to_numpy(zero_copy_only=False)
        self.empty_texts.add(block, empty)
        if empty.any() and not self.allow_empty_text:
            message = "The text is empty. Leave the row out; nothing can be learned from it."
            fail(block, int(empty.argmax()), message)
        return texts

    def _joined(self, texts: pa.Array, part: pa.Array) -> pa.Array:
        """Texts with a further part; the separator only stands between parts that are not empty."""
        both = pc.and_(pc.not_equal(texts, ""), pc.not_equal(part, ""))
        return pc.binary_join_element_wise(texts, part, pc.if_else(both, self.options.text_separator, ""))

    def _strings(self, block: Block, name: str, *, optional: bool) -> pa.Array:
        """A column as an Arrow array of strings; empty where an optional one has no value."""
        column = block.columns.get(name, [MISSING] * len(block.numbers))
        if isinstance(column, pa.Array) and is_strings(column.type):
            strings = column.cast(pa.string())
            if strings.null_count and not optional:
                fail(block, first_null(strings), text_problem(name, None))
            return pc.fill_null(strings, "")
        values = to_list(column)
        if optional:
            values = ["" if value is None or value is MISSING else value for value in values]
        if not all(issubclass(kind, str) for kind in set(map(type, values))):
            row = next(i for i, value in enumerate(values) if not isinstance(value, str))
            if values[row] is MISSING:
                no_column(block, row, name, "--text-column", "text_column")
            fail(block, row, text_problem(name, values[row]))
        return encoded(block, values, "text")  # type: ignore[arg-type]

    # ------------------------------------------------------------------------------------------------ kept columns

    def _kept(self, block: Block, name: str, source: str) -> pa.Array:
        """A kept column, with a type that holds its values in this block and in those before."""
        column = block.columns.get(source, [MISSING] * len(block.numbers))
        if not isinstance(column, pa.Array):
            column = [None if value is MISSING else value for value in column]
        before, is_id = self._kept_types.get(name), name == self.options.id_column
        array = kept_array(block, source, column, before, is_id=is_id)
        self._kept_types[name] = array.type
        return array
