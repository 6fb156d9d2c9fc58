"""Approximate search: what it finds beside exact search, changes of its vectors, and damaged files."""

from __future__ import annotations

import json
import sys
from dataclasses import replace

import numpy as np
import pytest
from scipy.sparse import csr_matrix
from sources import ROW_TEXTS, make_retriever

from xlgen_hf.errors import ConfigurationError, MissingExtraError, ModelFolderError
from xlgen_hf.files.serialization import read_tensors, write_tensors
from xlgen_hf.labels.changes import LabelEdits
from xlgen_hf.retrieval.approximate import make_approximate
from xlgen_hf.retrieval.index_updates import add_texts
from xlgen_hf.retrieval.near_lists import NearLists, NearSearch, fit_lists
from xlgen_hf.retrieval.retriever import LabelRetriever
from xlgen_hf.retrieval.search import ExactSearch

pytest.importorskip("faiss")


def _vectors(count, seed=0, width=24):
    """Vectors in groups, as texts are."""
    random = np.random.default_rng(seed)
    middles = np.random.default_rng(1).normal(size=(40, width))
    found = middles[random.integers(0, 40, count)] + random.normal(0, 0.7, size=(count, width))
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float16)


@pytest.fixture(scope="module")
def vectors():
    return _vectors(3000)


@pytest.fixture(scope="module")
def queries():
    return _vectors(60, seed=5).astype(np.float32)


@pytest.fixture(scope="module")
def lists(vectors, queries):
    return fit_lists(vectors, queries, what="texts")


def _hits(found, exact):
    return np.mean([len(np.intersect1d(*pair)) / len(pair[1]) for pair in zip(found, exact, strict=True)])


def test_nearly_all_of_the_nearest_are_found_with_their_exact_similarities(vectors, queries, lists):
    columns, values = NearSearch(vectors, lists).nearest(queries, 50)
    exact, nearest = ExactSearch(vectors).nearest(queries, 50)
    assert 1 < lists.width < len(lists.centroids)
    assert lists.recall == pytest.approx(_hits(columns, exact), abs=0.002)
    assert lists.recall >= 0.98
    np.testing.assert_allclose(values[:, 0], nearest[:, 0], atol=1e-6)
    assert (np.diff(values, axis=1) <= 0).all()
    own = (vectors.astype(np.float32)[columns] * queries[:, None]).sum(axis=2)
    np.testing.assert_allclose(values, own, atol=1e-6)


def test_vectors_that_codes_do_not_tell_apart_are_compared_in_greater_number():
    random = np.random.default_rng(0)
    found = random.normal(size=(8, 128))[random.integers(0, 8, 6000)] + random.normal(0, 0.2, size=(6000, 128))
    found /= np.linalg.norm(found, axis=1, keepdims=True)
    vectors, queries = found[:5900].astype(np.float16), found[5900:].astype(np.float32)
    lists = fit_lists(vectors, queries, what="texts")
    assert lists.compared > 10
    for size in (20, 50):
        columns = NearSearch(vectors, lists).nearest(queries, size)[0]
        assert _hits(columns, ExactSearch(vectors).nearest(queries, size)[0]) > 0.97


@pytest.mark.parametrize("width", [5, 6, 8])
def test_vectors_of_any_number_of_numbers(width):
    vectors, queries = _vectors(600, width=width), _vectors(20, seed=5, width=width).astype(np.float32)
    lists = fit_lists(vectors, queries, what="texts")
    tensors = {"x": vectors, **lists.tensors("x")}
    columns = NearSearch(vectors, NearLists.from_tensors(tensors, "x", lists.facts)).nearest(queries, 50)[0]
    assert _hits(columns, ExactSearch(vectors).nearest(queries, 50)[0]) > 0.97


def test_a_seed_gives_the_same_lists(vectors, queries, lists):
    again, other = (fit_lists(vectors, queries, what="texts", seed=seed) for seed in (0, 1))
    for part in ("centroids", "codebooks", "lists", "codes"):
        assert np.array_equal(getattr(again, part), getattr(lists, part))
    assert not np.array_equal(other.lists, lists.lists)


