"""A folder belongs to one run: a finished run is not repeated, another one is refused and told what differs."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file, save_file
from tiny import ROWS

from xlgen_hf.cli.main import main
from xlgen_hf.errors import ConfigurationError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.training import run
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.run_record import describe_run
from xlgen_hf.training.settings import TrainingSettings


@pytest.fixture
def train(checkpoints, tmp_path, capsys):
    """A function that trains for some steps and gives exit code and messages."""

    def run(*more, rows=ROWS, folder="model"):
        write_jsonl(tmp_path / "rows.jsonl", rows)
        usual = {
            "--backbone": checkpoints["t5"], "--variant": "base", "--max_steps": "3", "--save_strategy": "steps",
            "--save_steps": "2",
        }  # fmt: skip
        options = [word for name, value in usual.items() if name not in more for word in (name, value)]
        files = ["--train-file", str(tmp_path / "rows.jsonl"), "--output-dir", str(tmp_path / folder)]
        code = main(["train", *files, *options, "--use_cpu", "True", *more])
        return code, capsys.readouterr().err

    return run


@pytest.fixture
def trained(train, made, tmp_path, tmp_path_factory):
    """A function that leaves a finished run in a folder; runs with the same options are trained once for all tests."""

    def run(*more, folder="model"):
        if more in made:
            shutil.copytree(made[more], tmp_path / folder)
        else:
            assert train(*more, folder=folder)[0] == 0
            made[more] = shutil.copytree(tmp_path / folder, tmp_path_factory.mktemp("finished") / folder)

    return run


def _state(folder):
    return {path.relative_to(folder): path.stat().st_mtime_ns for path in folder.rglob("*") if path.is_file()}


def test_a_finished_run_is_not_repeated(train, trained, tmp_path):
    trained()
    before = _state(tmp_path / "model")
    code, said = train()
    assert code == 0
    assert "holds the finished result of this run; there is nothing to do" in said
    assert _state(tmp_path / "model") == before
    assert list((tmp_path / "model").glob("*checkpoint-*")) == []


def test_checkpoints_of_a_finished_run_are_kept_where_they_are_asked_for(train, trained, tmp_path):
    trained("--keep-checkpoints")
    assert {path.name for path in (tmp_path / "model").glob("checkpoint-*")} == {"checkpoint-2", "checkpoint-3"}
    code, said = train()  # which asks for the same result
    assert code == 0 and "there is nothing to do" in said
    assert (tmp_path / "model" / "checkpoint-3").is_dir()


def test_what_a_kill_after_the_report_has_left_undone_is_done(train, trained, tmp_path):
    trained()
    trained("--keep-checkpoints", folder="other")
    shutil.copytree(tmp_path / "other" / "checkpoint-3", tmp_path / "model" / "checkpoint-3")
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    (tmp_path / "model" / "README.md").unlink()
    code, said = train()
    assert code == 0 and "there is nothing to do" in said
    assert not (tmp_path / "model" / "checkpoint-3").exists()
    assert (tmp_path / "model" / "README.md").read_text(encoding="utf-8") == card


def test_a_trained_folder_has_its_card(trained, tmp_path):
    trained()
    card = (tmp_path / "model" / "README.md").read_text(encoding="utf-8")
    assert "# model\n" in card and 'from_pretrained("model")' in card and str(tmp_path) not in card


def test_what_was_not_finished_is_done_again(train, trained, tmp_path):
    """The report is written last: without it decisions, scores and the model are made again; no step is trained."""
    trained("--keep-checkpoints")
    before = (tmp_path / "model" / "model.safetensors").read_bytes()
    (tmp_path / "model" / "training_report.json").unlink()
    code, said = train("--keep-checkpoints")
    assert code == 0
    assert "The training is complete: step 3 of 3" in said
    assert (tmp_path / "model" / "model.safetensors").read_bytes() == before
    assert (tmp_path / "model" / "training_report.json").is_file()


def _permuted():
    return [{**row, "labels": other["labels"]} for row, other in zip(ROWS, [*ROWS[1:], ROWS[0]], strict=True)]


def _renamed():
    return [{**row, "labels": [f"{name} 2" for name in row["labels"]]} for row in ROWS]


@pytest.mark.parametrize(
    ("more", "rows", "message"),
    [
        (["--learning_rate", "0.5"], ROWS, "learning_rate (0.5, was 0.0002)"),
        (["--max_steps", "4"], ROWS, "max_steps (4, was 3)"),
        (["--lora"], ROWS, "lora (True, was False)"),
        ([], ROWS[:-1], "train rows (7 rows, "),
        ([], _permuted(), "train rows (8 rows, "),  # the same labels on other texts
        ([], _renamed(), "train rows (8 rows, "),
    ],
)
def test_another_run_is_refused(train, trained, tmp_path, more, rows, message):
    trained()
    before = _state(tmp_path / "model")
    code, said = train(*more, rows=rows)
    assert code == 1
    assert "model holds another run: " in said and message in said
    assert _state(tmp_path / "model") == before


def test_a_model_of_an_unknown_run_is_left_alone(train, trained, tmp_path):
    trained()
    (tmp_path / "model" / "run.json").unlink()
    before = _state(tmp_path / "model")
    code, said = train()
    assert code == 1
    assert "model holds another run: what it was trained with is not known" in said
    assert _state(tmp_path / "model") == before


def test_a_run_that_failed_before_its_first_checkpoint_may_be_changed(train, tmp_path, checkpoints):
    assert train("--decode-order", "alphabet", "--start-from", checkpoints["t5"])[0] == 1  # no trained model
    assert train()[0] == 0
    record = json.loads((tmp_path / "model" / "run.json").read_text())
    assert record["settings"]["decode_order"] == "freq_backward"


@pytest.mark.parametrize(
    ("variant", "chosen"),
    [
        ("bcl", {"conditioning": "memory"}),
        ("bcl", {"cluster_loss_weight": 1.0}),
        ("mcg", {"cluster_loss_weight": 0.3}),
    ],
)
def test_what_the_variant_decides_may_be_said(tmp_path, variant, chosen):
    args = XLGenTrainingArguments(str(tmp_path), use_cpu=True)
    silent, said = (TrainingSettings(variant=variant, **options) for options in ({}, chosen))
    assert describe_run(said, args, {}) == describe_run(silent, args, {})
    other = {"conditioning": "tokens"} if variant == "bcl" else {"cluster_loss_weight": 1.0}
    assert describe_run(TrainingSettings(variant=variant, **other), args, {}) != describe_run(silent, args, {})


@pytest.mark.parametrize(
    "further",
    [
        {"adam_beta1": 0.5}, {"adam_epsilon": 1e-3}, {"data_seed": 7},
        {"lr_scheduler_type": "cosine_with_restarts", "lr_scheduler_kwargs": {"num_cycles": 3}},
        {"dataloader_drop_last": True}, {"neftune_noise_alpha": 5.0},
        {"generation_num_beams": 4}, {"load_best_model_at_end": True, "eval_strategy": "epoch"},
        {"ignore_data_skip": True},
    ],
)  # fmt: skip
def test_every_argument_that_decides_the_result_is_recorded(tmp_path, further):
    settings = TrainingSettings(variant="base")
    usual, other = (XLGenTrainingArguments(str(tmp_path), use_cpu=True, **more) for more in ({}, further))
    assert describe_run(settings, usual, {}) != describe_run(settings, other, {})
    same = XLGenTrainingArguments(str(tmp_path), use_cpu=True, logging_steps=3, metric_for_best_model="macro_f1")
    assert describe_run(settings, usual, {}) == describe_run(settings, same, {})


@pytest.mark.parametrize("further", [{"eval_delay": 3}, {"save_steps": 4}, {"save_strategy": "best"}])
def test_what_decides_which_checkpoint_is_the_best_is_recorded_where_that_is_loaded(tmp_path, further):
    settings, best = TrainingSettings(variant="base"), {"eval_strategy": "steps", "eval_steps": 2, "save_steps": 2}
    for loads in (True, False):
        given = {**best, "load_best_model_at_end": loads, "metric_for_best_model": "macro_f1"}
        usual, other = (
            XLGenTrainingArguments(str(tmp_path), use_cpu=True, **{**given, "save_strategy": "steps", **more})
            for more in ({}, further)
        )
        assert (describe_run(settings, usual, {}) != describe_run(settings, other, {})) == loads


def test_what_a_folder_holds_belongs_to_the_run(tmp_path):
    index, args = tmp_path / "index", XLGenTrainingArguments(str(tmp_path / "model"), use_cpu=True)
    (index / "cache").mkdir(parents=True)
    (index / "label_space.json").write_text("{}")
    settings = TrainingSettings(retriever=str(index))
    before = describe_run(settings, args, {})
    (index / "cache" / "embeddings.safetensors").write_bytes(b"x")  # caches and reports decide nothing
    (index / "training_report.json").write_text("{}")
    assert describe_run(settings, args, {}) == before
    (index / "retriever.safetensors").write_bytes(b"x")
    assert describe_run(settings, args, {}) != before


def test_an_index_knows_the_labels_that_are_dropped(tmp_path):
    settings = TrainingSettings(retriever=str(tmp_path), drop_labels=0.5)
    with pytest.raises(ConfigurationError, match=r"knows the labels that drop_labels=0\.5 takes from the training"):
        run.train_model(settings, XLGenTrainingArguments(str(tmp_path), use_cpu=True), Dataset.from_list(ROWS))


def test_a_base_that_another_run_left_is_not_taken(train, checkpoints, tmp_path, monkeypatch):
    lora = ("--lora", "--lora-rank", "2")

    def stop(*_):
        raise ConfigurationError("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(run, "run_training", stop)
        assert train(*lora, "--seed", "1")[0] == 1
    left = tmp_path / "model" / "base" / "model.safetensors"
    before = load_file(left)
    save_file({name: value + 1 for name, value in before.items()}, left, {"format": "pt"})  # as of another backbone
    assert train(*lora, "--seed", "2")[0] == 0
    assert torch.equal(load_file(left)["backbone.shared.weight"], before["backbone.shared.weight"])
