"""Checkpoints are complete or not there: cut off, damaged, on a full disk, rotated, and resumed from."""

from __future__ import annotations

import json
import logging
import os
import resource
import shutil
import signal
from pathlib import Path

import pytest
import torch
from processes import run_forked
from tiny import ROWS
from transformers import TrainerCallback

from xlgen_hf.errors import ConfigurationError, ModelFolderError, SaveError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.leftovers import CHECKPOINT_FILE
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.checkpoints import (
    finish_checkpoint,
    newest_checkpoint,
    read_checkpoint,
    remove_incomplete,
    rotate_checkpoints,
    writing_checkpoint,
)
from xlgen_hf.training.progress import run_training
from xlgen_hf.training.trainer import XLGenTrainer


@pytest.fixture
def make_trainer(make_model, rows):
    """A function that makes a trainer of a tiny model which saves after each step of the 6."""

    def make(folder, variant="base", family="t5", **arguments):
        model, processor = make_model(family, variant, max_labels=4, dropout=0.2)
        known = {
            "max_steps": 6,
            "save_strategy": "steps",
            "save_steps": 1,
            "save_total_limit": None,
            "logging_steps": 1,
        }
        args = XLGenTrainingArguments(
            output_dir=str(folder), use_cpu=True, disable_tqdm=True, per_device_train_batch_size=2,
            **{**known, **arguments},
        )  # fmt: skip
        return XLGenTrainer(model, args, processing_class=processor, train_dataset=rows, eval_dataset=rows)

    return make


def _weights(trainer):
    return {name: value.clone() for name, value in trainer.model.state_dict().items()}


def _assert_same(one, other):
    assert one.keys() == other.keys()
    for name, value in one.items():
        assert torch.equal(value, other[name]), name


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """What the first test that asks for a whole run leaves for the others: its weights, and its folder `run`."""
    return {"run": tmp_path_factory.mktemp("run")}


@pytest.fixture
def whole(make_trainer, kept, tmp_path):
    """Weights after all 6 steps; the folder of the test holds the checkpoints of that run."""
    if "weights" not in kept:
        trainer = make_trainer(kept["run"])
        trainer.train()
        kept["weights"] = _weights(trainer)
    shutil.copytree(kept["run"], tmp_path, dirs_exist_ok=True)
    return kept["weights"]


def test_each_checkpoint_is_complete_and_lists_its_files(whole, tmp_path):
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert folders == [f"checkpoint-{step}" for step in range(1, 7)]
    for step in range(1, 7):
        checkpoint = read_checkpoint(tmp_path / f"checkpoint-{step}")
        assert (checkpoint.step, checkpoint.evaluation_due) == (step, False)
        listed = json.loads((checkpoint.folder / CHECKPOINT_FILE).read_text())["files"]
        there = {path.name for path in checkpoint.folder.iterdir()} - {CHECKPOINT_FILE}
        assert set(listed) == there
        assert {"model.safetensors", "optimizer.pt", "scheduler.pt", "trainer_state.json", "rng_state.pth"} <= there
        assert "training_args.bin" not in there
    assert newest_checkpoint(tmp_path).step == 6


@pytest.mark.parametrize(
    "damage",
    [
        lambda folder: (folder / "trainer_state.json").unlink(),
        lambda folder: (folder / "model.safetensors").write_bytes(b"short"),
        lambda folder: (folder / "optimizer.pt").write_bytes((folder / "optimizer.pt").read_bytes()[:-1]),
        lambda folder: (folder / CHECKPOINT_FILE).write_text("{"),
        lambda folder: (shutil.rmtree(folder), folder.mkdir()),
    ],
)
def test_the_newest_complete_checkpoint_is_taken(make_trainer, whole, tmp_path, damage, caplog):
    """Whatever is cut off, the run continues from the checkpoint before, with the result of one that was not."""
    damage(tmp_path / "checkpoint-6")
    damage(tmp_path / "checkpoint-4")
    (tmp_path / ".unfinished-checkpoint-5").mkdir()
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        assert newest_checkpoint(tmp_path).step == 5
    assert "checkpoint-6 is not a complete checkpoint of this version and is ignored" in caplog.text
    again = make_trainer(tmp_path)
    again.train(resume_from_checkpoint=True)
    _assert_same(_weights(again), whole)
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{step}" for step in (1, 2, 3, 5, 6)]


def test_means_in_the_log_are_those_of_all_steps(make_trainer, tmp_path):
    """The fault: of a run that was resumed, losses were means of the steps since, also that of the training."""
    arguments = {"save_steps": 2, "logging_steps": 3}
    whole = make_trainer(tmp_path / "whole", "bcl", **arguments)
    whole.train()
    shutil.copytree(tmp_path / "whole" / "checkpoint-2", tmp_path / "run" / "checkpoint-2")
    again = make_trainer(tmp_path / "run", "bcl", **arguments)
    again.train(resume_from_checkpoint=True)
    names = ("loss", "train_loss", "generation_loss", "cluster_loss")
    losses = [[[one.get(name) for name in names] for one in run.state.log_history] for run in (whole, again)]
    assert losses[1] == losses[0]
    assert len(losses[0]) == 3
    seconds = again.state.log_history[-1]["train_runtime"]
    assert seconds > json.loads((tmp_path / "run" / "checkpoint-2" / "losses.json").read_text())["seconds"] > 0


