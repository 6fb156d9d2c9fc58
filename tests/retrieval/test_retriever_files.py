"""Folders of a retriever: what is saved is found again, and what others may have put there is checked."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file
from sources import ROW_TEXTS, make_retriever, make_trees

from xlgen_hf.encoders.loaded import load_encoder
from xlgen_hf.errors import CheckpointError, ConfigurationError, ModelFolderError
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.retrieval.model_sources import load_index, load_sources, save_source_alone
from xlgen_hf.retrieval.retriever import LabelRetriever

TENSORS = "retriever.safetensors"


@pytest.fixture
def retriever(checkpoints, label_space):
    return make_retriever(checkpoints["bert"], label_space)


@pytest.fixture
def lexical_retriever(checkpoints, label_space):
    return make_retriever(checkpoints["bert"], label_space, lexical=True)


@pytest.mark.parametrize("lexical", [False, True])
def test_saved_and_loaded_it_finds_the_same(checkpoints, label_space, tmp_path, lexical):
    retriever = make_retriever(checkpoints["bert"], label_space, lexical=lexical)
    retriever.save(tmp_path)
    loaded = LabelRetriever.load(tmp_path, num_labels=len(label_space))
    assert loaded.settings == retriever.settings
    assert (loaded.lexical is None) == (not lexical)
    texts = [*ROW_TEXTS, "art of the piano"]
    for method in ("rank", "rank_training_texts"):
        before, after = (getattr(one, method)(texts, 3) for one in (retriever, loaded))
        np.testing.assert_allclose(before.scores, after.scores, atol=3e-3)  # embeddings and weights have 16 bits


def test_an_index_is_for_the_labels_that_it_was_made_for(retriever, label_space, tmp_path):
    save_source_alone(tmp_path, label_space, "retrieval", retriever, ScoreModel())
    assert LabelSpace.load(tmp_path).names == label_space.names
    assert len(load_index(tmp_path, label_space)) == len(label_space)
    more = label_space.extended(["more"])
    with pytest.raises(ConfigurationError, match=r"is for other labels \(10\) than the model's \(11\)"):
        load_index(tmp_path, more)


def test_a_folder_holds_the_sources_that_were_saved(retriever, label_space, tmp_path):
    save_source_alone(tmp_path, label_space, "retrieval", retriever, ScoreModel())
    (loaded,) = load_sources(tmp_path, len(label_space)).items()
    assert loaded[0] == "retrieval" and isinstance(loaded[1], LabelRetriever)
    trees = make_trees(label_space)
    save_source_alone(tmp_path, label_space, "label_trees", trees, ScoreModel())
    (loaded,) = load_sources(tmp_path, len(label_space)).items()
    assert loaded[0] == "label_trees"
    assert loaded[1].rank(ROW_TEXTS, 3).labels.tolist() == trees.rank(ROW_TEXTS, 3).labels.tolist()
    assert load_sources(tmp_path / "nowhere", 3) == {}


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
        ("format_version", 99, "format_version 99; this release reads 3"),
        ("other", 1, "'other' is not a field"),
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
    with pytest.raises(CheckpointError, match="not a checkpoint that can be loaded"):
        load_encoder(str(tmp_path))
