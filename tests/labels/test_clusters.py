from __future__ import annotations

import json
import logging
import re

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast

from xlgen_hf.errors import ConfigurationError, DataError, LabelSpaceError, ModelFolderError
from xlgen_hf.labels import clustering
from xlgen_hf.labels.changes import LabelChange
from xlgen_hf.labels.clustering import (
    cluster_labels,
    default_num_clusters,
    fit_clusters,
    incidence_matrix,
    k_means,
    label_embeddings,
    map_labels,
)
from xlgen_hf.labels.clusters import LabelClusters, LabelMap, digest_of
from xlgen_hf.labels.space import LabelSpace

JSON, TENSORS = "label_clusters.json", "label_clusters.safetensors"
TOPICS = {"cat": ["paw", "fur", "purr"], "sea": ["wave", "salt", "ship"], "law": ["court", "judge", "crime"]}


def unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


@pytest.fixture(scope="module")
def encoder():
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", *TOPICS, *(word for topic in TOPICS.values() for word in topic)]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    torch.manual_seed(0)
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    model = BertModel(BertConfig(vocab_size=len(words), initializer_range=0.5, **sizes)).eval()
    # Words of a topic get like vectors, as a trained encoder would give them.
    table = model.embeddings.word_embeddings.weight.data
    for topic, members in TOPICS.items():
        for word in members:
            table[words.index(word)] = table[words.index(topic)] + 0.1 * table[words.index(word)]
    return model, PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


@pytest.fixture(scope="module")
def corpus():
    """Texts of one topic each with two labels of it; the last label of each topic has no documents."""
    generator = np.random.default_rng(0)
    texts, labels = [], []
    for topic, (first, second, _) in TOPICS.items():
        for _ in range(10):
            texts.append(" ".join(generator.choice([topic, first, second], 4)))
            labels.append([first, second])
    vocabulary = [word for topic in TOPICS.values() for word in topic]
    space = LabelSpace.from_label_lists(labels, vocabulary)
    return space, texts, [space.encode(names) for names in labels]


@pytest.fixture
def fitted(corpus, encoder):
    return fit_clusters(*corpus, encoder, num_clusters=3)


def make(assignment=(0, 1, 0), names=("a", "b"), width=4, **changes):
    centroids = np.eye(max(width, len(names)), dtype=np.float32)[: len(names), :width]
    return LabelClusters(**{"assignment": np.array(assignment), "centroids": centroids, "names": names, **changes})


@pytest.mark.parametrize(
    ("labels", "expected"), [(1, 1), (2, 2), (3, 2), (4, 2), (9, 3), (3956, 63), (27_626, 166), (501_070, 708)]
)
def test_default_number_grows_with_the_label_space(labels, expected):
    assert default_num_clusters(labels) == expected


@given(st.integers(1, 10**7))
def test_default_number_is_possible(labels):
    assert 1 <= default_num_clusters(labels) <= labels
    assert default_num_clusters(labels) <= default_num_clusters(labels + 1)


