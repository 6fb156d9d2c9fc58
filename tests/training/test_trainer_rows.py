"""The rows that a trainer takes: each form gives what a list of dictionaries gives, and errors name row and column."""

from __future__ import annotations

import logging

import pandas as pd
import pyarrow as pa
import pytest
import torch
from datasets import ClassLabel, Dataset, DatasetDict, Features, List, Sequence, Value
from tiny import ROWS

from xlgen_hf.data.options import RowOptions
from xlgen_hf.errors import ConfigurationError, DataError, LabelSpaceError
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.collator import DataCollatorForXLGen
from xlgen_hf.training.trainer import XLGenTrainer

NAMES = sorted({label for row in ROWS for label in row["labels"]})
NUMBERED = [{"text": row["text"], "labels": [NAMES.index(label) for label in row["labels"]]} for row in ROWS]
OTHER = [{"title": row["text"], "subjects": row["labels"], "year": None} for row in ROWS]
OTHER_COLUMNS = RowOptions(text_column="title", labels_column="subjects")


class MapStyle(torch.utils.data.Dataset):
    """Rows by number; asking for one that is not there is an error of its own, not an IndexError."""

    def __init__(self, rows):
        self.rows = {f"row {number}": row for number, row in enumerate(rows)}

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, number):
        return self.rows[f"row {number}"]


def _numbered(kind):
    return Dataset.from_list(NUMBERED, features=Features({"text": Value("string"), "labels": kind}))


def _made_when_read():
    renamed = Dataset.from_list(OTHER)
    return renamed.with_transform(lambda batch: {"text": batch["title"], "labels": batch["subjects"]})


FORMS = {
    "list of ClassLabel": lambda: _numbered(List(ClassLabel(names=NAMES))),
    "sequence of ClassLabel": lambda: _numbered(Sequence(ClassLabel(names=NAMES))),
    "torch data set": lambda: MapStyle(ROWS),
    "subset": lambda: torch.utils.data.Subset(Dataset.from_list([*ROWS, ROWS[0]]), range(len(ROWS))),
    "data frame": lambda: pd.DataFrame(ROWS),
    "Arrow table": lambda: pa.Table.from_pylist(ROWS),
    "cells": lambda: [{"text": row["text"], "labels": "|".join(row["labels"])} for row in ROWS],
    "generator": lambda: (row for row in ROWS),
    "further columns": lambda: Dataset.from_list([{**row, "input_ids": [1], "year": None} for row in ROWS]),
    "transform": _made_when_read,
    **{
        f"{name} format": lambda name=name: _numbered(List(ClassLabel(names=NAMES))).with_format(name)
        for name in ("torch", "numpy", "pandas", "arrow")
    },
}


def _trainer(make_model, folder, train=None, evaluation=None, row_options=None, **arguments):
    model, processor = make_model("t5", max_labels=4)
    args = XLGenTrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, save_strategy="no", **arguments)
    return XLGenTrainer(
        model, args, processing_class=processor, train_dataset=train, eval_dataset=evaluation, row_options=row_options
    )


@pytest.fixture
def reference(make_model, tmp_path):
    """A trainer that was given a list of dictionaries."""
    return _trainer(make_model, tmp_path, ROWS, ROWS)


@pytest.mark.parametrize("form", FORMS)
def test_forms_of_rows(make_model, tmp_path, reference, form):
    trainer = _trainer(make_model, tmp_path, FORMS[form](), FORMS[form]())
    assert trainer.train_dataset.to_dict() == reference.train_dataset.to_dict()
    assert trainer.eval_dataset.to_dict() == reference.eval_dataset.to_dict()
    assert trainer.predict(FORMS[form]()).label_ids.tolist() == reference.predict(ROWS).label_ids.tolist()


@pytest.mark.parametrize("remove_unused_columns", [False, True])
def test_columns_of_other_names(make_model, tmp_path, reference, remove_unused_columns):
    trainer = _trainer(
        make_model, tmp_path, OTHER, Dataset.from_list(OTHER), OTHER_COLUMNS, max_steps=1,
        remove_unused_columns=remove_unused_columns,
    )  # fmt: skip
    assert trainer.train_dataset.to_dict() == reference.train_dataset.to_dict()
    trainer.train()
    scores, others = trainer.evaluate(), trainer.evaluate(Dataset.from_list(OTHER).with_format("numpy"))
    assert [others[name] for name in ("eval_loss", "eval_micro_f1")] == [scores["eval_loss"], scores["eval_micro_f1"]]
    named = trainer.evaluate({"one": OTHER, "two": pd.DataFrame(OTHER)})
    assert named["eval_one_loss"] == named["eval_two_loss"] == scores["eval_loss"]


