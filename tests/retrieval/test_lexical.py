"""Similarity by spelling: runs of characters that texts and label names share."""

from __future__ import annotations

import re
from unicodedata import normalize

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sklearn.feature_extraction.text import HashingVectorizer
from sklearn.utils import murmurhash3_32

from xlgen_hf.ranking.words import folded
from xlgen_hf.retrieval import hashing, packed_rows
from xlgen_hf.retrieval.hashing import count_runs
from xlgen_hf.retrieval.lexical import LexicalIndex, hash_texts
from xlgen_hf.retrieval.packed_rows import PackedRows

TEXTS = ["a history of organ music", "modern printing", "the sheep of Iceland"]
NAMES = ["organ music", "printing", "sheep", "snow", "book printing"]


@pytest.fixture
def index():
    return LexicalIndex.fit(TEXTS, NAMES)


def test_names_that_stand_in_the_text_are_the_most_similar(index):
    similarity = index.name_similarity(index.encode(["on organs and organ music", "Printing", "sheep"]))
    assert similarity.argmax(1).tolist() == [0, 1, 2]
    assert similarity[2, 2] == pytest.approx(1, abs=2e-3)  # the name itself
    assert similarity[2, 3] < 0.1


def test_inflected_and_compound_words_match(index):
    finnish = LexicalIndex.fit(["kirjat"], ["kirjastot", "kalastus", "lumi"])
    similarity = finnish.name_similarity(finnish.encode(["yliopistokirjastoissa", "kalastuksen", "lumesta"]))
    assert similarity.argmax(1).tolist() == [0, 1, 2]


def test_scripts_without_spaces_match():
    chinese = LexicalIndex.fit(["\u5317\u4eac"], ["\u4e2d\u56fd", "\u97f3\u4e50", "\u6570\u5b66"])
    similarity = chinese.name_similarity(
        chinese.encode(["\u4e2d\u56fd\u6587\u5316\u53f2", "\u53e4\u5178\u97f3\u4e50\u8bba"])
    )
    assert similarity.argmax(1).tolist() == [0, 1]


def test_texts_without_anything_known_are_similar_to_nothing(index):
    nothing = index.encode(["", "\u4e2d\u56fd", " "])
    assert nothing.nnz == 0
    assert not index.name_similarity(nothing).any()
    assert not np.stack(list(index.document_similarity(nothing))).any()
    assert index.name_similarity(index.encode([])).shape == (0, len(NAMES))


def test_a_long_training_text_keeps_the_runs_of_greatest_weight():
    names = [
        f"{left}{right}{left}" for left in ("organ", "sheep", "prints", "music") for right in ("wool", "clay", "x")
    ]
    words = " ".join(names)
    whole = LexicalIndex.fit([words], names)
    assert len(whole.documents.runs) == 256
    assert np.linalg.norm(whole.documents.weights) == pytest.approx(1, abs=1e-3)
    everything = whole.encode([words])
    assert everything.nnz > 256
    kept = set(whole.documents.runs.tolist())
    left_out = [weight for run, weight in zip(everything.indices, everything.data, strict=True) if run not in kept]
    assert max(left_out) <= min(everything[0, run] for run in kept) + 1e-6


@settings(max_examples=40, deadline=None)
@given(
    st.lists(st.text(max_size=40), min_size=1, max_size=5),
    st.lists(st.text(min_size=1, max_size=15), min_size=1, max_size=8),
)
def test_similarities_are_shares_of_one_and_survive_saving(texts, names):
    index = LexicalIndex.fit(texts, names)
    loaded = LexicalIndex.from_tensors(index.tensors(), len(texts), len(names))
    queries = index.encode(texts)
    own = np.asarray(queries.multiply(queries).sum(1)).ravel()
    assert np.logical_or(np.isclose(own, 1, atol=1e-5), own == 0).all()
    for kind in ("document_similarity", "name_similarity"):
        before, after = (np.stack(list(getattr(one, kind)(one.encode(texts)))) for one in (index, loaded))
        assert before.min(initial=0) >= 0 and before.max(initial=0) <= 1
        np.testing.assert_allclose(after, before, atol=3e-3)


