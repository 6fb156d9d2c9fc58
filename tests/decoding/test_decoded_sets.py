"""From the sets of a search to the set of each text: bounds, pooling, and beams that do not exist."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.decoding.decoded_sets import DecodedSet, DecodingOptions, to_decoded
from xlgen_hf.decoding.search import LabelSets

MEMBER = st.dictionaries(st.integers(0, 5), st.floats(0.01, 1), max_size=4)
POOLS = ["best", "average", "vote", "union"]
TEXT = st.lists(st.tuples(MEMBER, st.floats(-9, 0)), min_size=1, max_size=4)


def _sets(texts, beams, width=4):
    """Sets of each text, given as ({label: probability}, score); the beams beyond them do not exist."""
    labels = np.full((len(texts), beams, width), -1)
    log_probs, score = np.zeros(labels.shape), np.full(labels.shape[:2], -np.inf)
    for text, members in enumerate(texts):
        ranked = sorted(members, key=lambda one: -one[1])
        for beam, (found, value) in enumerate(ranked):
            score[text, beam] = value
            labels[text, beam, : len(found)] = list(found)
            log_probs[text, beam, : len(found)] = np.log(list(found.values()))
    exists = np.isfinite(score)
    return LabelSets(labels, log_probs, np.zeros(labels.shape, dtype=bool), score, exists, ~exists)


def _decoded(texts, beams, pool="best"):
    options = DecodingOptions(num_beams=beams, pool=pool)
    return to_decoded(_sets(texts, beams), [[] for _ in texts], options)


# ------------------------------------------------------------------------------------------------ pooling


@settings(deadline=None, max_examples=150)
@given(st.lists(TEXT, min_size=1, max_size=3), st.sampled_from(POOLS), st.integers(1, 5))
def test_beams_that_do_not_exist_change_nothing(texts, pool, further):
    """Few labels to choose from have few sets; a search with more beams than sets finds what there is."""
    most = max(map(len, texts))
    few, many = _decoded(texts, most, pool), _decoded(texts, most + further, pool)
    for one, other in zip(few, many, strict=True):
        assert one.labels == other.labels
        assert one.log_probs == pytest.approx(other.log_probs)
        assert one.candidates == pytest.approx(other.candidates)


def test_one_set_is_what_every_pool_gives():
    """A single label to choose from and five beams: a vote of one is unanimous, and no mean is lowered."""
    for pool in POOLS:
        (one,) = _decoded([[({3: 0.5}, -1.0)]], 5, pool)
        assert one.labels == [3]
        assert one.candidates == pytest.approx({3: 1.0 if pool == "vote" else 0.5})


def test_texts_of_one_batch_may_have_different_numbers_of_sets():
    texts = [[({0: 0.8, 1: 0.4}, -1.0), ({0: 0.6}, -2.0)], [({2: 0.5}, -1.0)]]
    average = _decoded(texts, 5, "average")
    assert [one.candidates for one in average] == [pytest.approx({0: 0.7, 1: 0.2}), pytest.approx({2: 0.5})]
    assert [one.labels for one in average] == [[0, 1], [2]]  # 2 and 1 labels: 1.5, rounded to even
    votes = _decoded(texts, 5, "vote")
    assert [one.candidates for one in votes] == [pytest.approx({0: 1.0, 1: 0.5}), pytest.approx({2: 1.0})]
    assert [one.labels for one in votes] == [[0], [2]]


POOLED = [({0: 0.9, 1: 0.2}, -1.0), ({2: 0.8, 3: 0.3}, -1.5), ({0: 0.5, 4: 0.7}, -2.0)]


def _bounded(members, pool, least, most, given=()):
    sets = replace(_sets([members], len(members), most), min_labels=least)
    return to_decoded(sets, [[]], DecodingOptions(num_beams=len(members), pool=pool), given)[0]


@pytest.mark.parametrize(
    ("pool", "bounds", "labels"),
    [
        ("union", (0, 2), [0, 2]),  # five labels, the best two of them
        ("union", (2, 2), [0, 2]),
        ("union", (0, 4), [0, 2, 4, 3]),
        ("union", (0, 5), [0, 2, 4, 3, 1]),
        ("average", (0, 2), [0, 2]),
        ("average", (3, 4), [0, 2, 4]),
        ("vote", (0, 2), [0]),  # two of three sets have it
        ("vote", (2, 2), [0, 2]),  # the best of the others has the highest mean
        ("vote", (4, 5), [0, 2, 4, 3]),
    ],
)
def test_a_pooled_set_keeps_to_the_bounds(pool, bounds, labels):
    one = _bounded(POOLED, pool, *bounds)
    assert one.labels == labels and len(one.log_probs) == len(one.would_end) == len(labels)
    assert set(one.candidates) == {0, 1, 2, 3, 4}  # what was found stays a candidate


@pytest.mark.parametrize("pool", ["average", "vote", "union"])
def test_given_labels_count_in_the_bounds_of_a_pooled_set(pool):
    """Label 5 is given; another one is as certain, and comes before it by its id."""
    members = [({5: 1.0, 0: 1.0}, -1.0), ({5: 1.0, 0: 1.0, 1: 0.5}, -1.5), ({5: 1.0, 2: 0.9, 0: 1.0}, -2.0)]
    for most in (3, 4):
        one = _bounded(members, pool, most - 1, most, [[5]])
        assert one.labels[0] == 0 and 5 not in {*one.labels, *one.candidates}
        assert most - 1 <= len(one.labels) + 1 <= most


# ------------------------------------------------------------------------------------------------ bounds


def _greedy(would_end, *, complete=True):
    size = len(would_end)
    return DecodedSet(list(range(size)), [-1.0] * size, would_end, [], complete, dict.fromkeys(range(size), 0.5))


@pytest.mark.parametrize(
    ("would_end", "bounds", "size"),
    [
        ([False, True, False, True], (1, None), 2),
        ([False, True, False, True], (3, None), 4),
        ([True, True, True], (1, None), 1),
        ([False, False, False], (1, None), 3),
        ([False, False, False], (1, 2), 2),
        ([False, True, False], (1, 1), 1),
        ([False, True, False], (1, 9), 2),
    ],
)
def test_a_set_under_other_bounds_is_a_prefix(would_end, bounds, size):
    one = _greedy(would_end).with_bounds(*bounds)
    assert one.labels == list(range(size)) and len(one.log_probs) == len(one.would_end) == size
    assert set(one.candidates) == set(range(len(would_end)))  # what was found stays a candidate


@pytest.mark.parametrize(("least", "size"), [(0, 0), (1, 2), (2, 2)])
def test_a_set_that_would_have_been_empty(least, size):
    """The fault: what was searched with a lower bound of 1 could not become empty."""
    one = replace(_greedy([False, True, True]), would_be_empty=True).with_bounds(least)
    assert one.labels == list(range(size)) and one.complete and one.would_be_empty and len(one.candidates) == 3


@pytest.mark.parametrize(
    ("would_end", "bounds", "complete"),
    [
        ([False, True], (1, None), True),  # it had ended before what was cut
        ([True, False], (1, None), True),
        ([False, False], (1, None), False),
        ([False, False], (1, 2), True),
        ([False, True], (3, None), False),
    ],
)
def test_a_set_that_ended_in_time_is_complete(would_end, bounds, complete):
    assert _greedy(would_end, complete=False).with_bounds(*bounds).complete is complete
