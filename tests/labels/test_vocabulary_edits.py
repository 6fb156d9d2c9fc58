"""Concepts follow their labels: what renaming, merging and removing make of names, ids and hierarchy."""

from __future__ import annotations

import pytest

from xlgen_hf.labels.changes import LabelEdits
from xlgen_hf.labels.concepts import Concept
from xlgen_hf.labels.vocabulary import Vocabulary
from xlgen_hf.labels.vocabulary_edits import edit_vocabulary


@pytest.fixture
def vocabulary() -> Vocabulary:
    return Vocabulary(
        [
            Concept("1", {"de": "Musik", "en": "music"}),
            Concept("2", {"de": "Orgel", "en": "organ"}, {"de": ("Pfeifenorgel",)}, broader=("1",)),
            Concept("3", {"de": "Klavier", "en": "piano"}, broader=("1",), related=("2",)),
            Concept("4", {"de": "Flügel"}, broader=("3",), related=("3", "2")),
        ],
        "de",
    )


def test_a_renamed_concept_keeps_its_id(vocabulary):
    found = edit_vocabulary(vocabulary, LabelEdits(renamed=[("Klavier", "Pianoforte"), ("no concept", "x")]))
    assert found.labels["3"] == "Pianoforte" and found.ids["Pianoforte"] == "3"
    assert found.concepts["3"].names == {"de": "Pianoforte", "en": "piano"}
    assert found.find("Klavier") == () and found.find("piano") == ("3",)
    assert vocabulary.labels["3"] == "Klavier"


def test_names_may_be_swapped(vocabulary):
    found = edit_vocabulary(vocabulary, LabelEdits(renamed=[("Klavier", "Orgel"), ("Orgel", "Klavier")]))
    assert (found.labels["2"], found.labels["3"]) == ("Klavier", "Orgel")


def test_names_of_a_merged_concept_are_aliases(vocabulary):
    found = edit_vocabulary(vocabulary, LabelEdits(merged=[("Orgel", "Klavier")]))
    assert "2" not in found.concepts and "Orgel" not in found.ids
    assert found.concepts["3"].aliases == {"de": ("Orgel", "Pfeifenorgel"), "en": ("organ",)}
    assert found.find("Pfeifenorgel") == found.find("organ") == found.find("Orgel") == ("3",)
    assert found.concepts["3"].related == () and found.concepts["4"].related == ("3",)
    assert found.concepts["3"].replaces == ("2",) and found.find("2") == ("3",)


def test_a_label_without_a_concept_takes_over_one(vocabulary):
    found = edit_vocabulary(vocabulary, LabelEdits(merged=[("Orgel", "Orgeln")]))
    assert found.labels["2"] == "Orgeln" and found.concepts["2"].aliases["de"] == ("Pfeifenorgel", "Orgel")
    again = edit_vocabulary(vocabulary, LabelEdits(merged=[("plain", "Orgel")]))
    assert again.concepts["2"].aliases["de"] == ("Pfeifenorgel", "plain")


def test_what_was_below_a_removed_concept_goes_up(vocabulary):
    found = edit_vocabulary(vocabulary, LabelEdits(removed=["Klavier", "Orgel"]))
    assert found.concepts["4"].broader == ("1",) and found.concepts["4"].related == ()
    assert found.branch("1") == {"1", "4"}


def test_what_was_above_a_merged_concept_stays_above():
    chain = [
        Concept("1", {"de": "a"}, broader=("2",)),
        Concept("2", {"de": "b"}, broader=("3",)),
        Concept("3", {"de": "c"}),
    ]
    found = edit_vocabulary(Vocabulary(chain, "de"), LabelEdits(merged=[("b", "a")]))
    assert found.concepts["1"].broader == ("3",)


def test_loops_of_removed_concepts_end():
    looped = Vocabulary([Concept("a", {"": "a"}, broader=("b",)), Concept("b", {"": "b"}, broader=("a",)),
                         Concept("c", {"": "c"}, broader=("a",))])  # fmt: skip
    found = edit_vocabulary(looped, LabelEdits(removed=["a", "b"]))
    assert found.concepts["c"].broader == ()
    merged = edit_vocabulary(looped, LabelEdits(merged=[("a", "b")]))
    assert merged.concepts["b"].broader == () and merged.concepts["c"].broader == ("b",)


def test_no_concept_may_be_left(vocabulary, tmp_path):
    assert edit_vocabulary(vocabulary, LabelEdits(removed=list(vocabulary.ids))) is None
    left = edit_vocabulary(vocabulary, LabelEdits(removed=["Musik"], merged=[("Orgel", "Klavier")]))
    left.save(tmp_path)
    assert Vocabulary.load(tmp_path, left.labels.values()).concepts == left.concepts
