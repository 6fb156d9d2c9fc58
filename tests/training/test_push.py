"""What a training puts on the Hub: the files of the model, by every way, and never a token."""

from __future__ import annotations

import logging

import pytest
from huggingface_hub import HfApi
from tiny import ROWS, Hub

from xlgen_hf.cli.main import main
from xlgen_hf.errors import ConfigurationError, HubError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.hub.card_text import BEGIN
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.trainer import XLGenTrainer

FILES = {
    ".gitattributes", "README.md", "config.json", "generation_config.json", "label_space.json",
    "label_trie.safetensors", "model.safetensors", "processor_config.json", "score_model.json", "tokenizer.json",
    "tokenizer_config.json", "training_report.json",
}  # fmt: skip


def _without_token(folder):
    for path in folder.rglob("*"):
        if path.is_file():
            content = path.read_bytes()
            assert Hub.alice.encode() not in content and b"SecretToken" not in content, path


def _trainer(make_model, rows, folder, **arguments):
    model, processor = make_model("t5", max_labels=4)
    args = XLGenTrainingArguments(
        str(folder), use_cpu=True, disable_tqdm=True, max_steps=3, save_strategy="steps", save_steps=1,
        per_device_train_batch_size=2, push_to_hub=True, hub_model_id="acme/trained", hub_token=Hub.alice, **arguments,
    )  # fmt: skip
    return XLGenTrainer(model, args, processing_class=processor, train_dataset=rows, eval_dataset=rows)


def test_each_checkpoint_goes_up_as_a_model(hub, make_model, rows, tmp_path):
    trainer = _trainer(make_model, rows, tmp_path / "out", hub_strategy="every_save")
    trainer.train()
    titles = [commit["title"] for commit in hub.history("acme/trained")]
    assert titles == ["initial", *(f"Training in progress, step {step}" for step in (1, 2, 3))]
    for commit in hub.history("acme/trained")[1:]:
        assert set(commit["files"]) <= FILES
        assert {"model.safetensors", "label_space.json", "README.md"} <= set(commit["files"])
    _without_token(tmp_path)


def test_a_model_that_is_saved_goes_up(hub, make_model, rows, tmp_path):
    trainer = _trainer(make_model, rows, tmp_path / "out", hub_strategy="end")
    trainer.train()
    assert [commit["title"] for commit in hub.history("acme/trained")] == ["initial"]
    trainer.save_model()
    assert set(hub.history("acme/trained")[-1]["files"]) <= FILES
    assert not list(tmp_path.rglob("training_args.bin"))
    _without_token(tmp_path)


def test_a_push_that_fails_does_not_end_the_training(hub, make_model, rows, tmp_path, caplog):
    trainer = _trainer(make_model, rows, tmp_path / "out", hub_strategy="every_save")
    for _ in range(20):
        hub.fault("POST", "/commit/", "status", status=403)
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        trainer.train()
    assert trainer.state.global_step == 3
    assert "checkpoint-1 was not put on the Hub" in caplog.text


def test_a_card_that_was_damaged_there_does_not_end_the_training(hub, make_model, rows, tmp_path, caplog):
    trainer = _trainer(make_model, rows, tmp_path / "out", hub_strategy="every_save")
    HfApi(token=Hub.alice).upload_file(
        path_or_fileobj=f"{BEGIN}\nhalf a card".encode(), path_in_repo="README.md", repo_id="acme/trained"
    )
    with caplog.at_level(logging.WARNING, logger="xlgen_hf"):
        trainer.train()
    assert trainer.state.global_step == 3
    assert "checkpoint-1 was not put on the Hub: README.md must have the line" in caplog.text


def test_a_hub_that_refuses_is_told_before_the_work(hub, make_model, rows, tmp_path, checkpoints, capsys):
    for error in (401, 403):
        for _ in range(20):
            hub.fault("POST", "/api/repos/create", "status", status=error)
        with pytest.raises(HubError, match=r"acme/trained"):
            _trainer(make_model, rows, tmp_path / "out", hub_strategy="end")
        assert _train(checkpoints, tmp_path) == 1
        assert "acme/trained" in capsys.readouterr().err
        assert not (tmp_path / "model" / "model.safetensors").exists()
        hub.ask("requests")


@pytest.mark.parametrize("strategy", ["checkpoint", "all_checkpoints"])
def test_states_of_optimizers_do_not_go_up(hub, make_model, rows, tmp_path, strategy):
    with pytest.raises(ConfigurationError, match=f"hub_strategy='{strategy}' is not supported. It would upload"):
        _trainer(make_model, rows, tmp_path, hub_strategy=strategy)
    assert hub.history("acme/trained") is None


def _train(checkpoints, tmp_path) -> int:
    write_jsonl(tmp_path / "rows.jsonl", ROWS)
    return main([
        "train", "--train-file", str(tmp_path / "rows.jsonl"), "--validation-file", str(tmp_path / "rows.jsonl"),
        "--backbone", checkpoints["t5"], "--variant", "base", "--output-dir", str(tmp_path / "model"),
        "--use_cpu", "True", "--max_steps", "2", "--push_to_hub", "True", "--hub_model_id", "acme/trained",
        "--hub_token", Hub.alice, "--hub_strategy", "end",
    ])  # fmt: skip


def test_the_command_pushes_once_with_report_and_card(hub, checkpoints, tmp_path):
    assert _train(checkpoints, tmp_path) == 0
    assert _train(checkpoints, tmp_path) == 0  # there is nothing to do
    _, commit = hub.history("acme/trained")
    assert set(commit["files"]) == FILES
    assert b"micro_f1" in hub.file("acme/trained", "training_report.json")
    _without_token(tmp_path)


def test_a_run_that_was_stopped_before_its_push_is_pushed_when_it_is_repeated(hub, checkpoints, tmp_path, monkeypatch):
    def stopped(trainer, *args, **kwargs):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(XLGenTrainer, "push_to_hub", stopped)
        assert _train(checkpoints, tmp_path) == 130
    assert [commit["title"] for commit in hub.history("acme/trained")] == ["initial"]
    assert _train(checkpoints, tmp_path) == 0
    _, commit = hub.history("acme/trained")
    assert set(commit["files"]) == FILES
