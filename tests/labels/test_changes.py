"""Changes of a label space: what becomes of each label, of its counts and of the texts that have it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from xlgen_hf.errors import LabelSpaceError
from xlgen_hf.labels.changes import LabelChange, LabelEdits, split_pair
from xlgen_hf.labels.space import LabelSpace

SPACE = LabelSpace(["music", "organ", "piano", "art", "zither"], [5, 3, 3, 1, 0])


def _counts(change: LabelChange) -> dict[str, int]:
    return dict(zip(change.after.names, change.after.counts.tolist(), strict=True))


def _became(change: LabelChange) -> dict[str, str | None]:
    return {
        name: None if new < 0 else change.after.names[new]
        for name, new in zip(change.before.names, change.target.tolist(), strict=True)
    }


def test_all_kinds_of_edits_in_one():
    edits = LabelEdits(
        renamed=[("art", "fine art")], merged=[("piano", "organ")], removed=["zither"], added=["harp", "music"]
    )
    change = edits.change(SPACE)
    assert _counts(change) == {"organ": 6, "music": 5, "fine art": 1, "harp": 0}
    assert _became(change) == {
        **{"music": "music", "organ": "organ", "piano": "organ", "art": "fine art", "zither": None}
    }
    assert change.before.decode(change.merged.tolist()) == ["piano"]
    assert [SPACE.names[i] if i >= 0 else None for i in change.origin.tolist()] == ["organ", "music", "art", None]
    assert change.named_before.tolist() == [1, 0, -1, -1]


def test_a_text_with_both_of_two_merged_labels_counts_once():
    rows = [[0, 1, 2], [1], [2], [0, 3]]  # of music, organ, piano, art
    labels = csr_matrix(np.array([[i in row for i in range(5)] for row in rows], np.float32))
    change = LabelEdits(merged=[("piano", "organ")]).change(SPACE, labels)
    assert _counts(change) == {"music": 5, "organ": 5, "art": 1, "zither": 0}
    found = change.columns_of(labels)
    assert [change.after.decode(row.indices.tolist()) for row in found] == [
        *(["music", "organ"], ["organ"], ["organ"], ["music", "art"])
    ]
    assert set(found.data.tolist()) == {1.0}


def test_merges_follow_one_another():
    change = LabelEdits(merged=[("zither", "piano"), ("piano", "music")]).change(SPACE)
    assert _became(change)["zither"] == _became(change)["piano"] == "music"
    with pytest.raises(LabelSpaceError, match="'piano' is not a label any more"):
        LabelEdits(merged=[("piano", "music"), ("zither", "piano")]).change(SPACE)


def test_two_labels_may_swap_their_names():
    change = LabelEdits(renamed=[("music", "art"), ("art", "music")]).change(SPACE)
    assert (_became(change)["music"], _became(change)["art"]) == ("art", "music")
    assert _counts(change)["art"] == 5


def test_what_was_renamed_is_merged_by_its_new_name():
    change = LabelEdits(renamed=[("art", "fine art")], merged=[("fine art", "music")]).change(SPACE)
    assert _became(change)["art"] == "music"


@pytest.mark.parametrize(
    ("edits", "message"),
    [
        (LabelEdits(renamed=[("drum", "x")]), "'drum' is none of the 5 labels"),
        (LabelEdits(renamed=[("art", "music")]), r"another label. Merge them \(--merge\)"),
        (LabelEdits(renamed=[("art", "a"), ("art", "b")]), "'art' gets several new names"),
        (LabelEdits(renamed=[("art", " ")]), "a label name is a string with visible text"),
        (LabelEdits(renamed=[("art", "x"), ("organ", "x")]), r"Duplicate label names: \['x'\]"),
        (LabelEdits(merged=[("art", "art")]), "'art' cannot be merged into itself"),
        (LabelEdits(merged=[("art", "drum")]), "'drum' is none of the 5 labels"),
        (LabelEdits(merged=[("drum", "art")]), "'drum' is none of the 5 labels"),
        (LabelEdits(removed=["drum"]), "'drum' is none of the 5 labels"),
        (LabelEdits(removed=SPACE.names), "All 5 labels would be removed"),
        (LabelEdits(merged=[("art", "music")], removed=["art"]), "'art' is not a label any more"),
    ],
)
def test_what_cannot_be_done_is_refused(edits, message):
    with pytest.raises(LabelSpaceError, match=message):
        edits.change(SPACE)


def test_all_labels_may_be_exchanged():
    assert LabelEdits(removed=SPACE.names, added=["new"]).change(SPACE).after.names == ("new",)


@given(st.lists(st.integers(-3, 6), min_size=5, max_size=5))
def test_new_counts_give_new_ids(more):
    change = LabelChange.with_counts(SPACE, np.array(more))
    counts = (SPACE.counts + more).clip(0)
    assert _counts(change) == dict(zip(SPACE.names, counts.tolist(), strict=True))
    assert change.origin[change.target].tolist() == list(range(5))
    assert change.is_nothing == (counts.tolist() == SPACE.counts.tolist())


def test_a_pair_may_hold_the_sign_between_its_names():
    def read(text, option="--rename", known=("a=b", "c")):
        return split_pair(text, option, known.__contains__, both_known=option == "--merge")

    assert read("a=b=c", "--merge") == ("a=b", "c")
    assert read("c=d=e") == ("c", "d=e")
    assert read("d=e") == ("d", "e")  # which is refused with the labels that there are
    assert read("x?id=5=c", known=("x?id=5",)) == ("x?id=5", "c")
    for wrong in ("c", "=c", "c=", "[1, 2]", '["a", " "]'):
        with pytest.raises(LabelSpaceError, match=r"--rename .*: give a label, the sign ="):
            read(wrong)


def test_white_space_around_the_names_of_a_pair_goes():
    known = ("a", " padded ")
    assert split_pair("a = new\n", "--rename", known.__contains__, both_known=False) == ("a", "new")
    assert split_pair(" padded =a", "--merge", known.__contains__, both_known=True) == (" padded ", "a")
    assert split_pair('["a", " b"]', "--rename", known.__contains__, both_known=False) == ("a", " b")


@pytest.mark.parametrize("edits", [LabelEdits(added=["A"]), LabelEdits([("b", "a\u200b")]), LabelEdits(added=["new"])])
def test_new_names_that_look_like_another_label_are_reported(edits, caplog):
    change = edits.change(LabelSpace(["a", "b", "B", "c"], [4, 3, 2, 1]))
    with caplog.at_level("WARNING", logger="xlgen_hf"):
        change.report_ambiguous_names()
    assert ("'a', 'A'" in caplog.text or "'a', 'a\\u200b'" in caplog.text) == (edits.added != ["new"])
    assert "'B'" not in caplog.text  # known since the training


def test_a_pair_that_can_be_read_in_several_ways_is_refused():
    known = ("a", "a=b", "c", "b=c")
    for option in ("--rename", "--merge"):
        with pytest.raises(
            LabelSpaceError, match=r"several ways to read it fit: 'a' and 'b=c' or 'a=b' and 'c'\. Write"
        ):
            split_pair("a=b=c", option, known.__contains__, both_known=option == "--merge")
        assert split_pair('["a=b", "c"]', option, known.__contains__, both_known=True) == ("a=b", "c")
    assert split_pair("a=b=c", "--merge", ("a", "a=b", "c").__contains__, both_known=True) == ("a=b", "c")
    with pytest.raises(LabelSpaceError, match=r"has no such label, read as 'x' and 'y=z' or 'x=y' and 'z'\. .*JSON"):
        split_pair("x=y=z", "--rename", known.__contains__, both_known=False)