@pytest.mark.parametrize("step", [4, 8])
def test_the_evaluation_of_an_epoch_follows_a_checkpoint_of_its_last_step(make_trainer, tmp_path, step):
    """The fault: a run that was killed between the two never did that evaluation."""
    arguments = {"save_steps": 4, "max_steps": 8, "eval_strategy": "epoch"}
    whole = make_trainer(tmp_path / "whole", **arguments)
    whole.train()
    name = f"checkpoint-{step}"
    assert read_checkpoint(tmp_path / "whole" / name).evaluation_due
    shutil.copytree(tmp_path / "whole" / name, tmp_path / "run" / name)
    again = make_trainer(tmp_path / "run", **arguments)
    again.train(resume_from_checkpoint=True)
    found = [
        [(one["step"], one["eval_micro_f1"]) for one in run.state.log_history if "eval_micro_f1" in one]
        for run in (whole, again)
    ]
    assert found[1] == found[0]
    assert [one[0] for one in found[0]] == [4, 8]


def test_a_checkpoint_that_is_not_complete_is_refused_by_name(make_trainer, tmp_path):
    make_trainer(tmp_path, max_steps=1).train()
    (tmp_path / "checkpoint-1" / "model.safetensors").unlink()
    with pytest.raises(ModelFolderError, match="checkpoint-1 is not a complete checkpoint"):
        make_trainer(tmp_path).train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    with pytest.raises(ConfigurationError, match="has no complete checkpoint to resume from"):
        make_trainer(tmp_path).train(resume_from_checkpoint=True)


def test_folders_of_others_are_left_alone(tmp_path, caplog):
    """Checkpoints that another program wrote are ignored, and stay."""
    (tmp_path / "checkpoint-7").mkdir()
    (tmp_path / "checkpoint-7" / "trainer_state.json").write_text("{}")
    (tmp_path / "checkpoint-best").mkdir()
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        assert newest_checkpoint(tmp_path) is None
        remove_incomplete(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-7", "checkpoint-best"}
    assert "checkpoint-7 is not a complete checkpoint" in caplog.text


def test_a_full_disk_leaves_nothing_half_written(make_trainer, whole, tmp_path):
    """The limit stands for the disk: each file beyond it fails, in the model, the optimizer or the state."""
    sizes = {path.name: path.stat().st_size for path in (tmp_path / "checkpoint-1").iterdir()}
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        for limit in (sizes["optimizer.pt"] - 1, sizes["model.safetensors"] - 1, sizes["tokenizer.json"] - 1):
            trainer = make_trainer(tmp_path / "run")
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limits[1]))
            with pytest.raises(SaveError, match=r"Nothing was saved to .*checkpoint-1"):
                trainer.train()
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            assert not list((tmp_path / "run").iterdir())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, before)
    again = make_trainer(tmp_path / "run")
    again.train()
    _assert_same(_weights(again), whole)


def test_old_checkpoints_go_but_for_the_best_and_the_newest(tmp_path):
    for step in (9, 2, 10, 11):  # 9 is of an earlier run
        with writing_checkpoint(tmp_path, step) as folder:
            pass
        finish_checkpoint(folder, step, evaluation_due=False)

    def left():
        return {int(path.name.split("-")[1]) for path in tmp_path.iterdir()}

    rotate_checkpoints(tmp_path, None, None)
    assert left() == {2, 9, 10, 11}
    rotate_checkpoints(tmp_path, 3, str(tmp_path / "checkpoint-2"))
    assert left() == {2, 10, 11}
    rotate_checkpoints(tmp_path, 1, str(tmp_path / "checkpoint-2"))
    assert left() == {2, 11}
    (tmp_path / "checkpoint-99").mkdir()  # of another program
    rotate_checkpoints(tmp_path, 1, None)
    assert left() == {11, 99}


def test_a_second_run_in_a_folder_keeps_its_own_checkpoints(make_trainer, tmp_path):
    """The fault: those of the run before, which had got further, counted as the newest, and were resumed from."""
    make_trainer(tmp_path, save_total_limit=2, seed=1).train()
    second = make_trainer(tmp_path, save_total_limit=2, seed=2)
    second.add_callback(_StopAfter(3))
    second.train()
    assert {path.name for path in tmp_path.iterdir()} == {"checkpoint-2", "checkpoint-3"}
    assert newest_checkpoint(tmp_path).step == 3
    resumed = make_trainer(tmp_path, save_total_limit=2, seed=2)
    resumed.train(resume_from_checkpoint=True)
    whole = make_trainer(tmp_path / "whole", seed=2)
    whole.train()
    _assert_same(_weights(resumed), _weights(whole))


