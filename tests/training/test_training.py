"""The commands train, predict and evaluate on tiny models: one way from files to scores."""

from __future__ import annotations

import hashlib
import json
import signal
import sys
from pathlib import Path

import pytest
from processes import run_forked
from tiny import ROWS, VOCABULARY

from xlgen_hf.cli.main import main
from xlgen_hf.data.transforms import label_side_rows
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.training_report import read_report
from xlgen_hf.labels.space import LabelSpace

CLUSTERED = ("--variant", "bcl", "--num-clusters", "3")


@pytest.fixture
def files(tmp_path):
    """Training rows, vocabulary and an output folder."""
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "labels.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return tmp_path


def _train_arguments(folder: Path, backbone: str, *more: str) -> list[str]:
    return [
        "train", "--train-file", str(folder / "rows.jsonl"), "--validation-file", str(folder / "rows.jsonl"),
        "--labels", str(folder / "labels.txt"), "--backbone", backbone, "--output-dir", str(folder / "model"),
        "--decoder-layers", "1", "--use_cpu", *more,
    ]  # fmt: skip


@pytest.mark.parametrize("variant", ["base", "bcl", "mcg"])
def test_train_predict_evaluate(files, checkpoints, capsys, variant):
    clusters = [] if variant == "base" else ["--num-clusters", "3"]
    arguments = _train_arguments(
        files, checkpoints["bert"], "--variant", variant, "--num_train_epochs", "2", *clusters
    )
    assert main([*arguments, "--label-rows", "0.5"]) == 0
    assert "micro_f1" in capsys.readouterr().out
    names = {path.name for path in (files / "model").iterdir()}
    assert {"model.safetensors", "config.json", "label_space.json", "processor_config.json", "tokenizer.json"} <= names
    assert LabelSpace.load(files / "model").decode_order == "freq_backward"
    guided_by = {"base": set(), "bcl": {"cluster_threshold"}, "mcg": {"min_clusters"}}[variant]
    decision = read_report(files / "model")["decision"]
    assert guided_by == decision.keys() & {"cluster_threshold", "min_clusters", "candidate_gate"}

    texts = [*ROWS, {"text": ""}, {"text": "art " * 25_000}]  # empty and of 100,000 characters
    write_jsonl(files / "texts.jsonl", [{"text": row["text"]} for row in texts])
    predict = ["predict", "--model", str(files / "model"), "--input-file", str(files / "texts.jsonl")]
    assert main([*predict, "--output-file", str(files / "out.jsonl")]) == 0
    predicted = [json.loads(line) for line in (files / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert len(predicted) == len(texts)
    for row in predicted:
        assert set(row) == {"labels", "scores", "clusters", "novel_labels", "expected_f1", "best_label_probability"}
        assert len(row["labels"]) == len(row["scores"]) == len(set(row["labels"])) >= 1
        assert row["scores"] == sorted(row["scores"], reverse=True)
        assert bool(row["clusters"]) == (variant != "base")
    capsys.readouterr()
    status = main([*predict, "--cluster-threshold", "0.3"])
    assert status == (0 if variant == "bcl" else 1)
    assert ("--cluster-threshold is for bcl" in capsys.readouterr().err) == (variant != "bcl")
    assert main(predict) == 0
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == predicted


def test_clusters_of_a_folder_are_taken(files, checkpoints):
    rows, labels = str(files / "rows.jsonl"), str(files / "labels.txt")
    cluster = ["cluster", "--train-file", rows, "--labels", labels, "--encoder", checkpoints["bert"]]
    assert main([*cluster, "--num-clusters", "4", "--output-dir", str(files / "clusters")]) == 0
    clusters = ["--variant", "bcl", "--clusters", str(files / "clusters")]
    arguments = _train_arguments(files, checkpoints["t5"], *clusters, "--max_steps", "1")
    assert main(arguments) == 0
    made, used = (json.loads((files / d / "label_clusters.json").read_text()) for d in ("clusters", "model"))
    assert made == used


def test_clusters_of_other_labels_are_refused(files, checkpoints, capsys):
    rows = str(files / "rows.jsonl")
    cluster = ["cluster", "--train-file", rows, "--encoder", checkpoints["bert"], "--num-clusters", "2"]
    assert main([*cluster, "--output-dir", str(files / "clusters")]) == 0
    clusters = ["--variant", "bcl", "--clusters", str(files / "clusters")]
    assert main(_train_arguments(files, checkpoints["t5"], *clusters)) == 1
    assert "are for other labels" in capsys.readouterr().err


# Runs a command that gets a signal as it logs its third step.
STOPPED = """
import logging, os, sys
from xlgen_hf.cli.main import main

class Stop(logging.Handler):
    def emit(self, record):
        if "Step 3 of" in record.getMessage():
            os.kill(os.getpid(), int(sys.argv[1]))

logging.getLogger("xlgen_hf.training").addHandler(Stop())
sys.exit(main(sys.argv[2:]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there are no such signals to send")
@pytest.mark.parametrize(
    ("number", "code", "word"), [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")]
)
def test_interrupted_training_continues_from_its_checkpoint(files, checkpoints, made, number, code, word):
    """A signal leaves a checkpoint; the same command ends with the weights of a run that nobody interrupted."""
    arguments = _train_arguments(files, checkpoints["bert"], *CLUSTERED, "--max_steps", "8", "--eval_strategy", "no")
    done = run_forked(files, STOPPED, int(number), *arguments, "--logging_steps", "1")
    assert done.returncode == code, done.stderr
    stopped = [int(path.name.split("-")[1]) for path in (files / "model").glob("checkpoint-*")]
    assert stopped and 3 <= max(stopped) < 8
    log = done.stderr
    assert "saving a checkpoint" in log and "Traceback" not in log
    assert log.splitlines()[-1] == f"xlgen: {word}. The same command continues where this run stopped."

    assert main(arguments) == 0
    interrupted = (files / "model" / "model.safetensors").read_bytes()
    if "whole" not in made:
        assert main([*arguments, "--output-dir", str(files / "whole")]) == 0
        made["whole"] = (files / "whole" / "model.safetensors").read_bytes()
    assert made["whole"] == interrupted


def test_a_time_is_told_where_it_is_that_of_all_the_work(files, checkpoints):
    arguments = _train_arguments(files, checkpoints["bert"], *CLUSTERED, "--max_steps", "1", "--eval_strategy", "no")
    assert main(arguments) == 0
    assert read_report(files / "model")["seconds"] > 0
    (files / "model" / "training_report.json").unlink()  # as after a kill without a checkpoint
    assert main(arguments) == 0
    assert read_report(files / "model")["seconds"] is None  # embeddings were there


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--backbone", "./no/such/folder"], "no/such/folder"),
        (["--variant", "base", "--decoder-layers", "9"], "decoder_layers=9; the encoder has 3"),
    ],
)
def test_bad_checkpoints_have_a_clear_error(files, checkpoints, capsys, more, message):
    assert main(_train_arguments(files, checkpoints["bert"], *more)) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ('{"text": "a", "labels": "art"}', "row 2"),
        ('{"text": "a"}', "labels"),
        ('{"text": "a", "labels": [', "row 2"),
        ('{"text": "", "labels": ["art"]}', "row 2"),
    ],
)
def test_bad_rows_name_file_and_row(files, checkpoints, capsys, line, message):
    path = files / "rows.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" + line + "\n", encoding="utf-8")
    assert main(_train_arguments(files, checkpoints["bert"])) == 1
    error = capsys.readouterr().err
    assert str(path) in error
    assert message in error


def test_predict_refuses_other_folders(files, checkpoints, capsys):
    texts = ["--input-file", str(files / "rows.jsonl")]
    assert main(["predict", "--model", checkpoints["t5"], *texts]) == 1
    assert "processor_config.json is missing" in capsys.readouterr().err


def test_label_side_rows_hold_each_label_equally_often():
    space = LabelSpace([f"label {i}" for i in range(10)], [1] * 10)
    rows = label_side_rows(space, 200, seed=4)
    assert rows == label_side_rows(space, 200, seed=4)
    counts = {name: sum(name in row["labels"] for row in rows) for name in space.names}
    assert max(counts.values()) - min(counts.values()) <= 15
    for row in rows:
        assert 1 <= len(row["labels"]) <= 4
        assert row["text"] == " : ".join(row["labels"])


def test_label_side_rows_of_a_seed_stay_what_they_are():
    """A training of an earlier version can be repeated."""
    space = LabelSpace([f"label {number}" for number in range(7)], [0] * 7)
    rows = label_side_rows(space, 6, seed=3, further=[(2, "alias"), (5, "other"), (5, "third")])
    assert rows[0]["text"] == "third : label 6 : alias : label 3"
    numbers = [[5, 6, 2, 3], [0], [1], [4], [4], [2, 0, 6, 3]]
    assert [row["labels"] for row in rows] == [[f"label {number}" for number in of_row] for of_row in numbers]
    more = json.dumps(label_side_rows(space, 1000, seed=3, further=[(0, "alias"), (6, "other")]))
    assert hashlib.sha256(more.encode()).hexdigest().startswith("13fc8c4f2937f5fe")


def test_label_side_rows_call_labels_by_other_names_half_of_the_time():
    space = LabelSpace([f"label {i}" for i in range(4)], [1] * 4)
    rows = label_side_rows(space, 400, seed=4, further=[(1, "alias"), (1, "Name"), (3, "other")])
    plain = label_side_rows(space, 400, seed=4)
    called = [name for row in rows for name in row["text"].split(" : ")]
    assert all(set(row["labels"]) <= set(space.names) for row in rows)
    counts = {name: called.count(name) for name in ("label 1", "alias", "Name", "label 3", "other")}
    assert 0.4 < counts["label 1"] / (counts["label 1"] + counts["alias"] + counts["Name"]) < 0.6
    assert counts["alias"] > 40 and counts["Name"] > 40 and counts["other"] > 80
    assert plain == label_side_rows(space, 400, seed=4, further=[])