class TestFit:
    def test_finds_the_topics_and_places_labels_without_documents(self, corpus, fitted):
        space = corpus[0]
        for members in TOPICS.values():
            assert len({fitted.assignment[space.index[name]] for name in members}) == 1
        assert fitted.num_clusters == 3
        assert fitted.metadata["num_labels_without_documents"] == 3
        assert fitted.metadata["num_documents"] == 30
        np.testing.assert_allclose(np.linalg.norm(fitted.centroids, axis=1), 1, atol=1e-6)

    @pytest.mark.parametrize("name_weight", [0.5, 1.0])
    def test_names_take_part(self, corpus, encoder, fitted, name_weight):
        named = fit_clusters(*corpus, encoder, num_clusters=3, name_weight=name_weight)
        np.testing.assert_array_equal(named.assignment, fitted.assignment)
        assert not np.allclose(named.centroids, fitted.centroids)

    def test_names_are_read_only_when_needed(self, corpus, encoder, monkeypatch):
        texts = corpus[1]
        space = LabelSpace.from_label_lists([["paw", "fur"]])
        asked = []
        embed = clustering.embed_texts
        monkeypatch.setattr(
            clustering, "embed_texts", lambda texts, **options: asked.append(texts) or embed(texts, **options)
        )
        fit_clusters(space, texts[:2], [[0, 1], [0]], encoder)
        assert asked == [texts[:2]]

    def test_same_seed_same_clusters(self, corpus, encoder, fitted):
        again = fit_clusters(*corpus, encoder, num_clusters=3)
        np.testing.assert_array_equal(again.assignment, fitted.assignment)
        np.testing.assert_array_equal(again.centroids, fitted.centroids)
        assert again.names == fitted.names

    def test_default_number(self, corpus, encoder):
        clusters = fit_clusters(*corpus, encoder)
        assert clusters.num_clusters == default_num_clusters(len(corpus[0])) == 3

    def test_names_are_the_most_frequent_labels(self, corpus, fitted):
        space = corpus[0]
        for cluster, name in enumerate(fitted.names):
            members = [space.names[i] for i in np.flatnonzero(fitted.assignment == cluster)]
            assert name == " / ".join(members[:3])  # ids are frequency ranks

    def test_one_cluster_a_label(self, corpus, encoder):
        clusters = fit_clusters(*corpus, encoder, num_clusters=len(corpus[0]), name_weight=0.5)
        assert sorted(clusters.assignment) == list(range(9))
        assert sorted(clusters.names) == sorted(corpus[0].names)

    def test_never_more_clusters_than_different_labels(self, encoder, caplog):
        space = LabelSpace.from_label_lists([["paw", "fur", "salt"], ["salt"]])
        with caplog.at_level(logging.WARNING):
            clusters = fit_clusters(space, ["cat sea", "sea"], [[0, 1, 2], [0]], encoder, num_clusters=3)
        assert "3 clusters are too many: the 3 labels have only 2 different embeddings" in caplog.text
        assert clusters.assignment.tolist() == [0, 1, 1]

    def test_no_training_documents_at_all(self, corpus, encoder):
        space = LabelSpace.from_label_lists([], vocabulary=corpus[0].names)
        clusters = fit_clusters(space, [], [], encoder, num_clusters=3)
        for members in TOPICS.values():
            assert len({clusters.assignment[space.index[name]] for name in members}) == 1

    def test_single_label(self, encoder):
        clusters = fit_clusters(LabelSpace(["paw"], [1]), ["cat"], [[0]], encoder)
        assert clusters.names == ["paw"]

    def test_documents_are_cached(self, corpus, encoder, fitted, tmp_path):
        for _ in range(2):
            clusters = fit_clusters(*corpus, encoder, num_clusters=3, cache_dir=tmp_path)
            np.testing.assert_array_equal(clusters.centroids, fitted.centroids)
        assert len(list(tmp_path.iterdir())) == 2  # documents and names

    @pytest.mark.parametrize(
        ("option", "match"),
        [
            ({"num_clusters": 0}, "num_clusters=0; with 9 labels, give 1 to 9"),
            ({"num_clusters": 10}, "num_clusters=10; with 9 labels"),
            ({"name_weight": 1.5}, r"name_weight=1\.5; it must lie in \[0, 1\]"),
            ({"name_weight": float("nan")}, "name_weight=nan"),
        ],
    )
    def test_bad_settings(self, corpus, encoder, option, match):
        with pytest.raises(ConfigurationError, match=match):
            fit_clusters(*corpus, encoder, **option)

    def test_bad_rows(self, corpus, encoder):
        space, texts, label_ids = corpus
        with pytest.raises(DataError, match="30 texts come with 29 lists"):
            fit_clusters(space, texts, label_ids[1:], encoder)
        with pytest.raises(DataError, match=r"^row 2: Label ids \[1, 9\] are not all in 0 to 8"):
            fit_clusters(space, texts[:2], [[0], [9, 1]], encoder)
        with pytest.raises(DataError, match=r"^row 1: Label ids \[-1\]"):
            fit_clusters(space, texts[:1], [[-1]], encoder)


