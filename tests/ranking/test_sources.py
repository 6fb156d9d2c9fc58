"""What sources of candidates have in common: batches that remember, and the union of what several sources find."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from xlgen_hf.errors import DataError
from xlgen_hf.ranking.scored_labels import ScoredLabels
from xlgen_hf.ranking.sources import TextBatch, union

ROW = st.dictionaries(st.integers(0, 9), st.floats(0, 1), max_size=6)


def _scored(rows, **parts):
    text = np.repeat(np.arange(len(rows)), [len(row) for row in rows])
    labels = np.array([label for row in rows for label in row], dtype=np.int64)
    scores = np.array([score for row in rows for score in row.values()])
    values = {name: scores * factor for name, factor in parts.items()}
    return ScoredLabels.from_entries(text, labels, scores, np.zeros(len(text), bool), len(rows), values)


# ------------------------------------------------------------------------------------------------ batches


class _Counter:
    """Something that computes, and counts how often."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def of(self, batch: TextBatch, what: str) -> str:
        return batch.once(self, what, lambda: self._make(what))

    def _make(self, what: str) -> str:
        self.calls.append(what)
        return f"{what}{len(self.calls)}"


def test_what_is_computed_once_is_kept_for_its_owner_and_name():
    batch, one, other = TextBatch(["a", "b"]), _Counter(), _Counter()
    assert [one.of(batch, "x"), one.of(batch, "y"), one.of(batch, "x")] == ["x1", "y2", "x1"]
    assert one.calls == ["x", "y"]
    assert other.of(batch, "x") == "x1" and other.calls == ["x"]
    assert one.of(TextBatch(["a", "b"]), "x") == "x3"  # another batch, though of the same texts


def test_nothing_and_false_are_values_too():
    batch, calls = TextBatch(["a"]), []
    for value in (None, False, 0):
        for _ in range(2):
            assert batch.once(batch, str(value), lambda kept=value: calls.append(kept) or kept) is value
    assert calls == [None, False, 0]


def test_what_failed_is_tried_again():
    batch, attempts = TextBatch(["a"]), []

    def make():
        attempts.append(len(attempts))
        if len(attempts) == 1:
            raise ValueError("once")
        return "made"

    with pytest.raises(ValueError, match="once"):
        batch.once(batch, "x", make)
    assert batch.once(batch, "x", make) == "made" and attempts == [0, 1]


def test_owners_that_are_gone_leave_nothing_to_others():
    """A new owner may get the address of one that is gone, and must not get its values."""
    batch = TextBatch(["a"])
    values = {_Counter().of(batch, "x") + str(number) for number in range(200)}
    assert values == {f"x1{number}" for number in range(200)}


def test_one_may_ask_for_another_while_it_is_made():
    batch = TextBatch(["a"])
    assert batch.once(batch, "whole", lambda: batch.once(batch, "part", lambda: "part") + "!") == "part!"
    assert batch.once(batch, "part", lambda: "another") == "part"


def test_a_batch_is_a_sequence_of_its_texts():
    batch = TextBatch(["a", "b"], 7, np.array([1, 2]))
    assert (len(batch), batch[1], list(batch), batch.depth) == (2, "b", ["a", "b"], 7)
    assert TextBatch.of(batch) is batch
    assert list(TextBatch.of(("a", "b"))) == ["a", "b"]
    with pytest.raises(TypeError, match="A list of texts is needed"):
        TextBatch.of("a text")


# ------------------------------------------------------------------------------------------------ union


@settings(deadline=None, max_examples=200)
@given(st.integers(1, 4), st.data())
def test_the_union_holds_what_any_source_says(texts, data):
    rows = {name: data.draw(st.lists(ROW, min_size=texts, max_size=texts)) for name in ("first", "second")}
    ranked = {"first": _scored(rows["first"], part=0.5), "second": _scored(rows["second"])}
    candidates, values = union(ranked)
    assert len(candidates) == texts
    keys = list(zip(candidates.text.tolist(), candidates.labels.tolist(), strict=True))
    expected = [
        (text, label) for text in range(texts) for label in sorted({*rows["first"][text], *rows["second"][text]})
    ]
    assert keys == expected
    assert not candidates.scores.any() and candidates.chosen.all()
    assert set(values) == {"first", "part", "first_rank", "second", "second_rank"}
    for name, source in ranked.items():
        scores = {(t, x): s for t, x, s in zip(source.text, source.labels, source.scores, strict=True)}
        ranks = {(t, x): 1 / (1 + r) for t, x, r in zip(source.text, source.labels, source.rank, strict=True)}
        assert values[name].tolist() == [scores.get(key, 0.0) for key in keys]
        assert values[f"{name}_rank"].tolist() == [ranks.get(key, 0.0) for key in keys]
    parts = {(t, x): p for t, x, p in zip(ranked["first"].text, ranked["first"].labels, ranked["first"].parts["part"],
                                          strict=True)}  # fmt: skip
    assert values["part"].tolist() == [parts.get(key, 0.0) for key in keys]


def test_the_union_of_one_source_is_that_source():
    one = _scored([{3: 0.9, 1: 0.4}, {}, {2: 0.5}])
    candidates, values = union({"only": one})
    assert candidates.start.tolist() == [0, 2, 2, 3]
    assert candidates.labels.tolist() == [1, 3, 2]
    assert values["only"].tolist() == [0.4, 0.9, 0.5]
    assert values["only_rank"].tolist() == [0.5, 1.0, 1.0]


def test_sources_may_find_nothing():
    candidates, values = union({"one": _scored([{}, {}]), "other": _scored([{}, {}])})
    assert candidates.start.tolist() == [0, 0, 0] and values["one"].shape == (0,)


def test_texts_are_in_a_list():
    table = pd.DataFrame({"text": ["a text"]})  # which yields the names of its columns
    for texts in ("a text", iter(["a text"]), {"text": "a text"}, {"a text"}, table):
        with pytest.raises(TypeError, match=r"A list of texts is needed, not a .*; put a single text, or what"):
            TextBatch.of(texts)


def test_halves_of_characters_are_no_text():
    assert len(TextBatch.of(["caf\u00e9", "\U0001f4da"])) == 2
    with pytest.raises(DataError, match=r"Text 2 holds '\\udce9' at position 3, which is half of a character"):
        TextBatch.of(["a", b"caf\xe9".decode("utf-8", "surrogateescape")])
