"""Retrieval of candidate labels: scores against their definition, what finds what, and how settings are chosen."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.sparse import csr_matrix
from sources import ROW_TEXTS, TEXTS, label_ids, large_space, make_retriever, rows_of
from tiny import ROWS

from xlgen_hf.errors import ConfigurationError
from xlgen_hf.labels.changes import LabelChange
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.ranking.sources import PARTS, TextBatch
from xlgen_hf.retrieval.lexical import LexicalIndex
from xlgen_hf.retrieval.retriever import LabelRetriever, RetrievalSettings
from xlgen_hf.retrieval.tuning import tune_retriever


@pytest.fixture
def retriever(checkpoints, label_space):
    return make_retriever(checkpoints["bert"], label_space)


@pytest.fixture
def lexical_retriever(checkpoints, label_space):
    return make_retriever(checkpoints["bert"], label_space, lexical=True)


def _over_vectors(documents, names, labels, lexical=None, **options):
    """A retriever over given vectors, without an encoder."""
    matrix = csr_matrix(np.asarray(labels, np.float32))
    chosen = RetrievalSettings(**options)
    return LabelRetriever(None, documents, names, matrix, np.arange(len(documents)), chosen, lexical)


def _unit(values):
    values = np.asarray(values, np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


# ------------------------------------------------------------------------------------------------ the definition


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9), st.booleans(), st.sets(st.integers(0, 6), min_size=1)
)
def test_scores_are_those_of_the_definition(seed, neighbors, size, leave_out, allowed):
    random = np.random.default_rng(seed)
    documents, names = (
        _unit(random.normal(size=(count, 4))).astype(np.float16).astype(np.float32) for count in (6, 7)
    )
    labels = random.integers(0, 2, size=(6, 7))
    chosen = {"neighbors": neighbors, "temperature": 0.3, "name_power": 2.0, "name_weight": 0.7}
    found = _over_vectors(documents, names, labels, **chosen)
    hidden = csr_matrix(np.eye(6, dtype=bool)) if leave_out else None
    kept = np.array(sorted(allowed))
    choice = None if len(kept) == 7 else kept
    candidates = found.find(documents, size, hidden=hidden, allowed=() if choice is None else [kept])
    scored = candidates.weigh(found.settings, found.labels, size, choice)
    for i in range(6):
        others = [j for j in range(6) if not (leave_out and j == i)]
        cosine = documents[others] @ documents[i]
        nearest = np.argsort(-cosine, kind="stable")[:neighbors]
        weight = np.exp(cosine[nearest] / 0.3) / np.exp(cosine[nearest] / 0.3).sum()
        expected = weight @ labels[np.array(others)[nearest]] + 0.7 * (names @ documents[i]).clip(0) ** 2
        expected = np.sort(expected[kept] / 1.7)[::-1][:size]
        row = slice(scored.start[i], scored.start[i + 1])
        np.testing.assert_allclose(scored.scores[row], expected, atol=1e-5)
        assert len(set(scored.labels[row].tolist()) & allowed) == min(size, len(kept))


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 9), st.integers(0, 40))
def test_a_deeper_search_finds_the_same_labels(seed, size, deeper):
    """Whoever else asks for more of the same texts; with character n-grams too, and with many equal scores.

    Of labels whose scores are equal but for rounding, either may be the last one.
    """
    random = np.random.default_rng(seed)
    count = 24
    names = [" ".join(random.choice(["organ", "music", "art", "x"], 2)) + f" {number}" for number in range(count)]
    texts = ["organ music", "art of x", "nothing of it"]
    documents = _unit(random.integers(-1, 2, size=(3, 4)) + 0.01)
    vectors = _unit(random.integers(-1, 2, size=(count, 4)) + 0.01)
    labels = random.random((3, count)) < 0.1
    found = _over_vectors(documents, vectors, labels, LexicalIndex.fit(texts, names), neighbors=2)

    def rank(depth):
        near = found.find(documents, depth, texts=texts, settings=found.settings)
        return near.weigh(found.settings, found.labels, size)

    everything = found.find(documents, count, texts=texts)  # all labels: nothing can be missed
    exact = everything.weigh(found.settings, found.labels, size)
    for other in (rank(size), rank(size + deeper)):
        np.testing.assert_allclose(other.scores, exact.scores, atol=1e-7)
        clear = exact.scores > np.repeat(exact.scores.reshape(3, size).min(axis=1), size) + 1e-7
        wanted = set(zip(exact.text[clear].tolist(), exact.labels[clear].tolist(), strict=True))
        assert wanted <= set(zip(other.text.tolist(), other.labels.tolist(), strict=True))


def test_lexical_parts_are_weighed_as_the_definition_says(lexical_retriever):
    texts = [*ROW_TEXTS[:2], "an organ-historian's musical arts"]
    chosen = RetrievalSettings(name_weight=0.7, name_power=2.0, lexical_neighbor_weight=0.3, lexical_name_weight=1.5)
    weighed = lexical_retriever.with_settings(chosen)
    scored = weighed.rank(texts, 5)
    assert set(scored.parts) == set(PARTS)
    expected = (
        scored.parts["neighbors"]
        + 0.7 * scored.parts["names"] ** 2
        + 0.3 * scored.parts["lexical_neighbors"]
        + 1.5 * scored.parts["lexical_names"]
    ) / 3.5
    np.testing.assert_allclose(scored.scores, expected, atol=1e-6)
    of_names = weighed.lexical.name_similarity(weighed.lexical.encode(texts))
    np.testing.assert_allclose(scored.parts["lexical_names"], of_names[scored.text, scored.labels])
    assert any(scored.parts["lexical_neighbors"])


def test_without_character_n_grams_their_parts_are_0(retriever):
    scored = retriever.rank(TEXTS, 5)
    assert set(scored.parts) == set(PARTS)
    assert not scored.parts["lexical_names"].any() and not scored.parts["lexical_neighbors"].any()
    assert not scored.chosen.any()


# ------------------------------------------------------------------------------------------------ ranking


def test_a_training_text_does_not_find_itself_or_its_copies(checkpoints, label_space):
    texts = ["the history of art", "the history of art", "printing"]
    ids = [label_space.encode(["art"]), label_space.encode(["history"]), label_space.encode(["printing (output)"])]
    plain = RetrievalSettings(name_weight=0.0)
    found = LabelRetriever.fit(label_space, texts, ids, checkpoints["bert"], settings=plain, progress=False)
    seen = found.rank(texts[:1], 2)
    assert set(label_space.decode(seen.labels.tolist())) == {"art", "history"}
    left = found.rank_training_texts(texts[:1], 1)
    assert label_space.decode(left.labels.tolist()) == ["printing (output)"]
    only = LabelRetriever.fit(label_space, texts[:1], ids[:1], checkpoints["bert"], settings=plain, progress=False)
    assert only.rank_training_texts(texts[:1], 3).scores.tolist() == [0, 0, 0]


def test_a_text_does_not_find_itself_by_spelling(checkpoints, label_space):
    texts = ["the history of art", "printing"]
    ids = [label_space.encode(["art"]), label_space.encode(["printing (output)"])]
    alone = RetrievalSettings(name_weight=0.0, lexical_neighbor_weight=1.0, lexical_name_weight=0.0)
    found = LabelRetriever.fit(
        label_space, texts, ids, checkpoints["bert"], settings=alone, lexical=True, progress=False
    )
    art = label_space.encode(["art"])[0]
    seen, left = found.rank(texts[:1], 3), found.rank_training_texts(texts[:1], 3)
    assert seen.scores[seen.labels == art].sum() > 0
    assert left.scores[left.labels == art].sum() == 0


def test_texts_of_the_index_are_embedded_as_others_are(retriever):
    known, new = ROW_TEXTS[0], "piano and organ"
    both = retriever.rank([known, new], 4)
    apart = retriever.find(retriever.embed([known, new]), 4).weigh(retriever.settings, retriever.labels, 4)
    assert apart.labels.tolist() == both.labels.tolist()
    assert retriever.rank([], 4).labels.tolist() == []


def test_cut_texts_are_reported_once_and_not_for_each_batch(checkpoints, label_space, caplog):
    retriever = make_retriever(checkpoints["bert"], label_space)
    retriever.settings = replace(retriever.settings, max_length=4)
    caplog.clear()
    for batch in (["music"], ["music and the history of music"] * 3, ["art and the history of art"] * 2):
        retriever.rank(batch, 2)
    assert [one.message for one in caplog.records] == ["3 of 3 texts are longer than 4 tokens and were cut there."]


@pytest.mark.parametrize("depth", [0, 2, 30])
def test_a_batch_is_searched_once_whoever_asks(checkpoints, monkeypatch, depth):
    """For a model's input, for a fusion, and for labels that are allowed; in the order in which a hybrid asks."""
    space = large_space()
    retriever = make_retriever(checkpoints["bert"], space, lexical=True)
    allowed = np.array([1, 5, 20])
    asked = [(6, None), (4, allowed), (2, None), (6, allowed)]
    expected = [rows_of(retriever.rank(TEXTS, k, among)) for k, among in asked]
    calls = {"embed": [], "find": []}
    for name, made in calls.items():
        method = getattr(LabelRetriever, name)
        monkeypatch.setattr(
            LabelRetriever, name, lambda self, *a, _m=method, _made=made, **o: _made.append(a) or _m(self, *a, **o)
        )
    batch = TextBatch(TEXTS, depth, allowed)
    assert [rows_of(retriever.rank(batch, k, among)) for k, among in asked] == expected
    assert [len(made) for made in calls.values()] == [1, 1]
    assert len(calls["embed"][0][0]) == sum(text not in ROW_TEXTS for text in TEXTS)