class TestLabelEmbeddings:
    def test_pifa(self):
        documents = np.array([[1, 0], [0, 1]], dtype=np.float32)
        # document 0 has labels 0 and 1, document 1 has label 1
        incidence = incidence_matrix(["a", "b"], [[0, 1], [1]], 2)
        half = 0.5**0.5
        expected = np.array([[1, 0], [half, 1]])
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        np.testing.assert_allclose(label_embeddings(incidence, documents), expected, atol=1e-6)

    def test_repeated_labels_count_once(self):
        once = incidence_matrix(["a"], [[0, 1]], 2)
        assert (incidence_matrix(["a"], [[1, 0, 0]], 2) != once).nnz == 0

    @settings(deadline=None, max_examples=50)
    @given(st.data())
    def test_rows_have_length_one(self, data):
        labels, documents, width = data.draw(st.integers(1, 30)), data.draw(st.integers(0, 8)), 3
        ids = st.lists(st.integers(0, labels - 1), max_size=4)
        lists = data.draw(st.lists(ids, min_size=documents, max_size=documents))
        values = st.floats(0.125, 1, width=32)
        texts = data.draw(hnp.arrays(np.float32, (documents, width), elements=values))
        names = data.draw(hnp.arrays(np.float32, (labels, width), elements=values))
        weight = data.draw(st.sampled_from([0.0, 0.5, 1.0]))
        incidence = incidence_matrix([""] * documents, lists, labels)
        rows = label_embeddings(incidence, texts, unit(names), weight)
        assert rows.shape == (labels, width)
        assert rows.dtype == np.float32
        length = np.linalg.norm(rows, axis=1)
        assert (np.isclose(length, 1, atol=1e-5) | (length == 0)).all()

    def test_label_without_documents_lies_near_its_neighbors_by_name(self):
        generator = np.random.default_rng(0)
        names = np.repeat(np.eye(4, dtype=np.float32), 15, axis=0)
        names = unit(names + 0.05 * generator.normal(size=names.shape))
        shift = np.array([3, 3, 3, 3], dtype=np.float32)  # documents lie elsewhere in the space
        documents = unit(names + shift)
        seen = np.arange(60) % 15 != 0
        rows = np.flatnonzero(seen)
        incidence = csr_matrix((np.ones(len(rows)), (np.arange(len(rows)), rows)), shape=(len(rows), 60))
        found = label_embeddings(incidence, documents[seen], names)
        for unseen in np.flatnonzero(~seen):
            similarity = found[seen] @ found[unseen]
            assert np.argmax(np.bincount(rows // 15, weights=similarity)) == unseen // 15

    def test_many_labels_are_compared_in_parts(self, monkeypatch):
        generator = np.random.default_rng(0)
        names, documents = (unit(generator.normal(size=(n, 5))) for n in (27, 20))
        incidence = csr_matrix((np.ones(20), (np.arange(20), np.arange(20))), shape=(20, 27))  # 7 without documents
        whole = label_embeddings(incidence, documents, names)
        assert len(np.unique(whole[20:], axis=0)) == 7
        monkeypatch.setattr(clustering, "SIMILARITIES_AT_ONCE", 1)
        np.testing.assert_allclose(label_embeddings(incidence, documents, names), whole, atol=1e-6)


class TestKMeans:
    def test_mini_batches_above_a_size(self, monkeypatch):
        monkeypatch.setattr(clustering, "MINI_BATCH_ABOVE", 100)
        monkeypatch.setattr(clustering, "KMeans", lambda *_, **__: pytest.fail("all rows at once"))
        generator = np.random.default_rng(0)
        centers = 10 * np.eye(4)
        vectors = unit(np.repeat(centers, 30, axis=0) + generator.normal(size=(120, 4)))
        runs = [k_means(vectors, 4, seed=3) for _ in range(2)]
        np.testing.assert_array_equal(*runs)
        for group in runs[0].reshape(4, 30):
            assert len(set(group)) == 1

    def test_numbers_follow_frequency_and_have_no_gaps(self):
        space = LabelSpace(list("abcde"), [5, 4, 4, 3, 0])
        found = cluster_labels(space, np.eye(5, dtype=np.float32), np.array([7, 2, 2, 9, 7]))
        assert found.assignment.tolist() == [1, 0, 0, 2, 1]

    def test_ties_go_by_the_first_label(self):
        space = LabelSpace(list("abc"), [1, 1, 1])
        found = cluster_labels(space, np.eye(3, dtype=np.float32), np.array([3, 1, 2]))
        assert found.assignment.tolist() == [0, 1, 2]

    def test_centroid_of_opposed_rows(self):
        rows = np.array([[1, 0], [-1, 0], [0, 1]], dtype=np.float32)
        found = cluster_labels(LabelSpace(list("abc"), [3, 2, 1]), rows, np.array([0, 0, 1]))
        np.testing.assert_allclose(found.centroids, [[1, 0], [0, 1]])

    def test_names_are_unique(self):
        space = LabelSpace(["a", "b", "a / b", "a / b (2)"], [4, 3, 2, 1])
        found = cluster_labels(space, np.eye(4, dtype=np.float32), np.array([0, 0, 1, 2]))
        assert found.names == ["a / b", "a / b (2)", "a / b (2) (2)"]


class TestUse:
    def test_bits(self):
        clusters = make([0, 1, 0, 2], names=["a", "b", "c"])
        np.testing.assert_array_equal(clusters.bits([0, 2, 3]), np.array([1, 0, 1], dtype=np.float32))
        assert clusters.bits([]).dtype == np.float32
        assert not clusters.bits([]).any()

    def test_most_covered_first_ties_by_id(self):
        clusters = make([2, 1, 1, 0], names=["a", "b", "c"])
        assert clusters.clusters_of([0, 3, 1, 2]) == [1, 0, 2]
        assert clusters.clusters_of([]) == []

    @given(st.lists(st.integers(0, 5)))
    def test_bits_and_clusters_agree(self, ids):
        clusters = make([0, 1, 2, 2, 1, 0], names=["a", "b", "c"])
        assert sorted(clusters.clusters_of(ids)) == np.flatnonzero(clusters.bits(ids)).tolist()

    @pytest.mark.parametrize("bad", [-1, 3])
    def test_unknown_label(self, bad):
        for method in (make().bits, make().clusters_of):
            with pytest.raises(LabelSpaceError, match=f"Label id {bad} is outside of 0 to 2"):
                method([0, bad])

    def test_sizes_and_repr(self):
        assert make().sizes().tolist() == [2, 1]
        assert repr(make()) == "LabelClusters(2 clusters of 3 labels)"


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"assignment": np.array([0, 1, 2])}, "runs from 0 to 2, outside of 0 to 1"),
        ({"assignment": np.array([0, -1, 1])}, "runs from -1 to 1"),
        ({"assignment": np.array([[0, 1]])}, r"\(L,\) int64, not \(1, 2\)"),
        ({"assignment": np.array([0.0, 1.0])}, "not .* float64"),
        ({"assignment": np.array([], dtype=np.int64)}, r"not \(0,\)"),
        ({"centroids": np.eye(3, dtype=np.float32)}, "2 cluster names come with 3 centroids"),
        ({"centroids": np.eye(2)}, "must be .* float32, not .* float64"),
        ({"centroids": np.ones(2, dtype=np.float32)}, r"must be \(C, H\) float32, not \(2,\)"),
        ({"centroids": np.full((2, 2), np.nan, dtype=np.float32)}, "NaN or infinity"),
        ({"centroids": np.full((2, 2), np.inf, dtype=np.float32)}, "NaN or infinity"),
        ({"centroids": np.ones((2, 2), dtype=np.float32)}, "rows of length 1"),
        ({"names": ["a", "a"]}, r"Duplicate cluster names: \['a'\]"),
        ({"names": ["a", " "]}, "' ' is not a cluster name"),
        ({"names": ["a", 3]}, "3 is not a cluster name"),
    ],
)
def test_parts_that_do_not_fit(changes, match):
    with pytest.raises(ConfigurationError, match=match):
        make(**changes)


