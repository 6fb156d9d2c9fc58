"""Files with the names of label ids."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from datasets import ClassLabel, Dataset, Features, List, Value

from xlgen_hf import load_rows
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


@pytest.mark.parametrize("labels", [[1, 0, 1], [1.0, 0.0, 1.0], ["1", "0", "1"], np.array([1, 0, 1])], ids=repr)
def test_one_number_of_a_row_is_its_label(tmp_path, labels):
    names = tmp_path / "names.txt"
    names.write_text("joy\nanger\n", encoding="utf-8")
    rows = [{"text": text, "labels": label} for text, label in zip("abc", labels, strict=True)]
    assert load_rows(rows, label_names=names)["labels"][:] == [["anger"], ["joy"], ["anger"]]
    assert load_rows(pd.DataFrame(rows), label_names=names)["labels"][:] == [["anger"], ["joy"], ["anger"]]


def test_numbers_without_names_are_ids_and_not_lists():
    with pytest.raises(DataError, match=r"row 1: The label 1 is an int; write it as a string, or, if it is an id"):
        load_rows([{"text": "a", "labels": 1}])


def test_numpy_numbers_in_lists_have_names(tmp_path):
    (tmp_path / "names.txt").write_text("joy\nanger\n", encoding="utf-8")
    rows = [{"text": "a", "labels": [np.int64(1)]}, {"text": "b", "labels": [np.int64(0), np.int64(1)]}]
    assert load_rows(rows, label_names=tmp_path / "names.txt")["labels"][:] == [["anger"], ["joy", "anger"]]


def test_multi_hot_vectors_are_not_ids(tmp_path):
    names = tmp_path / "names.txt"
    names.write_text("joy\nanger\nfear\n", encoding="utf-8")
    bits = [[0, 1, 0], [1, 0, 1]]
    asked = r"as in a multi-hot vector\. Give the numbers of its ones"
    with pytest.raises(DataError, match=rf"row 1: The labels are 3 numbers 0 and 1 in every row, {asked}"):
        load_rows([{"text": "a", "labels": row} for row in bits], label_names=names)
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=["joy", "anger", "fear"]))})
    with pytest.raises(DataError, match=asked):
        load_rows(Dataset.from_dict({"text": ["a", "b"], "labels": bits}, features=features))
    for kind in (float, bool):
        with pytest.raises(DataError, match=rf"The label (0\.0|False) is a (float|bool), {asked}"):
            load_rows(Dataset.from_dict({"text": ["a", "b"], "labels": np.array(bits, dtype=kind).tolist()}))
    assert load_rows([{"text": "a", "labels": [0, 1]}], label_names=names)["labels"][:] == [["joy", "anger"]]


def test_all_ids_of_two_are_not_a_multi_hot_vector(tmp_path):
    (tmp_path / "names.txt").write_text("joy\nanger\n", encoding="utf-8")
    rows = [{"text": "a", "labels": [0, 1]}, {"text": "b", "labels": [1, 0]}]
    found = load_rows(rows, label_names=tmp_path / "names.txt")
    assert found["labels"][:] == [["joy", "anger"], ["anger", "joy"]]
