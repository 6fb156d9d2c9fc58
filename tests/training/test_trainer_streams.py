"""Training rows that come as a stream: the same rows, in order, as often as the steps need them."""

from __future__ import annotations

import json
import logging

import pytest
import torch
from datasets import ClassLabel, Dataset, Features, IterableDataset, List, Value, interleave_datasets, load_dataset
from tiny import ROWS

from xlgen_hf.data.options import RowOptions
from xlgen_hf.errors import ConfigurationError, DataError, LabelSpaceError
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.collator import encode_dataset
from xlgen_hf.training.trainer import XLGenTrainer

NAMES = sorted({label for row in ROWS for label in row["labels"]})
FEATURES = Features({"text": Value("string"), "labels": List(ClassLabel(names=NAMES))})


class Stream(torch.utils.data.IterableDataset):
    """A stream of torch; with `once`, a reader that can be read once."""

    def __init__(self, rows, once=False):
        self.rows = iter(rows) if once else rows

    def __iter__(self):
        return iter(self.rows)


def _numbered():
    yield from ({"text": row["text"], "labels": [NAMES.index(label) for label in row["labels"]]} for row in ROWS)


def _of_json_lines(folder):
    path = folder / "rows.jsonl"
    path.write_text("".join(f"{json.dumps(row)}\n" for row in ROWS), encoding="utf-8")
    return load_dataset("json", data_files=str(path), split="train", streaming=True, cache_dir=str(folder / "cache"))


FORMS = {
    "streaming=True": _of_json_lines,
    "from_generator": lambda folder: IterableDataset.from_generator(lambda: iter(ROWS)),
    "ClassLabel": lambda folder: IterableDataset.from_generator(_numbered, features=FEATURES),
    "torch format": lambda folder: IterableDataset.from_generator(_numbered, features=FEATURES).with_format("torch"),
    "to_iterable_dataset": lambda folder: Dataset.from_list(ROWS).to_iterable_dataset(num_shards=2),
    "map": lambda folder: Dataset.from_list(ROWS).to_iterable_dataset().map(lambda row: {"length": len(row["text"])}),
    "torch": lambda folder: Stream(ROWS),
}


def _trainer(make_model, folder, rows, variant="base", options=None, row_options=None, **arguments):
    model, processor = make_model("t5", variant, **(options or {}))
    arguments = {"max_steps": 5, "per_device_train_batch_size": 3, "save_strategy": "no", **arguments}
    args = XLGenTrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, **arguments)
    return XLGenTrainer(model, args, processing_class=processor, train_dataset=rows, row_options=row_options)


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_streams(make_model, tmp_path, form):
    trainer = _trainer(make_model, tmp_path, FORMS[form](tmp_path))
    wanted = list(encode_dataset(ROWS, trainer.processing_class, training=True))
    stream = iter(trainer.train_dataset)
    passes = [[next(stream) for _ in ROWS] for _ in range(2)]
    assert passes[0] == wanted
    assert passes[1] == [{**row, "row": row["row"] + len(ROWS)} for row in wanted]  # so that other draws are made
    trainer.train()
    assert trainer.state.global_step == 5  # 15 rows, of 8


@pytest.mark.parametrize("form", ["from_generator", "rename_column", "interleave_datasets"])
def test_a_row_without_labels_is_left_out_of_a_stream_with_features(make_model, tmp_path, form):
    """The fault: ArrowInvalid, as datasets guesses the type of each row, and that of an empty list is another one."""
    rows = [*ROWS, {"text": "nothing", "labels": []}]
    features = Features({"text": Value("string"), "labels": List(Value("string"))})
    typed = IterableDataset.from_generator(lambda: iter(rows), features=features)
    source = {
        "from_generator": typed,
        "rename_column": typed.rename_column("labels", "subjects").rename_column("subjects", "labels"),
        "interleave_datasets": interleave_datasets([typed, Dataset.from_list(rows).to_iterable_dataset()]),
    }[form]
    stream = iter(_trainer(make_model, tmp_path, source).train_dataset)
    texts = [next(stream)["text_ids"] for _ in range(8)]
    assert len(set(map(tuple, texts))) == (4 if form == "interleave_datasets" else 8)


@pytest.mark.parametrize("variant", ["base", "mcg"])
def test_a_stream_trains_as_a_data_set_in_its_order_does(make_model, tmp_path, variant):
    steps = {"max_steps": 2, "per_device_train_batch_size": 4, "logging_steps": 1}
    streamed = _trainer(make_model, tmp_path, Stream(ROWS), variant, {"dropout": 0.0}, **steps)
    ordered = _trainer(
        make_model, tmp_path, ROWS, variant, {"dropout": 0.0}, **steps, train_sampling_strategy="sequential"
    )
    for trainer in (streamed, ordered):
        trainer.train()
    assert streamed.train_sampler is None
    losses = [[e["loss"] for e in trainer.state.log_history if "loss" in e] for trainer in (streamed, ordered)]
    assert losses[0] == losses[1]


def test_a_resumed_run_repeats_the_uninterrupted_one(make_model, tmp_path):
    """The passes over a stream that is shuffled, noise and dropout all continue where they were."""

    def trainer(folder):
        rows = IterableDataset.from_generator(lambda: iter(ROWS)).shuffle(seed=3, buffer_size=8)
        steps = {"save_strategy": "steps", "save_steps": 4, "max_steps": 7, "save_total_limit": 3}
        return _trainer(make_model, folder, rows, "mcg", {"dropout": 0.2}, cluster_noise=0.5, **steps)

    whole, again = trainer(tmp_path / "whole"), trainer(tmp_path / "again")
    whole.train()
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-4"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name