def test_hidden_vectors_are_not_found_and_leave_their_places_to_others(vectors, lists):
    queries = vectors[:5].astype(np.float32)
    rows = np.repeat(np.arange(5), 40)
    exact = ExactSearch(vectors).nearest(queries, 40)[0]
    hidden = csr_matrix((np.ones(200, bool), (rows, exact.reshape(-1))), shape=(5, len(vectors)))
    columns, values = NearSearch(vectors, lists).nearest(queries, 10, hidden)
    assert not np.isin(columns + 10_000 * np.arange(5)[:, None], exact + 10_000 * np.arange(5)[:, None]).any()
    assert (values > -np.inf).all()
    assert _hits(columns, ExactSearch(vectors).nearest(queries, 10, hidden)[0]) > 0.8


def test_more_than_there_is_to_find(vectors, queries, lists):
    few = lists.take(np.arange(7))
    columns, values = NearSearch(vectors[:7], replace(few, width=len(lists.centroids))).nearest(queries, 9)
    assert columns.shape == values.shape == (60, 9)
    assert (values[:, 7:] == -np.inf).all()
    assert (columns[:, 7:] == 0).all()
    assert (np.sort(columns[:, :7], axis=1) == np.arange(7)).all()
    none = NearSearch(vectors[:0], lists.take(np.arange(0)))
    assert (none.nearest(queries, 3)[1] == -np.inf).all()
    assert none.nearest(queries[:0], 3)[0].shape == (0, 3)


def test_vectors_are_taken_out_and_added(vectors, queries, lists):
    kept = np.arange(0, 3000, 2)
    more = _vectors(500, seed=9)
    changed, now = lists.take(kept).extended(more), np.concatenate([vectors[kept], more])
    assert len(changed) == 2000
    found, exact = NearSearch(now, changed).nearest(queries, 50)[0], ExactSearch(now).nearest(queries, 50)[0]
    assert _hits(found, exact) > 0.95
    assert (found >= 1500).any()


# ------------------------------------------------------------------------------------------------ in an index


@pytest.fixture
def plain(checkpoints, label_space):
    return make_retriever(checkpoints["bert"], label_space, lexical=True)


@pytest.fixture
def index(plain):
    """The index of a few rows, all of whose lists are looked into."""
    found = make_approximate(plain, fewest=4)
    return found.with_lists({name: replace(one, width=len(one.centroids)) for name, one in found.lists.items()})


def _found(retriever, texts=ROW_TEXTS, **options):
    ranked = retriever.rank(texts, 5, **options)
    return ranked.labels.tolist(), np.round(ranked.scores, 5).tolist()


def test_an_index_that_looks_everywhere_finds_what_exact_search_finds(plain, index):
    assert set(index.lists) == {"documents", "names"}
    assert _found(index) == _found(plain)
    allowed = np.array([1, 3, 4])
    assert _found(index, allowed=allowed) == _found(plain, allowed=allowed)
    exact, near = (one.rank_training_texts(ROW_TEXTS, 4) for one in (plain, index))
    assert near.labels.tolist() == exact.labels.tolist()
    assert not make_approximate(plain).lists  # too few for lists


def test_an_index_keeps_its_lists_in_its_folder(index, label_space, tmp_path):
    index.save(tmp_path)
    loaded = LabelRetriever.load(tmp_path, num_labels=len(label_space))
    assert {name: one.facts for name, one in loaded.lists.items()} == {
        name: one.facts for name, one in index.lists.items()
    }
    assert _found(loaded) == _found(index)
    assert not [path.name for path in tmp_path.iterdir() if "faiss" in path.name]


def test_documents_and_labels_change(plain, index, label_space):
    edits = LabelEdits(
        renamed=[(label_space.names[0], "pipe organs")], merged=[(label_space.names[1], label_space.names[2])],
        removed=[label_space.names[3]], added=["zither"],
    )  # fmt: skip
    change = edits.change(label_space, plain.labels)
    texts, labels = ["zither music of the alps", ROW_TEXTS[0]], [[0], [1]]
    results = []
    for retriever in (plain, index):
        changed, numbers = add_texts(retriever.relabelled(change), texts, labels)
        assert numbers.added == 1
        assert len(changed.documents) == changed.labels.shape[0]
        results.append(changed)
    exact, near = results
    assert {name: len(one) for name, one in near.lists.items()} == {
        "documents": len(near.documents), "names": len(near.names),
    }  # fmt: skip
    assert _found(near, [*ROW_TEXTS, *texts]) == _found(exact, [*ROW_TEXTS, *texts])


