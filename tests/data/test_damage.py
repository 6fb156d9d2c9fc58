"""Damaged files of every format are read or refused by name; the long campaign is benchmarks/fuzz_rows.py."""

from __future__ import annotations

import pytest
from data.mutations import damaged_copy, make_files, seeded

from xlgen_hf import load_rows
from xlgen_hf.errors import DataError

_MUTATIONS = 15  # of each format


@pytest.fixture(name="files", scope="module")
def _files(tmp_path_factory):
    return make_files(tmp_path_factory.mktemp("files"))


def test_undamaged_files_are_read(files):
    for name, (source, _) in files.items():
        assert len(load_rows(source)) > 1, name


def test_damaged_files_are_read_or_refused_by_name(files, tmp_path):
    refused = 0
    for name, (source, file) in files.items():
        for number in range(_MUTATIONS):
            copy = damaged_copy(source, file, tmp_path / "damaged", seeded("test", name, number))
            try:
                load_rows(copy, require_labels=number % 2 == 0)
            except DataError as err:
                refused += 1
                assert str(tmp_path) in str(err.file), (name, number)
                assert len(str(err)) < 1500, (name, number)
    assert refused > len(files) * _MUTATIONS / 2


def test_text_that_is_not_utf8_in_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    texts = pa.array([b"good", b"caf\xe9"]).view(pa.string())
    pq.write_table(pa.table({"text": texts, "labels": [["a"], ["b"]]}), tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet, row 2: The row holds text that is not UTF-8"):
        load_rows(tmp_path / "rows.parquet")


def test_integers_of_thousands_of_digits(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"text": "x", "labels": ["a"]}\n{"text": ' + "9" * 4400 + ', "labels": ["a"]}\n')
    with pytest.raises(DataError, match=r"rows\.jsonl, row 2: The JSON holds a number that is too long"):
        load_rows(path)
    with pytest.raises(DataError, match=r"row 1: The label an integer of about 5,0.. digits is an int"):
        load_rows([{"text": "x", "labels": [10**5000]}])


def test_duplicate_columns_of_parquet(tmp_path):
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table([["a"], ["b"], [["c"]]], names=["text", "text", "labels"])
    pq.write_table(table, tmp_path / "rows.parquet")
    with pytest.raises(DataError, match=r"rows\.parquet: Duplicate column names: \['text'\]"):
        load_rows(tmp_path / "rows.parquet")