@pytest.mark.parametrize("form", ["from_generator", "ClassLabel"])
def test_each_pass_over_a_shuffled_stream_has_its_own_order(make_model, tmp_path, form):
    rows = FORMS[form](tmp_path).shuffle(seed=3, buffer_size=8)
    stream = iter(_trainer(make_model, tmp_path, rows).train_dataset)
    first, second = ([next(stream)["text_ids"] for _ in ROWS] for _ in range(2))
    assert sorted(first) == sorted(second)
    assert first != second


def test_one_worker_reads_a_stream(make_model, tmp_path):
    alone = _trainer(make_model, tmp_path, Stream(ROWS), options={"dropout": 0.0})
    helped = _trainer(make_model, tmp_path, Stream(ROWS), options={"dropout": 0.0}, dataloader_num_workers=1)
    assert helped.train().training_loss == alone.train().training_loss


def test_a_stream_that_can_be_read_once_ends_the_training(make_model, tmp_path, caplog):
    trainer = _trainer(make_model, tmp_path, Stream(ROWS, once=True))
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        trainer.train()
    assert trainer.state.global_step == 3
    assert "the stream gave 8 rows and cannot be read again, so the training ends here" in caplog.text


def test_losses_are_reported_after_the_first_pass(make_model, tmp_path, caplog):
    rows = [*ROWS, {"text": "x", "labels": []}, {"text": "y", "labels": ["art", "art"]}]
    trainer = _trainer(make_model, tmp_path, Stream(rows), max_steps=10)
    trainer.processing_class.max_source_length = 5
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        trainer.train()
    assert "Training data: rows without labels: 1 of 10, e.g. row 9." in caplog.text
    assert "Training data: labels that a row repeats, which count once: 1." in caplog.text
    assert caplog.text.count("texts (22.22 %) were truncated") == 1


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ({"text": "x", "labels": [3]}, DataError, "Training data, row 9: The label 3 is an int"),
        ({"text": "x", "labels": None}, DataError, "Training data, row 9: The column 'labels' is null"),
        ({"text": "x"}, DataError, "Training data, row 9: There is no column 'labels'"),
        ({"text": "x", "labels": ["arts"]}, LabelSpaceError, "Training data, row 9: 'arts' is none of the 10 labels"),
        ("x", DataError, "Training data, row 9: The row is str"),
    ],
)
def test_errors_name_the_row(make_model, tmp_path, row, error, message):
    with pytest.raises(error, match=f"^{message}"):
        _trainer(make_model, tmp_path, Stream([*ROWS, row])).train()


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([], "Training data: There are no rows"),
        ([{"text": "x", "labels": []}], "no row has labels, so there is"),
    ],
)
def test_streams_without_training_rows(make_model, tmp_path, rows, message):
    with pytest.raises(DataError, match=message):
        _trainer(make_model, tmp_path, Stream(rows)).train()


def test_an_error_of_the_source_is_passed_on(make_model, tmp_path):
    def broken():
        yield from ROWS
        raise OSError("the line is down")

    with pytest.raises(OSError, match="the line is down"):
        _trainer(make_model, tmp_path, IterableDataset.from_generator(broken)).train()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_steps": -1}, "train_dataset is a stream of rows, whose number nobody knows. Give max_steps"),
        ({"dataloader_num_workers": 2}, "dataloader_num_workers=2: each worker would read the whole stream"),
        ({"variant": "bcl", "options": {"cluster_loss_annealing": True}}, "a stream of training rows has no epochs"),
        (
            {"row_options": RowOptions(layout="long")},
            "the rows of one text may be anywhere in a stream",
        ),
    ],
)
def test_what_a_stream_cannot_follow(make_model, tmp_path, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        _trainer(make_model, tmp_path, Stream(ROWS), **arguments)


@pytest.mark.parametrize(
    ("rows", "advice"),
    [
        (Dataset.from_list(ROWS).to_iterable_dataset(), r"eval_dataset=load_rows\(stream.take\(1000\)\)"),
        (Stream(ROWS), r"eval_dataset=load_rows\(itertools.islice\(stream, 1000\)\)"),
    ],
)
def test_a_stream_is_not_evaluated(make_model, tmp_path, rows, advice):
    model, processor = make_model("t5")
    args = XLGenTrainingArguments(str(tmp_path), use_cpu=True)
    with pytest.raises(ConfigurationError, match=f"^eval_dataset is a stream .*{advice}"):
        XLGenTrainer(model, args, processing_class=processor, eval_dataset=rows)
    with pytest.raises(ConfigurationError, match=r"^eval_dataset\['new'\] is a stream"):
        XLGenTrainer(model, args, processing_class=processor, eval_dataset={"old": ROWS, "new": rows})
    trainer = XLGenTrainer(model, args, processing_class=processor)
    with pytest.raises(ConfigurationError, match=r"^eval_dataset is a stream"):
        trainer.evaluate(rows)
    with pytest.raises(ConfigurationError, match=r"^test_dataset is a stream"):
        trainer.predict(rows)
