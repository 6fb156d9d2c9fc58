"""Dense retrieval of candidate labels, the training of its encoder, and what a folder of it may hold."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file
from scipy.sparse import csr_matrix

from xlgen_hf.cli.main import main
from xlgen_hf.encoders.embedding import load_encoder
from xlgen_hf.errors import CheckpointError, ConfigurationError, ModelFolderError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.retrieval.retriever import LabelRetriever, RetrievalSettings
from xlgen_hf.training.retriever import ContrastiveSettings, fit_retriever, train_encoder

TENSORS = "retriever.safetensors"


@pytest.fixture
def retriever(checkpoints, rows, label_space):
    label_ids = [label_space.encode(labels) for labels in rows["labels"]]
    return LabelRetriever.fit(label_space, rows["text"][:], label_ids, checkpoints["bert"], progress=False)


def _plain(documents, names, labels, **options):
    """A retriever over given vectors, without an encoder."""
    matrix = csr_matrix(np.asarray(labels, np.float32))
    return LabelRetriever(None, documents, names, matrix, np.arange(len(documents)), RetrievalSettings(**options))


@pytest.fixture
def lexical_retriever(checkpoints, rows, label_space):
    label_ids = [label_space.encode(labels) for labels in rows["labels"]]
    return LabelRetriever.fit(
        label_space, rows["text"][:], label_ids, checkpoints["bert"], lexical=True, progress=False
    )


def _unit(values):
    values = np.asarray(values, np.float32)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 10_000), st.integers(1, 6), st.integers(1, 9), st.booleans(), st.sets(st.integers(0, 6), min_size=1)
)
def test_scores_are_those_of_the_definition(seed, neighbors, size, leave_out, allowed):
    random = np.random.default_rng(seed)
    documents, names = _unit(random.normal(size=(6, 4))), _unit(random.normal(size=(7, 4)))
    labels = random.integers(0, 2, size=(6, 7))
    found = _plain(documents, names, labels, neighbors=neighbors, temperature=0.3, name_power=2.0, name_weight=0.7)
    hidden = csr_matrix(np.eye(6, dtype=bool)) if leave_out else None
    kept = sorted(allowed)
    scored = found.search(documents, size, hidden=hidden, allowed=None if len(kept) == 7 else np.array(kept))
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


def test_a_training_text_does_not_find_itself_or_its_copies(checkpoints, label_space):
    texts = ["the history of art", "the history of art", "printing"]
    ids = [label_space.encode(["art"]), label_space.encode(["history"]), label_space.encode(["printing (output)"])]
    plain = RetrievalSettings(name_weight=0.0)
    found = LabelRetriever.fit(label_space, texts, ids, checkpoints["bert"], settings=plain, progress=False)
    seen = found.retrieve(texts[:1], 2)
    assert set(label_space.decode(seen.labels.tolist())) == {"art", "history"}
    left = found.retrieve(texts[:1], 1, leave_out=True)
    assert label_space.decode(left.labels.tolist()) == ["printing (output)"]
    only = LabelRetriever.fit(label_space, texts[:1], ids[:1], checkpoints["bert"], settings=plain, progress=False)
    assert only.retrieve(texts[:1], 3, leave_out=True).scores.tolist() == [0, 0, 0]


def test_texts_of_the_index_are_embedded_as_others_are(retriever, rows):
    known, new = rows["text"][0], "piano and organ"
    both = retriever.retrieve([known, new], 4)
    assert retriever.search(retriever.embed([known, new]), 4).labels.tolist() == both.labels.tolist()
    assert retriever.retrieve([], 4).labels.tolist() == []


def test_settings_come_from_validation_rows(retriever, rows, label_space):
    label_ids = [label_space.encode(labels) for labels in rows["labels"]]
    chosen = retriever.tune(rows["text"][:], label_ids)
    assert retriever.settings is chosen
    assert chosen.temperature <= 0.05  # each text is its own nearest neighbour


def test_lexical_parts_are_weighed_as_the_definition_says(lexical_retriever, rows):
    texts = [*rows["text"][:2], "an organ-historian's musical arts"]
    chosen = RetrievalSettings(name_weight=0.7, name_power=2.0, lexical_neighbor_weight=0.3, lexical_name_weight=1.5)
    lexical_retriever.settings = chosen
    scored, parts = lexical_retriever.retrieve_parts(texts, 5)
    expected = (
        parts["neighbors"]
        + 0.7 * parts["names"] ** 2
        + 0.3 * parts["lexical_neighbors"]
        + 1.5 * parts["lexical_names"]
    ) / 3.5
    np.testing.assert_allclose(scored.scores, expected, atol=1e-6)
    spelled = lexical_retriever.lexical.encode(texts)
    of_names = lexical_retriever.lexical.name_similarity(spelled)
    np.testing.assert_allclose(parts["lexical_names"], of_names[scored.text, scored.labels])
    assert any(parts["lexical_neighbors"])
    assert lexical_retriever.retrieve(texts, 5).labels.tolist() == scored.labels.tolist()


def test_a_text_does_not_find_itself_by_spelling(checkpoints, label_space):
    texts = ["the history of art", "printing"]
    ids = [label_space.encode(["art"]), label_space.encode(["printing (output)"])]
    alone = RetrievalSettings(name_weight=0.0, lexical_neighbor_weight=1.0, lexical_name_weight=0.0)
    found = LabelRetriever.fit(
        label_space, texts, ids, checkpoints["bert"], settings=alone, lexical=True, progress=False
    )
    art = label_space.encode(["art"])[0]
    for leave_out in (False, True):
        scored = found.retrieve(texts[:1], 3, leave_out=leave_out)
        assert (scored.scores[scored.labels == art].sum() > 0) != leave_out


def test_an_index_of_spelling_that_does_not_help_is_given_up(lexical_retriever, rows, label_space):
    lexical_retriever.tune(rows["text"][:], [[] for _ in rows["text"]])
    assert lexical_retriever.lexical is None
    assert lexical_retriever.settings.lexical_name_weight == 0


def test_spelling_finds_what_the_encoder_does_not(checkpoints):
    random = np.random.default_rng(0)
    stems = ["".join(random.choice(list("aeioukstlnrmhvpj"), 8)) for _ in range(60)]
    space = LabelSpace.from_label_lists([[stem] for stem in stems])
    ids = [space.encode([stem]) for stem in stems]
    texts = [f"{stem}ssa ja muualla" for stem in stems]
    found = LabelRetriever.fit(space, texts[:20], ids[:20], checkpoints["bert"], lexical=True, progress=False)
    chosen = found.tune(texts[20:40], ids[20:40])
    assert chosen.lexical_name_weight > 0
    best = found.retrieve([f"historiallinen {stem}nen" for stem in stems[40:]], 1)
    assert space.decode(best.labels.tolist()) == stems[40:]


def test_new_labels_are_found_by_spelling(lexical_retriever, label_space):
    names = ["xylophone", "zither"]
    grown = lexical_retriever.extended(names)
    similarity = grown.lexical.name_similarity(grown.lexical.encode(["two xylophones", "zithers"]))
    assert similarity.shape == (2, len(label_space) + 2)
    assert similarity.argmax(1).tolist() == [len(label_space), len(label_space) + 1]


def test_saved_and_loaded_it_spells_the_same(lexical_retriever, rows, label_space, tmp_path):
    lexical_retriever.save(tmp_path)
    loaded = LabelRetriever.load(tmp_path, num_labels=len(label_space))
    texts = [*rows["text"], "art of the piano"]
    before, after = (one.retrieve(texts, 3, leave_out=True) for one in (lexical_retriever, loaded))
    np.testing.assert_allclose(before.scores, after.scores, atol=3e-3)  # kept in 16 bits


def test_new_labels_are_found_by_name(retriever, label_space):
    grown = retriever.extended(["piano history", "organ history"])
    assert len(grown) == len(label_space) + 2
    found = grown.search(grown.names[-1:], 1)
    assert found.labels.tolist() == [len(label_space) + 1]


def test_saved_and_loaded_it_finds_the_same(retriever, rows, label_space, tmp_path):
    retriever.save(tmp_path)
    loaded = LabelRetriever.load(tmp_path, num_labels=len(label_space))
    assert loaded.settings == retriever.settings
    texts = [*rows["text"], "art of the piano"]
    for options in ({}, {"leave_out": True}):
        before, after = (one.retrieve(texts, 3, **options) for one in (retriever, loaded))
        np.testing.assert_allclose(before.scores, after.scores, atol=2e-3)  # embeddings are kept in 16 bits


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("names"), "'names' must be there"),
        (lambda t: t.update(names=t["names"][:-1]), "label names are indexed, the label space has"),
        (lambda t: t.update(names=t["names"][:, :-1]), "matrices of one width"),
        (lambda t: t.update(documents=t["documents"] * np.float16("nan")), "NaN or infinity"),
        (lambda t: t.update(label_ids=t["label_ids"] + np.int32(1000)), "leave the label space"),
        (lambda t: t.update(label_ids=t["label_ids"][:-1]), "does not say where"),
        (lambda t: t.update(fingerprints=t["fingerprints"][:-1]), "come with 'fingerprints'"),
        (lambda t: t.update(label_start=t["label_start"].astype(np.int32)), "as int64"),
        (lambda t: t.pop("lexical_idf"), "'lexical_idf' must be"),
        (lambda t: t.update(lexical_idf=t["lexical_idf"][:-1]), "'lexical_idf' must be"),
        (lambda t: t.update(lexical_idf=-t["lexical_idf"]), "'lexical_idf' must be"),
        (lambda t: t.pop("lexical_names_runs"), "'lexical_names_runs' must be there, as int32"),
        (lambda t: t.update(lexical_names_start=t["lexical_names_start"][:-1]), "'lexical_names_start' does not say"),
        (
            lambda t: t.update(lexical_documents_runs=t["lexical_documents_runs"] + np.int32(2**20)),
            "leave the 1048576",
        ),
        (
            lambda t: t.update(lexical_documents_weights=t["lexical_documents_weights"] * np.float16(100)),
            "from 0 to 1",
        ),
        (
            lambda t: t.update(lexical_documents_weights=t["lexical_documents_weights"] * np.float16("nan")),
            "from 0 to",
        ),
    ],
)
def test_damaged_tensors_are_refused(lexical_retriever, label_space, tmp_path, change, message):
    lexical_retriever.save(tmp_path)
    tensors = load_file(tmp_path / TENSORS)
    change(tensors)
    save_file(tensors, tmp_path / TENSORS)
    with pytest.raises(ModelFolderError, match=message):
        LabelRetriever.load(tmp_path, num_labels=len(label_space))


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("neighbors", 10**12, "neighbors=1000000000000"),
        ("temperature", 0, "temperature=0"),
        ("name_weight", "4", "name_weight='4'"),
        ("lexical_name_weight", -1, "lexical_name_weight=-1"),
        ("format_version", 99, "has format_version 99; format_version 2"),
        ("other", 1, "format_version 2"),
    ],
)
def test_damaged_settings_are_refused(retriever, label_space, tmp_path, field, value, message):
    retriever.save(tmp_path)
    path = tmp_path / "retriever.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), field: value}))
    with pytest.raises(ModelFolderError, match=message):
        LabelRetriever.load(tmp_path, num_labels=len(label_space))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden_size": 10**12}, "."),
        ({"max_position_embeddings": 10**12}, "in the weights it is"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers=1000000000; at most"),
        ({"auto_map": {"AutoConfig": "evil.Config"}, "model_type": "evil"}, "cannot be loaded"),
    ],
)
def test_an_encoder_of_others_is_checked_before_it_is_made(retriever, label_space, tmp_path, change, message):
    retriever.save(tmp_path)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(ModelFolderError, match=message):
        LabelRetriever.load(tmp_path, num_labels=len(label_space))


def test_no_pickled_encoder_is_read(retriever, label_space, tmp_path):
    retriever.save(tmp_path)
    weights = load_file(tmp_path / "model.safetensors")
    torch.save({name: torch.from_numpy(value) for name, value in weights.items()}, tmp_path / "pytorch_model.bin")
    (tmp_path / "model.safetensors").unlink()
    with pytest.raises(ModelFolderError, match=r"pytorch_model.bin, a pickle, which can run any code"):
        LabelRetriever.load(tmp_path, num_labels=len(label_space))
    with pytest.raises(CheckpointError, match="no checkpoint that can be loaded"):
        load_encoder(str(tmp_path))


def test_texts_that_are_cut_in_training_are_counted(checkpoints, label_space, tmp_path, caplog):
    wanted = ContrastiveSettings(epochs=0.01, batch_size=2, max_length=4)
    train_encoder(load_encoder(checkpoints["bert"]), label_space, ["music " * 9, "art"], [[0], [1]], tmp_path,
                  settings=wanted)  # fmt: skip
    assert "1 of 2 texts are cut at 4 tokens" in caplog.text


def test_training_brings_texts_near_their_labels(checkpoints, rows, label_space, tmp_path):
    encoder = load_encoder(checkpoints["bert"])
    texts, ids = rows["text"][:], [label_space.encode(labels) for labels in rows["labels"]]
    wanted = ContrastiveSettings(epochs=20, batch_size=4, learning_rate=1e-3, random_negatives=4)

    def margin(model):
        found = LabelRetriever.fit(label_space, texts, ids, model, progress=False)
        cosine = found.documents @ found.names.T
        own = found.labels.toarray() > 0
        return cosine[own].mean() - cosine[~own].mean()

    before = margin(load_encoder(checkpoints["bert"]))
    train_encoder(encoder, label_space, texts, ids, tmp_path / "a", settings=wanted, seed=3)
    assert margin(encoder) > before + 0.1
    again = load_encoder(checkpoints["bert"])
    train_encoder(again, label_space, texts, ids, tmp_path / "b", settings=wanted, seed=3)
    pairs = zip(encoder[0].parameters(), again[0].parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_rows_without_labels_teach_the_encoder_nothing(checkpoints, rows, label_space, tmp_path):
    encoder = load_encoder(checkpoints["bert"])
    before = [parameter.clone() for parameter in encoder[0].parameters()]
    settings = ContrastiveSettings(epochs=0)
    found = fit_retriever(label_space, rows, None, checkpoints["bert"], tmp_path, contrastive=settings)
    assert len(found) == len(label_space)
    assert all(torch.equal(a, b) for a, b in zip(before, found.encoder[0].parameters(), strict=True))


def test_index_writes_what_training_takes(checkpoints, rows, tmp_path, capsys):
    write_jsonl(tmp_path / "train.jsonl", rows)
    (tmp_path / "labels.txt").write_text("music history\nart history\n")
    code = main(["index", "--train-file", str(tmp_path / "train.jsonl"), "--validation-file",
                 str(tmp_path / "train.jsonl"), "--labels", str(tmp_path / "labels.txt"), "--encoder",
                 checkpoints["bert"], "--epochs", "1", "--output-dir", str(tmp_path / "index")])  # fmt: skip
    assert code == 0
    assert "Share of a text's labels" in capsys.readouterr().out
    space = LabelSpace.load(tmp_path / "index")
    assert "music history" in space.names
    LabelRetriever.load_index(tmp_path / "index", space)
    with pytest.raises(ConfigurationError, match="is for other labels"):
        LabelRetriever.load_index(tmp_path / "index", space.extended(["more"]))
    shutil.rmtree(tmp_path / "index")


def test_the_encoder_of_a_t5_can_be_trained_and_saved(checkpoints, rows, label_space, tmp_path):
    settings = ContrastiveSettings(epochs=1, batch_size=4)
    found = fit_retriever(label_space, rows, None, checkpoints["t5"], tmp_path / "work", contrastive=settings)
    assert not any("decoder" in name for name, _ in found.encoder[0].named_parameters())
    found.save(tmp_path / "index")
    loaded = LabelRetriever.load(tmp_path / "index", num_labels=len(label_space))
    np.testing.assert_allclose(loaded.embed(["art"]), found.embed(["art"]), atol=1e-5)


def test_a_seq2seq_model_without_an_encoder_of_its_own_is_refused(checkpoints, rows, label_space, tmp_path):
    with pytest.raises(CheckpointError, match="of type 'bart', whose encoder cannot be saved"):
        fit_retriever(label_space, rows, None, checkpoints["bart"], tmp_path)


def test_texts_and_label_lists_must_agree(checkpoints, label_space):
    with pytest.raises(ConfigurationError, match="2 texts come with 1 label lists"):
        LabelRetriever.fit(label_space, ["a", "b"], [[0]], checkpoints["bert"])
