"""Folders that hold a result: the same command with other settings is refused, as `xlgen train` refuses it."""

from __future__ import annotations

import shutil

import pytest
from safetensors.torch import load_file, save_file
from tiny import ROWS

from xlgen_hf.cli.main import main
from xlgen_hf.files.json_lines import read_jsonl, write_jsonl


@pytest.fixture
def files(tmp_path):
    for name, rows in {"train": ROWS, "other": ROWS[:4], "validation": ROWS[:3]}.items():
        write_jsonl(tmp_path / f"{name}.jsonl", rows)
    return tmp_path


def _index(files, name, checkpoints, *more):
    options = ["--encoder", checkpoints["bert"], "--epochs", "0", "--output-dir", str(files / "index"), *more]
    return main(["index", "--train-file", str(files / f"{name}.jsonl"), *options])


def test_an_index_of_other_rows_does_not_replace_one(files, checkpoints, capsys):
    assert _index(files, "train", checkpoints) == 0
    before = (files / "index" / "label_space.json").read_bytes()
    assert _index(files, "other", checkpoints) != 0
    error = capsys.readouterr().err
    assert "was written by the same command with other settings: train_file is" in error and "--overwrite" in error
    assert (files / "index" / "label_space.json").read_bytes() == before
    assert _index(files, "train", checkpoints, "--cpu-threads", "1") == 0  # the same result
    assert _index(files, "other", checkpoints, "--overwrite") == 0
    assert (files / "index" / "label_space.json").read_bytes() != before


def test_an_index_of_another_encoder_in_the_same_place_is_made_anew(files, checkpoints, caplog):
    """The fault: other weights under the same name gave the index of the former ones."""
    encoder = files / "encoder"
    shutil.copytree(checkpoints["bert"], encoder)
    _index(files, "train", {"bert": str(encoder)})
    before = (files / "index" / "training_report.json").read_bytes()
    weights = load_file(encoder / "model.safetensors")
    save_file({name: value * 2 for name, value in weights.items()}, encoder / "model.safetensors", {"format": "pt"})
    assert _index(files, "train", {"bert": str(encoder)}) == 0
    assert (files / "index" / "training_report.json").read_bytes() != before
    caplog.set_level("INFO")
    assert _index(files, "train", {"bert": str(encoder)}) == 0
    assert "holds the finished result of this command" in caplog.text


def test_another_precision_does_not_replace_an_export(files, checkpoints, capsys):
    pytest.importorskip("onnxruntime")
    assert _index(files, "train", checkpoints) == 0
    export = ["export", "--model", str(files / "index"), "--output-dir", str(files / "fast")]
    assert main([*export, "--precision", "float32"]) == 0
    capsys.readouterr()
    assert main([*export, "--precision", "int8"]) != 0
    assert "precision is 'int8', was 'float32'" in capsys.readouterr().err


def test_a_model_is_not_exported_over_itself(files, checkpoints, capsys):
    """The fault: with --overwrite the graphs replaced weights that nothing brings back."""
    assert _index(files, "train", checkpoints) == 0
    export = ["export", "--model", str(files / "index"), "--output-dir", str(files / "index"), "--overwrite"]
    assert main(export) != 0
    assert "is the model that is read, which the new one would replace" in capsys.readouterr().err


def test_rare_labels_are_counted_over_all_splits(files, capsys):
    """The fault: `--min-count` removed a frequent label from the test rows, where it stands once."""
    source = files / "splits"
    for split, rows in {"train": ROWS * 2, "test": ROWS[:1]}.items():
        write_jsonl(source / f"{split}.jsonl", rows)
    assert main(["convert", str(source), str(files / "out"), "--min-count", "2"]) == 0
    assert [row["labels"] for _, row in read_jsonl(files / "out" / "test.jsonl")] == [ROWS[0]["labels"]]


def test_an_old_split_of_annif_does_not_stay_beside_new_ones(files, capsys):
    convert = ["convert", str(files / "train.jsonl"), str(files / "data"), "--to", "annif"]
    assert main([*convert, "--split", "0.5,0.25,0.25"]) == 0
    assert main([*convert, "--split", "0.5,0.5", "--overwrite"]) != 0
    assert "holds validation.tsv of an earlier conversion" in capsys.readouterr().err


def test_another_conversion_leaves_no_old_split_beside_the_new_ones(files, capsys):
    convert = ["convert", str(files / "train.jsonl"), str(files / "data")]
    assert main([*convert, "--split", "0.5,0.25,0.25"]) == 0
    assert main([*convert, "--split", "0.5,0.5", "--overwrite"]) != 0
    error = capsys.readouterr().err
    assert "holds validation.jsonl of an earlier conversion, which would be read beside train.jsonl, test" in error
    assert main([*convert, "--split", "0.5,0.5", "--to", "csv"]) != 0
    assert main([*convert, "--split", "0.6,0.2,0.2", "--overwrite"]) == 0
