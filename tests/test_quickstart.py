"""The quickstart on its bundled sample, with a tiny model and a few steps."""

from __future__ import annotations

import gzip
import json
import shlex
from dataclasses import replace

import pytest

from xlgen_hf import quickstart
from xlgen_hf.cli.main import main
from xlgen_hf.cli.quickstart import NEXT_COMMANDS
from xlgen_hf.data.rows import load_label_names, load_rows
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.quickstart import QuickstartOptions, run_quickstart

KEYS = {"micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1"}


@pytest.fixture
def tiny(checkpoints):
    """Two steps of a tiny model instead of minutes of a small one."""
    options = QuickstartOptions(checkpoints["bert"])
    return replace(
        options,
        training={**options.training, "max_labels": 2, "num_input_candidates": 2},
        arguments={**options.arguments, "max_steps": 2, "use_cpu": True},
    )


@pytest.fixture
def part(tmp_path_factory, monkeypatch):
    """A part of the sample in the place of the whole: test rows are of labels with and without training rows."""
    folder = tmp_path_factory.mktemp("sample")
    for split, number in (("train", 120), ("validation", 12), ("test", 24)):
        rows = load_rows(quickstart.SAMPLE / f"{split}.jsonl.gz").select(range(number))
        write_jsonl(folder / f"{split}.jsonl.gz", rows)
    names = sorted(
        {label for split in ("train", "test") for row in load_rows(folder, split=split) for label in row["labels"]}
    )
    with gzip.open(folder / "labels.txt.gz", "wt", encoding="utf-8") as file:
        file.write("\n".join(names))
    monkeypatch.setattr(quickstart, "SAMPLE", folder)


def test_variants_beside_two_baselines(tiny, part, tmp_path):
    """All but the recommended one, which the command below trains."""
    report = run_quickstart(tmp_path, ("base", "bcl", "mcg"), options=tiny)
    assert report == json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))
    assert list(report["systems"]) == [
        "most-frequent", "dense-retrieval", "xlgen-base", "xlgen-bcl", "xlgen-mcg",
    ]  # fmt: skip
    for scores in report["systems"].values():
        assert set(scores) >= KEYS
        assert all(0 <= scores[key] <= 1 for key in KEYS)
    assert report["systems"]["most-frequent"]["micro_f1"] > 0
    for name in ("base", "bcl", "mcg"):
        assert (tmp_path / name / "model.safetensors").is_file()
        assert len((tmp_path / name / "predictions.jsonl").read_text(encoding="utf-8").splitlines()) == 24


def test_the_command_shows_the_recommended_variant_and_what_to_do_next(tiny, part, tmp_path, capsys, monkeypatch):
    pytest.importorskip("matplotlib", reason="the extra `plot` is not installed")
    monkeypatch.setattr(quickstart, "QuickstartOptions", lambda: tiny)
    assert main(["quickstart", "--output-dir", str(tmp_path)]) == 0
    printed = capsys.readouterr().out
    for name in ("most frequent labels", "dense retrieval", "XLGen-RCL", "XLGen-RCL predicts:", "true: "):
        assert name in printed
    assert str(tmp_path / "report.json") in printed
    assert (tmp_path / "scores.png").read_bytes().startswith(b"\x89PNG")
    assert printed.splitlines()[-3:] == [f"  {command}" for command in NEXT_COMMANDS]
    assert list(json.loads((tmp_path / "report.json").read_text(encoding="utf-8"))["systems"]) == [
        "most-frequent", "dense-retrieval", "xlgen-rcl",
    ]  # fmt: skip
    assert len((tmp_path / "rcl" / "predictions.jsonl").read_text(encoding="utf-8").splitlines()) == 24
    texts = ["--input-file", str(tmp_path / "texts.jsonl")]
    (tmp_path / "texts.jsonl").write_text('{"text": "organ music"}\n', encoding="utf-8")
    assert main(["predict", "--model", str(tmp_path / "rcl"), *texts]) == 0  # a model as any other
    assert json.loads(capsys.readouterr().out)["labels"]


@pytest.mark.parametrize("command", NEXT_COMMANDS)
def test_the_next_commands_exist(command, capsys):
    program, name, *words = shlex.split(command)
    assert program == "xlgen"
    assert main([name, "--help", *words]) == 0  # an unknown option would be refused before the help
    assert capsys.readouterr().out.startswith(f"Usage: xlgen {name}")


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
