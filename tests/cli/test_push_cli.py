"""`xlgen push`: from the command line to the test Hub."""

from __future__ import annotations

import json

import pytest
from tiny import ROWS, VOCABULARY, Hub

from xlgen_hf.cli.main import main
from xlgen_hf.data.rows import load_rows, rows_sha256
from xlgen_hf.files.json_lines import write_jsonl


@pytest.fixture
def files(tmp_path):
    """Rows and a vocabulary."""
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    (tmp_path / "labels.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
    return tmp_path


def test_train_then_push(hub, files, checkpoints, capsys, caplog):
    rows, model = str(files / "rows.jsonl"), str(files / "model")
    arguments = ["train", "--train-file", rows, "--validation-file", rows, "--labels", str(files / "labels.txt")]
    options = ["--backbone", checkpoints["bert"], "--variant", "bcl", "--decoder-layers", "1", "--num-clusters", "3"]
    assert main([*arguments, *options, "--output-dir", model, "--num_train_epochs", "1", "--use_cpu"]) == 0
    report = json.loads((files / "model" / "training_report.json").read_text(encoding="utf-8"))
    assert report["data"]["train"]["sha256"] == rows_sha256(load_rows(rows))
    assert report["data"]["validation"]["source"] == "rows.jsonl"
    assert report["variant"] == "bcl"
    assert report["backbone"] == "bert/"  # a folder, and not the model of that name on the Hub
    assert len(report["examples"]) == 3
    assert report["scores"]["eval_micro_f1"] >= 0
    assert report["seconds"] > 0
    assert str(files) not in json.dumps(report) and checkpoints["bert"] not in json.dumps(report)
    assert report["arguments"]["num_clusters"] == 3 and "retriever_epochs" not in report["arguments"]

    (files / "scores.json").write_text(json.dumps({"micro_f1": 0.125}))
    push = ["push", "model", "--model", model, "--repo-id", "acme/titles-bcl", "--private", "--license", "mit"]
    capsys.readouterr()
    assert main([*push, "--dry-run"]) == 0
    out = capsys.readouterr().out
    assert "model acme/titles-bcl, main, private" in out
    assert "training_report.json" in out
    assert "checkpoint" not in out
    assert out.endswith("Dry run: nothing was uploaded.\n")
    assert hub.history("acme/titles-bcl") is None

    assert main([*push, "--scores", str(files / "scores.json"), "--message", "Scored"]) == 0
    out, err = capsys.readouterr()
    assert f"Uploaded as commit {hub.history('acme/titles-bcl')[-1]['oid']} of {hub.url}/acme/titles-bcl" in out
    assert [commit["title"] for commit in hub.history("acme/titles-bcl")] == ["initial", "Scored"]
    card = hub.file("acme/titles-bcl", "README.md").decode()
    for expected in ("| micro F1 | 0.1250 |", "license: mit", "## Predictions", "Chosen by micro F1", "## Cost"):
        assert expected in card
    assert str(files) not in card
    assert main([*push, "--scores", str(files / "scores.json")]) == 0
    again = capsys.readouterr()
    assert "Nothing has changed since commit" in again.out
    for text in (out, err, again.out, again.err, card, caplog.text):
        assert Hub.alice not in text


def test_push_dataset_and_metric(hub, files, capsys):
    push = ["push", "dataset", "--train-file", str(files / "rows.jsonl"), "--labels", str(files / "labels.txt")]
    assert main([*push, "--repo-id", "alice/titles", "--language", "en", "--revision", "v1"]) == 0
    assert "dataset alice/titles, v1" in capsys.readouterr().out
    assert len(hub.history("alice/titles", "dataset")) == 1
    assert "data/train-00000-of-00001.parquet" in hub.history("alice/titles", "dataset", "v1")[-1]["files"]
    assert main(["push", "metric", "--repo-id", "acme/xmc_f1"]) == 0
    assert "xmc_f1.py" in hub.history("acme/xmc_f1", "space")[-1]["files"]


def test_refusal_is_an_error_without_a_traceback_and_a_token(hub, files, capsys, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", Hub.bob)
    push = ["push", "dataset", "--train-file", str(files / "rows.jsonl"), "--repo-id", "acme/titles"]
    assert main([*push]) == 1
    out, err = capsys.readouterr()
    assert "xlgen: error: Pushing the dataset 'acme/titles' failed: " in err
    assert "may not write there" in err
    assert "Traceback" not in err
    hub.fault("POST", "/api/repos/create", "status", status=400, echo_token=True)
    monkeypatch.setenv("HF_TOKEN", Hub.alice)
    assert main(["--verbose", *push]) == 1
    shown = capsys.readouterr()
    assert "injected for Bearer ***" in shown.err
    for text in (out, err, shown.out, shown.err):
        assert Hub.alice not in text
        assert Hub.bob not in text


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["push"], 2, "Usage: xlgen push"),
        (["push", "modl"], 2, "No such command 'modl'"),
        (["push", "model", "--repo-id", "a/b"], 2, "--model"),
        (["push", "model", "--model", "nowhere", "--repo-id", "a/b", "--dry-run"], 1, "There is no folder 'nowhere'"),
        (["push", "metric", "--repo-id", "a/b", "--dry-run"], 1, "the Space must be called 'xmc_f1'"),
        (["push", "metric", "--repo-id", "a/xmc_f1", "--token", "x"], 2, "No such option"),
    ],
)
def test_wrong_command_lines(arguments, code, message, capsys):
    assert main(arguments) == code
    shown = capsys.readouterr()
    assert message in shown.out + shown.err
