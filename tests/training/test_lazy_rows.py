"""Training rows that are encoded when a batch needs them: the same rows and weights as those encoded before."""

from __future__ import annotations

import logging

import pytest
import torch
from datasets import Dataset
from sources import make_rcl
from tiny import ROWS

from xlgen_hf.cli.main import main
from xlgen_hf.data.transforms import LABEL_SIDE
from xlgen_hf.errors import DataError, LabelSpaceError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.loading import load_model
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.collator import encode_dataset
from xlgen_hf.training.lazy_rows import LazyRows
from xlgen_hf.training.trainer import XLGenTrainer

WITHOUT_LABELS = {"text": "nothing is known of it", "labels": []}


def _trainer(make_model, folder, rows=ROWS, variant="base", **arguments):
    model, processor = make_model("t5", variant, dropout=0.2)
    arguments = {"max_steps": 7, "per_device_train_batch_size": 3, "save_strategy": "no", **arguments}
    args = XLGenTrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, streaming=True, **arguments)
    return XLGenTrainer(model, args, processing_class=processor, train_dataset=rows)


@pytest.mark.parametrize("variant", ["base", "mcg", "rcl"])
def test_rows_are_those_that_are_encoded_before(make_model, checkpoints, label_space, variant):
    if variant == "rcl":
        processor = make_rcl(checkpoints["bert"], label_space).processor
    else:
        _, processor = make_model("t5", variant)
    rows = Dataset.from_list([WITHOUT_LABELS, *ROWS, WITHOUT_LABELS])
    rows = rows.add_column(LABEL_SIDE, [number % 3 == 0 for number in range(len(rows))])
    lazy, wanted = LazyRows(rows, processor), list(encode_dataset(rows, processor, training=True))
    assert len(lazy) == len(ROWS) == len(wanted)
    assert lazy.__getitems__(range(len(lazy))) == wanted
    assert lazy[2]["text_ids"] == wanted[2]["text_ids"]  # candidates of one text alone score a little otherwise
    assert lazy.lengths.tolist() == pytest.approx([row["length"] for row in wanted], rel=0.4)


def test_rows_of_a_selection(make_model):
    """Many have no label, so one of these is among them."""
    _, processor = make_model("t5")
    rows = Dataset.from_list([WITHOUT_LABELS, *ROWS]).select([3, 1, 0, 5])
    lazy = LazyRows(rows, processor)
    assert lazy.__getitems__(range(len(lazy))) == list(encode_dataset(rows, processor, training=True))
    assert len(lazy) == len(lazy.lengths) == 4


def test_rows_whose_labels_are_all_too_long_are_left_out(make_model, caplog):
    _, processor = make_model("t5")
    processor.max_target_length = 4
    rows = Dataset.from_list(ROWS)
    wanted = list(encode_dataset(rows, processor, training=True))
    assert len(wanted) < len(ROWS)
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        lazy = LazyRows(rows, processor)
    assert lazy.__getitems__(range(len(lazy))) == wanted
    assert f"{len(ROWS) - len(wanted)} rows have no label that fits" in caplog.text
    processor.max_target_length = 2
    with pytest.raises(DataError, match="no row has a label that fits into a target of 2 tokens"):
        LazyRows(rows, processor)
    for few in (ROWS, [WITHOUT_LABELS, *ROWS]):  # rows without labels are no reason to go on
        with pytest.raises(DataError, match="no row has a label that fits into a target of 2 tokens"):
            encode_dataset(few, processor, training=True)


def test_unknown_labels_are_found_before_the_training(make_model, tmp_path):
    with pytest.raises(LabelSpaceError, match="Training data, row 9: 'astronomy' is none of the"):
        _trainer(make_model, tmp_path, [*ROWS, {"text": "stars", "labels": ["astronomy"]}])


def test_what_truncation_loses_is_said_of_a_sample(make_model, caplog):
    _, processor = make_model("t5")
    rows = Dataset.from_list([{**row, "text": "art " * (100 if number % 2 else 1)} for number, row in enumerate(ROWS)])
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        LazyRows(rows, processor)
        LazyRows(Dataset.from_list(rows.to_list() * 200), processor)
    assert "Training data: 4 of 8 texts (50.00 %) were truncated." in caplog.text
    assert "Training data, a sample of 1000 rows: " in caplog.text


@pytest.mark.parametrize("variant", ["base", "mcg"])
def test_the_weights_are_those_of_rows_that_are_encoded_before(make_model, tmp_path, variant):
    """In the same batches: lengths, which are estimated, part the rows otherwise."""
    lazy = _trainer(make_model, tmp_path, variant=variant, length_bucketing=False)
    torch.manual_seed(0)
    lazy.train()
    eager = _trainer(make_model, tmp_path, variant=variant, length_bucketing=False)
    eager.train_dataset = encode_dataset(ROWS, eager.processing_class, training=True)
    torch.manual_seed(0)
    eager.train()
    for name, value in lazy.model.state_dict().items():
        assert torch.equal(value, eager.model.state_dict()[name]), name


@pytest.mark.parametrize("workers", [0, 2])
def test_a_resumed_run_repeats_the_uninterrupted_one(make_model, tmp_path, workers):
    options = {"save_strategy": "steps", "save_steps": 4, "save_total_limit": 3, "dataloader_num_workers": workers}
    whole, again = (_trainer(make_model, tmp_path / name, **options) for name in ("whole", "again"))
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


def test_the_command_trains_with_them(tmp_path, checkpoints):
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    files = ["--train-file", str(tmp_path / "rows.jsonl"), "--validation-file", str(tmp_path / "rows.jsonl")]
    model = ["--backbone", checkpoints["t5"], "--decoder-layers", "1", "--variant", "base", "--label-rows", "0.5"]
    command = ["train", *files, *model, "--use-cpu", "--max-steps", "2", "--no-length-bucketing"]
    assert main([*command, "--streaming", "--output-dir", str(tmp_path / "lazy")]) == 0
    assert main([*command, "--output-dir", str(tmp_path / "eager")]) == 0
    lazy, eager = (load_model(str(tmp_path / name))[0].state_dict() for name in ("lazy", "eager"))
    for name, value in eager.items():
        assert torch.equal(value, lazy[name]), name
