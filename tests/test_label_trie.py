"""The trie against a plain dictionary of prefixes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xlgen_hf.errors import LabelSpaceError
from xlgen_hf.label_trie import LabelTrie

SEPARATOR = 9
SEQUENCES = st.lists(
    st.lists(st.integers(1, 4), max_size=4).map(lambda tokens: (*tokens, SEPARATOR)),
    min_size=1,
    max_size=30,
    unique=True,
)


@given(SEQUENCES)
def test_agrees_with_a_dictionary(sequences):
    trie = LabelTrie(sequences)
    assert len(trie) == len(sequences)
    assert trie.tokens().tolist() == sorted({token for sequence in sequences for token in sequence})
    prefixes = {sequence[:n] for sequence in sequences for n in range(len(sequence))}
    assert trie.num_nodes == len(prefixes) + len(sequences)
    for prefix in prefixes:
        node = trie.walk(prefix)
        following = {s[len(prefix)] for s in sequences if s[: len(prefix)] == prefix}
        assert trie.children(node).tolist() == sorted(following)
        below = trie.leaf_label[trie.leaf_low[node] : trie.leaf_high[node]]
        assert sorted(below) == [i for i, s in enumerate(sequences) if s[: len(prefix)] == prefix]
        assert trie.label_of(prefix) is None
    assert [trie.label_of(sequence) for sequence in sequences] == list(range(len(sequences)))
    assert trie.leaf_label[trie.label_leaf].tolist() == list(range(len(sequences)))


def test_unknown_ways_lead_nowhere():
    trie = LabelTrie([[1, 2, 9], [1, 3, 9]])
    assert trie.walk([1, 4]) is None
    assert trie.walk([2]) is None
    assert trie.label_of([1, 2, 9, 9]) is None


@pytest.mark.parametrize("sequences", [[[1, 9], [1, 9]], [[1], [1, 9]]])
def test_labels_that_cannot_be_told_apart_are_refused(sequences):
    with pytest.raises(LabelSpaceError, match="cannot be told apart"):
        LabelTrie(sequences)


@pytest.mark.parametrize("sequences", [[], [[1, 9], []]])
def test_empty_sequences_are_refused(sequences):
    with pytest.raises(LabelSpaceError, match="at least one"):
        LabelTrie(sequences)
