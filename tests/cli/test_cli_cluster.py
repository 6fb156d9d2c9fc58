from __future__ import annotations

import json

import numpy as np
import pytest
import torch
import typer
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast
from typer.testing import CliRunner

from xlgen_hf.cli.cluster import cluster
from xlgen_hf.errors import CheckpointError, ConfigurationError, DataError
from xlgen_hf.labels.clusters import LabelClusters
from xlgen_hf.labels.space import LabelSpace

ROWS = [
    {"text": "cats purr", "labels": ["cats", "sounds [animals]"]},
    {"text": "dogs bark", "labels": ["dogs", "sounds [animals]"]},
    {"text": "dogs and cats", "labels": ["cats", "dogs"]},
]

WORDS = ("cats", "dogs", "purr", "bark", "sounds", "birds")


@pytest.fixture(scope="module")
def encoder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("encoder")
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "cats", "dogs", "purr", "bark", "and", "sounds", "birds"]
    tokenizer = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]").save_pretrained(folder)
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    BertModel(BertConfig(vocab_size=len(words), **sizes)).save_pretrained(folder)
    return folder


@pytest.fixture
def run(encoder, tmp_path):
    """Run the command; `train` and `out` below are its input and output."""
    (tmp_path / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    (tmp_path / "labels.txt").write_text("cats\nbirds\n", encoding="utf-8")
    app = typer.Typer()
    app.command()(cluster)

    def invoke(*options, catch=False):
        fixed = ["--train-file", tmp_path / "train.jsonl", "--encoder", encoder, "--output-dir", tmp_path / "out"]
        return CliRunner().invoke(app, list(map(str, [*fixed, *options])), catch_exceptions=catch)

    return invoke


def test_writes_what_the_other_commands_load(run, tmp_path):
    result = run("--num-clusters", 2, "--labels", tmp_path / "labels.txt", "--name-weight", 0.5, "--seed", 3)
    assert result.exit_code == 0
    space = LabelSpace.load(tmp_path / "out")
    assert space.names == ("cats", "dogs", "sounds [animals]", "birds")
    clusters = LabelClusters.load(tmp_path / "out", num_labels=len(space))
    assert clusters.num_clusters == 2
    assert {key: clusters.metadata[key] for key in ("name_weight", "seed")} == {"name_weight": 0.5, "seed": 3}


def test_table_shows_names_as_they_are(run, tmp_path):
    result = run("--num-clusters", 3)
    assert "3 clusters of 3 labels" in result.stdout
    assert "sounds [animals]" in result.stdout
    assert "Labels without training rows: 0" in result.stdout
    assert str(tmp_path / "out") in result.stdout


def test_long_tables_end_with_the_rest(run, tmp_path):
    (tmp_path / "labels.txt").write_text("".join(f"{a} {b}\n" for a in WORDS for b in WORDS if a != b))
    shown = run("--num-clusters", 17, "--labels", tmp_path / "labels.txt", "--name-weight", 1).stdout
    assert "17 clusters of 33 labels" in shown
    assert "2 more clusters" in shown


def test_draws_a_map(run, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    (tmp_path / "labels.txt").write_text("".join(f"{a} {b}\n" for a in WORDS for b in WORDS if a != b))
    options = (
        "--num-clusters",
        3,
        "--labels",
        tmp_path / "labels.txt",
        "--name-weight",
        1,
        "--plot",
        tmp_path / "m.svg",
    )
    assert run(*options).exit_code == 0
    picture, clusters = (tmp_path / "m.svg").read_text(encoding="utf-8"), LabelClusters.load(tmp_path / "out")
    assert "3 clusters of 33 labels" in picture and clusters.names[0].split(" / ")[0] in picture
    with pytest.raises(ConfigurationError, match="exists already"):
        run(*options)


def test_a_map_of_few_labels_is_refused(run, tmp_path):
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    with pytest.raises(ConfigurationError, match="--plot: there are 3 labels, and a map needs 20"):
        run("--num-clusters", 2, "--plot", tmp_path / "map.png")
    assert not (tmp_path / "out").exists()  # before any work


def test_clusters_are_written_where_a_map_turns_out_to_be_too_small(run, tmp_path):
    """Labels of the same documents have one embedding: that there are few is known when the work is done."""
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    row = {"text": "cats purr", "labels": [f"{a} {b}" for a in WORDS for b in WORDS]}
    (tmp_path / "train.jsonl").write_text(json.dumps(row) + "\n", encoding="utf-8")
    result = run("--num-clusters", 2, "--plot", tmp_path / "map.png", catch=True)
    assert str(result.exception).startswith("These clusters have no map: their labels have fewer than 20 different")
    assert f"Written to {tmp_path / 'out'}" in result.stdout
    assert (tmp_path / "out" / "label_clusters.json").is_file() and not (tmp_path / "map.png").exists()


def test_same_command_same_clusters(run, tmp_path):
    run("--num-clusters", 2)
    first = LabelClusters.load(tmp_path / "out")
    run("--num-clusters", 2)
    second = LabelClusters.load(tmp_path / "out")
    np.testing.assert_array_equal(first.assignment, second.assignment)
    np.testing.assert_array_equal(first.centroids, second.centroids)


def test_embeddings_are_kept(run, tmp_path):
    run()
    assert len(list((tmp_path / "out" / "embeddings").glob("*/shard-*"))) == 1
    run("--cache-dir", tmp_path / "elsewhere", "--overwrite")
    assert len(list((tmp_path / "elsewhere").glob("*/shard-*"))) == 1


def test_decode_order_is_kept_in_the_label_space(run, tmp_path):
    run("--decode-order", "alphabet")
    assert LabelSpace.load(tmp_path / "out").decode_order == "alphabet"


@pytest.mark.parametrize(
    "options", [["--name-weight", 2], ["--num-clusters", 0], ["--decode-order", "random"], ["--num-clusters", "many"]]
)
def test_options_out_of_range_are_usage_errors(run, options, tmp_path):
    result = run(*options, catch=True)
    assert result.exit_code == 2
    assert f"Invalid value for '{options[0]}'" in result.stderr
    assert not (tmp_path / "out").exists()


def test_errors_of_the_library_come_through(run, tmp_path):
    with pytest.raises(ConfigurationError, match="num_clusters=9; with 3 labels"):
        run("--num-clusters", 9)
    with pytest.raises(CheckpointError, match="There is no folder"):
        run("--encoder", tmp_path / "missing")
    with pytest.raises(DataError, match="missing"):
        run("--labels", tmp_path / "missing.txt")
    assert not (tmp_path / "out" / "label_clusters.json").exists()