def test_a_batch_is_searched_again_for_more_than_was_announced(retriever):
    batch = TextBatch(TEXTS, 2)
    few = rows_of(retriever.rank(batch, 2))
    many = rows_of(retriever.rank(batch, 9))
    assert many == rows_of(retriever.rank(TEXTS, 9))
    assert all(row == more[:2] for row, more in zip(few, many, strict=True))


def test_at_least_one_label_must_be_asked_for(retriever):
    with pytest.raises(ConfigurationError, match="k=0; it must be an integer >= 1"):
        retriever.rank(TEXTS, 0)


def test_new_labels_are_found_by_name(retriever, label_space):
    grown = retriever.relabelled(LabelChange.with_names(label_space, ["piano history", "organ history"]))
    assert len(grown) == len(label_space) + 2
    by_name = grown.find(grown.names[-1:], 1).weigh(grown.settings, grown.labels, 1)
    assert by_name.labels.tolist() == [len(label_space) + 1]
    assert len(retriever) == len(label_space)


def test_new_labels_are_found_by_spelling(lexical_retriever, label_space):
    names = ["xylophone", "zither"]
    grown = lexical_retriever.relabelled(LabelChange.with_names(label_space, names))
    similarity = grown.lexical.name_similarity(grown.lexical.encode(["two xylophones", "zithers"]))
    assert similarity.shape == (2, len(label_space) + 2)
    assert similarity.argmax(1).tolist() == [len(label_space), len(label_space) + 1]