# ------------------------------------------------------------------------------------------------ what is refused


def _without(name):
    return lambda tensors: tensors.pop(name)


def _filled(name, value):
    return lambda tensors: tensors[name].reshape(-1).__setitem__(slice(0, 1), value)


def _cut(name):
    return lambda tensors: tensors.__setitem__(name, tensors[name][:-1])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_without("documents_codes"), "'documents_codes' must be there, as uint8"),
        (_filled("documents_lists", 10_000), r"'documents_lists' leave the \d+ lists"),
        (_filled("names_lists", -1), r"'names_lists' leave the \d+ lists"),
        (
            _filled("documents_centroids", np.nan),
            "'documents_centroids' and 'documents_codebooks' hold NaN or infinity",
        ),
        (_cut("documents_codes"), r"'documents_lists' .* and 'documents_codes' .* do not fit the vectors"),
        (_cut("names_codebooks"), r"'names_codebooks' \(7, 16, 2\) do not fit vectors of 16 numbers"),
        (_filled("names_codebooks", np.inf), "'names_centroids' and 'names_codebooks' hold NaN or infinity"),
        (_without("names_codebooks"), "'names_codebooks' must be there, as float32"),
        (_cut("names_lists"), r"'names_lists' .* and 'names_codes' .* do not fit the vectors"),
        (lambda tensors: tensors["names_codes"].fill(1), "'names_codes' are not those of the vectors"),
        (
            lambda tensors: tensors.update(documents_centroids=tensors["documents_centroids"][:, :-8]),
            r"'documents_centroids' .* must be at least \d+ rows of 16 numbers",
        ),
    ],
)
def test_damaged_lists_are_refused(index, label_space, tmp_path, damage, message):
    index.save(tmp_path)
    tensors = read_tensors(tmp_path / "retriever.safetensors")
    damage(tensors)
    write_tensors(tmp_path / "retriever.safetensors", tensors)
    with pytest.raises(ModelFolderError, match=message):
        LabelRetriever.load(tmp_path, num_labels=len(label_space))


@pytest.mark.parametrize(
    ("facts", "message"),
    [
        ({"documents": {"width": 10**9, "compared": 10, "recall": 1.0}}, "must be at least 1000000000 rows"),
        ({"documents": {"width": 0, "compared": 10, "recall": 1.0}}, "approximate.documents.width"),
        ({"documents": {"width": 1, "compared": 10**6, "recall": 1.0}}, "approximate.documents.compared"),
        ({"texts": {"width": 1, "compared": 10, "recall": 1.0}}, "'approximate.texts' is not a field of it"),
    ],
)
def test_damaged_settings_are_refused(index, label_space, tmp_path, facts, message):
    index.save(tmp_path)
    path = tmp_path / "retriever.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "approximate": facts}))
    with pytest.raises(ModelFolderError, match=message):
        LabelRetriever.load(tmp_path, num_labels=len(label_space))


def test_the_missing_library_is_named(plain, index, label_space, tmp_path, monkeypatch):
    index.save(tmp_path)
    monkeypatch.setitem(sys.modules, "faiss", None)
    for refused in (
        lambda: make_approximate(plain, fewest=4),
        lambda: LabelRetriever.load(tmp_path, num_labels=len(label_space)),
    ):
        with pytest.raises(MissingExtraError, match=r"`faiss-cpu` is not installed.*'xlgen-hf\[faiss\]'"):
            refused()


def test_a_release_of_the_library_that_finds_anything_is_refused(vectors, queries, monkeypatch):
    monkeypatch.setattr("faiss.__version__", "1.12.0")
    with pytest.raises(ConfigurationError, match=r"faiss 1\.12\.0 is installed.*Approximate search needs 1\.13\.2"):
        fit_lists(vectors, queries, what="texts")


def test_the_arrays_are_the_whole_index(vectors, queries, lists):
    tensors = {"x": vectors, **lists.tensors("x")}
    again = NearLists.from_tensors(tensors, "x", lists.facts)
    assert np.array_equal(
        NearSearch(vectors, again).nearest(queries, 20)[0], NearSearch(vectors, lists).nearest(queries, 20)[0]
    )
