"""A trainer whose runs can be stopped and killed at any moment, and go on as if they had not been."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Protocol

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
from transformers.trainer_utils import TrainOutput

from ..errors import ConfigurationError, ModelFolderError, SaveError
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


class _LoadResult(Protocol):
    """What torch says of a state that it has loaded."""

    missing_keys: list[str]
    unexpected_keys: list[str]


class _OwedEvaluation(TrainerCallback):
    """Does the evaluation before which a run was stopped, when it is resumed."""

    def __init__(self, trainer: ResumableTrainer, checkpoint: Checkpoint) -> None:
        self.trainer = trainer
        self.checkpoint = checkpoint

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Evaluate, and write the checkpoint again, as it would be had the run not been stopped."""
        self.trainer.remove_callback(self)
        if state.global_step == self.checkpoint.step:
            self.trainer.evaluate_and_save(self.checkpoint)


class ResumableTrainer(Trainer):
    """A `Trainer` with checkpoints that are complete or not there, see `xlgen_hf.training.checkpoints`.

    Attributes:
        evaluation_due: whether the next checkpoint is written in front of an evaluation that the run owes.
    """

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
        checkpoint = self._checkpoint_to_resume(resume_from_checkpoint)
        if self.args.should_save:
            remove_incomplete(self.args.output_dir)
        self._wait_for_all()
        if checkpoint is None:
            return super().train(**kwargs)
        if checkpoint.evaluation_due:
            self.add_callback(_OwedEvaluation(self, checkpoint))
        return super().train(resume_from_checkpoint=str(checkpoint.folder), **kwargs)

    def _checkpoint_to_resume(self, wanted: str | bool | None) -> Checkpoint | None:
        if not wanted:
            return None
        if wanted is True:
            newest = newest_checkpoint(self.args.output_dir)
            if newest is None:
                raise ConfigurationError(f"{self.args.output_dir} has no complete checkpoint to resume from.")
            return newest
        checkpoint = read_checkpoint(wanted)
        if checkpoint is None:
            raise ModelFolderError(
                f"{wanted} is not a complete checkpoint of this version. Resume from another one, or start again in "
                "another output folder."
            )
        return checkpoint

    def planned_steps(self) -> int:
        """The number of optimizer steps of the whole training."""
        steps: int = self.set_initial_training_values(self.args, self.get_train_dataloader())[-1]
        return steps

    def _init_training_state(self, *args: object, **kwargs: object) -> tuple[int, int]:
        start: tuple[int, int] = super()._init_training_state(*args, **kwargs)
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
        """Do the evaluation that follows a checkpoint, and write the checkpoint again with its result.

        Args:
            checkpoint: what the run was resumed from.
        """
        self._load_rng_state(str(checkpoint.folder))  # which the checkpoint keeps; an evaluation draws no numbers
        metrics = self._evaluate(None, None)
        self._determine_best_metric(metrics=metrics, trial=None)
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
            self._note_best(run)
            if self.args.should_save:
                self._note_callbacks()
                self.state.save_to_json(str(folder / TRAINER_STATE_NAME))
            self._wait_for_all()
            if self.args.should_save:
                finish_checkpoint(folder, step, evaluation_due=self.evaluation_due)
        self.evaluation_due = False
        self._wait_for_all()
        if self.args.push_to_hub:
            self._push_from_checkpoint(str(run / f"checkpoint-{step}"))
        if self.args.should_save:
            rotate_checkpoints(run, self.args.save_total_limit, self.state.best_model_checkpoint)

    def _save_progress(self, folder: Path) -> None:
        """Write optimizer, scheduler, scaler and random states."""
        try:
            self._save_optimizer_and_scheduler(str(folder))
            self._save_scaler(str(folder))
            self._save_rng_state(str(folder))
        except RuntimeError as err:  # which `torch.save` raises where it cannot write
            raise SaveError(folder, f"torch cannot write the state of the optimizer ({err})") from err

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
        """Refuse a checkpoint of another model; names that share their weights with one that was loaded are fine."""
        state = self.model.state_dict(keep_vars=True)
        missing = set(load_result.missing_keys)
        loaded = {id(value) for name, value in state.items() if name not in missing}
        absent = sorted(name for name in missing if id(state[name]) not in loaded)
        unknown = load_result.unexpected_keys
        if absent or unknown:
            raise ModelFolderError(
                f"The checkpoint does not fit the model: it lacks {absent[:3]} ({len(absent)} weights), and has "
                f"{unknown[:3]} ({len(unknown)} weights) that the model does not have. It was written by a run with "
                "other settings; choose another output folder."
            )
