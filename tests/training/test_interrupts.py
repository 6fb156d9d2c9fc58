"""Ctrl-C and SIGTERM: a checkpoint is written, the training ends at once, and resuming repeats the whole run."""

from __future__ import annotations

import logging
import os
import signal
import threading

import pytest
import torch
from transformers import TrainerCallback

from xlgen_hf.errors import Terminated
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.checkpoints import newest_checkpoint
from xlgen_hf.training.progress import run_training
from xlgen_hf.training.trainer import XLGenTrainer


class _Signals(TrainerCallback):
    """Sends a signal to this process at a moment, and counts what happens after it."""

    def __init__(self, number, event, step):
        self.number, self.event, self.step = number, event, step
        self.sent, self.evaluated = False, 0

    def _at(self, event, state):
        self.evaluated += self.sent and event == "prediction_step"
        if not self.sent and event == self.event and state.global_step == self.step:
            self.sent = True
            os.kill(os.getpid(), self.number)

    def on_step_begin(self, args, state, control, **kwargs):
        self._at("step_begin", state)

    def on_step_end(self, args, state, control, **kwargs):
        self._at("step_end", state)

    def on_prediction_step(self, args, state, control, **kwargs):
        self._at("prediction_step", state)


@pytest.fixture
def make_trainer(make_model, rows):
    """A function that makes a trainer of a tiny model which evaluates in 8 batches and keeps the best checkpoint."""

    def make(folder, **arguments):
        model, processor = make_model("bert", "bcl", max_labels=4, dropout=0.2)
        known = {"eval_strategy": "epoch", "save_strategy": "epoch", "load_best_model_at_end": True}
        args = XLGenTrainingArguments(
            output_dir=str(folder), use_cpu=True, disable_tqdm=True, per_device_train_batch_size=2,
            per_device_eval_batch_size=1, logging_steps=1, num_train_epochs=2, save_total_limit=None,
            learning_rate=1e-2, **{**known, **arguments},
        )  # fmt: skip
        return XLGenTrainer(model, args, processing_class=processor, train_dataset=rows, eval_dataset=rows)

    return make


@pytest.fixture(scope="module")
def whole_runs():
    """Trainers that nobody stopped, by their arguments: those that tests of this module have trained so far."""
    return {}


def _evaluations(trainer):
    return [(one["step"], one["eval_micro_f1"]) for one in trainer.state.log_history if "eval_micro_f1" in one]


def _losses(trainer):
    return [(one["step"], one["loss"]) for one in trainer.state.log_history if "loss" in one]


@pytest.mark.parametrize(
    ("number", "error", "event", "step", "due", "arguments"),
    [
        (signal.SIGINT, KeyboardInterrupt, "step_begin", 1, False, {}),
        (signal.SIGTERM, Terminated, "step_begin", 5, False, {}),
        (signal.SIGINT, KeyboardInterrupt, "step_begin", 3, True, {}),  # the step that ends the first epoch
        (signal.SIGTERM, Terminated, "prediction_step", 4, True, {}),  # in the evaluation of the first epoch
        (signal.SIGINT, KeyboardInterrupt, "prediction_step", 8, True, {}),  # in that of the last one
        (
            signal.SIGINT, KeyboardInterrupt, "step_begin", 2, True,
            {"eval_strategy": "steps", "eval_steps": 3, "save_strategy": "steps", "save_steps": 3},
        ),
    ],
)  # fmt: skip
def test_a_stop_saves_and_ends_and_the_run_is_repeated(
    make_trainer, whole_runs, tmp_path, number, error, event, step, due, arguments, caplog
):
    whole = whole_runs.get(str(arguments)) or make_trainer(tmp_path / "whole", **arguments)
    if str(arguments) not in whole_runs:
        whole.train()
        whole_runs[str(arguments)] = whole

    stopped = make_trainer(tmp_path / "run", **arguments)
    signals = _Signals(number, event, step)
    stopped.add_callback(signals)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"), pytest.raises(error, match=r"^$") as caught:
        run_training(stopped, None)
    assert type(caught.value) is error
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    assert signals.evaluated <= 1  # not all validation rows
    assert "The same command continues from it" in caplog.text
    checkpoint = newest_checkpoint(tmp_path / "run")
    assert checkpoint.step == stopped.state.global_step == step + (event == "step_begin")
    assert checkpoint.evaluation_due == due

    again = make_trainer(tmp_path / "run", **arguments)
    run_training(again, str(checkpoint.folder))
    assert again.state.global_step == whole.state.global_step
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, again.model.state_dict()[name]), name
    assert _losses(again) == _losses(whole)
    assert _evaluations(again) == _evaluations(whole)
    assert again.state.best_metric == whole.state.best_metric
    assert again.state.best_global_step == whole.state.best_global_step


def test_a_second_signal_ends_at_once(make_trainer, tmp_path):
    trainer = make_trainer(tmp_path)
    trainer.add_callback(_Signals(signal.SIGINT, "step_begin", 1))
    trainer.add_callback(_Signals(signal.SIGINT, "step_begin", 1))
    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        run_training(trainer, None)
    assert newest_checkpoint(tmp_path) is None


def test_a_training_in_another_thread_leaves_signals_alone(make_trainer, tmp_path):
    trainer = make_trainer(tmp_path, max_steps=1, eval_strategy="no", save_strategy="no", load_best_model_at_end=False)
    before = signal.getsignal(signal.SIGINT)
    thread = threading.Thread(target=run_training, args=(trainer, None))
    thread.start()
    thread.join()
    assert trainer.state.global_step == 1
    assert signal.getsignal(signal.SIGINT) is before