# ------------------------------------------------------------------------------------------------ settings


def test_settings_come_from_validation_rows(retriever, label_space):
    before = retriever.settings
    tuned = tune_retriever(retriever, ROW_TEXTS, label_ids(label_space))
    assert tuned.settings.temperature <= 0.05  # each text is its own nearest neighbour
    assert retriever.settings is before
    assert np.shares_memory(tuned.documents, retriever.documents)


def test_character_n_grams_that_harm_are_given_up(lexical_retriever):
    without = lexical_retriever.with_settings(
        replace(lexical_retriever.settings, lexical_neighbor_weight=0.0, lexical_name_weight=0.0), lexical=False
    )
    found = without.rank(ROW_TEXTS, 2)
    tuned = tune_retriever(lexical_retriever, ROW_TEXTS, [labels for labels, _ in found.choose(found.rank < 2).sets()])
    assert tuned.lexical is None
    assert tuned.settings.lexical_name_weight == tuned.settings.lexical_neighbor_weight == 0
    assert lexical_retriever.lexical is not None


def test_character_n_grams_that_do_not_clearly_harm_are_kept(lexical_retriever):
    """A fusion has use for them where the sum has not; a few hundred rows cannot tell 1 % of micro F1 from chance."""
    tuned = tune_retriever(lexical_retriever, ROW_TEXTS, [[] for _ in ROWS])
    assert tuned.lexical is not None
    assert tuned.settings.lexical_name_weight or tuned.settings.lexical_neighbor_weight


