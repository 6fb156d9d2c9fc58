"""The label space: ids, counts, orders, JSON."""

from __future__ import annotations

import json
import logging

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlgen_hf.errors import LabelSpaceError, ModelFolderError
from xlgen_hf.labels.space import LabelSpace

PRINTABLE = st.characters(exclude_categories=("C", "Z"))
NAMES = st.text(PRINTABLE | st.just(" "), min_size=1).filter(str.strip)


def test_ids_are_frequency_ranks_and_ties_follow_the_names():
    space = LabelSpace.from_label_lists([["b", "a"], ["b"], ["c", "a"], ["b", "b"]], ["z", "a"])
    assert space.names == ("b", "a", "c", "z")
    assert space.counts.tolist() == [3, 2, 1, 0]  # a label counts once a document
    assert space.train_label_counts() == {"b": 3, "a": 2, "c": 1}


@given(st.lists(st.lists(NAMES, max_size=4), min_size=1, max_size=8), st.lists(NAMES, max_size=4))
def test_any_unicode_survives_saving(tmp_path_factory, label_lists, vocabulary):
    if not any(label_lists) and not vocabulary:
        return
    folder = tmp_path_factory.mktemp("space")
    space = LabelSpace.from_label_lists(label_lists, vocabulary, "shuffle", seed=3)
    space.save(folder)
    again = LabelSpace.load(folder)
    assert (again.names, again.decode_order, again.seed) == (space.names, "shuffle", 3)
    assert np.array_equal(again.counts, space.counts)
    assert set(again.names) == {name for labels in label_lists for name in labels} | set(vocabulary)


@given(st.permutations(range(6)), st.integers(0, 5), st.integers(0, 50))
def test_orders_are_permutations_that_only_depend_on_the_set(ids, epoch, row):
    for order in ("freq_forward", "freq_backward", "alphabet", "shuffle"):
        space = LabelSpace(["f", "a", "e", "b", "d", "c"], [6, 5, 4, 3, 2, 1], order, seed=1)
        ordered = space.order(ids, epoch=epoch, row=row)
        assert sorted(ordered) == list(range(6))
        assert ordered == space.order(sorted(ids), epoch=epoch, row=row)


def test_orders():
    names, counts = ["f", "a", "e"], [3, 2, 1]
    assert LabelSpace(names, counts).order([2, 0, 1]) == [2, 1, 0]
    assert LabelSpace(names, counts, "freq_backward").order([2, 0, 1]) == [2, 1, 0]
    assert LabelSpace(names, counts, "freq_forward").order([2, 0, 1]) == [0, 1, 2]
    assert LabelSpace(names, counts, "alphabet").order([2, 0, 1]) == [1, 2, 0]


def test_shuffle_changes_with_epoch_and_row():
    space = LabelSpace([str(i) for i in range(9)], [1] * 9, "shuffle")
    orders = {tuple(space.order(range(9), epoch=epoch, row=row)) for epoch in range(4) for row in range(4)}
    assert len(orders) > 12


def test_names_equal_after_normalization_are_reported(caplog):
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        space = LabelSpace.from_label_lists([["Turkey", "turkey", "ﬁsh", "fish", "bird"]])
    assert len(space) == 5
    assert "Groups of them: 2, e.g. " in caplog.text


def test_unknown_label_names_close_ones():
    space = LabelSpace.from_label_lists([["church music", "organ"]])
    with pytest.raises(LabelSpaceError, match=r"'church musik' is none of the 2 labels.*church music"):
        space.encode(["organ", "church musik"])
    assert space.encode_known(["organ", "x"]) == ([1], ["x"])


@pytest.mark.parametrize(
    ("names", "counts", "order", "message"),
    [
        ([], [], "freq_forward", "at least one label"),
        (["a", " "], [1, 0], "freq_forward", "Label 1 is ' '"),
        (["a", "a"], [1, 0], "freq_forward", "Duplicate label names"),
        (["a", "b"], [0, 1], "freq_forward", "must not increase"),
        (["a"], [1, 2], "freq_forward", "counts of shape"),
        (["a"], [1], "random", "decode_order='random' is unknown"),
    ],
)
def test_bad_spaces_are_refused(names, counts, order, message):
    with pytest.raises(LabelSpaceError, match=message):
        LabelSpace(names, counts, order)


def test_no_labels_at_all_are_refused():
    with pytest.raises(LabelSpaceError, match="no label in the training data"):
        LabelSpace.from_label_lists([[], []])
    for rows, message in (
        ("music", "row 1 are 'm'"),
        ([["a"], "music"], "row 2 are 'music'"),
        ([None], "row 1 are None"),
    ):
        with pytest.raises(LabelSpaceError, match=f"The labels of {message}; a list of names is needed"):
            LabelSpace.from_label_lists(rows)
    with pytest.raises(LabelSpaceError, match="The vocabulary is 'xyz'; a list of names is needed"):
        LabelSpace.from_label_lists([["a"]], "xyz")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format_version": 9}, "format_version 9; this release reads 2. It was saved by a later release"),
        (
            {"format_version": None, "version": 1},
            "format_version is missing; this release reads 2. Folders",
        ),
        ({"names": "abc"}, "'names' is 'abc'; it must be a list"),
        ({"counts": [1.5, 0]}, r"'counts\[0\]' is 1.5; it must be an integer >= 0"),
        ({"counts": [1]}, "counts of shape"),
        ({"seed": True}, "'seed' is True; it must be an integer"),
        ({"counts": [10**30, 0]}, r"'counts\[0\]' is 10{30}; it must be an integer"),
    ],
)
def test_hostile_files_are_refused(tmp_path, change, message):
    path = LabelSpace(["a", "b"], [1, 0]).save(tmp_path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelFolderError, match=message):
        LabelSpace.load(tmp_path)


def test_missing_file_names_the_folder(tmp_path):
    with pytest.raises(ModelFolderError, match=r"label_space\.json is missing"):
        LabelSpace.load(tmp_path)


def test_unknown_name_that_looks_like_a_label():
    space = LabelSpace.from_label_lists([["caf\u00e9 culture", "tea"]])
    with pytest.raises(LabelSpaceError, match=r"There is 'caf\\xe9 culture', which differs from 'cafe\\u0301"):
        space.encode(["cafe\u0301 culture"])
    with pytest.raises(LabelSpaceError, match=r"differs from 't\\u200bea' in invisible characters"):
        space.encode(["t\u200bea"])
