"""Scored candidates in flat arrays: how they are gathered, taken apart and put together, and how several are fused."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.errors import ConfigurationError, DataError
from xlgen_hf.ranking.scored_labels import ScoredLabels, combine

LABELS = 6
SCORES = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5, 0.9, 1.0])
ROW = st.dictionaries(st.integers(0, LABELS - 1), st.tuples(SCORES, st.booleans()), max_size=LABELS)
ROWS = st.lists(ROW, max_size=6)
SOME_ROWS = st.lists(ROW, min_size=1, max_size=6)


def _scored(rows, *, parts=False):
    """The candidates of rows {label: (score, chosen)}; the part `twice` of an entry is twice its score."""
    text = np.array([i for i, row in enumerate(rows) for _ in row], dtype=np.int64)
    labels = np.array([label for row in rows for label in row], dtype=np.int64)
    scores = np.array([score for row in rows for score, _ in row.values()])
    chosen = np.array([chosen for row in rows for _, chosen in row.values()], dtype=bool)
    return ScoredLabels.from_entries(text, labels, scores, chosen, len(rows), {"twice": 2 * scores} if parts else None)


def _rows(scored):
    """Back to rows {label: (score, chosen)}, in order."""
    entries = list(zip(scored.labels.tolist(), scored.scores.tolist(), scored.chosen.tolist(), strict=True))
    ends = scored.start.tolist()
    return [
        {label: (score, chosen) for label, score, chosen in entries[first:last]}
        for first, last in itertools.pairwise(ends)
    ]


def _check(scored, texts):
    """What every value of the class promises."""
    assert len(scored) == texts
    assert scored.start[0] == 0 and scored.start[-1] == len(scored.labels) == len(scored.scores) == len(scored.chosen)
    assert (scored.start.dtype, scored.labels.dtype) == (np.int64, np.int64)
    assert (scored.scores.dtype, scored.chosen.dtype) == (np.float64, np.bool_)
    for row in _rows(scored):
        scores = [score for score, _ in row.values()]
        assert scores == sorted(scores, reverse=True)
    for values in scored.parts.values():
        assert values.shape == scored.labels.shape


def test_rows_are_sorted_and_keep_what_belongs_together():
    scored = ScoredLabels.from_rows([([3, 1], [0.2, 0.7], [True, False]), ([], [], []), ([5], [1.0], [True])])
    assert len(scored) == 3
    assert scored.labels.tolist() == [1, 3, 5]
    assert scored.text.tolist() == [0, 0, 2]
    assert scored.rank.tolist() == [0, 1, 0]
    assert scored.sets() == [([3], [0.2]), ([], []), ([5], [1.0])]
    assert scored.correct([[1, 2], [4], [5]]).tolist() == [True, False, True]
    assert scored.with_scores(np.array([0.1, 0.3, 0.0])).labels.tolist() == [3, 1, 5]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([([1], [0.5], [True]), ([1, 1], [0.5, 0.4], [True, True])], "row 2: Duplicate label id 1"),
        ([([1], [1.5], [True])], r"row 1: A score is 1\.5"),
        ([([], [], []), ([1], [-0.1], [True])], r"row 2: A score is -0\.1"),
        ([([1], [float("nan")], [True])], "row 1: A score is nan"),
        ([([1, 2], [0.5], [True])], r"row 1: Labels, scores and choices differ in number: \[2, 1, 1\]"),
    ],
)
def test_impossible_candidates_are_refused(rows, message):
    with pytest.raises(DataError, match=message):
        ScoredLabels.from_rows(rows)


def test_references_of_other_texts_are_refused():
    with pytest.raises(DataError, match="1 texts come with 2 references"):
        ScoredLabels.from_rows([([1], [0.5], [True])]).correct([[1], [2]])


# ------------------------------------------------------------------------------------------------ properties


@settings(deadline=None)
@given(ROWS, st.randoms())
def test_entries_in_any_order_give_the_same_candidates(rows, random):
    entries = [(text, label, *what) for text, row in enumerate(rows) for label, what in row.items()]
    random.shuffle(entries)
    text, labels, scores, chosen = (np.array([entry[i] for entry in entries]) for i in range(4))
    scored = ScoredLabels.from_entries(text.astype(int), labels, scores, chosen, len(rows), {"twice": 2 * scores})
    _check(scored, len(rows))
    assert _rows(scored) == rows  # as dictionaries: whatever the order
    np.testing.assert_array_equal(scored.parts["twice"], 2 * scored.scores)


@settings(deadline=None)
@given(ROWS, st.data())
def test_texts_are_taken_in_any_order_and_as_often_as_wanted(rows, data):
    scored = _scored(rows, parts=True)
    wanted = data.draw(st.lists(st.integers(0, len(rows) - 1), max_size=9)) if rows else []
    taken = scored.take(wanted)
    _check(taken, len(wanted))
    assert [list(row.items()) for row in _rows(taken)] == [list(_rows(scored)[i].items()) for i in wanted]
    np.testing.assert_array_equal(taken.parts["twice"], 2 * taken.scores)


@settings(deadline=None)
@given(st.lists(ROWS, max_size=4))
def test_blocks_are_put_one_after_the_other_and_taken_apart_again(blocks):
    made = [_scored(rows, parts=True) for rows in blocks]
    whole = ScoredLabels.concatenated(made)
    _check(whole, sum(map(len, blocks)))
    assert _rows(whole) == [row for rows in blocks for row in rows]
    start = 0
    for one in made:
        part = whole.take(range(start, start + len(one)))
        for name in ("start", "labels", "scores", "chosen"):
            np.testing.assert_array_equal(getattr(part, name), getattr(one, name))
        np.testing.assert_array_equal(part.parts["twice"], one.parts["twice"])
        start += len(one)


def test_blocks_keep_the_parts_that_all_of_them_have():
    with_parts, without = _scored([{1: (0.5, True)}], parts=True), _scored([{2: (0.5, True)}])
    assert ScoredLabels.concatenated([with_parts, without]).parts == {}
    assert ScoredLabels.concatenated([with_parts, with_parts]).parts["twice"].tolist() == [1.0, 1.0]
    assert len(ScoredLabels.concatenated([])) == 0


@settings(deadline=None, max_examples=200)
@given(SOME_ROWS, st.data(), st.integers(0, LABELS))
def test_another_ranking_fills_up_what_is_missing(rows, data, k):
    others = data.draw(st.lists(ROW, min_size=len(rows), max_size=len(rows)))
    own, other = _scored(rows, parts=True), _scored(others, parts=True)
    filled = own.followed_by(other, k)
    _check(filled, len(rows))
    for before, after, ranked in zip(_rows(own), _rows(filled), _rows(other), strict=True):
        assert list(after.items())[: len(before)] == list(before.items())
        further = [label for label in ranked if label not in before]
        room = max(k - len(before), 0)
        assert list(after)[len(before) :] == further[:room]
        lowest = min((score for score, _ in before.values()), default=1.0)
        for label in further[:room]:
            assert after[label] == (min(lowest, ranked[label][0]), False)


def test_parts_of_another_ranking_are_kept_where_both_have_them():
    own, other = _scored([{1: (0.5, True)}], parts=True), _scored([{2: (0.25, True)}], parts=True)
    assert own.followed_by(other, 2).parts["twice"].tolist() == [1.0, 0.5]
    assert own.followed_by(_scored([{2: (0.25, True)}]), 2).parts["twice"].tolist() == [1.0, 0.0]


# ------------------------------------------------------------------------------------------------ fusion of members

A = ScoredLabels.from_rows([([0, 1], [0.8, 0.4], [True, True])])
B = ScoredLabels.from_rows([([1, 2], [0.6, 0.2], [True, False])])


@pytest.mark.parametrize(
    ("how", "labels", "scores", "chosen"),
    [
        ("average", [1, 0, 2], [0.5, 0.4, 0.1], [True, True, False]),  # 2 and 1 labels chosen: 1.5, rounded to even
        ("vote", [1, 0, 2], [1.0, 0.5, 0.0], [True, False, False]),
        ("union", [0, 1, 2], [0.8, 0.6, 0.2], [True, True, False]),
    ],
)
def test_members_are_fused(how, labels, scores, chosen):
    fused = combine([A, B], how)
    assert fused.labels.tolist() == labels
    assert fused.scores.tolist() == pytest.approx(scores)
    assert fused.chosen.tolist() == chosen


@pytest.mark.parametrize("half", range(1, 30))
def test_half_of_the_members_are_no_majority(half):
    without = ScoredLabels.from_rows([([0], [0.5], [False])])
    chosen = ScoredLabels.from_rows([([0], [0.5], [True])])
    assert combine([without, chosen] * half, "vote").sets() == [([], [])]
    assert combine([without, chosen] * half + [chosen], "vote").chosen.tolist() == [True]


@given(SOME_ROWS)
def test_an_ensemble_of_one_is_that_one(rows):
    scored = _scored(rows)
    fused = combine([scored, scored])
    np.testing.assert_allclose(fused.scores, scored.scores)
    assert sorted(zip(fused.text, fused.labels, strict=True)) == sorted(zip(scored.text, scored.labels, strict=True))
    assert combine([scored], "union").sets() == combine([scored, scored], "union").sets()


@settings(deadline=None)
@given(SOME_ROWS, st.data(), st.sampled_from(["average", "vote", "union"]), st.integers(1, 3))
def test_members_that_are_absent_change_nothing(rows, data, how, absent):
    """A text's absent members count neither as votes nor in means: the others decide as if they were alone."""
    others = data.draw(st.lists(ROW, min_size=len(rows), max_size=len(rows)))
    members = [_scored(rows), _scored(others)]
    nobody = [_scored([{} for _ in rows])] * absent
    present = np.array([[True] * len(rows)] * 2 + [[False] * len(rows)] * absent)
    alone, together = combine(members, how), combine([*members, *nobody], how, present=present)
    for name in ("start", "labels", "scores", "chosen"):
        np.testing.assert_allclose(getattr(together, name), getattr(alone, name))


