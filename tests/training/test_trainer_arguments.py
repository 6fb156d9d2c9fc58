"""Arguments of transformers' trainer: each has its effect, or is refused when the arguments are made."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from tiny import ROWS
from transformers import TrainerCallback, TrainingArguments

from xlgen_hf.errors import ConfigurationError, ModelFolderError
from xlgen_hf.modules.losses import token_loss
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.sampler import LengthBucketSampler
from xlgen_hf.training.trainer import XLGenTrainer
from xlgen_hf.training.unsupported import UNSUPPORTED

GUIDE = Path(__file__).parents[2] / "docs" / "guides" / "training.md"

EVALUATED = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}


def _arguments(folder, **arguments):
    chosen = {"num_train_epochs": 1, "per_device_train_batch_size": 4, "save_strategy": "no", **arguments}
    return XLGenTrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, **chosen)


def _trainer(make_model, folder, rows=ROWS, evaluation=None, options=None, **arguments):
    model, processor = make_model("t5", max_labels=4, **{"dropout": 0.0, **(options or {})})
    return XLGenTrainer(
        model, _arguments(folder, **arguments), processing_class=processor, train_dataset=rows, eval_dataset=evaluation
    )


# ---------------------------------------------------------------------------------------------------- refused


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"train_sampling_strategy": "batch_rebalance"}, "is not supported. length_bucketing"),
        ({"length_column_name": "size"}, "The lengths are those of the tokenized rows"),
        ({"sortish_sampler": True}, "Use length_bucketing"),
        ({"label_names": ["targets"]}, "The targets are made of the rows' labels"),
        ({"dataloader_persistent_workers": True, "dataloader_num_workers": 1}, "Workers are started in each epoch"),
        ({"dataloader_in_order": False}, "The seed decides the order"),
        ({"average_tokens_across_devices": False}, "the mean over the tokens of all processes"),
        ({"use_liger_kernel": True}, "Its kernels"),
        ({"debug": "underflow_overflow"}, r"debug=\['underflow_overflow'\] is not supported"),
        ({"fsdp": True}, "Each process needs the whole model"),
        ({"batch_eval_metrics": True}, "gets the label ids of all rows at once"),
        ({"include_for_metrics": ["loss"]}, "predicted and true label ids alone"),
        ({"eval_do_concat_batches": False}, "the label ids of all rows in one array"),
        ({"generation_max_length": 20}, "Set max_target_length of the processor"),
        ({"generation_config": "folder"}, "Set generation_num_beams"),
        ({"hub_strategy": "checkpoint"}, "optimizer states, which are pickles"),
        ({"hub_strategy": "all_checkpoints"}, "only models go to the Hub"),
        ({"accelerator_config": {"split_batches": True}}, "accelerator_config: split_batches=True is not supported"),
        ({"optim": "galore_adamw"}, "groups the parameters itself"),
        ({"optim": "adalomo"}, "groups the parameters itself"),
        ({"optim_target_modules": ["q"]}, r"optim_target_modules=\['q'\] is not supported"),
        ({"optim_args": "garbage"}, "optim_args='garbage' cannot be used here"),
        ({"optim": "adamw_torch_npu_fused"}, "optim='adamw_torch_npu_fused'"),
        ({"label_smoothing_factor": 1.0}, "must be at least 0 and below 1"),
        ({"label_smoothing_factor": -0.1}, "must be at least 0 and below 1"),
        ({"fp16": True}, "only a GPU computes in float16"),
        ({"dtype": "bfloat16", "fp16": True}, "dtype='bfloat16' and fp16=True: both choose the type of numbers"),
        ({"dtype": "float32", "bf16": True}, "dtype='float32' and bf16=True: both choose the type of numbers"),
        ({"dtype": "half"}, "dtype='half'"),
        ({"save_strategy": "best"}, "eval_strategy='no' means that there are none"),
        ({**EVALUATED, "prediction_loss_only": True}, "prediction_loss_only=True leaves the label sets out"),
        ({**EVALUATED, "predict_with_generate": False}, "Give metric_for_best_model='loss'"),
    ],
)
def test_what_would_have_no_effect_or_fail_late_is_refused(tmp_path, arguments, message):
    with pytest.raises(ConfigurationError, match=message):
        _arguments(tmp_path, **arguments)


@pytest.mark.parametrize("name", ["ACCELERATE_USE_FSDP", "ACCELERATE_USE_DEEPSPEED"])
def test_a_launcher_that_shards_the_model_is_refused(tmp_path, monkeypatch, name):
    arguments = _arguments(tmp_path)
    monkeypatch.setenv(name, "true")
    from xlgen_hf.training.unsupported import check_supported

    with pytest.raises(ConfigurationError, match=f"{name} is set in the environment. Each process needs the whole"):
        check_supported(arguments)


@pytest.mark.parametrize("metric", ["f1", "books_micro_f1"])
def test_a_metric_that_no_evaluation_gives(make_model, tmp_path, metric):
    with pytest.raises(ConfigurationError, match=f"metric_for_best_model='{metric}' is none of the .* scores"):
        _trainer(make_model, tmp_path, evaluation=ROWS, metric_for_best_model=metric, **EVALUATED)


def test_the_best_model_by_one_of_several_sets_of_rows(make_model, tmp_path):
    sets = {"one": ROWS, "two": ROWS[:3]}
    with pytest.raises(ConfigurationError, match=r"metric_for_best_model='micro_f1' is none of .* one_micro_f1"):
        _trainer(make_model, tmp_path, evaluation=sets, **EVALUATED)
    trainer = _trainer(make_model, tmp_path, evaluation=sets, metric_for_best_model="eval_two_micro_f1", **EVALUATED)
    trainer.train()
    assert trainer.state.best_metric == trainer.evaluate()["eval_two_micro_f1"]


# ---------------------------------------------------------------------------------------------------- in effect


@pytest.mark.parametrize(
    "arguments",
    [
        {"remove_unused_columns": True},
        {"label_names": None},
        {"eval_accumulation_steps": 1, "eval_use_gather_object": True},
        {"predict_with_generate": False, "eval_strategy": "epoch"},
        {**EVALUATED, "prediction_loss_only": True, "metric_for_best_model": "loss"},
        {"save_strategy": "best", "eval_strategy": "epoch"},
        {"lr_scheduler_type": "reduce_lr_on_plateau", "eval_strategy": "epoch"},
        {"eval_on_start": True, "eval_strategy": "epoch", "eval_delay": 1},
        {"include_num_input_tokens_seen": "non_padding"},
        {"neftune_noise_alpha": 5.0},
        {"dataloader_num_workers": 1, "dataloader_prefetch_factor": 2, "dataloader_multiprocessing_context": "fork"},
        {"accelerator_config": {"gradient_accumulation_kwargs": {"sync_each_batch": True}}},
        {"optim": "adafactor"},
        {"activation_checkpointing": True},
    ],
)
def test_what_is_supported_trains_and_evaluates(make_model, tmp_path, arguments):
    trainer = _trainer(make_model, tmp_path, evaluation=ROWS, **arguments)
    trainer.train()
    assert trainer.state.global_step == 2
    assert trainer.evaluate()["eval_loss"] > 0


def test_label_smoothing_is_over_the_label_tokens(make_model, tmp_path):
    """In training alone: `eval_loss` is that of the plain targets."""
    options = {"max_steps": 1, "per_device_train_batch_size": 8, "logging_steps": 1}
    plain, smoothed = (
        _trainer(make_model, tmp_path, evaluation=ROWS, label_smoothing_factor=factor, **options)
        for factor in (0.0, 0.3)
    )
    assert smoothed.evaluate()["eval_loss"] == plain.evaluate()["eval_loss"]
    batch = next(iter(smoothed.get_train_dataloader()))
    with torch.no_grad():
        logits = smoothed.model(**batch).logits  # over the label tokens
    columns = smoothed.model.output_positions(batch["labels"])
    kept = columns != -100
    expected = 0.7 * token_loss(logits, columns) - 0.3 * logits.log_softmax(-1)[kept].mean()
    assert logits.shape[-1] < smoothed.model.config.vocab_size
    smoothed.train()
    assert smoothed.state.log_history[0]["loss"] == pytest.approx(float(expected), abs=1e-3)


def test_label_smoothing_without_generated_tokens(make_model, tmp_path):
    model, processor = make_model("t5")
    model.config.generation_loss_weight = 0.0
    with pytest.raises(ConfigurationError, match=r"label_smoothing_factor=0.1 is about generated tokens"):
        XLGenTrainer(model, _arguments(tmp_path, label_smoothing_factor=0.1), processing_class=processor)


@pytest.mark.parametrize(
    ("arguments", "kind"),
    [
        ({}, "buckets"),
        ({"length_bucketing": False}, "random"),
        ({"train_sampling_strategy": "group_by_length", "length_bucketing": False}, "buckets"),
        ({"train_sampling_strategy": "sequential"}, "sequential"),
    ],
)
def test_the_order_of_training_rows(make_model, tmp_path, arguments, kind):
    trainer = _trainer(make_model, tmp_path, rows=ROWS * 4, **arguments)
    trainer.get_train_dataloader()
    order = list(trainer.train_sampler)
    assert sorted(order) == list(range(32))
    assert (order == list(range(32))) == (kind == "sequential")
    bucketed = list(LengthBucketSampler(trainer.train_dataset["length"][:], 4, 42))
    assert (order == bucketed) == (kind == "buckets")


def test_a_data_seed_of_0_is_one(make_model, tmp_path):
    orders = []
    for seed in (None, 0, 42):
        trainer = _trainer(make_model, tmp_path, rows=ROWS * 4, data_seed=seed)
        trainer.get_train_dataloader()
        orders.append(list(trainer.train_sampler))
    assert orders[0] == orders[2] != orders[1]


def test_a_batch_size_is_found_that_fits(make_model, tmp_path, monkeypatch):
    """As a GPU says it: the trainer makes batches smaller until they fit."""
    trainer = _trainer(make_model, tmp_path, auto_find_batch_size=True, per_device_train_batch_size=4)
    compute_loss = trainer.compute_loss

    def limited(model, inputs, **options):
        if len(inputs["labels"]) > 2:
            raise RuntimeError("CUDA out of memory.")
        return compute_loss(model, inputs, **options)

    monkeypatch.setattr(trainer, "compute_loss", limited)
    assert trainer.train().global_step == 4


def test_a_checkpoint_of_the_model_alone_is_not_continued(make_model, tmp_path):
    _trainer(make_model, tmp_path, save_only_model=True, save_strategy="epoch").train()
    again = _trainer(make_model, tmp_path, num_train_epochs=2)
    with pytest.raises(ModelFolderError, match="holds the model alone, as save_only_model asks for"):
        again.train(resume_from_checkpoint=True)


class _Preempted(TrainerCallback):
    """Asks for a checkpoint, as the signal of a scheduler does."""

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 3:
            self.manager.is_checkpoint_requested = True


def test_a_checkpoint_just_in_time(make_model, tmp_path):
    trainer = _trainer(make_model, tmp_path, enable_jit_checkpoint=True, num_train_epochs=4)
    preempted = _Preempted()
    callbacks = trainer.callback_handler.callbacks
    preempted.manager = next(one.jit_manager for one in callbacks if hasattr(one, "jit_manager"))
    trainer.add_callback(preempted)
    trainer.train()
    assert trainer.state.global_step in (3, 4)
    again = _trainer(make_model, tmp_path, num_train_epochs=4)
    again.train(resume_from_checkpoint=True)
    assert again.state.global_step == 8


@pytest.mark.parametrize("options", [{"max_length": 3}, {"top_p": 0.5}])
def test_evaluation_searches_with_beams_alone(make_model, tmp_path, options):
    trainer = _trainer(make_model, tmp_path, evaluation=ROWS)
    assert trainer.evaluate(num_beams=3).keys() == trainer.evaluate().keys()
    for evaluate in (trainer.evaluate, trainer.predict):
        with pytest.raises(ConfigurationError, match=f"{min(options)}: evaluation searches label sets with num_beams"):
            evaluate(ROWS, **options)


# ---------------------------------------------------------------------------------------------------- documented


def test_the_guide_names_all_that_is_refused():
    text = GUIDE.read_text(encoding="utf-8")
    table = re.findall(r"`(\w+)", text[text.index("### Arguments of transformers") :])
    assert not set(UNSUPPORTED) - set(table)


def test_a_process_that_sees_several_gpus_uses_one(tmp_path, monkeypatch):
    monkeypatch.setattr(TrainingArguments, "n_gpu", property(lambda _: 4))
    assert TrainingArguments(str(tmp_path)).train_batch_size == 32
    given = XLGenTrainingArguments(str(tmp_path), per_device_train_batch_size=8)
    assert (given.n_gpu, given.train_batch_size, given.eval_batch_size) == (1, 8, 64)
