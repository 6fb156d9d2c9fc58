"""The quickstart on its bundled sample, with a tiny model and a few steps."""

from __future__ import annotations

import json

import pytest

from xlgen_hf import quickstart
from xlgen_hf.cli.main import main
from xlgen_hf.data.rows import load_label_names, load_rows

KEYS = {"micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1"}


@pytest.fixture
def quick(monkeypatch, checkpoints):
    """Two steps of a tiny model instead of two minutes of a small one."""
    monkeypatch.setattr(quickstart, "BACKBONE", checkpoints["bert"])
    monkeypatch.setattr(quickstart, "ARGUMENTS", {**quickstart.ARGUMENTS, "max_steps": 2, "use_cpu": True})
    monkeypatch.setattr(quickstart, "SETTINGS", {**quickstart.SETTINGS, "model_options": {"max_labels": 3}})


def test_report_and_output(quick, tmp_path, capsys):
    assert main(["quickstart", "--all-variants", "--output-dir", str(tmp_path)]) == 0
    report = json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert list(report["systems"]) == ["most-frequent", "base", "bcl", "mcg"]
    for scores in report["systems"].values():
        assert set(scores) >= KEYS
        assert all(0 <= scores[key] <= 1 for key in KEYS)
    assert report["systems"]["most-frequent"]["micro_f1"] > 0
    for name in ("base", "bcl", "mcg"):
        assert (tmp_path / name / "model.safetensors").is_file()
        assert len((tmp_path / name / "predictions.jsonl").read_text(encoding="utf-8").splitlines()) == 800
    printed = capsys.readouterr().out
    assert "XLGen-MCG" in printed
    assert "clusters:" in printed
    assert str(tmp_path / "report.json") in printed


def test_sample_has_a_tail_and_says_where_it_is_from():
    folder = quickstart.SAMPLE
    train, test = load_rows(folder / "train.jsonl.gz"), load_rows(folder / "test.jsonl.gz")
    vocabulary = set(load_label_names(folder / "labels.txt.gz"))
    counts: dict[str, int] = {}
    for labels in train["labels"]:
        for label in labels:
            counts[label] = counts.get(label, 0) + 1
    tested = {label for labels in test["labels"] for label in labels}
    assert tested | set(counts) <= vocabulary
    assert sum(label not in counts for label in tested) >= 60
    assert sum(counts.get(label) == 1 for label in tested) >= 60
    assert not {text.casefold() for text in train["text"]} & {text.casefold() for text in test["text"]}
    assert "CC BY 4.0" in (folder / "README.md").read_text(encoding="utf-8")
