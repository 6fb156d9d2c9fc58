"""Declared forms of JSON files and tensors: what fits is read as it was written, an error names file and field."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlgen_hf.errors import ConfigurationError, ModelFolderError
from xlgen_hf.files.schema import (
    Fields,
    anything,
    boolean,
    choice,
    either,
    integer,
    list_of,
    mapping_of,
    named_after,
    number,
    optional,
    shown,
    string,
    strings,
)
from xlgen_hf.files.serialization import write_tensors
from xlgen_hf.files.tensor_schema import Tensors, offsets, tensor

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.text(), below, max_size=3),
    max_leaves=8,
)
SLOPE = Fields({"slope": number(minimum=1)})
POINTS = Fields({"x": list_of(number(), ascending=True)})
FORM = Fields(
    {
        "names": strings(min_length=1, unique=True, visible=True),
        "seed": integer(minimum=0, maximum=2**63 - 1),
        "order": choice("forward", "backward"),
        "curve": optional(
            either(Fields({"slope": number(minimum=1)}), Fields({"x": list_of(number(), ascending=True)}))
        ),
    },
    format_version=2,
    made_by="xlgen train",
)
GOOD = {"names": ["music", "art"], "seed": 0, "order": "forward", "curve": None}


def test_what_is_written_is_read(tmp_path):
    FORM.write(tmp_path / "a.json", GOOD)
    assert json.loads((tmp_path / "a.json").read_text())["format_version"] == 2
    assert FORM.read(tmp_path / "a.json") == GOOD


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("names", [], "'names' has 0 items; it must be a list of at least 1 items"),
        ("names", ["a", 5], r"'names\[1\]' is 5; it must be a string with visible text"),
        ("names", ["a", " "], r"'names\[1\]' is ' '; it must be a string with visible text"),
        ("names", ["a", "\ud800"], r"'names\[1\]' is '\\ud800'; it must be a string"),
        ("names", ["a", "b", "a"], "'names' has 'a' more than once"),
        ("names", "music", "'names' is 'music'; it must be a list"),
        ("seed", True, "'seed' is True; it must be an integer >= 0 and <= 9223372036854775807"),
        ("seed", 1.0, "'seed' is 1.0; it must be an integer"),
        ("seed", 2**63, "'seed' is 9223372036854775808; it must be an integer >= 0"),
        ("order", "up", r"'order' is 'up'; it must be one of \['backward', 'forward'\]"),
        ("order", ["forward"], r"'order' is \['forward'\]; it must be one of"),
        ("curve", 3, r"'curve' is 3; it must be an object with the fields \['slope'\] or an object .* or null"),
        ("curve", {"slope": 0}, r"'curve' is {'slope': 0}; it must be|'curve.slope' is 0; it must be a number >= 1"),
        ("curve", {"x": [1, 3, 2]}, "'curve.x' has 2 after 3; it must be ascending|'curve' is"),
    ],
)
def test_a_value_that_does_not_fit(tmp_path, field, value, message):
    with pytest.raises(ModelFolderError, match=rf"^{tmp_path}/a.json: ({message})"):
        FORM.check({"format_version": 2, **GOOD, field: value}, tmp_path / "a.json")


def test_fields_that_are_missing_or_unknown():
    with pytest.raises(ModelFolderError, match=r"a.json: 'names' is missing; it must be a list of at least 1 items"):
        FORM.check({"format_version": 2, "seed": 0}, "a.json")
    with pytest.raises(ModelFolderError, match=r"a.json: 'sed' is not a field of it; allowed are"):
        FORM.check({"format_version": 2, **GOOD, "sed": 1}, "a.json")
    with pytest.raises(ModelFolderError, match=r"a.json: it must be an object with the fields .*, not \[1\]"):
        FORM.check([1], "a.json")
    loose = Fields({"r": integer()}, optional=["r"], others=True)
    assert loose.check({"more": 1}, "a.json") == {"more": 1}
    with pytest.raises(ModelFolderError, match="'r' is None"):
        loose.check({"r": None}, "a.json")


@pytest.mark.parametrize(
    ("version", "message"),
    [
        (None, "format_version is missing; this release reads 2. Folders saved by an earlier layout are not read: "
               "make it again with `xlgen train`"),
        (1, "format_version 1; this release reads 2. Folders saved by an earlier layout are not read"),
        (3, "format_version 3; this release reads 2. It was saved by a later release"),
        ("2", "format_version '2'; this release reads 2"),
        (True, "format_version True; this release reads 2"),
        ([], r"format_version \[\]; this release reads 2"),
    ],
)  # fmt: skip
def test_another_version(version, message):
    content = GOOD if version is None else {**GOOD, "format_version": version}
    with pytest.raises(ModelFolderError, match=f"^a.json: {message}"):
        FORM.check(content, "a.json")


def test_numbers_that_no_float_holds():
    form = Fields({"x": number(minimum=0, below=1)})
    for value in (10**400, -1, 1, True, None, math.inf, math.nan):
        with pytest.raises(ModelFolderError, match=r"'x' is .*; it must be a number >= 0 and < 1"):
            form.check({"x": value}, "a.json")
    assert form.check({"x": 0}, "a.json") == {"x": 0}


def test_mappings_and_flags():
    form = Fields({"by": mapping_of(number(), names=["micro", "macro"]), "on": boolean(), "notes": anything()})
    good = {"by": {"micro": 0.5}, "on": True, "notes": [{}]}
    assert form.check(good, "a.json") == good
    with pytest.raises(ModelFolderError, match=r"'by\['micro'\]' is 'x'; it must be a number"):
        form.check({**good, "by": {"micro": "x"}}, "a.json")
    with pytest.raises(ModelFolderError, match=r"'by' is .*an object with names out of"):
        form.check({**good, "by": {"nano": 1}}, "a.json")
    with pytest.raises(ModelFolderError, match="'on' is 1; it must be true or false"):
        form.check({**good, "on": 1}, "a.json")


@given(JSON)
def test_any_content_costs_one_kind_of_error(content):
    try:
        found = FORM.check(content, "a.json")
    except ModelFolderError as err:
        assert str(err).startswith("a.json: ")
        assert len(str(err)) < 1_000
    else:
        assert found == {key: value for key, value in content.items() if key != "format_version"}


@given(JSON | st.text(min_size=1_000))
def test_values_are_shown_short(value):
    assert len(shown(value)) < 200


def test_a_mistake_of_the_writer_is_not_written(tmp_path):
    with pytest.raises(ModelFolderError, match="'seed' is -1"):
        FORM.write(tmp_path / "a.json", {**GOOD, "seed": -1})
    assert not list(tmp_path.iterdir())


def test_errors_of_classes_name_the_file():
    with pytest.raises(ModelFolderError, match=r"^a.json: clusters=3"), named_after("a.json"):
        raise ConfigurationError("clusters=3")


# ---------------------------------------------------------------------------------------------------- tensors

VERSION = {"xlgen": '{"format_version": 2}'}
INDEX = Tensors(
    {
        "documents": tensor(np.float16, "N", "H"),
        "names": tensor(np.float16, "L", "H"),
        "start": offsets(np.int64, "N", "M"),
        "ids": tensor(np.int32, "M", minimum=0, maximum="L-1"),
        "extra": tensor(np.int8, 3),
        "more": tensor(np.int8, "K"),
    },
    optional=["extra", "more"],
    not_empty=["L"],
    format_version=2,
    made_by="xlgen index",
)
ARRAYS = {
    "documents": np.ones((2, 4), np.float16),
    "names": np.ones((3, 4), np.float16),
    "start": np.array([0, 1, 3]),
    "ids": np.array([0, 2, 1], np.int32),
}


@pytest.mark.parametrize("mapped", [True, False])
def test_arrays_that_are_written_are_read(tmp_path, mapped):
    INDEX.write(tmp_path / "a.safetensors", ARRAYS, {"digest": "x"})
    arrays, metadata = INDEX.read(tmp_path / "a.safetensors", {"L": 3}, mapped=mapped)
    assert metadata == {"digest": "x"}
    assert set(arrays) == set(ARRAYS)
    assert all(np.array_equal(arrays[name], ARRAYS[name]) for name in ARRAYS)


@pytest.mark.parametrize(
    ("name", "array", "message"),
    [
        ("names", np.ones((3, 4), np.float32), r"'names' is float32 of shape \(3, 4\); float16 of shape \(L, H\)"),
        ("names", np.ones((3, 5), np.float16), r"'names' is float16 of shape \(3, 5\).* is needed, with H=4"),
        ("names", np.ones((2, 4), np.float16), "'names' .* is needed, with L=3"),
        ("names", np.ones(4, np.float16), r"'names' is float16 of shape \(4,\); float16 of shape \(L, H\) is needed"),
        ("names", np.full((3, 4), np.nan, np.float16), "'names' holds NaN or infinity"),
        ("start", np.array([0, 3]), r"'start' is int64 of shape \(2,\); int64 of shape \(N\+1,\) is needed, with N=2"),
        ("start", np.array([0, 4, 3]), r"'start' must hold ascending offsets from 0 to 3 \(M\)"),
        ("start", np.array([1, 2, 3]), r"'start' must hold ascending offsets"),
        ("start", np.array([0, 2, 2]), r"'start' must hold ascending offsets"),
        ("start", np.array([0, -(2**63), 3]), r"'start' must hold ascending offsets"),
        ("ids", np.array([0, 3, 1], np.int32), r"'ids' holds 3; its values must be <= 2 \(L-1\)"),
        ("ids", np.array([0, -1, 1], np.int32), "'ids' holds -1; its values must be >= 0"),
        ("odd", np.ones(1), "tensor 'odd' does not belong in it; allowed are"),
        ("extra", np.ones(3, np.int8), "tensor 'more' is missing"),
    ],
)
def test_an_array_that_does_not_fit(tmp_path, name, array, message):
    path = tmp_path / "a.safetensors"
    write_tensors(path, {**ARRAYS, name: array}, VERSION)
    with pytest.raises(ModelFolderError, match=rf"^{path}: .*{message}"):
        INDEX.read(path, {"L": 3})


def test_arrays_of_another_version_missing_or_empty(tmp_path):
    path = tmp_path / "a.safetensors"
    write_tensors(path, ARRAYS)
    with pytest.raises(ModelFolderError, match=r"format_version is missing; this release reads 2.*`xlgen index`"):
        INDEX.read(path)
    write_tensors(path, ARRAYS, {"xlgen": '{"format_version": "x"}'})
    with pytest.raises(ModelFolderError, match="format_version 'x'; this release reads 2"):
        INDEX.read(path)
    for metadata in ("{", "[1]", "[" * 100_000):
        write_tensors(path, ARRAYS, {"xlgen": metadata})
        with pytest.raises(ModelFolderError, match=r"a\.safetensors, metadata: it must be an object"):
            INDEX.read(path)
    write_tensors(path, {"names": ARRAYS["names"]}, VERSION)
    with pytest.raises(ModelFolderError, match="tensor 'documents' is missing; needed are"):
        INDEX.read(path)
    empty = {**ARRAYS, "names": np.ones((0, 4), np.float16), "ids": ARRAYS["ids"][:0], "start": np.array([0, 0, 0])}
    write_tensors(path, empty, VERSION)
    with pytest.raises(ModelFolderError, match="it holds nothing: L is 0"):
        INDEX.read(path)
    assert string().problem("x", "name") is None
