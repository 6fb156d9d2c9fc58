"""Indexes, label trees and hybrids of both on a Hub on loopback: there and back."""

from __future__ import annotations

import pytest
from sources import TEXTS, make_retriever, make_trees

from xlgen_hf.cli.main import main
from xlgen_hf.errors import ConfigurationError, ModelFolderError
from xlgen_hf.hub.push import push_model
from xlgen_hf.hub.spaces import push_space
from xlgen_hf.loading import load_predictor
from xlgen_hf.ranking.decisions import DecisionRule
from xlgen_hf.ranking.fusion import Fusion
from xlgen_hf.ranking.score_model import ScoreModel
from xlgen_hf.retrieval.model_sources import save_source_alone

INDEX_PATHS = {
    "label_space.json", "score_model.json", "retriever/config.json", "retriever/model.safetensors",
    "retriever/retriever.json", "retriever/retriever.safetensors", "retriever/tokenizer.json",
    "retriever/tokenizer_config.json",
}  # fmt: skip
TREE_PATHS = {
    "label_space.json", "score_model.json", "label_trees/label_trees.json", "label_trees/label_trees.safetensors",
    "label_trees/trees/settings.json",
}  # fmt: skip


@pytest.fixture
def make_folder(checkpoints, label_space, tmp_path):
    """Makes a folder that predicts without a model."""

    def make(kind):
        rule = ScoreModel(rule=DecisionRule("top_k", 2))
        if kind == "trees":
            source, name = make_trees(label_space), "label_trees"
        else:
            source, name = make_retriever(checkpoints["bert"], label_space), "retrieval"
        if kind == "hybrid":
            fusion = Fusion(4, {"retrieval": 1.0, "label_trees": 1.0}, 0.0, 0.0)
            rule = ScoreModel(fusion=fusion, rule=rule.rule, sources={"label_trees": make_trees(label_space)})
        save_source_alone(tmp_path / kind, label_space, name, source, rule)
        (tmp_path / kind / "cache").mkdir()
        (tmp_path / kind / "cache" / "model.safetensors").write_text("private")
        return tmp_path / kind

    return make


@pytest.mark.parametrize(
    ("kind", "paths"), [("index", INDEX_PATHS), ("trees", TREE_PATHS), ("hybrid", INDEX_PATHS | TREE_PATHS)]
)
def test_what_predicts_without_a_model_is_shared(hub, make_folder, kind, paths):
    """The fault: an index could be loaded from the Hub, and not be put there."""
    folder = make_folder(kind)
    report = push_model(folder, "alice/books", scores={"micro_f1": 0.5}, license_id="cc0-1.0", language="fi")
    files = {path for path in hub.history("alice/books")[-1]["files"] if not path.endswith(".cbor")}
    assert report.changed and files == {*paths, ".gitattributes", "README.md"}
    card = hub.file("alice/books", "README.md").decode()
    assert 'load_predictor("alice/books")' in card and "0.5" in card
    assert "license: cc0-1.0" in card and "- fi" in card
    here, there = load_predictor(str(folder)).predict(TEXTS), load_predictor("alice/books").predict(TEXTS)
    for one, other in zip(here, there, strict=True):
        assert one.labels == other.labels and one.scores == pytest.approx(other.scores, abs=1e-6)
    assert not push_model(folder, "alice/books", scores={"micro_f1": 0.5}, license_id="cc0-1.0", language="fi").changed


def test_a_page_for_an_index_installs_what_it_needs(hub, make_folder):
    push_model(make_folder("hybrid"), "alice/books")
    push_space("alice/books", "alice/try-books")
    needed = hub.file("alice/try-books", "requirements.txt", "space").decode()
    assert "omikuji" in needed and "gradio" in needed


def test_the_command_pushes_an_index(hub, make_folder, capsys):
    command = ["push", "model", "--model", str(make_folder("index")), "--repo-id", "alice/books"]
    assert main([*command, "--dry-run"]) == 0
    assert "retriever/retriever.safetensors" in capsys.readouterr().out
    assert main(command) == 0
    assert "alice/books" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("missing", "message"),
    [
        ("score_model.json", r"score_model\.json is missing; only the folder of a whole XLGen model, or index"),
        ("retriever/retriever.safetensors", r"retriever\.safetensors is missing"),
        ("retriever/model.safetensors", "retriever lacks the weights of the encoder"),
    ],
)
def test_half_an_index_is_refused(make_folder, missing, message):
    folder = make_folder("index")
    (folder / missing).unlink()
    with pytest.raises(ModelFolderError, match=message):
        push_model(folder, "alice/books", dry_run=True)


def test_an_index_holds_no_code(make_folder):
    with pytest.raises(ConfigurationError, match="holds an index, which loads with xlgen-hf alone"):
        push_model(make_folder("index"), "alice/books", with_code=True, dry_run=True)
