"""Names of training texts in an index: packed, saved with it, and checked when they are read."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from sources import ROW_TEXTS, make_retriever

from xlgen_hf.errors import ModelFolderError
from xlgen_hf.labels.changes import LabelChange
from xlgen_hf.retrieval.documents import DocumentNames, PackedStrings
from xlgen_hf.retrieval.retriever import LabelRetriever

IDS = ["kirja-1", "", "本", "4", "é", "6", "7", "8"]


@pytest.fixture
def retriever(checkpoints, label_space):
    names = DocumentNames.of(IDS, ROW_TEXTS, 9)
    return make_retriever(checkpoints["bert"], label_space, document_names=names)


@given(st.lists(st.text("aé本"), min_size=1), st.data())
def test_some_strings_are_taken(strings, data):
    rows = data.draw(st.lists(st.integers(0, len(strings) - 1)))
    taken = PackedStrings.of(strings).take(np.array(rows, dtype=np.int64))
    assert list(taken) == [strings[row] for row in rows]
    assert list(taken + PackedStrings.of(["x"])) == [*list(taken), "x"]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]))), st.lists(st.text("aé本")))
def test_strings_are_packed_and_unpacked(first, second):
    packed = PackedStrings.of(first)
    assert list(packed) == first and len(packed) == len(first)
    assert list(packed + PackedStrings.of(second)) == first + second
    assert packed[1:] == first[1:]
    with pytest.raises(IndexError, match="out of range"):
        packed[len(first)]


def test_a_million_ids_take_little():
    packed = PackedStrings.of(map(str, range(1_000_000)))
    assert packed.start.nbytes + packed.content.nbytes < 15e6 and packed[999_999] == "999999"


def test_names_are_saved_with_the_index(retriever, label_space, tmp_path):
    retriever.save(tmp_path)
    loaded = LabelRetriever.load(tmp_path, num_labels=len(label_space)).document_names
    assert list(loaded.ids) == IDS
    assert list(loaded.beginnings) == [text[:9] for text in ROW_TEXTS]
    more = retriever.relabelled(LabelChange.with_names(label_space, ["pottery"]))
    for changed in (more, retriever.with_settings(retriever.settings)):
        assert changed.document_names is retriever.document_names


def test_texts_are_kept_only_where_they_are_asked_for(checkpoints, label_space, tmp_path):
    named = make_retriever(checkpoints["bert"], label_space, document_names=DocumentNames.of(IDS, []))
    named.save(tmp_path / "named")
    tensors = load_file(tmp_path / "named" / "retriever.safetensors")
    assert {name for name in tensors if name.startswith("document_")} == {"document_ids_start", "document_ids_bytes"}
    make_retriever(checkpoints["bert"], label_space).save(tmp_path / "plain")
    assert LabelRetriever.load(tmp_path / "plain", num_labels=len(label_space)).document_names is None


def test_more_documents_join():
    both = DocumentNames.of(["1", "2"], ["one  text", "two"], 20) + DocumentNames.of(["x"], ["three"], 20)
    assert list(both.ids) == ["1", "2", "x"] and list(both.beginnings or []) == ["one text", "two", "three"]
    assert (both + DocumentNames.of(["y"], [])).beginnings is None and len(both) == 3


def test_numbering_goes_on_after_the_greatest_number():
    assert DocumentNames.of(["7", "b", "٣", "3"], []).last_number == 7
    assert DocumentNames.of(["b", "c"], []).last_number == 2 and DocumentNames.of([], []).last_number == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("document_ids_start"), "'document_ids_start' must be there, as int64"),
        (lambda t: t.update(document_ids_bytes=t["document_ids_bytes"].astype(np.int8)), "there, as uint8"),
        (lambda t: t.update(document_ids_start=t["document_ids_start"][:-1]), "where each of 8 strings begins"),
        (lambda t: t.update(document_ids_start=t["document_ids_start"][::-1].copy()), "where each of 8 strings"),
        (lambda t: t["document_ids_start"].__setitem__(3, t["document_ids_start"][3] - 1), "where each of 8 strings"),
        (lambda t: t["document_ids_bytes"].__setitem__(0, 0xFF), "'document_ids_bytes' are not UTF-8"),
        (lambda t: t.update(document_beginnings_start=np.zeros(1, np.int64)), "where each of 8 strings"),
    ],
)
def test_damaged_names_are_refused(retriever, label_space, tmp_path, change, message):
    retriever.save(tmp_path)
    tensors = load_file(tmp_path / "retriever.safetensors")
    change(tensors)
    save_file(tensors, tmp_path / "retriever.safetensors")
    with pytest.raises(ModelFolderError, match=message):
        LabelRetriever.load(tmp_path, num_labels=len(label_space))
