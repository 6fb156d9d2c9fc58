"""Folders that hold a result: the same command with other settings is refused, as `xlgen train` refuses it."""

from __future__ import annotations

import pytest
from tiny import ROWS

from xlgen_hf.cli.main import main
from xlgen_hf.files.json_lines import write_jsonl


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


def test_another_precision_does_not_replace_an_export(files, checkpoints, capsys):
    pytest.importorskip("onnxruntime")
    assert _index(files, "train", checkpoints) == 0
    export = ["export", "--model", str(files / "index"), "--output-dir", str(files / "fast")]
    assert main([*export, "--precision", "float32"]) == 0
    capsys.readouterr()
    assert main([*export, "--precision", "int8"]) != 0
    assert "precision is 'int8', was 'float32'" in capsys.readouterr().err


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