@pytest.mark.parametrize(
    ("row", "error", "message"),
    [
        ({"text": "x", "labels": None}, DataError, "row 9: The column 'labels' is null"),
        ({"text": None, "labels": ["art"]}, DataError, "row 9: The column 'text' is null"),
        ({"text": "x", "labels": [3]}, DataError, "row 9: The label 3 is an int"),
        ({"text": "x", "labels": ["art", None]}, DataError, "row 9: The label None is a NoneType"),
        ({"text": " ", "labels": ["art"]}, DataError, "row 9: The text is empty"),
        ({"labels": ["art"]}, DataError, r"row 9: There is no column 'text', only \['labels'\]"),
        ("x", DataError, "row 9: The row is str"),
    ],
)
def test_errors_name_the_row(make_model, tmp_path, row, error, message):
    rows = [*ROWS, row]
    with pytest.raises(error, match=f"^Training data, {message}"):
        _trainer(make_model, tmp_path, rows)
    with pytest.raises(error, match=f"^Evaluation data, {message}"):
        _trainer(make_model, tmp_path, None, rows)
    with pytest.raises(error, match=f"^Evaluation data 'more', {message}"):
        _trainer(make_model, tmp_path, None, {"some": ROWS, "more": rows})
    with pytest.raises(error, match=f"^Evaluation data, {message}"):
        _trainer(make_model, tmp_path).evaluate(rows)


def test_a_label_outside_the_label_space_is_named_with_its_row(make_model, tmp_path):
    rows = [ROWS[0], {"text": "x", "labels": []}, {"text": "y", "labels": ["arts"]}]
    with pytest.raises(LabelSpaceError, match=r"^Training data, row 3: 'arts' is none of the 10 labels. Close names"):
        _trainer(make_model, tmp_path, rows)


def test_a_column_that_is_not_there_is_named(make_model, tmp_path):
    with pytest.raises(DataError, match=r"^Training data: There is no column 'text', only \['subjects', 'title'"):
        _trainer(make_model, tmp_path, Dataset.from_list(OTHER))


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("books", r"train_dataset='books' is a name. Read the rows first, train_dataset=load_rows\('books'\)"),
        (DatasetDict(a=Dataset.from_list(ROWS)), r"train_dataset is DatasetDict with \['a'\]; give one of them"),
        ({}, "train_dataset is dict with"),
    ],
)
def test_other_things_than_rows(make_model, tmp_path, rows, message):
    with pytest.raises(ConfigurationError, match=message):
        _trainer(make_model, tmp_path, rows)


def test_rows_none_of_which_has_labels(make_model, tmp_path):
    rows = [{"text": "x", "labels": []}]
    with pytest.raises(DataError, match="Training data: no row has labels, so there is nothing to train on"):
        _trainer(make_model, tmp_path, rows)
    with pytest.raises(DataError, match="Evaluation data: No row has labels, so there is nothing to evaluate by"):
        _trainer(make_model, tmp_path, None, rows)


def test_rows_without_labels_are_predicted(make_model, tmp_path, reference):
    texts = [{"text": row["text"]} for row in ROWS]
    found = reference.predict(texts)
    assert found.predictions.tolist() == reference.predict(ROWS).predictions.tolist()
    assert found.label_ids is None
    assert not {name for name in found.metrics if "loss" in name or "f1" in name}


def test_several_sets_of_rows(make_model, tmp_path, caplog):
    sets = DatasetDict(a=Dataset.from_list(ROWS), b=Dataset.from_list([*ROWS[:2], {"text": "x", "labels": ["opera"]}]))
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        trainer = _trainer(make_model, tmp_path, ROWS, sets, eval_strategy="epoch", num_train_epochs=1)
    assert "Evaluation data 'b': 1 label names are outside the label space" in caplog.text
    trainer.train()
    assert {"eval_a_micro_f1", "eval_b_micro_f1"} <= {name for entry in trainer.state.log_history for name in entry}
    assert trainer.evaluate("a")["eval_micro_f1"] == trainer.evaluate()["eval_a_micro_f1"]


def test_a_collator_wants_encoded_rows(make_model):
    _, processor = make_model("t5")
    with pytest.raises(DataError, match=r"given rows with \['labels', 'text'\]; .* Encode them first"):
        DataCollatorForXLGen(processor)(ROWS)
