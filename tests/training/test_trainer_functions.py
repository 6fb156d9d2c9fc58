"""What users give a trainer of their own: a function that makes models, losses, metrics, callbacks, collators."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch
from datasets import Dataset
from tiny import ROWS
from torch.nn import functional
from transformers import (
    AutoModelForSeq2SeqLM,
    DataCollatorForSeq2Seq,
    Seq2SeqTrainingArguments,
    TrainerCallback,
    default_data_collator,
)

from xlgen_hf.errors import ConfigurationError
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.collator import DataCollatorForXLGen
from xlgen_hf.training.trainer import XLGenTrainer


def _arguments(folder, **arguments):
    chosen = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "save_strategy": "no", "logging_steps": 1}
    return XLGenTrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, **{**chosen, **arguments})


def _trainer(make_model, folder, variant="base", arguments=None, **options):
    model, processor = make_model("t5", variant, max_labels=4, dropout=0.0)
    return XLGenTrainer(
        model, _arguments(folder, **(arguments or {})), processing_class=processor, train_dataset=ROWS,
        eval_dataset=ROWS, **options,
    )  # fmt: skip


def _losses(trainer):
    trainer.train()
    return [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]


# ---------------------------------------------------------------------------------------------------- models


def test_each_training_has_a_new_model(make_model, tmp_path):
    _, processor = make_model("bert", "mcg")
    trainer = XLGenTrainer(
        args=_arguments(tmp_path), processing_class=processor, train_dataset=ROWS, eval_dataset=ROWS,
        model_init=lambda: make_model("bert", "mcg", dropout=0.1)[0],
    )  # fmt: skip
    trainer.train()
    first = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    scores = trainer.evaluate()
    trainer.train()
    assert all(torch.equal(value, first[name]) for name, value in trainer.model.state_dict().items())
    assert trainer.evaluate()["eval_micro_f1"] == scores["eval_micro_f1"]
    assert not trainer.model.backbone.encoder.pooler.dense.weight.requires_grad  # as of a model that was given


def test_a_second_training_logs_its_own_losses(make_model, tmp_path):
    """The fault: steps after the last log of a training counted in the first log of the next one."""
    _, processor = make_model("t5", "bcl")
    trainer = XLGenTrainer(
        args=_arguments(tmp_path, max_steps=3, logging_steps=2), processing_class=processor, train_dataset=ROWS,
        model_init=lambda: make_model("t5", "bcl", dropout=0.0)[0],
    )  # fmt: skip
    logs = []
    for _ in range(2):
        trainer.train()
        logs.append([(entry["generation_loss"], entry["cluster_loss"]) for entry in trainer.state.log_history[:-1]])
    assert len(logs[0]) == 1
    assert logs[0] == logs[1]


def test_a_processor_of_other_labels_than_those_of_the_new_model_is_refused(make_model, tmp_path):
    _, processor = make_model("t5")
    other = XLGenProcessor(processor.tokenizer, LabelSpace.from_label_lists([["art"], ["music"]]))
    with pytest.raises(ConfigurationError, match=r"processing_class: model and processor differ in label tokens"):
        XLGenTrainer(
            args=_arguments(tmp_path), processing_class=other, train_dataset=[{"text": "a", "labels": ["art"]}],
            model_init=lambda: make_model("t5")[0],
        )  # fmt: skip


def test_a_model_predicts_without_dropout_wherever_its_training_is(make_model, tmp_path):
    """The fault: after a training, and in a callback, predictions were random."""
    model, processor = make_model("t5", dropout=0.5, max_labels=4)
    texts, names = [row["text"] for row in ROWS], [["art", "music"]] * len(ROWS)
    found = []

    class Callback(TrainerCallback):
        def on_step_end(self, args, state, control, model=None, **kwargs):
            found.append(([one.labels for one in model.predict(texts, processor)], model.training))

    trainer = XLGenTrainer(
        model, _arguments(tmp_path), processing_class=processor, train_dataset=ROWS, callbacks=[Callback()]
    )
    trainer.train()
    scores = model.score(texts, names, processor)
    predictions = model.predict(texts, processor)
    assert model.training and all(training for _, training in found)
    model.eval()
    assert [one.to_dict() for one in model.predict(texts, processor)] == [one.to_dict() for one in predictions]
    assert model.score(texts, names, processor) == scores
    assert found[-1][0] == [one.labels for one in predictions]


def test_collators_make_the_batches_of_the_model_that_was_made(make_model, checkpoints, tmp_path):
    """The same processor with clusters serves models of several variants."""
    _, processor = make_model("t5", "bcl")
    made, from_backbone = iter(["base", "bcl"]), XLGenForConditionalGeneration.from_backbone
    trainer = XLGenTrainer(
        args=_arguments(tmp_path), processing_class=processor, train_dataset=ROWS,
        model_init=lambda: from_backbone(checkpoints["t5"], processor, variant=next(made)),
    )  # fmt: skip
    assert "cluster_bits" not in next(iter(trainer.get_train_dataloader()))
    trainer.train()
    assert "cluster_bits" in next(iter(trainer.get_train_dataloader()))
    assert "cluster_loss" in trainer.state.log_history[0]


# ---------------------------------------------------------------------------------------------------- functions


def test_a_loss_of_ones_own(make_model, tmp_path):
    """It gets targets that fit the logits, and the number of targets of all accumulated batches."""

    def loss(outputs, labels, num_items_in_batch=None):
        logits = outputs.logits.flatten(0, 1)
        return functional.cross_entropy(logits, labels.flatten(), reduction="sum") / num_items_in_batch

    own = _losses(_trainer(make_model, tmp_path, compute_loss_func=loss))
    assert own == pytest.approx(_losses(_trainer(make_model, tmp_path)), rel=1e-4)
    whole = {"train_sampling_strategy": "sequential"}
    accumulated = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": 4, **whole}
    assert _losses(_trainer(make_model, tmp_path, arguments=accumulated, compute_loss_func=loss)) == pytest.approx(
        _losses(_trainer(make_model, tmp_path, arguments=whole)), rel=1e-3
    )


def test_metrics_of_ones_own_get_label_ids(make_model, tmp_path):
    def metrics(prediction):
        assert prediction.predictions.shape[0] == prediction.label_ids.shape[0] == len(ROWS)
        return {"first": float(prediction.label_ids[0, 0])}

    arguments = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
    trainer = _trainer(
        make_model, tmp_path, arguments={**arguments, "metric_for_best_model": "first"}, compute_metrics=metrics
    )
    trainer.train()
    assert trainer.state.best_metric == trainer.processing_class.label_space.index["music"]


def test_metrics_may_be_numbers_of_numpy_and_torch(make_model, tmp_path):
    """The fault: the training ended at its first checkpoint, which could not be written."""
    arguments = {"eval_strategy": "epoch", "save_strategy": "epoch", "metric_for_best_model": "share"}
    trainer = _trainer(
        make_model, tmp_path, arguments=arguments,
        compute_metrics=lambda found: {
            "labels": (found.predictions != -100).sum(), "share": np.float32(0.5), "tensor": torch.tensor(2.0),
        },
    )  # fmt: skip
    trainer.train()
    (state,) = tmp_path.glob("checkpoint-*/trainer_state.json")
    scores = json.loads(state.read_text())["log_history"][-1]
    assert (scores["eval_share"], scores["eval_tensor"]) == (0.5, 2.0)
    assert scores["eval_labels"] > 0


class _Witness(TrainerCallback):
    """Notes what it is told."""

    def __init__(self):
        self.events = []

    def on_step_end(self, args, state, control, model=None, train_dataloader=None, optimizer=None, **kwargs):
        assert None not in (model, train_dataloader, optimizer)
        self.events.append("step")

    def on_prediction_step(self, args, state, control, eval_dataloader=None, **kwargs):
        assert eval_dataloader is not None
        self.events.append("prediction")

    def on_evaluate(self, args, state, control, metrics=None, **kwargs):
        self.events.append(sorted(name for name in metrics if name.endswith("micro_f1"))[-1])

    def on_save(self, args, state, control, **kwargs):
        self.events.append("save")


def test_callbacks_are_told(make_model, tmp_path):
    witness = _Witness()
    arguments = {"eval_strategy": "epoch", "save_strategy": "epoch"}
    _trainer(make_model, tmp_path, arguments=arguments, callbacks=[witness]).train()
    assert witness.events == ["step", "step", "prediction", "eval_micro_f1", "save"]


def test_a_collator_of_ones_own_gets_encoded_rows(make_model, tmp_path):
    seen = []

    class Collator:
        __slots__ = ("inner",)

        def __call__(self, rows):
            seen.extend(row["row"] for row in rows)
            return self.inner(rows)

    collator = Collator()
    collator.inner = DataCollatorForXLGen(make_model("t5")[1])
    assert _losses(_trainer(make_model, tmp_path, data_collator=collator)) == _losses(_trainer(make_model, tmp_path))
    assert sorted(seen) == list(range(len(ROWS)))


@pytest.mark.parametrize(("variant", "column"), [("bcl", "cluster_bits"), ("mcg", "cluster_rows")])
def test_batches_without_clusters_are_refused_where_clusters_are_learned(make_model, tmp_path, variant, column):
    of_base = DataCollatorForXLGen(make_model("t5")[1])
    trainer = _trainer(make_model, tmp_path, variant, data_collator=lambda rows: of_base(rows))
    with pytest.raises(ConfigurationError, match=rf"'labels'\]; '{variant}' learns from '{column}' as well"):
        trainer.train()


def test_an_optimizer_and_a_schedule_of_ones_own(make_model, tmp_path):
    model, processor = make_model("t5")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 1.0)
    trainer = XLGenTrainer(
        model, _arguments(tmp_path), processing_class=processor, train_dataset=ROWS, optimizers=(optimizer, schedule)
    )
    trainer.train()
    assert trainer.optimizer.optimizer is optimizer
    assert {entry["learning_rate"] for entry in trainer.state.log_history if "loss" in entry} == {0.1}


def test_none_is_the_default(make_model, tmp_path):
    nothing = dict.fromkeys(("data_collator", "compute_metrics", "compute_loss_func", "callbacks"))
    trainer = _trainer(make_model, tmp_path, **nothing)
    trainer.train()
    assert "eval_micro_f1" in trainer.evaluate()


# ---------------------------------------------------------------------------------------------------- refusals


@pytest.mark.parametrize("collator", [DataCollatorForSeq2Seq(None), default_data_collator])
def test_collators_of_transformers_are_refused(make_model, tmp_path, collator):
    with pytest.raises(ConfigurationError, match=r"data_collator is \w+ of transformers, which does not know XLGen's"):
        _trainer(make_model, tmp_path, data_collator=collator)


def test_there_are_no_logits_to_preprocess(make_model, tmp_path):
    with pytest.raises(ConfigurationError, match="preprocess_logits_for_metrics is not supported"):
        _trainer(make_model, tmp_path, preprocess_logits_for_metrics=lambda logits, labels: logits)


def test_partners_of_other_kinds_are_refused(make_model, checkpoints, tmp_path):
    model, processor = make_model("t5")
    other = AutoModelForSeq2SeqLM.from_pretrained(checkpoints["t5"])
    with pytest.raises(ConfigurationError, match="args is a Seq2SeqTrainingArguments; XLGenTrainingArguments are"):
        XLGenTrainer(model, Seq2SeqTrainingArguments(str(tmp_path), use_cpu=True), processing_class=processor)
    with pytest.raises(ConfigurationError, match="processing_class is a NoneType; an XLGenProcessor is needed"):
        XLGenTrainer(model, _arguments(tmp_path), train_dataset=Dataset.from_list(ROWS))
    with pytest.raises(ConfigurationError, match="model is a T5ForConditionalGeneration; an XLGenForConditionalGener"):
        XLGenTrainer(other, _arguments(tmp_path), processing_class=processor)
    with pytest.raises(ConfigurationError, match="model is a T5ForConditionalGeneration; an XLGenForConditionalGener"):
        XLGenTrainer(None, _arguments(tmp_path), processing_class=processor, model_init=lambda: other)
