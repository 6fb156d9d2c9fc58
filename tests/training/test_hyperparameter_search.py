"""A search of hyperparameters: trials are trainings that can be repeated, and the best one has the best score."""

from __future__ import annotations

import pytest
from tiny import ROWS
from transformers import TrainerCallback

from xlgen_hf.errors import ConfigurationError, MissingExtraError
from xlgen_hf.training import searching
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.trainer import XLGenTrainer


def _trainer(make_model, folder, evaluation=ROWS, **arguments):
    _, processor = make_model("t5", "mcg")
    chosen = {"num_train_epochs": 2, "save_strategy": "no", "eval_strategy": "epoch", **arguments}
    args = XLGenTrainingArguments(str(folder), use_cpu=True, disable_tqdm=True, **chosen)
    return XLGenTrainer(
        args=args, processing_class=processor, train_dataset=ROWS, eval_dataset=evaluation,
        model_init=lambda trial: make_model("t5", "mcg", max_labels=4, dropout=0.1)[0],
    )  # fmt: skip


def _space(trial):
    values = {
        "learning_rate": trial.suggest_float("learning_rate", 1e-3, 1e-1, log=True),
        "seed": trial.suggest_int("seed", 1, 100),
        "per_device_train_batch_size": trial.suggest_categorical("per_device_train_batch_size", [2, 8]),
    }
    if trial.number == 0:
        values["cluster_noise"] = 0.7  # of this trial alone
    return values


def _sampler():
    optuna = pytest.importorskip("optuna", reason="the extra `optuna` is not installed")
    return optuna.samplers.RandomSampler(seed=0)


def test_the_best_trial_is_found_and_can_be_repeated(make_model, tmp_path):
    sampler = _sampler()
    trainer = _trainer(make_model, tmp_path)
    scores = []

    def objective(found):
        scores.append(found["eval_micro_f1"])
        return found["eval_micro_f1"]

    before = vars(trainer.args).copy()
    best = trainer.hyperparameter_search(_space, objective, n_trials=3, sampler=sampler)
    assert vars(trainer.args) == before
    assert best.objective == max(scores[1::2])  # of the last epoch of each trial
    for name, value in best.hyperparameters.items():
        setattr(trainer.args, name, value)
    trainer.train()
    repeated = [entry["eval_micro_f1"] for entry in trainer.state.log_history if "eval_micro_f1" in entry]
    assert repeated[-1] == best.objective


def test_values_reach_all_that_reads_them_and_no_other_trial(make_model, tmp_path):
    sampler, seen = _sampler(), []
    trainer = _trainer(make_model, tmp_path)

    def objective(found):
        collator = trainer.data_collator
        seen.append((collator.cluster_noise, collator.seed == trainer.args.seed, trainer.train_sampler.batch_size))
        return found["eval_loss"]

    trainer.hyperparameter_search(_space, objective, n_trials=2, direction="minimize", sampler=sampler)
    assert [noise for noise, *_ in seen] == [0.7, 0.7, 0.5, 0.5]
    assert all(same_seed for _, same_seed, _ in seen)
    assert {size for *_, size in seen} <= {2, 8}


class _Scores(TrainerCallback):
    """Collects a score of each evaluation."""

    def __init__(self, name, found):
        self.name, self.found = name, found

    def on_evaluate(self, args, state, control, metrics, **kwargs):
        self.found.append(metrics[self.name])


@pytest.mark.parametrize(("metric", "pick"), [("macro_f1", max), ("loss", min)])
def test_trials_are_compared_by_the_metric_of_the_best_model(make_model, tmp_path, metric, pick):
    sampler, scores = _sampler(), []
    trainer = _trainer(make_model, tmp_path, metric_for_best_model=metric, num_train_epochs=1)
    trainer.add_callback(_Scores(f"eval_{metric}", scores))
    best = trainer.hyperparameter_search(_space, n_trials=3, sampler=sampler)
    assert len(scores) == 3 and best.objective == pick(scores)


def test_each_trial_has_its_checkpoints(make_model, tmp_path):
    sampler = _sampler()
    trainer = _trainer(make_model, tmp_path, save_strategy="epoch", load_best_model_at_end=True, num_train_epochs=1)
    trainer.hyperparameter_search(n_trials=1, sampler=sampler, hp_name=lambda trial: f"trial {trial.number}")
    assert [path.name for path in tmp_path.iterdir()] == ["trial 0"]
    assert any((tmp_path / "trial 0").glob("checkpoint-*/checkpoint.json"))


@pytest.mark.parametrize(
    ("space", "message"),
    [
        (lambda trial: {"learning_rat": 0.1}, "which is not a training argument. Did you mean 'learning_rate'"),
        (lambda trial: {"cluster_noise": 3.0}, "cluster_noise=3.0; it must be a number between 0 and 1"),
    ],
)
def test_values_that_are_not_arguments(make_model, tmp_path, space, message):
    pytest.importorskip("optuna", reason="the extra `optuna` is not installed")
    with pytest.raises(ConfigurationError, match=message):
        _trainer(make_model, tmp_path).hyperparameter_search(space, n_trials=1)


def test_what_a_search_needs(make_model, tmp_path):
    model, processor = make_model("t5")
    args = XLGenTrainingArguments(str(tmp_path), use_cpu=True)
    given = XLGenTrainer(model, args, processing_class=processor, train_dataset=ROWS, eval_dataset=ROWS)
    with pytest.raises(ConfigurationError, match="Each trial trains a new model: make the trainer with model_init"):
        given.hyperparameter_search()
    with pytest.raises(ConfigurationError, match="compared on evaluation rows; give the trainer an eval_dataset"):
        _trainer(make_model, tmp_path, None, eval_strategy="no").hyperparameter_search()
    with pytest.raises(ConfigurationError, match="n_jobs=2: a trainer trains one model at a time"):
        _trainer(make_model, tmp_path).hyperparameter_search(n_jobs=2)


@pytest.mark.parametrize("backend", [None, "optuna"])
def test_missing_optuna_names_the_extra(make_model, tmp_path, monkeypatch, backend):
    monkeypatch.setattr(searching, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"`optuna` is not installed.*xlgen-hf\[optuna\]"):
        _trainer(make_model, tmp_path).hyperparameter_search(n_trials=1, backend=backend)
