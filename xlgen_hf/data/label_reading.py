"""From the column of labels that people have to label lists: lists, cells, class numbers, ids and one-hot columns."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .blocks import MISSING, Block
from .concept_labels import ConceptLabels
from .label_cells import COMMAS, DEFAULT_SEPARATOR, PLAIN_SEPARATORS, CellError, recognise_separator, split_cell
from .label_ids import clean_id, read_label_ids
from .label_lists import LabelLists, label_lists, lists_of_lengths
from .one_hot import NotBinaryError, one_hot_labels
from .options import RowOptions
from .values import (
    MULTI_HOT_ADVICE,
    encoded,
    fail,
    first_null,
    is_strings,
    kind_of,
    label_problem,
    no_column,
    shown,
    to_list,
)
from .vocabulary_files import vocabulary_of

__all__ = ["LabelReader"]

logger = logging.getLogger(__name__)

_LIST_TYPES = (pa.types.is_list, pa.types.is_large_list, pa.types.is_fixed_size_list)


class LabelReader:
    """Reads the labels of block after block; what it recognised in the first one holds for the others.

    Args:
        options: how labels are written.
        require_labels: whether a row without a value is an error.

    Attributes:
        repeated: labels that rows repeat, and that were left out.
        single_cells: whether every row so far had one label at most, in a cell that no separator splits.
        separator: what separates the labels of a cell; None as long as there was no cell.
        concepts: what makes labels of the names of concepts; None without a vocabulary.
    """

    def __init__(self, options: RowOptions, require_labels: bool) -> None:
        self.options = options
        self.require_labels = require_labels
        self.repeated = 0
        self.single_cells = True
        self.separator: str | None = None
        self._in_cells: bool | None = None
        self._ids = None if options.label_names is None else read_label_ids(options.label_names)
        vocabulary = vocabulary_of(options)
        self.concepts = None if vocabulary is None else ConceptLabels(vocabulary)

    def read(self, block: Block, name: str) -> LabelLists:
        """The labels of a block's rows, each once per row.

        Args:
            block: the rows.
            name: the column; where it is missing, no row has labels.

        Raises:
            DataError: if the labels of a row cannot be read; names file and row.
        """
        if name not in block.columns:
            return lists_of_lengths(np.zeros(len(block.numbers), dtype=np.int64), pa.array([], pa.string()))
        column = block.columns[name]
        found = self._arrow_lists(block, column, name) if isinstance(column, pa.Array) else None
        if found is None:
            found = self._python_lists(block, to_list(column), name)
        return self._checked(block, found)

    def read_one_hot(self, block: Block, names: Sequence[str]) -> LabelLists:
        """The labels of a block's rows where each label is a column."""
        self.single_cells = False
        try:
            return self._checked(block, one_hot_labels({name: block.columns[name] for name in names}))
        except NotBinaryError as err:
            fail(block, err.row, str(err), err)

    def _checked(self, block: Block, lists: LabelLists) -> LabelLists:
        blank = pc.equal(pc.utf8_trim_whitespace(lists.names), "").to_numpy(zero_copy_only=False)
        if blank.any():
            entry = int(blank.argmax())
            message = f"There is a label without visible text: {lists.names[entry].as_py()!r}. Leave it out."
            fail(block, lists.row_of(entry), message)
        if self.concepts is not None:
            lists = self.concepts.resolved(block, lists)
        once = lists.each_once()
        self.repeated += len(lists.names) - len(once.names)
        return once

    # ------------------------------------------------------------------------------------------------ Arrow

    def _arrow_lists(self, block: Block, column: pa.Array, name: str) -> LabelLists | None:
        """Label lists of a column of lists of strings or of class numbers; None for any other column."""
        is_list = any(check(column.type) for check in _LIST_TYPES)
        inner = column.type.value_type if is_list else column.type
        is_number = pa.types.is_integer(inner)
        if not (is_number or (is_list and (is_strings(inner) or pa.types.is_null(inner)))):
            return None
        if column.null_count and self.require_labels:
            fail(block, first_null(column), _null_labels(name))
        self.single_cells &= not is_list
        if not is_list:
            present = column.is_valid().to_numpy(zero_copy_only=False)
            lists = lists_of_lengths(present.astype(np.int64), column.drop_null())
        else:
            lists = label_lists(column)
        if lists.names.null_count:
            return None
        if is_number:
            return self._named(block, lists)
        return self._named(block, self._split_each(block, lists._replace(names=lists.names.cast(pa.string()))))

    def _named(self, block: Block, lists: LabelLists) -> LabelLists:
        """Label lists with the names of their ids, where the labels are ids."""
        if block.ready:
            return lists
        known = self._ids
        if known is None and pa.types.is_integer(lists.names.type):
            if block.classes is None:
                if len(lists.names) and self.concepts is None:
                    fail(block, lists.row_of(0), label_problem(lists.names[0].as_py()))
                return lists._replace(names=lists.names.cast(pa.string()))
            known = {str(number): name for number, name in enumerate(block.classes)}
            if not self.require_labels:  # -1 stands for "not known" in the test splits of many data sets
                lists = lists.select(pc.greater_equal(lists.names, 0).to_numpy(zero_copy_only=False))
        if known is None:
            return lists
        coded = lists.names.dictionary_encode()
        ids = [clean_id(value) for value in coded.dictionary.to_pylist()]
        if set(ids) <= {"0", "1"} and _has_bits(lists, len(known)):
            fail(block, 0, f"The labels are {len(known)} numbers 0 and 1 in every row, {MULTI_HOT_ADVICE}")
        names = [known.get(label_id) for label_id in ids]
        unknown = {number for number, name in enumerate(names) if not name}
        if unknown:
            entry = next(i for i, code in enumerate(coded.indices.to_pylist()) if code in unknown)
            where = self.options.label_names or "the metadata of the column"
            label = shown(lists.names[entry].as_py())
            problem = f"The label id {label} is not among the {len(known):,} ids of {where}."
            fail(block, lists.row_of(entry), problem + _separator_hint(lists.names[entry].as_py(), known))
        return lists._replace(names=pa.array(names, pa.string()).take(coded.indices))

    def _split_each(self, block: Block, lists: LabelLists) -> LabelLists:
        """Each label split by a separator that the user gave, for lists such as `["earn; usa"]`."""
        separator = None if block.ready else self.options.label_separator
        if not separator or not pc.any(pc.match_substring(lists.names, separator)).as_py():
            return lists
        parts = label_lists(pc.split_pattern(lists.names, separator))
        rows = lists.rows()[parts.rows()]
        split = lists_of_lengths(np.bincount(rows, minlength=len(lists.lengths)), pc.utf8_trim_whitespace(parts.names))
        return split.select(pc.not_equal(split.names, "").to_numpy(zero_copy_only=False))

    # ------------------------------------------------------------------------------------------------ Python objects

    def _python_lists(self, block: Block, values: Sequence[object], name: str) -> LabelLists:
        """Label lists of Python objects: lists, or cells that hold all labels of a row."""
        self._decide_form(values)
        lists = [self._python_list(block, row, value, name) for row, value in enumerate(values)]
        lengths = np.fromiter(map(len, lists), dtype=np.int64, count=len(lists))
        flat = [label for labels in lists for label in labels]
        rows = np.repeat(np.arange(len(lists)), lengths)
        kinds = set(map(type, flat))
        if (self._ids is not None or self.concepts is not None) and all(map(_is_id, kinds)):
            flat = [str(label) for label in flat]
        elif kinds - {str}:
            entry = next((i for i, label in enumerate(flat) if not isinstance(label, str)), None)
            if entry is not None:
                fail(block, int(rows[entry]), label_problem(flat[entry]))
        names = encoded(block, flat, "label", rows)  # type: ignore[arg-type]
        found = lists_of_lengths(lengths, names)
        return self._named(block, found if self._in_cells else self._split_each(block, found))

    def _decide_form(self, values: Sequence[object]) -> None:
        """Whether labels stand in lists or in cells, as in the first block that has any; and what separates them."""
        if self._in_cells is None:
            first = next((value for value in values if value is not None and value is not MISSING), None)
            self._in_cells = None if first is None else isinstance(first, str)
        if not self._in_cells or self.separator is not None:
            return
        self.separator = self.options.label_separator
        if self.separator is None and self.options.layout == "long":
            self.separator = ""
        if self.separator is None:
            self.separator = recognise_separator(value for value in values if isinstance(value, str))
            if self.separator not in (None, DEFAULT_SEPARATOR):
                logger.info(
                    "Labels are separated by %r. If that is wrong, give the separator (--label-separator).",
                    self.separator,
                )
        if self.separator is None:
            self.separator = DEFAULT_SEPARATOR

    def _python_list(self, block: Block, row: int, value: object, name: str) -> Sequence[object]:
        if value is None or value is MISSING:
            if self.require_labels and value is None:
                fail(block, row, _null_labels(name))
            if self.require_labels:
                no_column(block, row, name, "--labels-column", "labels_column")
            return ()
        if isinstance(value, str):
            return self._cell(block, row, value, name)
        if isinstance(value, (int, np.integer)) and not isinstance(value, bool):
            return (int(value),)
        if isinstance(value, float) and value.is_integer():  # as pandas keeps numbers where some are missing
            return (int(value),)
        self.single_cells = False
        if isinstance(value, np.ndarray):
            value = value.tolist()
        if not isinstance(value, (list, tuple)):
            message = f"The column {name!r} is {kind_of(value)}, {shown(value)}; a list of strings is expected."
            fail(block, row, message)
        return value

    def _cell(self, block: Block, row: int, cell: str, name: str) -> Sequence[object]:
        if not self._in_cells:
            message = (
                f"The column {name!r} is one string, in other rows it is a list; a list of strings is expected: "
                f"[{shown(cell)}]."
            )
            fail(block, row, message)
        try:
            labels = split_cell(cell, self.separator or "")
        except CellError as err:
            fail(block, row, str(err), err)
        is_list = cell.lstrip().startswith("[") and labels != [cell.strip()]  # a name may be in brackets
        self.single_cells &= len(labels) < 2 and not is_list
        return labels


def _is_id(kind: type) -> bool:
    return issubclass(kind, (str, int, np.integer)) and kind is not bool


def _has_bits(lists: LabelLists, width: int) -> bool:
    """Whether every row holds a 0 or 1 for each of `width` labels: as ids, some row would repeat one."""
    return bool((lists.lengths == width).all()) and len(lists.each_once().names) < len(lists.names)


def _null_labels(name: str) -> str:
    return f"The column {name!r} is null; a list of strings is expected, [] where there are no labels."


def _separator_hint(value: object, known: Mapping[str, str]) -> str:
    """What to do where an unknown id is several known ones in a row."""
    for separator in (" ", *COMMAS, *PLAIN_SEPARATORS):
        parts = str(value).split(separator)
        if len(parts) > 1 and all(known.get(clean_id(part.strip())) for part in parts):
            return (
                f" It is {len(parts)} of them; give --label-separator {separator!r} (label_separator=... in Python)."
            )
    return ""