@pytest.mark.parametrize(("helped", "kept"), [(0, (False, False)), (8, (False, True)), (20, (True, True))])
def test_names_by_spelling_may_cost_more_where_labels_have_no_rows(lexical_retriever, label_space, helped, kept):
    """Such labels have nothing but their names, and validation rows hardly show them."""
    names = label_space.names
    texts = [f"{text} {names[(row + 1) % len(names)]}" for row, text in enumerate(ROW_TEXTS)]

    def found_with(weight):
        settings = replace(lexical_retriever.settings, lexical_name_weight=weight)
        found = lexical_retriever.with_settings(settings).rank(texts, 2)
        return [labels for labels, _ in found.choose(found.rank < 2).sets()]

    references = found_with(0.0) * 20 + found_with(1.0) * helped  # what names by spelling harm, and what they help
    grown = lexical_retriever.relabelled(LabelChange.with_names(label_space, ["zither"]))
    tuned = [tune_retriever(one, texts * (20 + helped), references) for one in (lexical_retriever, grown)]
    assert tuple(one.settings.lexical_name_weight > 0 for one in tuned) == kept


def test_spelling_finds_what_the_encoder_does_not(checkpoints):
    random = np.random.default_rng(0)
    stems = ["".join(random.choice(list("aeioukstlnrmhvpj"), 8)) for _ in range(60)]
    space = LabelSpace.from_label_lists([[stem] for stem in stems])
    ids = [space.encode([stem]) for stem in stems]
    texts = [f"{stem}ssa ja muualla" for stem in stems]
    found = LabelRetriever.fit(space, texts[:20], ids[:20], checkpoints["bert"], lexical=True, progress=False)
    tuned = tune_retriever(found, texts[20:40], ids[20:40])
    assert tuned.settings.lexical_name_weight > 0
    best = tuned.rank([f"historiallinen {stem}nen" for stem in stems[40:]], 1)
    assert space.decode(best.labels.tolist()) == stems[40:]


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("neighbors", 0), ("neighbors", 10**6), ("neighbors", 2.0), ("max_length", 0), ("temperature", 0),
        ("name_power", 0), ("name_weight", -1), ("lexical_name_weight", float("nan")),
        ("lexical_neighbor_weight", float("inf")),
    ],
)  # fmt: skip
def test_impossible_settings_are_refused(field, value):
    with pytest.raises(ConfigurationError, match=f"{field}={value}"):
        replace(RetrievalSettings(), **{field: value})


def test_texts_and_label_lists_must_agree(checkpoints, label_space):
    with pytest.raises(ConfigurationError, match="2 texts come with 1 label lists"):
        LabelRetriever.fit(label_space, ["a", "b"], [[0]], checkpoints["bert"])
    with pytest.raises(ConfigurationError, match="0 texts come with 0 label lists"):
        LabelRetriever.fit(label_space, [], [], checkpoints["bert"])
