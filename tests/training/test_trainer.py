"""The trainer: learning rates, buckets, logs, evaluation by generation, resuming."""

from __future__ import annotations

import dataclasses
import inspect
import json
import logging

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import EarlyStoppingCallback, HfArgumentParser, Seq2SeqTrainingArguments

from xlgen_hf.errors import ConfigurationError
from xlgen_hf.evaluation.scoring import score_labels
from xlgen_hf.labels.space import LabelSpace
from xlgen_hf.prediction.generator import Generator
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.collator import encode_dataset
from xlgen_hf.training.sampler import LengthBucketSampler
from xlgen_hf.training.trainer import XLGenTrainer
from xlgen_hf.training.trainer_settings import TrainerSettings


def _trainer(make_model, rows, folder, variant="bcl", family="bert", options=None, **arguments):
    model, processor = make_model(family, variant, max_labels=4, **(options or {}))
    arguments = {"num_train_epochs": 2, "per_device_train_batch_size": 2, "logging_steps": 1, **arguments}
    args = XLGenTrainingArguments(output_dir=str(folder), use_cpu=True, disable_tqdm=True, **arguments)
    return XLGenTrainer(model, args, processing_class=processor, train_dataset=rows, eval_dataset=rows)


def test_a_processor_of_other_labels_is_refused(make_model, rows, tmp_path):
    """The fault: the training went through, and nobody could load what it saved."""
    model, processor = make_model("bert", "base")
    other = XLGenProcessor(processor.tokenizer, LabelSpace.from_label_lists([["art"], ["music"]]))
    args = XLGenTrainingArguments(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(ConfigurationError, match="processing_class: model and processor differ in label tokens"):
        XLGenTrainer(model, args, processing_class=other, train_dataset=rows)


def test_groups_have_their_learning_rates(make_model, rows, tmp_path):
    trainer = _trainer(make_model, rows, tmp_path, learning_rate=1e-4, fresh_learning_rate=1e-2, weight_decay=0.1)
    names = {id(p): name for name, p in trainer.model.named_parameters()}
    seen = set()
    for group in trainer.create_optimizer().param_groups:
        for parameter in group["params"]:
            name = names[id(parameter)]
            seen.add(name)
            fresh = name.startswith(("cluster_", "backbone.decoder."))
            assert group["lr"] == (1e-2 if fresh else 1e-4), name
            assert group["weight_decay"] == (0.0 if name.endswith("bias") or "LayerNorm" in name else 0.1), name
    assert seen == {name for name, p in trainer.model.named_parameters() if p.requires_grad}


def test_buckets_hold_each_row_once_in_similar_lengths():
    lengths = np.random.default_rng(0).integers(1, 100, 1003)
    sampler = LengthBucketSampler(lengths, 16, seed=5)
    first = list(sampler)
    assert sorted(first) == list(range(1003))
    batches = lengths[first[:992]].reshape(-1, 16)
    shuffled = lengths[np.random.default_rng(1).permutation(1003)][:992].reshape(-1, 16)
    assert np.ptp(batches, axis=1).mean() < 0.1 * np.ptp(shuffled, axis=1).mean()
    assert list(sampler) == first
    sampler.set_epoch(1)
    assert list(sampler) != first


def test_evaluation_keeps_the_order_of_the_rows(make_model, rows, tmp_path):
    trainer = _trainer(make_model, rows, tmp_path)
    result = trainer.predict(rows)
    found = [[label for label in row if label != -100] for row in result.label_ids.tolist()]
    assert found == [trainer.processing_class.label_space.encode(labels) for labels in rows["labels"]]
    generator = Generator(trainer.model, trainer.processing_class)
    direct = generator.decode(generator.encode(trainer.processing_class.encode_texts(rows["text"][:])))
    assert [[label for label in row if label != -100] for row in result.predictions.tolist()] == [
        one.labels for one in direct
    ]


def test_losses_that_are_not_logged_are_not_collected(make_model, rows, tmp_path):
    """The fault: a training without logs kept three numbers of each of its steps until it ended."""
    trainer = _trainer(make_model, rows, tmp_path, "bcl", logging_strategy="no", max_steps=3)
    trainer.train()
    assert {name: (len(kept), float(kept[1])) for name, kept in trainer.loss_parts.items()} == {
        "generation_loss": (2, 3.0),
        "cluster_loss": (2, 3.0),
    }


@pytest.mark.parametrize("variant", ["base", "bcl", "mcg"])
def test_both_losses_and_label_set_scores_are_logged(make_model, rows, tmp_path, variant):
    trainer = _trainer(make_model, rows, tmp_path, variant, eval_strategy="epoch", max_steps=4)
    trainer.train()
    steps = [entry for entry in trainer.state.log_history if "loss" in entry]
    for entry in steps:
        if variant == "base":
            assert "cluster_loss" not in entry
            assert entry["loss"] == pytest.approx(entry["generation_loss"], abs=2e-3)
        else:
            weight = {"bcl": 1.0, "mcg": 0.3}[variant]
            parts = entry["generation_loss"] + weight * entry["cluster_loss"]
            assert entry["loss"] == pytest.approx(parts, abs=2e-3)
    evaluation = next(entry for entry in trainer.state.log_history if "eval_micro_f1" in entry)
    assert {"eval_loss", "eval_micro_f1", "eval_macro_f1", "eval_1_shot_macro_f1"} <= set(evaluation)
    predicted = trainer.model.predict(rows["text"][:], trainer.processing_class)
    scores = score_labels([one.labels for one in predicted], rows["labels"][:])
    assert scores["micro_f1"] > 0
    assert evaluation["eval_micro_f1"] == pytest.approx(scores["micro_f1"])


@pytest.mark.parametrize(("family", "variant"), [("t5", "base"), ("bert", "bcl"), ("bert", "mcg")])
def test_a_small_data_set_is_learned_by_heart(make_model, rows, tmp_path, family, variant):
    epochs = 150 if variant == "mcg" else 60
    trainer = _trainer(
        make_model, rows, tmp_path, variant, family, {"dropout": 0.0}, num_train_epochs=epochs, learning_rate=1e-2,
        fresh_learning_rate=1e-2, per_device_train_batch_size=8, clusters_only_rate=0.0, cluster_noise=0.0,
        save_strategy="no", logging_steps=100,
    )  # fmt: skip
    trainer.train()
    assert trainer.evaluate()["eval_micro_f1"] > 0.8


@pytest.mark.parametrize("variant", ["bcl", "mcg"])
def test_resuming_repeats_the_uninterrupted_run(make_model, rows, tmp_path, variant):
    """Shuffled orders, noise, mixed bits and dropout all go on as if nothing had happened."""
    options = {"save_strategy": "steps", "save_steps": 3, "num_train_epochs": 3, "cluster_noise": 0.5}
    options["save_total_limit"] = 3

    def trainer(folder):
        made = _trainer(make_model, rows, folder, variant, options={"dropout": 0.2}, **options)
        made.processing_class.label_space.decode_order = "shuffle"
        return made

    whole = trainer(tmp_path / "whole")
    whole.train()
    again = trainer(tmp_path / "again")
    again.train(resume_from_checkpoint=str(tmp_path / "whole" / "checkpoint-6"))
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    losses = [[e["loss"] for e in t.state.log_history if "loss" in e] for t in (whole, again)]
    assert losses[0] == losses[1]


def test_gradient_accumulation_is_a_mean(make_model, rows, tmp_path):
    """One step of 4 rows and four steps of 1 row, accumulated, log losses of one size."""
    firsts = []
    for batch, steps in ((4, 1), (1, 4)):
        trainer = _trainer(
            make_model, rows, tmp_path, "base", "t5", {"dropout": 0.0}, per_device_train_batch_size=batch,
            gradient_accumulation_steps=steps, max_steps=1,
        )  # fmt: skip
        trainer.train()
        firsts.append(next(e["loss"] for e in trainer.state.log_history if "loss" in e))
    assert firsts[0] == pytest.approx(firsts[1], rel=0.2)


def test_best_model_and_early_stopping(make_model, rows, tmp_path):
    trainer = _trainer(
        make_model, rows, tmp_path, "base", "t5", num_train_epochs=12, eval_strategy="epoch", save_strategy="epoch",
        load_best_model_at_end=True, learning_rate=1e-9, fresh_learning_rate=1e-9,
    )  # fmt: skip
    trainer.add_callback(EarlyStoppingCallback(early_stopping_patience=2))
    trainer.train()
    scores = [entry["eval_micro_f1"] for entry in trainer.state.log_history if "eval_micro_f1" in entry]
    assert len(scores) == trainer.state.epoch == 3  # the first is the best, and two more do not better it
    assert trainer.state.best_metric == max(scores) == scores[0]
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-4")
    best = load_file(tmp_path / "checkpoint-4" / "model.safetensors")
    weights = trainer.model.state_dict()
    assert all(torch.equal(value, weights[name]) for name, value in best.items())


def test_annealing_divides_by_the_epoch(make_model, rows, tmp_path):
    trainer = _trainer(make_model, rows, tmp_path, options={"cluster_loss_annealing": True}, num_train_epochs=3)
    trainer.train()
    assert trainer.model.cluster_loss_scale == pytest.approx(1 / 3)


def test_a_resumed_run_anneals_as_one_that_was_not_stopped(make_model, rows, tmp_path):
    options = {"options": {"cluster_loss_annealing": True}, "num_train_epochs": 3, "save_strategy": "epoch"}
    trainer = _trainer(make_model, rows, tmp_path, **options)
    trainer.train()
    again = _trainer(make_model, rows, tmp_path, **options)
    again.train(resume_from_checkpoint=True)
    assert again.evaluate()["eval_loss"] == pytest.approx(trainer.evaluate()["eval_loss"])


@pytest.mark.parametrize("option", [{"bf16_full_eval": True}, {}])
def test_evaluations_in_half_precision_leave_the_weights_as_they_are(make_model, rows, tmp_path, option):
    trainer = _trainer(make_model, rows, tmp_path, **option)
    before = {name: value.clone() for name, value in trainer.model.state_dict().items()}
    with trainer.keeping_weights():
        trainer.evaluate()
        assert (trainer.model.cluster_head.weight.dtype == torch.bfloat16) == bool(option)
    after = trainer.model.state_dict()
    assert all(value.dtype == after[name].dtype and torch.equal(value, after[name]) for name, value in before.items())
    trainer.evaluate()


def test_min_labels_are_tuned_on_the_evaluation_rows(make_model, rows, tmp_path):
    trainer = _trainer(make_model, rows, tmp_path, num_train_epochs=6, learning_rate=1e-2, decision_beams=1)
    trainer.train()
    best = trainer.tune_decisions((1, 2, 3))
    assert trainer.model.config.min_labels == best
    scores = {}
    for choice in (1, 2, 3):
        trainer.model.config.min_labels = choice
        scores[choice] = trainer.evaluate()["eval_micro_f1"]
    assert scores[best] == max(scores.values()) > min(scores.values())


def test_labels_outside_the_label_space_lower_the_recall(make_model, rows, tmp_path):
    trainer = _trainer(make_model, rows, tmp_path, options={"min_labels": 4})
    before = trainer.evaluate()
    more = rows.map(lambda row: {"labels": [*row["labels"], "opera"]})
    after = trainer.evaluate(trainer.get_test_dataloader(more).dataset)
    labels = sum(map(len, rows["labels"][:]))
    assert before["eval_micro_recall"] > 0
    assert after["eval_micro_recall"] == pytest.approx(before["eval_micro_recall"] * labels / (labels + len(rows)))
    assert after["eval_mean_labels_reference"] == before["eval_mean_labels_reference"] + 1


def test_the_folder_holds_no_pickle(make_model, rows, tmp_path):
    trainer = _trainer(make_model, rows, tmp_path, max_steps=1)
    trainer.save_model()
    names = {path.name for path in tmp_path.iterdir()}
    assert {"model.safetensors", "config.json", "label_space.json", "label_clusters.safetensors"} <= names
    assert not {name for name in names if name.endswith((".bin", ".pt", ".pkl"))}
    assert json.loads((tmp_path / "training_args.json").read_text())["max_steps"] == 1


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize(("labelled", "taken"), [(20, 20), (19, 20)])
def test_rows_without_labels_are_taken_where_there_are_many(make_model, tmp_path, caplog, labelled, taken, streaming):
    rows = Dataset.from_list([{"text": "x", "labels": []}, *labelled * [{"text": "art", "labels": ["art"]}]])
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        trainer = _trainer(make_model, rows, tmp_path, "base", streaming=streaming)
    assert f"Training data: rows without labels: 1 of {len(rows)}, e.g. row 1." in caplog.text
    assert len(trainer.train_dataset) == taken


def test_tensorboard_gets_the_losses(make_model, rows, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    trainer = _trainer(make_model, rows, tmp_path, max_steps=2, report_to=["tensorboard"])
    trainer.train()
    events = next(tmp_path.rglob("events.out.tfevents.*"))
    reader = event_accumulator.EventAccumulator(str(events.parent))
    reader.Reload()
    assert {"train/generation_loss", "train/cluster_loss"} <= set(reader.Tags()["scalars"])


def test_arguments_parse_and_differ_as_documented(tmp_path):
    (parsed,) = HfArgumentParser(XLGenTrainingArguments).parse_args_into_dataclasses(
        ["--output_dir", str(tmp_path), "--fresh_learning_rate", "0.01", "--length_bucketing", "false"]
    )
    assert (parsed.fresh_learning_rate, parsed.length_bucketing) == (0.01, False)
    mine, theirs = XLGenTrainingArguments(str(tmp_path)), Seq2SeqTrainingArguments(str(tmp_path))
    for field in dataclasses.fields(Seq2SeqTrainingArguments):
        if getattr(mine, field.name) != getattr(theirs, field.name) and field.name not in ("logging_dir", "run_name"):
            in_table = f"\n    {field.name}: " in inspect.getdoc(TrainerSettings)
            assert in_table or f"`{field.name}`" in XLGenTrainingArguments.__doc__, field.name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"cluster_noise": 2.0}, "cluster_noise=2.0"), ({"fresh_learning_rate": 0.0}, "must be a number > 0")],
)
def test_bad_arguments_are_refused(tmp_path, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        XLGenTrainingArguments(str(tmp_path), **arguments)


def test_another_processor_is_refused(make_model, rows, tmp_path):
    model, processor = make_model("t5")
    with pytest.raises(ConfigurationError, match="an XLGenProcessor is needed"):
        XLGenTrainer(model, XLGenTrainingArguments(str(tmp_path)), processing_class=processor.tokenizer)


def test_encoded_rows_are_taken_as_they_are(make_model, rows, tmp_path):
    model, processor = make_model("t5")
    encoded = encode_dataset(rows, processor)
    args = XLGenTrainingArguments(str(tmp_path), use_cpu=True)
    assert XLGenTrainer(model, args, processing_class=processor, train_dataset=encoded).train_dataset is encoded
