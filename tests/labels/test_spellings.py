"""Further spellings of labels: the trie that holds them, its file, and which names become spellings."""

from __future__ import annotations

import logging

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import safe_open
from tiny import make_bert_tokenizer

from xlgen_hf.errors import ModelFolderError
from xlgen_hf.files.serialization import read_tensors, write_tensors
from xlgen_hf.labels.changes import LabelChange, LabelEdits
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.labels.spelling import spell_labels
from xlgen_hf.labels.tokens import MAX_ALIASES, LabelTokenizer
from xlgen_hf.labels.trie import LABEL_TRIE_FILE, LabelTrie

SPELLINGS = st.lists(
    st.lists(st.integers(1, 4), max_size=4).map(lambda tokens: (*tokens, 9)), min_size=2, max_size=30, unique=True
)


@settings(deadline=None)
@given(SPELLINGS, st.data())
def test_agrees_with_a_dictionary(sequences, data):
    number = data.draw(st.integers(1, len(sequences) - 1))
    owners = [data.draw(st.integers(0, number - 1)) for _ in sequences[number:]]
    owner_of = [*range(number), *owners]
    trie = LabelTrie(sequences, owners)
    assert len(trie) == number and trie.has_aliases
    assert [trie.label_of(sequence) for sequence in sequences] == owner_of
    tokens, lengths = trie.sequences()
    assert [tuple(part) for part in np.split(tokens, np.cumsum(lengths)[:-1])] == sequences[:number]
    assert trie.aliases() == [(owner, list(one)) for owner, one in zip(owners, sequences[number:], strict=True)]

    kept = np.array(sorted(data.draw(st.sets(st.integers(0, number - 1), min_size=1))))
    part = trie.subset(kept)
    assert len(part) == len(kept) and part.held(range(number + 3)) == kept.tolist()
    for sequence, owner in zip(sequences, owner_of, strict=True):
        assert part.label_of(sequence) == (owner if owner in kept else None)
    spelled, place = part.spellings(kept)
    assert np.bincount(place).tolist() == [owner_of.count(label) for label in kept]
    paths = part.paths(spelled)
    found = [tuple(part.edge_token[row[row > 0] - 1].tolist()) for row in paths]
    assert sorted(found) == sorted(one for one, owner in zip(sequences, owner_of, strict=True) if owner in kept)


def test_a_file_keeps_them(tmp_path):
    trie = LabelTrie([[1, 9], [2, 9], [3, 9]], [1])
    trie.save(tmp_path)
    loaded = LabelTrie.load(tmp_path, num_tokens=10)
    assert len(loaded) == 2 and loaded.label_of([3, 9]) == 1 and loaded.aliases() == [(1, [3, 9])]
    plain = LabelTrie([[1, 9], [2, 9], [3, 9]])
    plain.save(tmp_path)
    assert "alias_label" not in read_tensors(tmp_path / LABEL_TRIE_FILE)
    assert not LabelTrie.load(tmp_path, num_tokens=10).has_aliases


@pytest.mark.parametrize("aliases", [[2], [0, 0, 0], [0, 1, 0, 1], []])
def test_a_damaged_file_is_refused(tmp_path, aliases):
    LabelTrie([[1, 9], [2, 9], [3, 9]], [1]).save(tmp_path)
    path = tmp_path / LABEL_TRIE_FILE
    with safe_open(path, "np") as file:
        metadata = file.metadata()
    damaged = {**read_tensors(path), "alias_label": np.array(aliases, dtype=np.int32)}
    write_tensors(path, damaged, metadata)
    with pytest.raises(ModelFolderError, match="'alias_label' must name a label of each alias"):
        LabelTrie.load(tmp_path, num_tokens=10)


SPACE = LabelSpace.from_label_lists([["music", "art", "history"]])


def spell(*names: tuple[str, str], max_length: int = 20) -> LabelTokenizer:
    plain = LabelTokenizer(make_bert_tokenizer(), SPACE, max_length=max_length)
    return plain.with_aliases([(SPACE.index[label], name) for label, name in names])


