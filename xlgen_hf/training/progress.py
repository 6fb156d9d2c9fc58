"""What a training tells while it runs: a bar on a terminal, losses and the time that is left in the log."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from transformers import PrinterCallback, ProgressCallback, Trainer, TrainerCallback

from ..errors import Terminated

__all__ = ["TrainingProgress", "run_training"]

logger = logging.getLogger(__name__)

_TIMED_STEPS = 20  # steps after which the rest of the training is estimated
_LOGGED = ("loss", "generation_loss", "cluster_loss")


class _Bar(ProgressCallback):
    """The progress bar alone: what the base class prints of the log goes to stdout, where results belong."""

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        """Leave the log to [`TrainingProgress`]."""


class TrainingProgress(TrainerCallback):
    """Says how long the training will take, and ends it at the next step when the user interrupts it."""

    def __init__(self) -> None:
        self.interrupted: type[KeyboardInterrupt] | None = None
        self._start = (0.0, 0)

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Start the clock."""
        self._start = (time.monotonic(), state.global_step)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Estimate the rest once; on an interrupt save a checkpoint and stop."""
        started, first = self._start
        if state.global_step - first == _TIMED_STEPS:
            left = (time.monotonic() - started) / _TIMED_STEPS * (state.max_steps - state.global_step)
            logger.info("Training will take about %.0f more minutes.", max(left / 60, 1))
        if self.interrupted:
            control.should_save = control.should_training_stop = True

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, float] | None = None, **kwargs: Any) -> None:
        """Log the losses."""
        if logs and "loss" in logs:
            parts = ", ".join(f"{name} {logs[name]:.3f}" for name in _LOGGED if name in logs)
            logger.info("Step %d of %d: %s", state.global_step, state.max_steps, parts)

    def interrupt(self, number: int, frame: FrameType | None) -> None:
        """Handle the first Ctrl-C or SIGTERM; the second one ends the program at once."""
        kind = Terminated if number == signal.SIGTERM else KeyboardInterrupt
        if self.interrupted:
            raise kind
        logger.warning("Interrupted: saving a checkpoint. The same command continues from it.")
        self.interrupted = kind


def run_training(trainer: Trainer, checkpoint: str | None) -> None:
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
    progress = TrainingProgress()
    trainer.add_callback(progress)
    if checkpoint is not None:
        logger.info("Resuming from %s.", checkpoint)
    with _handled_by(progress.interrupt):
        trainer.train(resume_from_checkpoint=checkpoint)
    if progress.interrupted:
        raise progress.interrupted


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
