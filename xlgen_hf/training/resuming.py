"""A trainer whose runs can be stopped and killed at any moment, and go on as if they had not been."""

from __future__ import annotations

import logging
import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol, TypedDict

import torch
from torch import distributed
from transformers import (
    PreTrainedModel,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_callback import ExportableState
from transformers.trainer_utils import IntervalStrategy, SaveStrategy, TrainOutput

from ..errors import ConfigurationError, ModelFolderError, SaveError
from ..files.schema import Fields, integer, list_of, mapping_of, number, optional
from .checkpoints import (
    Checkpoint,
    finish_checkpoint,
    newest_checkpoint,
    read_checkpoint,
    remove_incomplete,
    rotate_checkpoints,
    writing_checkpoint,
)

__all__ = ["ResumableTrainer"]

logger = logging.getLogger(__name__)

_LOSSES_FILE = "losses.json"  # in a checkpoint
_PROBE_FILE, _PROBE_SIZE = "probe", 2**20


class _Losses(TypedDict):
    """Losses since the last log and all before it (None where they are not finite), its step, and seconds.

    `parts` holds sum and number of the parts of the loss since the last log, by name; older checkpoints lack it.
    """

    since_log: float | None
    logged: float | None
    step: int
    seconds: float
    parts: dict[str, list[float | None]]


_LOSSES_FORM = Fields[_Losses](
    {
        "since_log": optional(number()),
        "logged": optional(number()),
        "step": integer(minimum=0),
        "seconds": number(minimum=0),
        "parts": mapping_of(list_of(optional(number()), min_length=2, max_length=2)),
    },
    optional=("parts",),
    format_version=1,
    made_by="xlgen train",
)


class _LoadResult(Protocol):
    """What torch says of a state that it has loaded."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class _Resumption(TrainerCallback):
    """Gives a run that is resumed what it had besides the state that the base class restores, once that has begun."""

    def __init__(self, trainer: ResumableTrainer, checkpoint: Checkpoint) -> None:
        self.trainer = trainer
        self.checkpoint = checkpoint

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Take up the losses; do the evaluation before which the run was stopped, and write the checkpoint again."""
        self.trainer.remove_callback(self)
        self.trainer.load_losses(self.checkpoint.folder)
        if self.checkpoint.evaluation_due and state.global_step == self.checkpoint.step:
            self.trainer.evaluate_and_save(self.checkpoint)


@contextmanager
def _steps_for_fractions(args: TrainingArguments, max_steps: int) -> Iterator[None]:
    """Give steps where arguments are fractions of all: the base class would warn that they are not a checkpoint's."""
    given = {name: getattr(args, name) for name in ("logging_steps", "eval_steps", "save_steps")}
    for name, value in given.items():
        if value is not None and value < 1:
            setattr(args, name, math.ceil(max_steps * value))
    try:
        yield
    finally:
        for name, value in given.items():
            setattr(args, name, value)


class ResumableTrainer(Trainer):
    """A `Trainer` with checkpoints that are complete or not there, see `xlgen_hf.training.checkpoints`.

    Attributes:
        evaluation_due: whether the next checkpoint is written in front of an evaluation that the run owes.
        loss_parts: the parts of the loss since the last log of a loss, by name: their sum and number, `(2,)`.
    """

    loss_parts: dict[str, torch.Tensor]

    evaluation_due = False

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: object) -> TrainOutput:
        """Train.

        What is left of checkpoints that were not finished is removed.

        Args:
            resume_from_checkpoint: folder of a checkpoint; True for the newest complete one of `args.output_dir`. A
                training that is complete there is not continued.
            kwargs: those of `Trainer.train`.

        Raises:
            ModelFolderError: if the checkpoint is not complete.
            ConfigurationError: if there is none.
        """
        self._began, self._seconds_before = time.monotonic(), 0.0
        self.loss_parts = {}  # what a training before did not log is no part of this one's
        checkpoint = self._checkpoint_to_resume(resume_from_checkpoint)
        if self.args.should_save:
            remove_incomplete(self.args.output_dir)
        self._wait_for_all()
        if checkpoint is None:
            return super().train(**kwargs)
        self.add_callback(_Resumption(self, checkpoint))
        return super().train(resume_from_checkpoint=str(checkpoint.folder), **kwargs)

    def _checkpoint_to_resume(self, wanted: str | bool | None) -> Checkpoint | None:
        if not wanted:
            return None
        checkpoint = newest_checkpoint(self.args.output_dir) if wanted is True else read_checkpoint(wanted)
        if checkpoint is None and wanted is True:
            raise ConfigurationError(f"{self.args.output_dir} has no complete checkpoint to resume from.")
        if checkpoint is None:
            raise ModelFolderError(
                f"{wanted} is not a complete checkpoint of this version. Resume from another one, or start again in "
                "another output folder."
            )
        if not (checkpoint.folder / _LOSSES_FILE).exists():
            raise ModelFolderError(
                f"{checkpoint.folder} holds the model alone, as save_only_model asks for; no training can continue "
                "from it. Start again in another output folder, without save_only_model."
            )
        return checkpoint

    def _init_training_state(self, max_steps: int, *args: object, **kwargs: object) -> tuple[int, int]:
        with _steps_for_fractions(self.args, max_steps):
            start: tuple[int, int] = super()._init_training_state(max_steps, *args, **kwargs)
        self._note_best(Path(self.args.output_dir))  # the folder of the run may have been moved
        if self.state.global_step >= self.state.max_steps:
            logger.info("The training is complete: step %d of %d.", self.state.global_step, self.state.max_steps)
        return start

    def _run_epoch(self, *args: object, **kwargs: object) -> None:
        # The base class checks for the last step after a step, so it would do one more where a run is complete.
        if self.state.global_step >= self.state.max_steps:
            self.control.should_training_stop = True
        if not self.control.should_training_stop:
            super()._run_epoch(*args, **kwargs)

    def evaluate_and_save(self, checkpoint: Checkpoint) -> None:
        """Do the evaluation that follows a checkpoint, and write the checkpoint again where one follows that.

        Args:
            checkpoint: what the run was resumed from.
        """
        self._load_rng_state(str(checkpoint.folder))  # which the checkpoint keeps; an evaluation draws no numbers
        metrics = self._evaluate(None, None)
        is_best = self._determine_best_metric(metrics=metrics, trial=None)
        saves = self.args.save_strategy
        if is_best if saves == SaveStrategy.BEST else saves == self.args.eval_strategy:
            self.save_now()

    # ------------------------------------------------------------------------------------------------ saving

    def save_now(self) -> None:
        """Write a checkpoint at the present step."""
        self._save_checkpoint(self.model, None)

    def _save_checkpoint(self, model: PreTrainedModel, trial: object) -> None:
        """Write a checkpoint: model, optimizer, scheduler, random states and the state of the run, or nothing."""
        if self.hp_search_backend is None and trial is None:
            self.store_flos()
        run, step = Path(self._get_output_dir(trial=trial)), self.state.global_step
        self._wait_for_all()
        with writing_checkpoint(run, step) as folder:
            self.save_model(str(folder), _internal_call=True)
            if not self.args.save_only_model:
                self._save_progress(folder)
                self._save_losses(folder)
            self._note_best(run)
            if self.args.should_save:
                self._note_callbacks()
                self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
            self._wait_for_all()
            if self.args.should_save:
                finish_checkpoint(folder, step, evaluation_due=self.evaluation_due or self._is_before_evaluation())
        self.evaluation_due = False
        self._wait_for_all()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(run / f"checkpoint-{step}"))
        if self.args.should_save:
            rotate_checkpoints(run, self.args.save_total_limit, self.state.best_model_checkpoint)

    def _is_before_evaluation(self) -> bool:
        """Whether an epoch has just ended, whose evaluation comes after a checkpoint of its last step."""
        epoch, step = self.state.epoch or 0.0, self.state.global_step
        if self.args.eval_strategy != IntervalStrategy.EPOCH or epoch != int(epoch) or epoch < self.args.eval_delay:
            return False
        done = (name for log in self.state.log_history if log["step"] == step for name in log)
        return not any(name.startswith("eval_") for name in done)

    def _save_progress(self, folder: Path) -> None:
        """Write optimizer, scheduler, scaler and random states."""
        try:
            self._save_optimizer_and_scheduler(str(folder))
            self._save_scaler(str(folder))
            self._save_rng_state(str(folder))
        except RuntimeError as err:  # which `torch.save` raises where it cannot write
            reason = _what_prevents_writing(folder) or f"torch cannot write the state of the optimizer ({err})"
            raise SaveError(folder, reason) from err

    def _save_losses(self, folder: Path) -> None:
        """Write what the base class makes means of: losses since the last log and all before, and the seconds."""
        since_log = self.accelerator.gather(self._tr_loss.reshape(1)).mean().item()
        parts = {name: self.accelerator.reduce(part, "mean").tolist() for name, part in self.loss_parts.items()}
        if self.args.should_save:
            content: _Losses = {
                "since_log": since_log if math.isfinite(since_log) else None,
                "logged": self._total_loss_scalar if math.isfinite(self._total_loss_scalar) else None,
                "step": self._globalstep_last_logged,
                "seconds": self._seconds_before + time.monotonic() - self._began,
                "parts": {
                    name: [value if math.isfinite(value) else None for value in part] for name, part in parts.items()
                },
            }
            _LOSSES_FORM.write(folder / _LOSSES_FILE, content)

    def load_losses(self, folder: Path) -> None:
        """Take up the losses of a checkpoint.

        Args:
            folder: the checkpoint.

        Raises:
            ModelFolderError: if its file of them is missing or damaged.
        """
        content = _LOSSES_FORM.read(folder / _LOSSES_FILE)
        self._tr_loss += math.nan if content["since_log"] is None else content["since_log"]
        self._total_loss_scalar = math.nan if content["logged"] is None else content["logged"]
        self._globalstep_last_logged = content["step"]
        for name, part in content.get("parts", {}).items():
            values = [math.nan if value is None else value for value in part]
            self.loss_parts[name] = self._tr_loss.new_tensor(values, dtype=torch.float32)
        # Mean loss, seconds and speed of a training are those of all of its steps.
        self._initial_global_step, self._seconds_before = 0, content["seconds"]

    def _finalize_training(self, trial: object, num_train_samples: int, start_time: float) -> TrainOutput:
        return super()._finalize_training(trial, num_train_samples, start_time - self._seconds_before)

    def _note_best(self, run: Path) -> None:
        """Note in the state of the run which checkpoint is the best one, if it is kept."""
        best = self.state.best_global_step
        if best and (best == self.state.global_step or read_checkpoint(run / f"checkpoint-{best}") is not None):
            self.state.best_model_checkpoint = str(run / f"checkpoint-{best}")

    def _note_callbacks(self) -> None:
        """Note the state of the callbacks in that of the run, as the base class does."""
        for callback in [*self.callback_handler.callbacks, self.control]:
            if isinstance(callback, ExportableState):
                name, found = type(callback).__name__, callback.state()
                if isinstance(self.state.stateful_callbacks[name], list):
                    self.state.stateful_callbacks[name].append(found)
                else:
                    self.state.stateful_callbacks[name] = found

    def _wait_for_all(self) -> None:
        """Let no process go on before all of them are here."""
        if self.args.world_size > 1:
            distributed.barrier()

    # ------------------------------------------------------------------------------------------------ loading

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: PreTrainedModel | None = None) -> None:
        """Read the weights as the base class does, and refuse those of a model of other sizes."""
        try:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        except RuntimeError as err:
            if "size mismatch" not in str(err):
                raise
            raise ModelFolderError(
                f"The checkpoint {resume_from_checkpoint} does not fit the model: weights of the same name have "
                "different sizes. It was written by a run with other settings; choose another output folder."
            ) from err

    def _issue_warnings_after_load(self, load_result: _LoadResult) -> None:
        """Refuse a checkpoint of another model; names of weights that are saved by another name are fine."""
        state = self.model.state_dict(keep_vars=True)
        missing = set(load_result.missing_keys)
        loaded = {id(value) for name, value in state.items() if name not in missing}
        absent = sorted(name for name in missing if name in state and id(state[name]) not in loaded)
        unknown = load_result.unexpected_keys
        if absent or unknown:
            raise ModelFolderError(
                f"The checkpoint does not fit the model: it lacks {absent[:3]} ({len(absent)} weights), and has "
                f"{unknown[:3]} ({len(unknown)} weights) that the model does not have. It was written by a run with "
                "other settings; choose another output folder."
            )


def _what_prevents_writing(folder: Path) -> str | None:
    """What the system says of a write into a folder, where it fails: `torch.save` does not pass it on."""
    try:
        with (folder / _PROBE_FILE).open("wb") as file:
            file.write(bytes(_PROBE_SIZE))
            file.flush()
            os.fsync(file.fileno())
    except OSError as err:
        return err.strerror
    return None
