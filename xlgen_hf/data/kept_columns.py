"""Kept columns: the Arrow type that holds every value of a column as it is, whatever its first rows look like."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NoReturn

import pyarrow as pa
from datasets import Features

from ..errors import DataError
from .blocks import Block, Column
from .values import fail, half_pair_problem, shown, to_list

__all__ = ["final_schema", "kept_array", "widened"]

_REFUSALS = (pa.ArrowException, ValueError, TypeError, OverflowError)  # what Arrow raises for values that do not fit


def kept_array(
    block: Block, name: str, column: Column, before: pa.DataType | None, *, is_id: bool = False
) -> pa.Array:
    """A kept column of a block as an array of a type that also holds the values of the blocks before.

    Args:
        block: the rows.
        name: the column's name in the source.
        column: its values; None for a missing one.
        before: the type of the blocks before; None for the first.
        is_id: whether it identifies the rows.

    Raises:
        DataError: if a value does not fit to those before it, or is none that a data set, or an id, can be; names the
            row.
    """
    before = pa.null() if before is None else before
    array = column if isinstance(column, pa.Array) else _inferred(column)
    if array is not None and pa.types.is_dictionary(array.type):
        array = array.dictionary_decode()  # other files of a split may have the same values without codes
    kind = None if array is None else _common_type(before, array.type)
    if array is None or kind is None:
        _fail(block, name, to_list(column), before)
    if kind != before:
        _check_kind(block, name, array, kind, is_id=is_id)
    if array.type == kind:
        return array
    values = to_list(column)
    try:
        return pa.array(values, kind)
    except _REFUSALS:
        _fail(block, name, values, before)


def _check_kind(block: Block, name: str, array: pa.Array, kind: pa.DataType, *, is_id: bool) -> None:
    """Check that data sets have columns of a type, and that ids of it can be told apart."""
    first = int(array.is_valid().to_numpy(zero_copy_only=False).argmax())
    try:
        Features.from_arrow_schema(pa.schema([(name, kind)]))
    except ValueError as err:
        problem = f"The column {name!r} cannot be kept: a data set has no columns of {kind}."
        fail(block, first, f"{problem} Leave it out, or make text, lists or objects of it.", err)
    if is_id and pa.types.is_nested(kind):
        value = shown(array[first].as_py())
        message = f"The column {name!r} cannot identify the rows: it holds {value}, and an id is a text or a number."
        fail(block, first, f"{message} Name another one with --id-column (id_column=... in Python).")


def _inferred(values: Sequence[object]) -> pa.Array | None:
    """Values with the type that holds all of them; None where there is none."""
    examples = {type(value): value for value in values if value is not None}
    try:
        if len(examples) > 1 and _folded(pa.array([value]).type for value in examples.values()) is None:
            return None  # Arrow itself would cut a date with a time to a date
        return pa.array(values)
    except _REFUSALS:
        return None


def _folded(kinds: Iterable[pa.DataType]) -> pa.DataType | None:
    common = pa.null()
    for kind in kinds:
        common = None if common is None else _common_type(common, kind)
    return common


def _common_type(one: pa.DataType, other: pa.DataType) -> pa.DataType | None:
    """The type that holds the values of both as they are: numbers, lists and keys of objects may need a wider one."""
    if one == other or pa.types.is_null(other):
        return one
    if pa.types.is_null(one):
        return other
    try:
        schemas = [pa.schema([("column", kind)]) for kind in (one, other)]
        common = pa.unify_schemas(schemas, promote_options="permissive").field(0).type
    except pa.ArrowException:
        return None
    turns_text = _is_bytes(one) != _is_bytes(other)
    rounds = pa.types.is_decimal(one) != pa.types.is_decimal(other) and pa.types.is_floating(common)
    return None if turns_text or rounds else common


def _is_bytes(kind: pa.DataType) -> bool:
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def _fail(block: Block, name: str, values: Sequence[object], before: pa.DataType) -> NoReturn:
    """Raise the error of the first value that does not fit to those before it."""
    kind = before
    for row, value in enumerate(values):
        problem = f"The column {name!r} cannot be kept: it holds {shown(value)} here, "
        try:
            wider = _common_type(kind, pa.array([value]).type)
        except UnicodeEncodeError as err:
            fail(block, row, half_pair_problem(f"value of the column {name!r}", value), err)
        except _REFUSALS as err:
            fail(block, row, f"{problem}which is nothing that a column can hold. Leave the column out.", err)
        if wider is None:
            fail(block, row, f"{problem}and {kind} before.")
        kind = wider
    for row, value in enumerate(values):
        try:
            pa.array([value], kind)
        except _REFUSALS as err:
            problem = f"The column {name!r} cannot be kept: it holds {shown(value)} here, "
            fail(block, row, f"{problem}which {kind}, that other rows need, does not hold exactly.", err)
    raise DataError(f"The column {name!r} cannot be kept: its rows are not of one kind.", file=block.file)


def final_schema(schemas: Iterable[pa.Schema]) -> pa.Schema:
    """The schema that holds tables of some schemas; a column without any value is one of strings."""
    unified = pa.unify_schemas(list(schemas), promote_options="permissive")
    return pa.schema([field.with_type(pa.string()) if pa.types.is_null(field.type) else field for field in unified])


def widened(tables: Sequence[pa.Table], schema: pa.Schema, file: str) -> pa.Table:
    """Tables as one of a schema that holds all of them.

    Args:
        tables: the tables.
        schema: what `final_schema` gives for them.
        file: where the rows come from.

    Raises:
        DataError: if a value does not fit, such as a whole number with more digits than fractions leave room for.
    """
    if all(table.schema == schema for table in tables):
        return pa.concat_tables(tables)
    try:
        return pa.concat_tables([schema.empty_table(), *tables], promote_options="permissive")
    except pa.ArrowException as err:
        names = [field.name for field in schema if any(table.schema.field(field.name) != field for table in tables)]
        raise DataError(
            f"The columns {names} cannot be kept: later rows need a type that does not hold all earlier values "
            f"exactly ({err}). Write them as strings.",
            file=file,
        ) from err
