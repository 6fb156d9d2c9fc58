"""The trie against a plain dictionary of prefixes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.errors import LabelSpaceError, ModelFolderError
from xlgen_hf.files.serialization import write_tensors
from xlgen_hf.labels.trie import LABEL_TRIE_FILE, LabelTrie

ARRAYS = ("child_start", "edge_token", "leaf_low", "leaf_high", "leaf_label")
SEPARATOR = 9
SEQUENCES = st.lists(
    st.lists(st.integers(1, 4), max_size=4).map(lambda tokens: (*tokens, SEPARATOR)),
    min_size=1,
    max_size=30,
    unique=True,
)


@settings(deadline=None)
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


@settings(deadline=None)
@given(SEQUENCES, st.data())
def test_a_part_of_the_trie_is_the_trie_of_these_labels(sequences, data):
    trie = LabelTrie(sequences)
    kept = np.array(data.draw(st.lists(st.integers(0, len(sequences) - 1), min_size=1, unique=True)))
    part = trie.subset(kept)
    alone = LabelTrie([sequences[label] for label in sorted(kept)])
    for name in ("child_start", "edge_token", "leaf_low", "leaf_high"):
        assert getattr(part, name).tolist() == getattr(alone, name).tolist()
    assert part.leaf_label.tolist() == np.sort(kept)[alone.leaf_label].tolist()
    assert [part.label_of(sequences[label]) for label in kept] == kept.tolist()


@settings(deadline=None)
@given(SEQUENCES)
def test_paths_spell_the_labels(sequences):
    trie = LabelTrie(sequences)
    tokens, lengths = trie.sequences()
    assert [part.tolist() for part in np.split(tokens, np.cumsum(lengths)[:-1])] == [list(s) for s in sequences]
    for sequence, path in zip(sequences, trie.paths(np.arange(len(sequences))), strict=True):
        nodes = [trie.walk(sequence[:length]) for length in range(1, len(sequence) + 1)]
        assert path[path >= 0].tolist() == nodes


@settings(deadline=None)
@given(SEQUENCES, st.integers(0, 99))
def test_the_greatest_value_below_each_node(sequences, seed):
    trie = LabelTrie(sequences)
    value = np.random.default_rng(seed).permutation(len(sequences))
    expected = [max(value[trie.leaf_label[low:high]]) for low, high in zip(trie.leaf_low, trie.leaf_high, strict=True)]
    assert trie.greatest_below(value).tolist() == expected


def test_a_saved_trie_is_mapped_unless_it_is_another_s(tmp_path):
    trie = LabelTrie([[1, 2, 9], [1, 3, 9], [4, 9]])
    trie.save(tmp_path, "names")
    loaded = LabelTrie.load(tmp_path, "names", num_tokens=10)
    assert all(getattr(loaded, name).tolist() == getattr(trie, name).tolist() for name in ARRAYS)
    assert LabelTrie.load(tmp_path, "other names", num_tokens=10) is None


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        (
            "child_start",
            [1, 2, 4, 5, 6, 7, 7, 7, 7],
            "'child_start' must hold ascending offsets from 0 to 7",
        ),
        ("child_start", [0, 0, 2, 4, 5, 6, 7, 7, 7], "'child_start' describes no tree"),
        ("edge_token", [1, 4, 2, 3, 9, 9, 90], r"'edge_token' holds 90; its values must be <= 9 \(tokens-1\)"),
        ("edge_token", [4, 1, 2, 3, 9, 9, 9], "'edge_token' is not sorted"),
        ("leaf_low", [0, 0, 2, 0, 0, 2, 0, 1], "are not the intervals"),
        ("leaf_label", [0, 0, 2], "'leaf_label' does not name each label once"),
        ("leaf_label", [], "it holds nothing: L is 0"),
        ("leaf_high", [3], r"'leaf_high' is int32 of shape \(1,\).* is needed, with nodes=8"),
        ("leaf_high", [[3]], r"'leaf_high' is int32 of shape \(1, 1\)"),
        ("leaf_high", None, "tensor 'leaf_high' is missing"),
    ],
)
def test_a_damaged_file_is_named(tmp_path, name, value, message):
    trie = LabelTrie([[1, 2, 9], [1, 3, 9], [4, 9]])
    arrays = {one: getattr(trie, one) for one in ARRAYS}
    if value is None:
        del arrays[name]
    else:
        arrays[name] = np.array(value, dtype=np.int32)
    write_tensors(tmp_path / LABEL_TRIE_FILE, arrays, {"xlgen": '{"format_version": 2}'})
    with pytest.raises(ModelFolderError, match=rf"{LABEL_TRIE_FILE}: .*{message}"):
        LabelTrie.load(tmp_path, num_tokens=10)


def test_a_part_without_labels_is_refused():
    with pytest.raises(LabelSpaceError, match="No label is left"):
        LabelTrie([[1, 9]]).subset(np.zeros(0, np.int64))
