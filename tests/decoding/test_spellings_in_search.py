"""Searches and teacher forcing where labels have further spellings: a label once, with the score of its best one."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch

from xlgen_hf.decoding.constraints import LabelSetConstraint
from xlgen_hf.decoding.memory import XLGenMemory
from xlgen_hf.decoding.search import DecoderRows, SetsBegin, beam_search, greedy_or_sample
from xlgen_hf.decoding.teacher_forcing import score_continuations
from xlgen_hf.labels.trie import LabelTrie

START, END, SEPARATOR = 0, 1, 2
PROBABILITIES = torch.tensor([0.0, 0.05, 0.1, 0.35, 0.25, 0.15, 0.1])  # of the next token, whatever came before
# Label 0 is spelled 3 or 4, label 1 is 5 or "3 6", label 2 is 6.
SEQUENCES = [[3, SEPARATOR], [5, SEPARATOR], [6, SEPARATOR], [4, SEPARATOR], [3, 6, SEPARATOR]]
TRIE = LabelTrie(SEQUENCES, [0, 1])


def rows(texts=1):
    def step(memory, tokens, cache):
        return PROBABILITIES.log().expand(len(tokens), -1), None

    return DecoderRows(step, XLGenMemory(torch.zeros(texts, 1, 1), torch.ones(texts, 1)))


def sets_of(found):
    return [[[label for label in row if label >= 0] for row in text] for text in found.labels.tolist()]


@pytest.mark.parametrize("least", [1, 2, 3, 30])
@pytest.mark.parametrize("ranks", [None, np.array([0, 1, 2]), np.array([2, 1, 0])])
def test_no_label_comes_twice(ranks, least):
    constraint = LabelSetConstraint(TRIE, min_labels=least, max_labels=30, ranks=ranks)
    assert constraint.max_labels == 3  # of three labels, whatever their spellings
    generator = torch.Generator().manual_seed(0)
    found = greedy_or_sample(rows(), constraint, START, END, 12, samples=1000, generators=[generator])
    sets = {tuple(labels) for labels in sets_of(found)[0]}
    sizes = range(min(least, 3), 4)
    if ranks is None:
        assert sets <= {labels for size in sizes for labels in itertools.permutations(range(3), size)}
        assert len(sets) > 5
    else:
        rising = [labels for size in sizes for labels in itertools.combinations(np.argsort(ranks).tolist(), size)]
        assert sets <= set(rising) and len(sets) == {1: len(sets), 2: 4, 3: 1}[min(least, 3)]


def test_closed_and_given_labels_are_closed_in_every_spelling():
    constraint = LabelSetConstraint(TRIE, min_labels=1, max_labels=3)
    found = greedy_or_sample(rows(2), constraint, START, END, 12, begin=SetsBegin(closed=[[0], [1, 2]]))
    assert [set(text[0]) for text in sets_of(found)] == [{1, 2}, {0}]
    given = SetsBegin(given=[[0], [1]])
    found = greedy_or_sample(rows(2), constraint, START, END, 12, begin=given)
    assert [sorted(text[0]) for text in sets_of(found)] == [[0, 1, 2], [0, 1, 2]]


def test_a_set_has_the_score_of_its_best_spelling():
    constraint = LabelSetConstraint(TRIE, min_labels=1, max_labels=1)
    found = beam_search(rows(), constraint, START, END, 8, 5)
    scores = {
        labels[0]: score
        for labels, score in zip(sets_of(found)[0], np.exp(found.score[0]).tolist(), strict=True)
        if score > 0
    }
    ends = 0.1 * 0.05  # separator and end
    assert scores == pytest.approx({0: 0.35 * ends, 1: 0.15 * ends, 2: 0.1 * ends}, rel=1e-5)
    assert np.isfinite(found.score).sum() == 3 and np.isfinite(found.score[0, 0])


def test_teacher_forcing_takes_the_best_spelling():
    probabilities = PROBABILITIES.clone()
    probabilities[3], probabilities[4] = 0.05, 0.55
    trie = LabelTrie([[3, SEPARATOR], [5, SEPARATOR], [4, SEPARATOR]], [0])

    def step(memory, tokens, cache):
        return probabilities.log().expand(len(tokens), -1), None

    decoder = DecoderRows(step, XLGenMemory(torch.zeros(2, 1, 1), torch.ones(2, 1)))
    first = decoder.step(torch.zeros(2, dtype=torch.long))
    labels, owner = np.array([1, 0, 0]), np.array([0, 0, 1])
    found = score_continuations(decoder, first, LabelSetConstraint(trie), labels, owner)
    np.testing.assert_allclose(np.exp(found), [0.15 * 0.1, 0.55 * 0.1, 0.55 * 0.1], rtol=1e-5)
    assert len(score_continuations(decoder, first, LabelSetConstraint(trie), labels[:0], owner[:0])) == 0
