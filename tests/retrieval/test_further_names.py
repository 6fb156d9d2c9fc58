"""Aliases and names in other languages in retrieval: the name of a label that is most like a text counts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix
from sources import ROW_TEXTS, TEXTS, label_ids, make_retriever

from xlgen_hf.errors import ModelFolderError
from xlgen_hf.labels.changes import LabelChange
from xlgen_hf.retrieval.lexical import LexicalIndex
from xlgen_hf.retrieval.retriever import LabelRetriever, RetrievalSettings

FURTHER = [(0, "Musik"), (0, "tunes"), (3, "Orgel"), (7, "pipe organ of a church")]


@pytest.fixture
def retriever(checkpoints, label_space):
    return make_retriever(checkpoints["bert"], label_space, lexical=True, further=FURTHER)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000), st.lists(st.integers(0, 6), max_size=9), st.integers(1, 7))
def test_the_best_name_counts(seed, further, size):
    """As if each label had the name that is most like the text, and no other."""
    random = np.random.default_rng(seed)
    unit = [values / np.linalg.norm(values, axis=1, keepdims=True) for values in (
        random.normal(size=(6, 4)), random.normal(size=(7 + len(further), 4))
    )]  # fmt: skip
    labels = csr_matrix(random.integers(0, 2, size=(6, 7)).astype(np.float32))
    chosen = RetrievalSettings(neighbors=3, name_power=2.0)
    whole = LabelRetriever(None, *unit, labels, np.arange(6), chosen, further=np.sort(further))
    assert len(whole) == 7
    for query in unit[0]:
        of_label = [[place, *(7 + np.flatnonzero(np.sort(further) == place))] for place in range(7)]
        best = [max(places, key=lambda place: unit[1][place] @ query) for places in of_label]
        alone = LabelRetriever(None, unit[0], unit[1][best], labels, np.arange(6), chosen)
        found, expected = (
            one.find(query[None], size, settings=chosen).weigh(chosen, labels, size) for one in (whole, alone)
        )
        assert found.labels.tolist() == expected.labels.tolist()
        np.testing.assert_allclose(found.scores, expected.scores, atol=1e-6)


def test_a_label_is_found_by_an_alias(checkpoints, label_space):
    plain = make_retriever(checkpoints["bert"], label_space, lexical=True)
    aliased = make_retriever(checkpoints["bert"], label_space, lexical=True, further=[(7, "Kirchenorgel")])
    scores = [one.rank(["die Kirchenorgel"], len(label_space)) for one in (plain, aliased)]
    named = [one.parts["lexical_names"][one.labels == 7] for one in scores]
    assert named[0] < 0.2 and named[1] > 0.9
    assert aliased.rank(["die Kirchenorgel"], 50).labels.size == len(label_space)  # no label twice


def test_saved_and_loaded(retriever, label_space, tmp_path):
    retriever.save(tmp_path)
    loaded = LabelRetriever.load(tmp_path, num_labels=len(label_space))
    assert loaded.further.tolist() == [0, 0, 3, 7] and len(loaded) == len(label_space)
    found, expected = (one.rank(TEXTS, 5) for one in (loaded, retriever))
    assert found.labels.tolist() == expected.labels.tolist()


def test_new_labels_come_before_the_further_names(retriever, label_space, checkpoints):
    space = label_space.extended(["pottery"])
    extended = retriever.relabelled(LabelChange.with_names(label_space, ["pottery"]))
    assert len(extended) == len(space)
    np.testing.assert_allclose(extended.names[len(space) :], retriever.names[len(label_space) :])
    found = extended.rank(["pottery", "Orgel"], len(space))
    names = found.parts["lexical_names"]
    assert names[(found.labels == len(label_space)) & (found.text == 0)] > 0.9
    assert names[(found.labels == 3) & (found.text == 1)] > 0.9
    again = LabelRetriever.fit(
        space, ROW_TEXTS, [*label_ids(label_space)], checkpoints["bert"], lexical=True, further=FURTHER, progress=False
    )
    np.testing.assert_allclose(extended.names, again.names, atol=1e-5)
    assert isinstance(extended.lexical, LexicalIndex) and len(extended.lexical.names) == len(again.lexical.names)


@pytest.mark.parametrize(
    ("further", "message"),
    [
        (np.array([0, 3, 0, 7], np.int32), "'further_names' must be a list of ascending int32"),
        (np.array([0, 0, 3, 7], np.int64), "'further_names' must be a list of ascending int32"),
        (np.array([0, 0, 3, 70], np.int32), "'further_names' leave the label space"),
        (np.array([0, 0, 3], np.int32), "label names are indexed, the label space has"),
    ],
)
def test_damaged_tensors_are_refused(retriever, label_space, tmp_path, further, message):
    retriever.save(tmp_path)
    tensors = load_file(tmp_path / "retriever.safetensors")
    save_file({**tensors, "further_names": further}, tmp_path / "retriever.safetensors")
    with pytest.raises(ModelFolderError, match=message):
        LabelRetriever.load(tmp_path, num_labels=len(label_space))
