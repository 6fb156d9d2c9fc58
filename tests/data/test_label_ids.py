"""Files with the names of label ids."""

from __future__ import annotations

import pytest

from xlgen_hf.data.label_ids import read_label_ids
from xlgen_hf.errors import DataError


def write(path, content):
    path.write_text(content, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("content", "wrong"),
    [
        ('{"0": null, "1": "x"}', "the name of the id '0' is None"),
        ('["a", null, "c"]', "the name of the id 1 is None"),
        ('{"a": "x", "b": ["y"]}', r"the name of the id 'b' is \['y'\]"),
    ],
)
def test_null_is_no_name(tmp_path, content, wrong):
    with pytest.raises(DataError, match=rf"names\.json: A JSON object id -> name, or a list .*; {wrong}\."):
        read_label_ids(write(tmp_path / "names.json", content))


def test_names_by_number_and_numbers_by_name(tmp_path):
    for content in ('["x", "y"]', '{"0": "x", "1": "y"}', '{"x": 0, "y": 1}'):
        assert read_label_ids(write(tmp_path / "names.json", content)) == {"0": "x", "1": "y"}
    for content in ("[]", "{}", "5"):
        with pytest.raises(DataError, match=r"A JSON object id -> name, or a list of names, is expected\."):
            read_label_ids(write(tmp_path / "names.json", content))


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("id,label\n1,cats\n2,dogs\n", {"1": "cats", "2": "dogs"}),
        ("1,cats\n2,title\n", {"1": "cats", "2": "title"}),
        ("1,name\n2,label\n", {"1": "name", "2": "label"}),
        ("uri,Bezeichnung\nurn:1,cats\n", {"urn:1": "cats"}),
        ("id,notation,label_en\n1,5.7,cats\n", {"1": "cats"}),
    ],
)
def test_headers_of_tables(tmp_path, content, expected):
    assert read_label_ids(write(tmp_path / "names.csv", content)) == expected


@pytest.mark.parametrize(
    "content", ["code,name\n1,cats\n", "label_id,label\n1,cats\n", "name,id\ncats,1\n", "Nummer;Title\n1;cats\n"]
)
def test_a_header_is_no_label(tmp_path, content):
    with pytest.raises(DataError, match=r"names\.csv, row 1: The row looks like a header, .* whose column of ids is"):
        read_label_ids(write(tmp_path / "names.csv", content))