def test_a_further_name_leaves_too_frequent_runs_alone():
    names = [f"history of {place}" for place in ("aba", "ebe", "ibi", "obo", "ubu") for place in (place, *place)]
    names += [f"history of {number}" for number in range(11, 41)]
    before = LexicalIndex.fit(TEXTS, names)
    query = before.encode(["a history of organ"])
    after = before.with_names(np.append(np.arange(len(names)), -1), ["history of xylophone"], names)
    again = after.encode(["a history of organ"])
    assert (again != query).nnz == 0
    assert after.name_similarity(again)[0, -1] == 0
    found = after.name_similarity(after.encode(["xylophone"]))[0]
    assert found.argmax() == len(names)
    assert found[-1] > 0.9


def test_there_may_be_no_index():
    assert LexicalIndex.from_tensors({"names": np.zeros(3)}, 1, 1) is None


@given(st.text(st.characters(exclude_categories=["Cs"])) | st.text("aä bΣ.ıİ\n本"))
def test_places_of_runs_are_those_of_the_index(text):
    """Of any text the same n-grams as scikit-learn's, each where it stands."""
    runs, spans = hash_texts(["before", text, ""]).runs(1, len(text))
    nothing = PackedRows.of(csr_matrix((0, 2**20), dtype=np.float32))
    encoded = LexicalIndex(np.ones(2**20), nothing, nothing).encode([text])  # every n-gram counts alike
    known, counts = np.unique(runs, return_counts=True)
    weights = np.log(counts) + 1
    assert np.array_equal(known, np.sort(encoded.indices))
    expected = weights / np.linalg.norm(weights)
    np.testing.assert_allclose(encoded.toarray()[0, known], expected, rtol=1e-5)
    assert ((spans[:, 1] > spans[:, 0]) & (spans >= 0).all(1) & (spans <= len(text)).all(1)).all()
    if all(len(folded(word)) == len(word) for word in text.split()):
        found = sorted(zip(runs.tolist(), *spans.T.tolist(), strict=True))
        assert found == sorted(_places(text))


@pytest.mark.parametrize(
    "text",
    [
        "K\u00e4se \u1f40\u03b4\u03cd\u03c3\u03c3\u03b5\u03b9\u03b1",
        "\u30ac\u30e9\u30b9\u306e\u6b74\u53f2",
        "l\u1ecbch s\u1eed",
        "\ud55c\uad6d\uc5b4 \ub3c4\uc11c\uad00",
        "\u09ac\u09cb\u09a8 \u09a8\u09cc\u0995\u09be",
    ],
)
def test_the_unicode_form_of_a_text_does_not_matter(text):
    """The fault: accents that are characters of their own, as in MARC records, made other n-grams."""
    decomposed = normalize("NFD", text)
    assert len(decomposed) > len(text)
    index = LexicalIndex.fit([text, "other words"], [text, decomposed])
    assert (index.encode([text]) != index.encode([decomposed])).nnz == 0
    runs, spans = hash_texts([text]).runs(0, len(text))
    same, places = hash_texts([decomposed]).runs(0, len(decomposed))
    assert np.array_equal(runs, same)
    pairs = zip(spans.tolist(), places.tolist(), strict=True)
    assert all(text[one:end] == normalize("NFC", decomposed[first:last]) for (one, end), (first, last) in pairs)


def _places(text):
    """Each n-gram, hashed, with where it begins and ends, one by one."""
    for word in re.finditer(r"\S+", text):
        begin, end = word.span()
        padded = f" {folded(word[0])} "
        for length in range(2, min(5, len(padded)) + 1):
            for place in range(len(padded) - length + 1):
                hashed = abs(murmurhash3_32(padded[place : place + length], seed=0)) % 2**20
                yield hashed, min(begin + max(place - 1, 0), end - 1), min(begin + place - 1 + length, end)


def test_pairs_are_as_similar_as_in_the_whole(index):
    queries = index.encode(TEXTS)
    whole = index.name_similarity(queries)
    text, names = np.divmod(np.arange(whole.size), whole.shape[1])
    np.testing.assert_allclose(index.pair_similarity(queries, text, names), whole.reshape(-1), atol=1e-6)


