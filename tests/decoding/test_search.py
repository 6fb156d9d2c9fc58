"""Search and teacher forcing over a decoder with a fixed distribution, and the options of a search."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xlgen_hf.decoding.constraints import LabelSetConstraint
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.decoding.memory import XLGenMemory
from xlgen_hf.decoding.search import DecoderRows, SetsBegin, beam_search, greedy_or_sample
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.labels.trie import LabelTrie

START, END = 0, 1
PROBABILITIES = torch.tensor([0.0, 0.1, 0.0, 0.5, 0.3, 0.1])  # of the next token, whatever came before


def _rows(texts=1):
    """Decoder rows whose next token has always the same distribution."""

    def step(memory, tokens, cache):
        return PROBABILITIES.log().expand(len(tokens), -1), None

    return DecoderRows(step, XLGenMemory(torch.zeros(texts, 1, 1), torch.ones(texts, 1)))


def _labels(sets):
    return [[[label for label in row if label >= 0] for row in text] for text in sets.labels.tolist()]


def test_samples_come_as_often_as_they_are_probable():
    """Three labels of one token each: frequencies follow the distribution, over what is open."""
    constraint = LabelSetConstraint(LabelTrie([[3], [4], [5]]), min_labels=1, max_labels=1)
    generator = torch.Generator().manual_seed(0)
    sets = greedy_or_sample(_rows(), constraint, START, END, 8, samples=4000, generators=[generator])
    fractions = np.bincount(sets.labels[0, :, 0], minlength=3) / 4000
    np.testing.assert_allclose(fractions, np.array([0.5, 0.3, 0.1]) / 0.9, atol=0.03)


def test_greedy_search_takes_the_most_probable_and_tells_where_it_would_end():
    constraint = LabelSetConstraint(LabelTrie([[3], [4], [5]]), min_labels=3, max_labels=3)
    sets = greedy_or_sample(_rows(), constraint, START, END, 8)
    assert _labels(sets) == [[[0, 1, 2]]]
    np.testing.assert_allclose(np.exp(sets.log_probs[0, 0]), [0.5, 0.3, 0.1], rtol=1e-5)
    assert sets.would_end[0, 0].tolist() == [False, True, True]  # 0.1 for the end: as much as the third label has
    assert sets.complete.all()


def test_closed_labels_are_left_out_of_each_row_alone():
    constraint = LabelSetConstraint(LabelTrie([[3], [4], [5]]), min_labels=2, max_labels=2)
    sets = greedy_or_sample(_rows(4), constraint, START, END, 8, begin=SetsBegin([[0], [1, 2], [], [0, 1, 2]]))
    assert _labels(sets) == [[[1, 2]], [[0]], [[0, 1]], [[]]]


def test_beams_that_do_not_exist_are_told_apart():
    """One label and five beams: one set, or two where it may be empty; the other beams have no score."""
    trie = LabelTrie([[3]])
    for min_labels, expected in ((1, [[0]]), (0, [[0], []])):
        constraint = LabelSetConstraint(trie, min_labels=min_labels, max_labels=2)
        sets = beam_search(_rows(2), constraint, START, END, 8, 5)
        for labels, score in zip(_labels(sets), sets.score, strict=True):
            exists = np.isfinite(score)
            assert exists.tolist() == [place < len(expected) for place in range(5)]
            assert sorted(labels[: len(expected)]) == sorted(expected)


SEARCHES = {
    "greedy": greedy_or_sample,
    "samples": lambda *arguments, **options: greedy_or_sample(
        *arguments, samples=40, generators=[torch.Generator().manual_seed(row) for row in range(9)], **options
    ),
    "beams": lambda *arguments, **options: beam_search(*arguments, 4, **options),
}


def _existing(sets):
    """Label sets of each text, those of beams that do not exist left out."""
    pairs = zip(_labels(sets), np.isfinite(sets.score), strict=True)
    return [[labels for labels, there in zip(text, exists, strict=True) if there] for text, exists in pairs]


@pytest.mark.parametrize("search", SEARCHES)
@pytest.mark.parametrize("least", [0, 1, 2, 3, 5])
def test_sets_in_order_reach_the_minimum(search, least):
    """The most probable label is the last one in the order: a set that began with it had no other."""
    constraint = LabelSetConstraint(
        LabelTrie([[3], [4], [5]]), min_labels=least, max_labels=3, ranks=np.array([2, 1, 0])
    )
    (found,) = _existing(SEARCHES[search](_rows(), constraint, START, END, 8))
    assert found and all(len(labels) >= min(least, 3) and labels == sorted(labels)[::-1] for labels in found)


@pytest.mark.parametrize("search", SEARCHES)
def test_sets_in_order_go_on_from_given_labels_as_far_as_there_are_labels(search):
    """Of five labels in order, behind the second one three are left, behind the fourth one, behind the last none."""
    labels = LabelTrie([[3], [4], [5, 3], [5, 4], [5, 5]])
    constraint = LabelSetConstraint(labels, min_labels=3, max_labels=5, ranks=np.arange(5))
    begin = SetsBegin(given=[[1], [3], [4], [0, 1], []])
    found = _existing(SEARCHES[search](_rows(5), constraint, START, END, 12, begin=begin))
    assert all(labels[0] == 1 and len(labels) >= 3 for labels in found[0])
    assert found[1:3] == [[[3, 4]] * len(found[1]), [[4]] * len(found[2])]
    assert all(labels[:2] == [0, 1] and len(labels) >= 3 for labels in found[3])
    assert all(len(labels) >= 3 for labels in found[4])
    assert all(labels == sorted(labels) for text in found for labels in text) and all(found)


def test_a_search_that_goes_on_for_candidates_has_no_say_in_what_comes_before():
    options = {"max_labels": 3, "ranks": np.array([2, 1, 0])}
    trie = LabelTrie([[3], [4], [5]])
    own = greedy_or_sample(_rows(), LabelSetConstraint(trie, min_labels=2, **options), START, END, 8)
    further = LabelSetConstraint(trie, min_labels=3, reachable=2, **options)
    assert _labels(own) == _labels(greedy_or_sample(_rows(), further, START, END, 8)) == [[[1, 0]]]


def test_what_does_not_fit_is_cut_and_reported():
    constraint = LabelSetConstraint(LabelTrie([[3, 4], [4, 3]]), min_labels=2, max_labels=2)
    for sets in (
        greedy_or_sample(_rows(), constraint, START, END, 3),
        beam_search(_rows(), constraint, START, END, 3, 2),
    ):
        assert not sets.complete[0, 0]
        assert len(_labels(sets)[0][0]) == 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_beams": 0}, "num_beams=0"),
        ({"num_beams": 1001}, "num_beams=1001; it must be an integer from 1 to 1000"),
        ({"num_samples": -1}, "num_samples=-1"),
        ({"min_labels": -1}, "min_labels=-1; it must be an integer >= 0"),
        ({"max_labels": 0}, "max_labels=0; it must be an integer >= 1"),
        ({"min_candidates": -1}, "min_candidates=-1"),
        ({"num_beams": 2, "num_samples": 2}, "choose one"),
        ({"num_beams": 2, "pool": "mean"}, "pool='mean'"),
        ({"num_samples": 2, "temperature": 0.0}, r"temperature=0\.0"),
        ({"num_beams": 2, "temperature": 2.0}, r"temperature=2\.0 has no effect without num_samples"),
        ({"num_samples": 2, "temperature": float("nan")}, "temperature=nan"),
        ({"num_samples": 2, "temperature": 1e-40}, "temperature=1e-40; it must be a finite number of at least 0.001"),
    ],
)
def test_impossible_options_are_refused(options, message):
    with pytest.raises(ConfigurationError, match=message):
        DecodingOptions(**options)
