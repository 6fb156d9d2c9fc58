"""Labels that are dropped from training rows."""

from __future__ import annotations

import json

import pytest
from datasets import Dataset
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny import ROWS, VOCABULARY

from xlgen_hf.cli.main import main
from xlgen_hf.data.transforms import drop_labels
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.labels.space import LabelSpace


def _rows(sizes: list[int]) -> Dataset:
    rows = [{"text": f"text {i}", "labels": [f"label {j}" for j in range(size)]} for i, size in enumerate(sizes)]
    return Dataset.from_list(rows)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=12), st.floats(0, 1), st.integers(0, 5))
def test_keeps_some_labels_of_each_row_in_their_order(sizes, rate, seed):
    rows = _rows(sizes)
    dropped = drop_labels(rows, rate, seed)
    assert dropped["text"][:] == rows["text"][:]
    for size, before, after in zip(sizes, rows["labels"], dropped["labels"], strict=True):
        assert after == [name for name in before if name in after]
        assert abs(size - len(after) - rate * size) < 1 or len(after) == 1
        assert after


def test_drops_the_share_that_is_asked_for_on_average():
    rows = _rows([5] * 2000)
    kept = sum(map(len, drop_labels(rows, 0.5)["labels"]))
    assert kept / 10_000 == pytest.approx(0.5, abs=0.01)


def test_the_seed_and_the_row_decide():
    rows = _rows([6] * 50)
    first = drop_labels(rows, 0.5, 1)["labels"][:]
    assert first == drop_labels(rows, 0.5, 1)["labels"][:]
    assert first != drop_labels(rows, 0.5, 2)["labels"][:]
    assert first[:20] == drop_labels(rows.select(range(20)), 0.5, 1)["labels"][:]


def test_can_drop_all_labels_of_a_row():
    rows = _rows([1, 2, 3])
    assert drop_labels(rows, 1.0, keep_one=False)["labels"][:] == [[], [], []]
    assert [len(labels) for labels in drop_labels(rows, 1.0)["labels"]] == [1, 1, 1]
    assert drop_labels(rows, 0.0)["labels"][:] == rows["labels"][:]


@pytest.mark.parametrize("rate", [-0.1, 1.5])
def test_a_rate_must_be_a_share(rate):
    with pytest.raises(ConfigurationError, match=f"rate={rate}; a share"):
        drop_labels(_rows([2]), rate)


def test_train_drops_labels_of_training_rows_alone(tmp_path, checkpoints):
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    vanished = "modern art"  # of one row, which keeps its other label
    (tmp_path / "labels.txt").write_text("\n".join([*VOCABULARY, vanished]), encoding="utf-8")
    rows, labels, model = (str(tmp_path / name) for name in ("rows.jsonl", "labels.txt", "model"))
    arguments = [
        "train", "--train-file", rows, "--validation-file", rows, "--labels", labels, "--variant", "base",
        "--backbone", checkpoints["bert"], "--decoder-layers", "1", "--max_steps", "1", "--use_cpu",
        "--output-dir", model, "--drop-labels", "0.9", "--eval_strategy", "no",
    ]  # fmt: skip
    assert main(arguments) == 0
    report = json.loads((tmp_path / "model" / "training_report.json").read_text(encoding="utf-8"))
    assert report["arguments"]["drop_labels"] == 0.9
    remaining = drop_labels(Dataset.from_list(ROWS), 0.9, report["arguments"]["seed"])["labels"][:]
    assert report["data"]["train"]["labels_per_row"] == sum(map(len, remaining)) / len(ROWS)
    assert report["data"]["validation"]["labels_per_row"] == sum(len(row["labels"]) for row in ROWS) / len(ROWS)
    space = LabelSpace.load(model)
    kept = {name for names in remaining for name in names}
    assert set(space.names) == kept | {*VOCABULARY, vanished}
    assert sum(space.counts) == sum(map(len, remaining))
