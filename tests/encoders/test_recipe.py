"""Embeddings as a checkpoint was trained to make them: pooling and prompts of its own files, or given ones."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from families import make_checkpoint
from scipy.sparse import csr_matrix
from sources import label_ids
from tiny import ROWS

from xlgen_hf.encoders.embedding import embed_texts
from xlgen_hf.encoders.exported import pooled
from xlgen_hf.encoders.loaded import load_encoder
from xlgen_hf.encoders.pooling import pool
from xlgen_hf.encoders.recipe import EmbeddingRecipe, read_recipe
from xlgen_hf.errors import CheckpointError, ConfigurationError, ModelFolderError
from xlgen_hf.labels.changes import LabelChange
from xlgen_hf.labels.clustering import fit_clusters
from xlgen_hf.retrieval.retriever import LabelRetriever

TEXTS = [row["text"] for row in ROWS]
OLD_MODULES = ["sentence_transformers.models.Transformer", "sentence_transformers.models.Pooling"]


def describe(folder: Path, pooling: dict | None = None, prompts: dict | None = None, modules=OLD_MODULES) -> str:
    """Give a checkpoint the files of sentence-transformers."""
    paths = {"Transformer": "", "Pooling": "1_Pooling", "Normalize": "2_Normalize", "Dense": "2_Dense"}
    listed = [
        {"idx": number, "name": str(number), "path": paths[kind.rpartition(".")[2]], "type": kind}
        for number, kind in enumerate(modules)
    ]
    (folder / "modules.json").write_text(json.dumps(listed))
    if pooling is not None:
        (folder / "1_Pooling").mkdir(exist_ok=True)
        (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    if prompts is not None:
        (folder / "config_sentence_transformers.json").write_text(json.dumps(prompts))
    return str(folder)


@pytest.fixture
def checkpoint(checkpoints, tmp_path) -> Path:
    """A BERT in a folder of its own."""
    shutil.copytree(checkpoints["bert"], tmp_path / "encoder")
    return tmp_path / "encoder"


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_cls_token": True, "pooling_mode_mean_tokens": False}, "cls"),
        ({"pooling_mode_cls_token": False, "pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_lasttoken": True}, "last"),
        ({"pooling_mode": "max"}, "max"),
        ({"pooling_mode": ["lasttoken"]}, "last"),
        ({"word_embedding_dimension": 16}, "mean"),
    ],
)
def test_pooling_is_read_from_every_version_of_the_file(checkpoint, pooling, expected):
    assert read_recipe(describe(checkpoint, pooling)) == EmbeddingRecipe(expected)


@pytest.mark.parametrize(
    ("prompts", "expected"),
    [
        ({}, ("", "")),
        ({"prompts": {"query": "query: ", "passage": "passage: "}}, ("query: ", "passage: ")),
        ({"prompts": {"query": "search: ", "document": ""}}, ("search: ", "")),
        ({"prompts": {"any": "a: "}, "default_prompt_name": "any"}, ("a: ", "a: ")),
        ({"prompts": {"query": "q: ", "any": "a: "}, "default_prompt_name": "any"}, ("q: ", "a: ")),
        ({"prompts": {"query": "", "document": ""}, "default_prompt_name": None}, ("", "")),
    ],
)
def test_prompts_are_read(checkpoint, prompts, expected):
    recipe = read_recipe(describe(checkpoint, {"pooling_mode": "cls"}, prompts))
    assert recipe == EmbeddingRecipe("cls", *expected)
    assert recipe.with_prompts("x: ", None) == EmbeddingRecipe("cls", "x: ", expected[1])
    assert recipe.with_prompts(None, "") == EmbeddingRecipe("cls", expected[0], "")


def test_a_checkpoint_without_these_files_says_nothing(checkpoint):
    assert read_recipe(checkpoint) is None


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"modules": [*OLD_MODULES, "sentence_transformers.models.Dense"]},
            "need its module '2_Dense' of type 'Dense'",
        ),
        ({"pooling": {"pooling_mode_weightedmean_tokens": True}}, "pooled by pooling_mode_weightedmean_tokens"),
        ({"pooling": {"pooling_mode": ["mean", "cls"]}}, "pooled by mean, cls; XLGen has one of"),
        (
            {"pooling": {"pooling_mode": "mean", "include_prompt": False}, "prompts": {"prompts": {"query": "q: "}}},
            "leave the tokens of their prompt out",
        ),
        ({"prompts": {"prompts": {"query": 3}}}, "the prompts of queries and passages must be texts"),
    ],
)
def test_what_is_not_known_here_is_refused(checkpoint, change, message):
    with pytest.raises(CheckpointError, match=message):
        embed_texts(TEXTS, describe(checkpoint, **change), progress=False)


@pytest.mark.parametrize("pooling", ["mean", "cls", "last", "max"])
def test_texts_are_pooled_as_the_checkpoint_says(checkpoint, pooling):
    mode = {"last": "lasttoken"}.get(pooling, pooling)
    found = embed_texts(TEXTS, describe(checkpoint, {"pooling_mode": mode}), normalize=False, progress=False)
    model, tokenizer = load_encoder(str(checkpoint))
    for text, row in zip(TEXTS, found, strict=True):
        with torch.no_grad():
            hidden = model(**tokenizer(text, return_tensors="pt")).last_hidden_state[0]
        expected = {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1], "max": hidden.amax(0)}[pooling]
        np.testing.assert_allclose(row, expected, atol=1e-5)


def test_pooling_leaves_padding_out():
    hidden = torch.tensor([[[1.0, -5.0], [3.0, -7.0], [9.0, 9.0]]])
    mask = torch.tensor([[1, 1, 0]])
    found = {name: pool(hidden, mask, name).tolist() for name in ("mean", "cls", "last", "max")}
    arrays = hidden.numpy(), mask.numpy()
    assert {name: pooled(*arrays, name).tolist() for name in found} == found  # of an exported encoder
    assert found == {"mean": [[2.0, -6.0]], "cls": [[1.0, -5.0]], "last": [[3.0, -7.0]], "max": [[3.0, -5.0]]}


def test_prompts_stand_before_texts(checkpoint):
    name = describe(checkpoint, {"pooling_mode": "mean"}, {"prompts": {"query": "history ", "document": "art "}})
    plain = EmbeddingRecipe()
    for side, prompt in (("query", "history "), ("passage", "art ")):
        found = embed_texts(TEXTS, name, side=side, progress=False)
        expected = embed_texts([prompt + text for text in TEXTS], name, recipe=plain, progress=False)
        np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(embed_texts(TEXTS, name, progress=False), embed_texts(TEXTS, name, side="passage"))


def test_caches_of_other_poolings_are_not_read(checkpoint, tmp_path):
    found = [
        embed_texts(TEXTS, str(checkpoint), recipe=EmbeddingRecipe(pooling), cache_dir=tmp_path, progress=False)
        for pooling in ("mean", "cls", "mean")
    ]
    np.testing.assert_array_equal(found[0], found[2])
    assert not np.allclose(found[0], found[1])


@pytest.mark.parametrize("family", ["llama", "qwen3", "gpt2"])
def test_a_causal_model_embeds_only_as_it_was_trained_to(tmp_path, family):
    make_checkpoint(family, tmp_path)
    for load in (load_encoder, lambda name: embed_texts(TEXTS, name, progress=False)):
        with pytest.raises(CheckpointError, match=f"causal .*{family!r}.*cannot serve as an encoder.*lasttoken"):
            load(str(tmp_path))
    found = embed_texts(TEXTS, describe(tmp_path, {"pooling_mode": "lasttoken"}), progress=False)
    alone = embed_texts(TEXTS[:1], str(tmp_path), progress=False)
    np.testing.assert_allclose(found[:1], alone, atol=1e-5)


def test_values_out_of_range_are_refused():
    with pytest.raises(ConfigurationError, match="pooling='sum'; choose one of mean, cls, last, max"):
        EmbeddingRecipe("sum")
    with pytest.raises(ConfigurationError, match=r"query_prompt=.* it must be a text of at most 2000 characters"):
        EmbeddingRecipe(query_prompt="x" * 2001)


# ---------------------------------------------------------------------------------------------------- its users


@pytest.fixture
def retriever(checkpoint, label_space) -> LabelRetriever:
    name = describe(checkpoint, {"pooling_mode": "cls"}, {"prompts": {"query": "history ", "document": "art "}})
    return LabelRetriever.fit(label_space, TEXTS, label_ids(label_space), name, progress=False)


def test_a_retriever_keeps_the_recipe(retriever, label_space, tmp_path):
    assert retriever.recipe == EmbeddingRecipe("cls", "history ", "art ")
    retriever.save(tmp_path / "saved")
    assert not (tmp_path / "saved" / "modules.json").exists()
    loaded = LabelRetriever.load(tmp_path / "saved", num_labels=len(label_space))
    assert loaded.recipe == retriever.recipe
    np.testing.assert_array_equal(loaded.embed(["new art"]), retriever.embed(["new art"]))
    more = loaded.relabelled(LabelChange.with_names(label_space, ["organ history"]))
    np.testing.assert_allclose(more.names[-1], loaded.embed(["organ history"], side="passage")[0], atol=5e-4)
    assert more.with_settings(more.settings).recipe == retriever.recipe


def test_queries_and_passages_have_their_own_prompts(retriever, checkpoint):
    plain = EmbeddingRecipe("cls")
    embed = [embed_texts([p + t for t in TEXTS], str(checkpoint), recipe=plain) for p in ("history ", "art ")]
    np.testing.assert_allclose(retriever.embed(TEXTS), embed[0], atol=5e-4)
    np.testing.assert_allclose(retriever.documents, embed[1], atol=5e-4)
    known = retriever.rank_training_texts(TEXTS[:2], 3)  # an indexed text is a query with the prompt of queries
    hidden = csr_matrix(np.eye(2, len(TEXTS), dtype=bool))
    new = retriever.find(embed[0][:2], 3, hidden=hidden).weigh(retriever.settings, retriever.labels, 3)
    np.testing.assert_allclose(known.scores, new.scores, atol=1e-6)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ({"pooling": "sum"}, "pooling='sum'; choose one of"),
        ({"dense": "3"}, "recipe.dense' is not a field of it"),
        ({"query_prompt": 7}, "recipe.query_prompt' is 7"),
    ],
)
def test_a_damaged_recipe_is_refused(retriever, label_space, tmp_path, recipe, message):
    retriever.save(tmp_path)
    path = tmp_path / "retriever.json"
    content = json.loads(path.read_text())
    path.write_text(json.dumps({**content, "recipe": {**content["recipe"], **recipe}}))
    with pytest.raises(ModelFolderError, match=message):
        LabelRetriever.load(tmp_path, num_labels=len(label_space))


def test_clusters_embed_with_the_prompt_of_passages(checkpoint, label_space):
    ids = label_ids(label_space)
    own = fit_clusters(label_space, TEXTS, ids, str(checkpoint), num_clusters=2, progress=False)
    given = fit_clusters(
        label_space, TEXTS, ids, str(checkpoint), passage_prompt="history ", num_clusters=2, progress=False
    )
    assert not np.allclose(own.centroids, given.centroids)
    name = describe(checkpoint, {"pooling_mode": "mean"}, {"prompts": {"query": "x ", "document": "history "}})
    read = fit_clusters(label_space, TEXTS, ids, name, num_clusters=2, progress=False)
    np.testing.assert_allclose(read.centroids, given.centroids, atol=1e-6)
    assert (given.metadata["passage_prompt"], "passage_prompt" in read.metadata) == ("history ", False)
    new = ["organ history", "modern piano", "church", "printing of art", "a history of the piano", "organ of art"]
    change = LabelChange.with_names(label_space, new)
    names = change.after.names[-len(new) :]
    assert sorted(names) == sorted(new)
    prompted, plain = (
        embed_texts([prompt + name for name in names], str(checkpoint), recipe=EmbeddingRecipe(), progress=False)
        @ given.centroids.T
        for prompt in ("history ", "")
    )
    more = given.relabelled(change).assignment[-len(new) :]
    assert more.tolist() == prompted.argmax(1).tolist() != plain.argmax(1).tolist()