@pytest.mark.parametrize("stop", [2, 4])
def test_the_best_step_is_kept_where_a_run_was_stopped_before_its_evaluation(make_trainer, tmp_path, stop):
    """The fault: with save_strategy="best" the resumed run did that evaluation, and did not save what it praised."""
    options = {"max_steps": 6, "eval_strategy": "steps", "eval_steps": 2, "save_strategy": "best",
               "load_best_model_at_end": True, "metric_for_best_model": "micro_f1"}  # fmt: skip

    def train(folder, checkpoint=None, stopped=None):
        trainer = make_trainer(folder, **options)
        trainer.compute_metrics = lambda _: {"micro_f1": {stop: 0.9}.get(trainer.state.global_step, 0.1)}
        if stopped:
            trainer.add_callback(_InterruptAfter(stopped))
        run_training(trainer, checkpoint)
        return trainer

    whole = train(tmp_path / "whole")
    with pytest.raises(KeyboardInterrupt):
        train(tmp_path / "run", stopped=stop)
    resumed = train(tmp_path / "run", str(newest_checkpoint(tmp_path / "run").folder))
    assert [Path(one.state.best_model_checkpoint).name for one in (whole, resumed)] == [f"checkpoint-{stop}"] * 2
    _assert_same(_weights(resumed), _weights(whole))


class _InterruptAfter(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


class _StopAfter(TrainerCallback):
    def __init__(self, step):
        self.step = step

    def on_step_end(self, args, state, control, **kwargs):
        control.should_training_stop |= state.global_step >= self.step


def test_the_best_checkpoint_is_found_in_a_folder_that_was_moved(make_trainer, tmp_path):
    options = {"eval_strategy": "steps", "eval_steps": 2, "load_best_model_at_end": True, "save_steps": 2}
    learning = {"learning_rate": 1e-9, "fresh_learning_rate": 1e-9, "metric_for_best_model": "micro_f1"}
    first = make_trainer(tmp_path / "first", **options, **learning)
    first.train()
    assert first.state.best_model_checkpoint == str(tmp_path / "first" / "checkpoint-2")
    shutil.rmtree(tmp_path / "first" / "checkpoint-6")
    (tmp_path / "first").rename(tmp_path / "second")
    again = make_trainer(tmp_path / "second", **options, **learning)
    again.train(resume_from_checkpoint=True)
    assert again.state.best_model_checkpoint == str(tmp_path / "second" / "checkpoint-2")


def test_a_complete_training_is_not_continued(make_trainer, tmp_path, caplog):
    first = make_trainer(tmp_path, max_steps=3)
    first.train()
    again = make_trainer(tmp_path, max_steps=3)
    with caplog.at_level(logging.INFO, logger="xlgen_hf"):
        assert again.train(resume_from_checkpoint=True).global_step == 3
    assert "The training is complete: step 3 of 3" in caplog.text
    _assert_same(_weights(again), _weights(first))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f"checkpoint-{step}" for step in (1, 2, 3)]


def test_a_checkpoint_of_another_model_is_refused(make_trainer, tmp_path):
    make_trainer(tmp_path, max_steps=1).train()
    with pytest.raises(ModelFolderError, match="checkpoint-1 does not fit the model: weights of the same name have"):
        make_trainer(tmp_path, variant="bcl").train(resume_from_checkpoint=True)


def test_evaluation_during_a_training_does_not_change_it(make_trainer, tmp_path):
    """The random numbers of a training are its own."""
    plain = make_trainer(tmp_path / "plain", variant="bcl")
    plain.train()
    evaluated = make_trainer(tmp_path / "evaluated", variant="bcl", eval_strategy="steps", eval_steps=2)
    evaluated.train()
    _assert_same(_weights(evaluated), _weights(plain))


_KILLED = """
import os, sys
from xlgen_hf.cli.main import main
real = os.replace

def dying(source, target, *more, **options):
    if str(target).endswith("checkpoint-2/checkpoint.json"):
        os.kill(os.getpid(), 9)
    return real(source, target, *more, **options)

os.replace = dying
sys.exit(main(sys.argv[1:]))
"""


def test_a_run_that_is_killed_while_it_saves_continues(checkpoints, tmp_path):
    """kill -9 in the middle of a checkpoint: the same command ends with the weights of a run that nobody killed."""
    from xlgen_hf.cli.main import main

    write_jsonl(tmp_path / "rows.jsonl", ROWS)

    def arguments(name):
        return [
            "train", "--train-file", str(tmp_path / "rows.jsonl"), "--backbone", checkpoints["t5"],
            "--variant", "base", "--output-dir", str(tmp_path / name), "--use_cpu", "True", "--max_steps", "3",
            "--save_strategy", "steps", "--save_steps", "1", "--per_device_train_batch_size", "2",
        ]  # fmt: skip

    assert run_forked(tmp_path, _KILLED, *arguments("killed")).returncode == -signal.SIGKILL
    assert [path.name for path in (tmp_path / "killed").glob("*checkpoint-2")] == [".unfinished-checkpoint-2"]
    assert main(arguments("killed")) == 0
    assert main(arguments("whole")) == 0
    names = [{path.name for path in (tmp_path / run).rglob("*")} for run in ("killed", "whole")]
    assert names[0] == names[1]
    weights = [(tmp_path / run / "model.safetensors").read_bytes() for run in ("killed", "whole")]
    assert weights[0] == weights[1]
