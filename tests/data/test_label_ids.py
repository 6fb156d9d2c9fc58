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