class TestMap:
    @pytest.fixture
    def vectors(self):
        """Labels in three directions, 20 for each."""
        noise = np.random.default_rng(0).normal(scale=0.1, size=(60, 8))
        return (np.eye(8)[np.arange(60) % 3] + noise).astype(np.float32)

    def test_labels_of_a_cluster_are_near(self, vectors):
        found = map_labels(vectors, np.arange(60) % 3, seed=0)
        assert found.labels.tolist() == list(range(60)) and found.positions.dtype == np.float32
        distances = np.linalg.norm(found.positions[:, None] - found.positions[None], axis=2)
        np.fill_diagonal(distances, np.inf)
        assert (distances.argmin(1) % 3 == np.arange(60) % 3).all()
        np.testing.assert_array_equal(map_labels(vectors, np.arange(60) % 3, seed=0).positions, found.positions)

    def test_a_large_space_shows_each_clusters_share(self, vectors, monkeypatch):
        monkeypatch.setattr(clustering, "MOST_ON_MAP", 30)
        assignment = np.array([0] * 40 + [1] * 18 + [2] * 2)
        found = map_labels(vectors, assignment, seed=0).labels
        assert np.bincount(assignment[found]).tolist() == [20, 9, 1]
        assert found.tolist() == [*range(20), *range(40, 49), 58]  # the most frequent of each

    def test_few_labels_have_none(self, vectors, fitted):
        assert map_labels(vectors[:19], np.zeros(19, dtype=np.int64), seed=0) is None
        assert map_labels(np.tile(vectors[:5], (10, 1)), np.zeros(50, dtype=np.int64), seed=0) is None
        assert fitted.label_map is None

    def test_round_trip_and_changes_of_labels(self, tmp_path):
        positions = np.float32([[0, 1], [2, 3]])
        make(label_map=LabelMap(np.array([0, 2]), positions)).save(tmp_path)
        loaded = LabelClusters.load(tmp_path)
        np.testing.assert_array_equal(loaded.label_map.positions, positions)
        before = LabelSpace(["a", "b", "c"], [3, 2, 1])
        change = LabelChange(before, LabelSpace(["c", "b"], [2, 1]), np.array([-1, 1, 0]), np.array([2, 1]))
        changed = loaded.relabelled(change).label_map
        assert (changed.labels.tolist(), changed.positions.tolist()) == ([0], [[2, 3]])
        none_left = LabelChange(before, LabelSpace(["b"], [2]), np.array([-1, 0, -1]), np.array([1]))
        assert loaded.relabelled(none_left).label_map is None

    @pytest.mark.parametrize(
        ("labels", "positions", "match"),
        [
            ([0, 1], [[0, 0]], r"a map of \(1, 2\) positions for \(2,\) labels"),
            ([1, 0], [[0, 0], [0, 0]], "must rise, within 0 to 2"),
            ([0, 3], [[0, 0], [0, 0]], "must rise, within 0 to 2"),
            ([0], [[0, np.nan]], "NaN or infinity"),
        ],
    )
    def test_maps_that_do_not_fit(self, labels, positions, match):
        with pytest.raises(ConfigurationError, match=match):
            make(label_map=LabelMap(np.array(labels), np.array(positions, dtype=np.float32)))


