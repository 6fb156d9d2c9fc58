"""Kept columns come out as they went in, whatever their first rows look like."""

from __future__ import annotations

import datetime
import json
from decimal import Decimal

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from xlgen_hf import load_rows
from xlgen_hf.data import row_store
from xlgen_hf.errors import DataError


def with_values(*values):
    """Rows with a column `kept`; a value of ... is a row without it."""
    rows = [{"text": f"text {number}", "labels": ["a", "b"]} for number in range(len(values))]
    return [row if value is ... else {**row, "kept": value} for row, value in zip(rows, values, strict=True)]


def kept(source):
    return load_rows(source, keep_columns="kept")["kept"][:]


@pytest.fixture(name="in_blocks", params=["memory", "file"])
def _in_blocks(request, monkeypatch):
    """Blocks of two rows, kept in memory or in files."""
    monkeypatch.setattr("xlgen_hf.data.blocks.BLOCK_ROWS", 2)
    monkeypatch.setattr(row_store, "IN_MEMORY", 1 << 29 if request.param == "memory" else 1)


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([{"a": 1}, {"a": 2, "b": "x"}], [{"a": 1, "b": None}, {"a": 2, "b": "x"}]),
        ([{"a": None}, {"a": 1}, {}], [{"a": None}, {"a": 1}, {"a": None}]),
        ([[], ["x"]], [[], ["x"]]),
        ([[{"a": 1}], [{"b": [2.5]}]], [[{"a": 1, "b": None}], [{"a": None, "b": [2.5]}]]),
        ([1, 2.75], [1, 2.75]),
        ([{"a": 1}, {"a": 2.75}], [{"a": 1}, {"a": 2.75}]),
        ([None, ..., 1990], [None, None, 1990]),
        ([None, ..., {"q": 1}], [None, None, {"q": 1}]),
        ([None, None], [None, None]),
    ],
)
@pytest.mark.parametrize("repeats", [1, 2, 3])
def test_no_value_is_changed(in_blocks, tmp_path, values, expected, repeats):
    """In one block and in several: the first values of a column do not say what the others are."""
    values, expected = ([one for one in some for _ in range(repeats)] for some in (values, expected))
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in with_values(*values)), encoding="utf-8")
    found = load_rows(path, keep_columns="kept")
    assert found["kept"][:] == expected
    assert found["text"][:] == [f"text {number}" for number in range(len(values))]
    assert kept(pd.DataFrame({**pd.DataFrame(with_values(*values)), "kept": expected})) == expected


def test_a_column_without_values_is_one_of_strings():
    assert load_rows(with_values(None, None), keep_columns="kept").features["kept"].dtype == "string"


def test_rows_beyond_memory_stay_in_one_file(in_blocks):
    found = load_rows(with_values(*[1] * 5, 1.5, *[2] * 4), keep_columns="kept")
    assert found["kept"][:] == [1, 1, 1, 1, 1, 1.5, 2, 2, 2, 2]
    assert found.features["kept"].dtype == "float64"
    assert len(found.cache_files) <= 1


def test_files_of_a_split_may_have_other_types(in_blocks, tmp_path):
    arrays = (
        pa.array(["x", "y", None]).dictionary_encode(),
        pa.array([None, None], pa.null()),
        pa.array(["z"]),
        pa.array(["z"], pa.large_string()),
    )
    numbers = (
        pa.array([1, 2, 3], pa.int8()),
        pa.array([1, 2], pa.int64()),
        pa.array([0.5]),
        pa.array([4], pa.uint8()),
    )
    for part, (array, of_part) in enumerate(zip(arrays, numbers, strict=True)):
        table = pa.table(
            {"text": ["t"] * len(array), "labels": [["a"]] * len(array), "kept": array, "number": of_part}
        )
        pq.write_table(table, tmp_path / f"train-{part:05}-of-00004.parquet")
    found = load_rows(tmp_path, keep_columns=("kept", "number"), layout="rows")
    assert found["kept"][:] == ["x", "y", None, None, None, "z", "z"]
    assert found["number"][:] == [1, 2, 3, 1, 2, 0.5, 4]