def label_of(labels: LabelTokenizer, name: str) -> str | None:
    tokens = labels.tokenizer(name, add_special_tokens=False)["input_ids"]
    found = labels.trie.label_of([*tokens, labels.separator_token_id])
    return None if found is None else labels.label_space.names[found]


def test_only_names_that_mean_one_label_become_spellings(caplog):
    with caplog.at_level(logging.INFO, "xlgen_hf.labels.tokens"):
        labels = spell(
            ("music", "sound"), ("music", "tune"), ("art", "tune"), ("art", "music"), ("art", ""), ("history", "past"),
            ("music", "sound"), ("art", "a name that is longer than any target can be"),
        )  # fmt: skip
    assert [label_of(labels, name) for name in ("sound", "past", "tune", "music", "art")] == [
        "music", "history", None, "music", "art",
    ]  # fmt: skip
    assert "Aliases that the decoder can spell: 2 of 8" in caplog.text
    assert labels.label_token_ids == LabelTokenizer(make_bert_tokenizer(), SPACE).label_token_ids


def test_a_label_has_a_limited_number():
    labels = spell(*(("music", f"sound {letter}") for letter in "abcdefghijklmnopqrst"[: MAX_ALIASES + 3]))
    assert len(labels.trie.aliases()) == MAX_ALIASES and label_of(labels, "sound j") is None


@pytest.mark.parametrize("edits", [LabelEdits(removed=["Organ"]), LabelEdits(added=["ORGAN"]), None])
def test_a_label_keeps_its_spelling_whatever_becomes_of_others(edits):
    """The fault: of two names spelled alike the rarer one has the number, so new counts swapped their spellings."""
    space = LabelSpace.from_label_lists([["Organ"]] * 5 + [["organ"]] * 3 + [["art"]])
    labels = LabelTokenizer(make_bert_tokenizer(), space)
    before = dict(zip(space.names, labels.label_token_ids, strict=True))
    more = np.array([0, 6, 0])  # documents of `organ`, which is the most frequent then
    change = LabelChange.with_counts(space, more) if edits is None else edits.change(space)
    after = labels.relabelled(change)
    found = dict(zip(change.after.names, after.label_token_ids, strict=True))
    assert {name: found[name] for name in found if name in before} == {
        name: tokens for name, tokens in before.items() if name in found
    }
    assert len(set(map(tuple, found.values()))) == len(found)
    assert [after.trie.label_of(found[name]) for name in change.after.names] == list(range(len(found)))


def test_many_names_of_one_spelling_are_numbered_in_turn():
    names = [f"\u1200{chr(0x1201 + number)}" for number in range(40)]  # a script that the tokenizer lacks
    spelled, numbered = spell_labels(make_bert_tokenizer(), names)
    assert len(set(map(tuple, spelled))) == len(names) and numbered == names[1:]
    again, new = spell_labels(make_bert_tokenizer(), [*names[:3], "other", names[4]], {1: spelled[7], 4: spelled[2]})
    assert (again[1], again[4]) == (spelled[7], spelled[2]) and new == [names[2]]


def test_nothing_changes_without_them():
    plain = LabelTokenizer(make_bert_tokenizer(), SPACE)
    assert plain.with_aliases([]) is plain and plain.with_aliases([(0, plain.label_space.names[1])]) is plain


def test_labels_keep_theirs_when_the_label_space_changes():
    labels = spell(("music", "sound"), ("art", "picture"), ("history", "past"))
    edits = LabelEdits(renamed=[("music", "tunes")], merged=[("art", "history")], removed=[], added=["past"])
    changed = labels.relabelled(edits.change(SPACE))
    names = ("sound", "tunes", "picture", "past", "music")
    assert [label_of(changed, name) for name in names] == ["tunes", "tunes", "history", "past", None]
    removed = labels.relabelled(LabelEdits(removed=["music"]).change(SPACE))
    assert label_of(removed, "sound") is None and label_of(removed, "picture") == "art"