def test_members_may_be_absent_from_some_texts_alone():
    two = ScoredLabels.from_rows([([0], [0.8], [True]), ([0], [0.8], [True])])
    one = ScoredLabels.from_rows([([1], [0.4], [True]), ([], [], [])])
    fused = combine([two, one], "average", present=np.array([[True, True], [True, False]]))
    assert fused.scores.tolist() == pytest.approx([0.4, 0.2, 0.8])
    assert fused.sets()[1] == ([0], [0.8])
    votes = combine([two, one], "vote", present=np.array([[True, True], [True, False]]))
    assert votes.scores.tolist() == pytest.approx([0.5, 0.5, 1.0])
    assert [labels for labels, _ in votes.sets()] == [[], [0]]


def test_a_weight_of_zero_silences_a_member():
    fused = combine([A, B], weights=[1, 0])
    assert fused.sets() == A.sets()


@pytest.mark.parametrize(
    ("members", "options", "message"),
    [
        ([], {}, r"Predictions for \[\] texts"),
        ([A, ScoredLabels.from_rows([])], {}, r"Predictions for \[1, 0\] texts"),
        ([A, B], {"how": "best"}, "combine='best'"),
        ([A, B], {"weights": [1]}, "2 numbers >= 0"),
        ([A, B], {"weights": [-1, 2]}, "2 numbers >= 0"),
        ([A, B], {"weights": [0, 0]}, "not all 0"),
    ],
)
def test_impossible_fusions_are_refused(members, options, message):
    with pytest.raises(ConfigurationError, match=message):
        combine(members, **options)