class TestFiles:
    def test_round_trip(self, fitted, tmp_path):
        assert fitted.save(tmp_path) == tmp_path / JSON
        loaded = LabelClusters.load(tmp_path, num_labels=9)
        np.testing.assert_array_equal(loaded.assignment, fitted.assignment)
        np.testing.assert_array_equal(loaded.centroids, fitted.centroids)
        assert loaded.names == fitted.names
        assert loaded.metadata == fitted.metadata
        assert sorted(path.name for path in tmp_path.iterdir()) == [JSON, TENSORS]

    def test_names_of_any_alphabet(self, tmp_path):
        make(names=["käännös / 中文", "🐈 / <c1>"]).save(tmp_path)
        assert LabelClusters.load(tmp_path).names == ["käännös / 中文", "🐈 / <c1>"]

    def test_failed_save_leaves_the_old_files(self, tmp_path):
        make().save(tmp_path)
        before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
        with pytest.raises(TypeError, match="not JSON serializable"):
            make([1, 0, 1], metadata={"encoder": object()}).save(tmp_path)
        assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before

    @pytest.mark.parametrize("missing", [JSON, TENSORS])
    def test_missing_file(self, tmp_path, missing):
        make().save(tmp_path)
        (tmp_path / missing).unlink()
        with pytest.raises(ModelFolderError, match=re.escape(f"{tmp_path / missing} is missing")):
            LabelClusters.load(tmp_path)

    @pytest.mark.parametrize(
        ("key", "value", "match"),
        [
            ("format_version", 1, "format_version 1; this release reads 2"),
            ("format_version", None, "format_version is missing"),
            ("names", "ab", "'names' is 'ab'; it must be a list"),
            ("names", ["a", "a"], "'names' has 'a' more than once"),
            ("names", ["a"], "names is 1, but label_clusters.safetensors holds 2"),
            ("names", ["a", None], r"'names\[1\]' is None; it must be a string with visible text"),
            ("metadata", [], r"'metadata' is \[\]; it must be an object"),
            ("num_labels", 4, "num_labels is 4, but label_clusters.safetensors holds 3"),
            ("num_labels", True, "'num_labels' is True; it must be an integer >= 1"),
            ("num_clusters", 2.0, "'num_clusters' is 2.0; it must be an integer >= 1"),
            ("digest", "0", "was not written together with"),
        ],
    )
    def test_bad_json_content(self, tmp_path, key, value, match):
        path = make().save(tmp_path)
        path.write_text(json.dumps({**json.loads(path.read_text()), key: value}))
        with pytest.raises(ModelFolderError, match=match) as info:
            LabelClusters.load(tmp_path)
        assert str(path) in str(info.value)

    @pytest.mark.parametrize(
        ("content", "match"),
        [
            (b"[1]", "it must be an object with the fields"),
            (b"{", "is not JSON in UTF-8"),
            (b"\xff", "is not JSON in UTF-8"),
            (b'{"version": NaN}', "NaN is not a JSON number"),
            (b"[" * 100_000, "is not JSON in UTF-8"),
        ],
    )
    def test_bad_json(self, tmp_path, content, match):
        path = make().save(tmp_path)
        path.write_bytes(content)
        with pytest.raises(ModelFolderError, match=match) as info:
            LabelClusters.load(tmp_path)
        assert str(path) in str(info.value)

    def test_damaged_tensors(self, tmp_path):
        make().save(tmp_path)
        path = tmp_path / TENSORS
        path.write_bytes(path.read_bytes()[:-1])
        with pytest.raises(ModelFolderError, match=rf"{re.escape(str(path))} is not a safetensors file"):
            LabelClusters.load(tmp_path)

    def test_tensors_of_other_clusters(self, tmp_path):
        make([1, 1, 0]).save(tmp_path / "other")
        make().save(tmp_path)
        (tmp_path / "other" / TENSORS).replace(tmp_path / TENSORS)
        with pytest.raises(ModelFolderError, match="was not written together with"):
            LabelClusters.load(tmp_path)

    @pytest.mark.parametrize(
        ("name", "value", "match"),
        [
            ("centroids", np.full((2, 4), np.nan, dtype=np.float32), "NaN or infinity"),
            ("centroids", np.eye(2, 4), "float32"),
            ("assignment", np.array([0, 1, 5]), r"'assignment' holds 5; its values must be <= 1 \(C-1\)"),
            ("assignment", np.array([0, 1, 1], dtype=np.int32), "int64"),
            ("map_labels", np.array([0, 2]), "tensor 'map_positions' is missing"),
            ("extra", np.zeros(1), "tensor 'extra' does not belong in it"),
        ],
    )
    def test_bad_tensors_are_refused_even_with_a_right_digest(self, tmp_path, name, value, match):
        path = make().save(tmp_path)
        tensors = {**load_file(tmp_path / TENSORS), name: value}
        save_file(tensors, tmp_path / TENSORS)
        path.write_text(json.dumps({**json.loads(path.read_text()), "digest": digest_of(tensors)}))
        with pytest.raises(ModelFolderError, match=match) as info:
            LabelClusters.load(tmp_path)
        assert str(tmp_path / TENSORS) in str(info.value)

    def test_clusters_of_another_label_space(self, tmp_path):
        make().save(tmp_path)
        with pytest.raises(ModelFolderError, match="clusters of 3 labels, but the label space has 4"):
            LabelClusters.load(tmp_path, num_labels=4)
