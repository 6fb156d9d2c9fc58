"""Searching hyperparameters: each trial is a training of its own, chosen by the metric that chooses the best model."""

from __future__ import annotations

from collections.abc import Callable
from difflib import get_close_matches
from importlib.util import find_spec
from typing import TYPE_CHECKING

from transformers import Trainer
from transformers.trainer_utils import BestRun, TrainOutput

from ..errors import ConfigurationError, MissingExtraError
from ..settings import check_values
from .trainer_settings import TrainerSettings

if TYPE_CHECKING:
    from optuna import Trial

__all__ = ["SearchingTrainer"]


class SearchingTrainer(Trainer):
    """The part of [`XLGenTrainer`] that searches hyperparameters."""

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: object) -> TrainOutput:
        """Train, see `Trainer.train`; with a `trial`, on a model that is made with the seed of the trial."""
        self._hp_search_setup(kwargs.get("trial"))  # the base class comes to it when the model is made
        self._train_batch_size = self.args.train_batch_size  # else that of the last trial
        return super().train(resume_from_checkpoint, **kwargs)

    def hyperparameter_search(
        self,
        hp_space: Callable[[Trial], dict[str, float]] | None = None,
        compute_objective: Callable[[dict[str, float]], float] | None = None,
        n_trials: int = 20,
        direction: str | list[str] | None = None,
        backend: str | None = None,
        hp_name: Callable[[Trial], str] | None = None,
        **kwargs: object,
    ) -> BestRun | list[BestRun]:
        """Train once for each trial, on a model of `model_init`, and find the values with the best score.

        The trainer's arguments are the same before and after; a trial that leaves a value out has that of the
        arguments. A training with the values that were found repeats the trial.

        Args:
            hp_space: values of arguments for a trial, by name; by default learning rates, epochs and batch size.
            compute_objective: what counts of an evaluation's scores; by default `args.metric_for_best_model`.
            n_trials: number of trials.
            direction: `maximize` or `minimize`; by default what `args.greater_is_better` says.
            backend: `optuna` (also for None), `ray` or `wandb`. Tried with optuna.
            hp_name: name of a trial's folder in `args.output_dir`.
            kwargs: further options of the backend, such as `pruner` or `study_name` of optuna.

        Returns:
            Number, score and values of the best trial; with several directions, the best trials.

        Raises:
            ConfigurationError: if there are no `model_init` or evaluation rows, or `hp_space` names no argument or a
                value that is not allowed.
            MissingExtraError: if optuna is to be used and not installed.
            RuntimeError: if another backend is to be used and not installed.
        """
        if self.model_init is None:
            raise ConfigurationError(
                "Each trial trains a new model: make the trainer with model_init, a function that returns one, "
                "instead of a model."
            )
        if self.eval_dataset is None:
            raise ConfigurationError("The trials are compared on evaluation rows; give the trainer an eval_dataset.")
        if kwargs.get("n_jobs", 1) != 1:
            raise ConfigurationError(f"n_jobs={kwargs['n_jobs']}: a trainer trains one model at a time; leave it out.")
        backend = backend or "optuna"  # not what of the three happens to be installed: wandb often is, to log runs
        if backend == "optuna" and find_spec("optuna") is None:
            raise MissingExtraError("optuna", "optuna")
        if direction is None:
            direction = "maximize" if self.args.greater_is_better else "minimize"
        before = dict(vars(self.args))
        tried: set[str] = set()

        def space(trial: Trial) -> dict[str, float]:
            values = (hp_space or _default_space)(trial)
            self._check_space(values)
            tried.update(values)
            return {**{name: before[name] for name in tried}, **values}

        try:
            return super().hyperparameter_search(
                space, compute_objective or self._best_metric, n_trials, direction, backend, hp_name, **kwargs
            )
        finally:
            self.hp_search_backend = None
            for name in tried:
                setattr(self.args, name, before[name])

    def _check_space(self, values: dict[str, float]) -> None:
        known = vars(self.args)
        for name in values:
            if name not in known:
                near = get_close_matches(name, known, n=1)
                hint = f" Did you mean {near[0]!r}?" if near else ""
                raise ConfigurationError(f"hp_space gives {name!r}, which is not a training argument.{hint}")
        check_values(TrainerSettings, values)

    def _best_metric(self, scores: dict[str, float]) -> float:
        """The score that chooses the best model, of one or the first of several sets of evaluation rows."""
        name = str(self.args.metric_for_best_model).removeprefix("eval_")
        found = scores.get(f"eval_{name}")
        if found is None:
            raise ConfigurationError(
                f"metric_for_best_model={name!r} is none of the scores {sorted(scores)}; name one of them, or give "
                "compute_objective."
            )
        return found


def _default_space(trial: Trial) -> dict[str, float]:
    """What decides most: both learning rates, the length of the training, and the batch size."""
    return {
        "learning_rate": trial.suggest_float("learning_rate", 2e-5, 2e-3, log=True),
        "fresh_learning_rate": trial.suggest_float("fresh_learning_rate", 1e-4, 1e-2, log=True),
        "num_train_epochs": trial.suggest_int("num_train_epochs", 2, 10),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [8, 16, 32, 64]),
    }