LONG = 12345678901234567  # more digits than a float has


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([1, 2, "x"], r"row 3: The column 'kept' cannot be kept: it holds 'x' here, and int64 before"),
        ([1, True], r"row 2: The column 'kept' cannot be kept: it holds True here, and int64 before"),
        ([{"a": 1}, {"a": "x"}], r"row 2: .* it holds \{'a': 'x'\} here, and struct<a: int64> before"),
        ([1, [1]], r"row 2: .* it holds \[1\] here, and int64 before"),
        (
            [1.5, 2, LONG],
            rf"row 3: .* it holds {LONG} here, which double, that other rows need, does not hold",
        ),
        (["x", b"x"], r"row 2: .* it holds b'x' here, and string before"),
        (["x", "\ud800"], r"row 2: The value of the column 'kept' holds half of a surrogate pair, .*: '.ud800'"),
        (
            [1, 2**64],
            rf"row 2: .* it holds {2**64} here, which is nothing that a column can hold",
        ),
        (
            [datetime.date(2020, 1, 1), datetime.datetime(2020, 1, 1, 5)],
            r"row 2: .* it holds datetime\.datetime\(2020, 1, 1, 5, 0\) here, and date32\[day\] before",
        ),
        ([Decimal("1.1"), 1.5], r"row 2: .* it holds 1\.5 here, and decimal128\(2, 1\) before"),
    ],
)
def test_values_that_no_column_holds_together(monkeypatch, values, message):
    for rows_of_a_block in (10, 1):
        monkeypatch.setattr("xlgen_hf.data.blocks.BLOCK_ROWS", rows_of_a_block)
        with pytest.raises(DataError, match=message):
            kept(with_values(*values))


def test_fractions_after_a_number_of_many_digits(in_blocks):
    """Where the number's block is read already, the column is named, and the number."""
    with pytest.raises(DataError, match=rf"the given rows: The columns \['kept'\] cannot be kept: .*{LONG}.*strings"):
        kept(with_values(LONG, LONG, 1.5))


@pytest.mark.parametrize(
    ("values", "value"), [([["u"], ["v"]], r"\['u'\]"), ([None, {"a": 1}], r"\{'a': 1\}"), ([[], []], r"\[\]")]
)
def test_lists_and_objects_identify_no_row(values, value):
    row = 2 if values[0] is None else 1
    message = rf"row {row}: The column 'kept' cannot identify the rows: it holds {value}, .* --id-column \(id_column="
    for layout in ("auto", "long"):
        with pytest.raises(DataError, match=message):
            load_rows(with_values(*values), id_column="kept", layout=layout)
    assert load_rows(with_values(*values), keep_columns="kept")["kept"][:] == values


@pytest.mark.parametrize(
    "array",
    [
        pa.array([None, [("k", "v")]], pa.map_(pa.string(), pa.string())),
        pa.array([None, ["x"]], pa.list_view(pa.string())),
        pa.array([None, None], pa.month_day_nano_interval()),
    ],
    ids=lambda array: str(array.type),
)
def test_columns_that_no_data_set_has(array):
    table = pa.table({"text": ["x", "y"], "labels": [["a"], ["b"]], "kept": array})
    for options in ({"keep_columns": "kept"}, {"id_column": "kept"}):
        with pytest.raises(DataError, match=r"row [12]: The column 'kept' cannot be kept: a data set has no columns"):
            load_rows(table, **options)
    assert load_rows(table).num_rows == 2


@pytest.mark.parametrize("options", [{"keep_columns": "jear"}, {"id_column": "jear"}, {"keep_columns": "year,jear"}])
@pytest.mark.parametrize("ending", ["jsonl", "csv", "parquet"])
def test_a_missing_column_is_answered_with_all_that_are_there(tmp_path, options, ending):
    path = tmp_path / f"rows.{ending}"
    rows = pd.DataFrame([{"text": "x", "labels": "a", "year": 1998, "author": "y"}])
    match ending:
        case "jsonl":
            rows.to_json(path, orient="records", lines=True)
        case "csv":
            rows.to_csv(path, index=False)
        case _:
            rows.to_parquet(path)
    with pytest.raises(DataError, match=r"no column 'jear', only \['author', 'labels', 'text', 'year'\]"):
        load_rows(path, **options)
