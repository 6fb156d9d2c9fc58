"""What a training reports while it runs (a bar on a terminal, losses and remaining time in the log), and its end."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
from transformers import (
    PrinterCallback,
    ProgressCallback,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from ..errors import Terminated
from .losses import LOSSES
from .resuming import ResumableTrainer

__all__ = ["TrainingProgress", "run_training"]

logger = logging.getLogger(__name__)

_TIMED_STEPS = 20  # steps after which the rest of the training is estimated
_LOGGED = ("loss", *LOSSES)


class _Bar(ProgressCallback):
    """The progress bar alone: what the base class prints of the log goes to stdout, where results belong."""

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Leave the log to [`TrainingProgress`]."""


class TrainingProgress(TrainerCallback):
    """Reports how long the training will take and how it goes, and stops it where the user or the system asks for it.

    On the first Ctrl-C or SIGTERM the step is finished, a checkpoint is written, and the training ends; an evaluation
    is left, and done when the run is resumed. The second one ends the program at once.

    Args:
        trainer: the trainer.
    """

    def __init__(self, trainer: ResumableTrainer) -> None:
        self.trainer = trainer
        self.asked: type[KeyboardInterrupt] | None = None
        self._stopping = False  # in all processes
        self._start = (0.0, 0)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Start the clock."""
        self._start = (time.monotonic(), state.global_step)

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Estimate the remaining time once; where a stop was asked for, save a checkpoint instead of anything else."""
        started, first = self._start
        if state.global_step - first == _TIMED_STEPS:
            left = (time.monotonic() - started) / _TIMED_STEPS * (state.max_steps - state.global_step)
            logger.info("Training will take about %.0f more minutes.", max(left / 60, 1))
        self._stopping = self._asked_in_any_process()
        if self._stopping:
            ends_epoch = args.eval_strategy == "epoch" and state.epoch == int(state.epoch) >= args.eval_delay
            self.trainer.evaluation_due = control.should_evaluate or ends_epoch
            control.should_evaluate = False
            control.should_save = True

    def on_prediction_step(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object
    ) -> None:
        """Leave an evaluation during the training; of several processes, all finish it."""
        if self.asked and args.world_size == 1 and self.trainer.is_in_train and state.global_step:
            self.trainer.evaluation_due = True
            self.trainer.save_now()
            raise _Stopped

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: object) -> None:
        """End the training, once the checkpoint is written."""
        if self._stopping or (self.asked and args.world_size == 1):
            raise _Stopped

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Log the losses."""
        if logs and "loss" in logs:
            parts = ", ".join(f"{name} {logs[name]:.3f}" for name in _LOGGED if name in logs)
            logger.info("Step %d of %d: %s", state.global_step, state.max_steps, parts)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle the first Ctrl-C or SIGTERM; the second one ends the program at once."""
        kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if self.asked:
            raise kind
        logger.warning("Interrupted: saving a checkpoint. The same command continues from it.")
        self.asked = kind

    def _asked_in_any_process(self) -> bool:
        """Whether any process was asked to stop; all processes learn it at the same step."""
        if self.trainer.args.world_size == 1:
            return self.asked is not None
        asked = torch.tensor(int(self.asked is not None), device=self.trainer.args.device)
        return bool(self.trainer.accelerator.reduce(asked, "sum"))


class _Stopped(Exception):  # noqa: N818  nothing went wrong
    """The training ends because it was asked to, and a checkpoint is written."""


def run_training(trainer: ResumableTrainer, checkpoint: str | None) -> None:
    """Train, and report on it; Ctrl-C and SIGTERM end it after the step that is running.

    Args:
        trainer: the trainer.
        checkpoint: checkpoint to continue from, if any.

    Raises:
        KeyboardInterrupt: after an interrupt, once a checkpoint is written; after SIGTERM it is `Terminated`.
    """
    trainer.args.disable_tqdm = trainer.args.disable_tqdm or not sys.stderr.isatty()
    for printing in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(printing)
    if not trainer.args.disable_tqdm:
        trainer.add_callback(_Bar)
    progress = TrainingProgress(trainer)
    trainer.add_callback(progress)
    if checkpoint is not None:
        logger.info("Resuming from %s.", checkpoint)
    try:
        with _handled_by(progress.interrupt):
            trainer.train(resume_from_checkpoint=checkpoint)
            if progress.asked and trainer.args.world_size == 1:  # after the last step, which a checkpoint holds
                raise _Stopped
    except _Stopped:
        logger.info("Stopped after step %d of %d.", trainer.state.global_step, trainer.state.max_steps)
        raise (progress.asked or KeyboardInterrupt) from None


@contextmanager
def _handled_by(handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Handle Ctrl-C and SIGTERM for a while, where Python lets us: in the main thread."""
    signals = (signal.SIGINT, signal.SIGTERM) if threading.current_thread() is threading.main_thread() else ()
    previous = {number: signal.signal(number, handler) for number in signals}
    try:
        yield
    finally:
        for number, before in previous.items():
            signal.signal(number, before)