def test_a_long_text_takes_few_runs_at_once(index, monkeypatch):
    """The runs of one hold most of an index, and a copy of them all would be as large."""
    queries = index.encode(TEXTS)
    whole = np.stack([row.copy() for row in index.document_similarity(queries)])
    monkeypatch.setattr(packed_rows, "ENTRIES_AT_ONCE", 2)
    parts = np.stack([row.copy() for row in index.document_similarity(queries)])
    np.testing.assert_allclose(parts, whole, atol=1e-6)


def test_training_texts_are_as_similar_in_pairs_as_in_the_whole(index):
    queries = index.encode(TEXTS)
    whole = np.stack([row.copy() for row in index.document_similarity(queries)])
    text, documents = np.array([0, 0, 2]), np.array([2, 0, 1])  # the second text has no pair
    np.testing.assert_allclose(index.document_pairs(queries, text, documents), whole[text, documents], atol=1e-6)
    assert index.document_pairs(queries, text[:0], documents[:0]).shape == (0,)


def test_nearest_names_are_found_by_what_tells_them_apart():
    sounds = ["ka", "lo", "mi", "ru", "sen", "tas", "vol", "zi"]
    words = [f"{a}{b}{c}" for a in sounds for b in sounds for c in sounds[:4]]
    names = [f"{one} {other}" for one, other in zip(words[:128], words[:127:-1], strict=True)]
    index = LexicalIndex.fit(["nothing"], names)
    queries = index.encode([f"of {name} and more" for name in names] + ["", "xyz"])
    rows, values = index.nearest_names(queries, 3)
    assert rows[:-2, 0].tolist() == list(range(len(names)))
    assert (values[-2:] == -np.inf).all()
    text, place = np.nonzero(values > -np.inf)
    whole = index.name_similarity(queries)
    np.testing.assert_allclose(values[text, place], whole[text, rows[text, place]], atol=1e-6)
    assert (np.diff(values[:-2], axis=1) <= 0).all()
    assert index.nearest_names(index.encode([]), 3)[0].shape == (0, 3)


def test_weights_of_runs_add_up_to_the_cosine(index):
    """Of a text that holds every n-gram once."""
    runs, _ = hash_texts(["sheep"]).runs(0, 5)
    queries = index.encode(["sheep"])
    names = np.arange(len(index.names))
    weights = index.run_weights(runs, names).sum(axis=1) / np.sqrt((index.idf[runs] ** 2).sum())
    np.testing.assert_allclose(weights, (queries @ index.names.matrix().T).toarray()[0], atol=1e-6)


# ---------------------------------------------------------------------------------------------------- hashing


@settings(deadline=None, max_examples=50)
@given(st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=40), min_size=1, max_size=5))
def test_hashed_runs_are_those_of_scikit_learn(texts):
    vectorizer = HashingVectorizer(
        analyzer="char_wb", ngram_range=(2, 5), n_features=2**20, alternate_sign=False, norm=None, dtype=np.float32
    )
    expected, found = vectorizer.transform([folded(one) for one in texts]), count_runs(texts, (2, 5), 2**20)
    assert (found != expected).nnz == 0 and found.has_canonical_format
    assert found.dtype == np.float32


def test_many_texts_are_hashed_in_blocks(monkeypatch):
    expected = count_runs(TEXTS * 3, (2, 5), 2**20)
    monkeypatch.setattr(hashing, "CHARACTERS_AT_ONCE", 50)
    assert (count_runs(TEXTS * 3, (2, 5), 2**20) != expected).nnz == 0
    assert count_runs([], (2, 5), 2**20).shape == (0, 2**20)
    hashed = hash_texts(TEXTS * 3)
    assert (hashed.counts() != expected).nnz == 0
    for number, text in enumerate(TEXTS * 3):
        runs, spans = hashed.runs(number, len(text))
        alone, there = hash_texts([text]).runs(0, len(text))
        assert np.array_equal(runs, alone) and np.array_equal(spans, there)


def test_runs_of_the_beginning_of_a_text_are_those_of_its_words():
    runs, spans = hash_texts(["one two three"]).runs(0, 5)
    expected, places = hash_texts(["one two"]).runs(0, 7)
    assert sorted(runs.tolist()) == sorted(expected.tolist())
    assert sorted(map(tuple, spans.tolist())) == sorted(map(tuple, places.tolist()))
