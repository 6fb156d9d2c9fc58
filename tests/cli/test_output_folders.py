"""Output folders of all commands: what is not the command's own stays, and one process writes at a time."""

from __future__ import annotations

import json
import os

import pytest
from tiny import ROWS

from xlgen_hf.cli.main import main
from xlgen_hf.encoders.loaded import load_encoder
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.outputs import RECORD_FILE, claim_folder
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.training.retriever import ContrastiveSettings, train_encoder

COMMANDS = ["cluster", "experiment", "hybrid", "index", "merge", "quickstart", "train"]


@pytest.fixture
def arguments(tmp_path, checkpoints, make_model):
    """A function that gives the command line of a command, without its output folder."""
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    rows = str(tmp_path / "rows.jsonl")
    train, backbone = ["--train-file", rows], ["--backbone", checkpoints["bert"]]
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text("{}", encoding="utf-8")
    lines = {
        "cluster": [*train, "--encoder", checkpoints["bert"], "--num-clusters", "2"],
        "experiment": [*train, "--validation-file", rows, "--test-file", rows, "--systems", "most-frequent"],
        "hybrid": ["--model", str(tmp_path / "model"), "--validation-file", rows],
        "index": [*train, "--encoder", checkpoints["bert"], "--epochs", "0"],
        "merge": ["--model", str(adapter)],
        "quickstart": [],
        "train": [*train, *backbone, "--variant", "base", "--max_steps", "1"],
    }
    return lambda command: [command, *lines[command]]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_with_something_else_is_refused(arguments, tmp_path, capsys, command):
    """The fault: `claim_folder` was there, and no command called it."""
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work", encoding="utf-8")
    assert main([*arguments(command), "--output-dir", str(folder)]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == (
        f"xlgen: error: {folder} holds thesis.txt, which `xlgen {command}` did not write. Choose another folder, or "
        "give --overwrite."
    )
    assert os.listdir(folder) == ["thesis.txt"]


@pytest.mark.parametrize("command", COMMANDS)
def test_a_folder_that_another_process_writes_is_refused(arguments, tmp_path, capsys, command):
    with claim_folder(tmp_path / "out", command=f"xlgen {command}"):
        assert main([*arguments(command), "--output-dir", str(tmp_path / "out"), "--overwrite"]) == 1
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{tmp_path / 'out'} is being written by process {os.getpid()} on " in error
    assert f"(`xlgen {command}`, since " in error


def test_overwrite_writes_beside_what_is_there(arguments, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "thesis.txt").write_text("years of work", encoding="utf-8")
    assert main([*arguments("cluster"), "--output-dir", str(folder), "--overwrite"]) == 0
    assert (folder / "thesis.txt").read_text(encoding="utf-8") == "years of work"
    assert json.loads((folder / RECORD_FILE).read_text(encoding="utf-8"))["command"] == "xlgen cluster"
    assert main([*arguments("cluster"), "--output-dir", str(folder)]) == 0  # it is the command's own now


def test_a_command_that_fails_at_once_leaves_no_folder(arguments, tmp_path):
    assert main([*arguments("hybrid"), "--output-dir", str(tmp_path / "new" / "out")]) == 1  # there is no such model
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("changed", ["texts", "labels", "settings", "dtype", "encoder"])
def test_an_encoder_of_another_training_is_not_taken_up(checkpoints, tmp_path, changed):
    """The fault: the second index of a folder had the encoder that was trained on the rows of the first."""
    space = LabelSpace.from_label_lists([row["labels"] for row in ROWS])
    texts, labels = [row["text"] for row in ROWS], [space.encode(row["labels"]) for row in ROWS]
    settings, dtype = ContrastiveSettings(batch_size=4), "float32"
    train_encoder(load_encoder(checkpoints["bert"]), space, texts, labels, tmp_path, settings=settings)
    encoder = load_encoder(checkpoints["bert"])
    train_encoder(encoder, space, texts, labels, tmp_path, settings=settings)  # the same run
    encoder = load_encoder(checkpoints["bert"])
    if changed == "texts":
        texts = texts[::-1]
    elif changed == "labels":
        labels = labels[::-1]
    elif changed == "settings":
        settings = ContrastiveSettings(batch_size=4, temperature=0.2)
    elif changed == "dtype":
        dtype = "bfloat16"
    else:
        encoder[0].embeddings.word_embeddings.weight.data[3] += 1
    names = {"texts": "training rows", "labels": "training rows", "settings": "temperature"}
    message = f"holds another run: {names.get(changed, changed)} \\(.*Choose another output folder, repeat the command"
    with pytest.raises(ConfigurationError, match=message):
        train_encoder(encoder, space, texts, labels, tmp_path, settings=settings, dtype=dtype)
