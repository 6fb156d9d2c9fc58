"""Training of a retrieval encoder: what it learns, from which rows, and which encoders can be trained."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from xlgen_hf.encoders.loaded import load_encoder
from xlgen_hf.errors import CheckpointError
from xlgen_hf.retrieval.retriever import LabelRetriever
from xlgen_hf.training.retriever import ContrastiveSettings, fit_retriever, remove_encoder_checkpoints, train_encoder


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


def _trained(checkpoint, label_space, texts, ids, folder, **settings):
    """Parameters of an encoder after training on some texts."""
    encoder = load_encoder(checkpoint)
    chosen = ContrastiveSettings(epochs=3, batch_size=4, learning_rate=1e-2, random_negatives=4, **settings)
    train_encoder(encoder, label_space, texts, ids, folder, settings=chosen, seed=3)
    return list(encoder[0].parameters())


def test_rows_without_labels_teach_the_encoder_nothing(checkpoints, rows, label_space, tmp_path):
    texts, ids = rows["text"][:], [label_space.encode(labels) for labels in rows["labels"]]
    without = _trained(checkpoints["bert"], label_space, texts, ids, tmp_path / "a")
    more, empty = [*texts, "organ printing", "the piano"], [*ids, [], []]
    with_empty = _trained(checkpoints["bert"], label_space, more, empty, tmp_path / "b")
    assert all(torch.equal(one, other) for one, other in zip(without, with_empty, strict=True))
    with_labels = _trained(checkpoints["bert"], label_space, more, [*ids, [0], [1]], tmp_path / "c")
    assert not all(torch.equal(one, other) for one, other in zip(without, with_labels, strict=True))


def test_without_epochs_the_encoder_stays_as_it_is(checkpoints, rows, label_space, tmp_path):
    untrained = list(load_encoder(checkpoints["bert"])[0].parameters())
    settings = ContrastiveSettings(epochs=0)
    found = fit_retriever(label_space, rows, None, checkpoints["bert"], tmp_path, contrastive=settings)
    assert len(found) == len(label_space)
    assert all(torch.equal(a, b) for a, b in zip(untrained, found.encoder[0].parameters(), strict=True))


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


def test_the_checkpoints_of_an_encoder_can_be_removed(checkpoints, rows, label_space, tmp_path):
    contrastive = ContrastiveSettings(epochs=1)
    fit_retriever(label_space, rows, None, checkpoints["bert"], tmp_path, contrastive=contrastive)
    assert list((tmp_path / "encoder").glob("checkpoint-*"))
    remove_encoder_checkpoints(tmp_path)
    assert not (tmp_path / "encoder").exists()
    remove_encoder_checkpoints(tmp_path)
