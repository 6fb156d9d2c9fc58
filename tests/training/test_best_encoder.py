"""Which state of an encoder a training ends in: the one whose index finds most, and never one that spoils it."""

from __future__ import annotations

import logging
import os
import re
import signal

import pytest
import torch

from xlgen_hf.encoders.loaded import load_encoder
from xlgen_hf.files.leftovers import find_leftovers, remove_leftovers
from xlgen_hf.training import best_encoder, retriever
from xlgen_hf.training.best_encoder import BestEncoder, CandidateRecall, Comparison
from xlgen_hf.training.resuming import ResumableTrainer
from xlgen_hf.training.retriever import ContrastiveSettings, fit_retriever, remove_encoder_checkpoints

THINGS = ("organ", "piano", "violin", "harp", "drum", "flute", "horn", "viola", "cello", "guitar")
KINDS = ("old", "new", "small")
LABELS = [f"{kind} {thing}" for kind in KINDS for thing in THINGS]


def _known(labels):
    """A label space, and rows whose texts are like the names."""
    from datasets import Dataset

    from xlgen_hf.labels.space import LabelSpace

    rows = [{"text": f"a book about the {name} and its players", "labels": [name]} for name in labels]
    return LabelSpace.from_label_lists([row["labels"] for row in rows]), Dataset.from_list(rows)


@pytest.fixture
def many_labels():
    """More labels than candidates are looked at."""
    return _known(LABELS)


def _fit(known, checkpoint, folder, **settings):
    label_space, rows = known
    chosen = ContrastiveSettings(batch_size=8, hard_negatives=0, **settings)
    found = fit_retriever(label_space, rows, rows, checkpoint, folder, contrastive=chosen, lexical=False)
    return list(found.encoder[0].parameters())


def _measured(caplog):
    text = "\n".join(caplog.messages)
    recall = re.findall(r"after (\S+) epochs: (\d\.\d+)", text)
    (kept,) = re.findall(r"kept as it was after (\S+) of", text)
    return dict((epochs, float(value)) for epochs, value in recall), kept


def test_a_training_that_spoils_the_encoder_leaves_it_as_it_was(many_labels, checkpoints, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    found = _fit(many_labels, checkpoints["bert"], tmp_path, epochs=3, learning_rate=30.0)
    recall, kept = _measured(caplog)
    assert kept == "0"
    assert set(recall) == {"0", "1"}, "an epoch that is not better ends the training"
    untrained = load_encoder(checkpoints["bert"])[0].parameters()
    assert all(torch.equal(one, other) for one, other in zip(found, untrained, strict=True))


def test_the_best_epoch_is_kept_and_its_embeddings_serve_the_index(many_labels, checkpoints, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    found = _fit(many_labels, checkpoints["bert"], tmp_path, epochs=6, learning_rate=1e-3)
    recall, kept = _measured(caplog)
    assert kept != "0"
    assert recall[kept] == max(recall.values()) > recall["0"]
    assert len(list((tmp_path / "embeddings").iterdir())) == 2, "texts and names of the state that was kept, once each"
    remove_encoder_checkpoints(tmp_path)
    assert not (tmp_path / "encoder").exists()
    caplog.clear()
    again = _fit(many_labels, checkpoints["bert"], tmp_path / "again", epochs=6, learning_rate=1e-3)
    assert _measured(caplog) == (recall, kept)
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))


def test_few_labels_are_looked_for_among_fewer_candidates(checkpoints, tmp_path, caplog):
    """The fault: all of 20 labels were among 20 candidates, so that no training was better than none."""
    caplog.set_level(logging.INFO)
    _fit(_known(LABELS[:20]), checkpoints["bert"], tmp_path, epochs=1, learning_rate=1e-3)
    assert _measured(caplog)[0]["0"] < 1


@pytest.mark.parametrize("family", ["bert", "t5"])
def test_a_run_that_is_taken_up_again_knows_what_was_measured(many_labels, checkpoints, tmp_path, caplog, family):
    caplog.set_level(logging.INFO)
    found = _fit(many_labels, checkpoints[family], tmp_path, epochs=2, learning_rate=3e-3)
    recall, kept = _measured(caplog)
    caplog.clear()
    again = _fit(many_labels, checkpoints[family], tmp_path, epochs=2, learning_rate=3e-3)
    assert "Recall of the validation rows' labels" not in caplog.text
    assert all(torch.equal(one, other) for one, other in zip(found, again, strict=True))
    assert recall[kept] == max(recall.values())


class _Killed(BaseException):
    """Ends a run as a kill does: nothing is cleaned up."""


def _killed_in(owner, name, is_moment):
    """A patch of a method that dies at a moment, which its arguments tell."""
    method = getattr(owner, name)

    def call(*arguments, **options):
        if is_moment(*arguments):
            raise _Killed
        return method(*arguments, **options)

    return owner, name, call


MOMENTS = {
    "before the first step": lambda: _killed_in(Comparison, "measure", lambda *given: given[-1].name == "state-0"),
    "in epoch 1": lambda: _killed_in(ResumableTrainer, "training_step", lambda own, *_: own.state.global_step == 2),
    "while epoch 1 is measured": lambda: _killed_in(Comparison, "measure", lambda *given: given[-1].name == "state-1"),
    "epoch 2 is kept": lambda: _killed_in(best_encoder, "save_file", lambda _, path, **more: "state-2" in str(path)),
    "in epoch 3": lambda: _killed_in(ResumableTrainer, "training_step", lambda own, *_: own.state.global_step == 10),
    "while the end is measured": lambda: _killed_in(Comparison, "measure", lambda *given: "." in given[-1].name),
    "at the end": lambda: _killed_in(BestEncoder, "restore", lambda *_: True),
}


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("save_steps", [4, 3])  # 4 steps are an epoch
def test_a_killed_run_ends_as_one_that_was_not(many_labels, checkpoints, tmp_path, monkeypatch, moment, save_steps):
    monkeypatch.setattr(retriever, "SAVE_STEPS", save_steps)
    better = {"state-0": 1, "state-1": 2, "state-2": 3, "state-3": 4, "state-3.5": 5}
    monkeypatch.setattr(Comparison, "measure", lambda *given: CandidateRecall(better[given[-1].name], 9, 0, 0))
    wanted = _fit(many_labels, checkpoints["bert"], tmp_path / "whole", epochs=3.5, learning_rate=2e-3)
    with monkeypatch.context() as patch:
        patch.setattr(*MOMENTS[moment]())
        with pytest.raises(_Killed, match=r"^$"):
            _fit(many_labels, checkpoints["bert"], tmp_path / "killed", epochs=3.5, learning_rate=2e-3)
    found = _fit(many_labels, checkpoints["bert"], tmp_path / "killed", epochs=3.5, learning_rate=2e-3)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize("other", [{"learning_rate": 1e-4}, {"family": "modernbert"}])
def test_what_another_run_left_is_not_taken(many_labels, checkpoints, tmp_path, monkeypatch, caplog, other):
    options = {"epochs": 1, "learning_rate": 3e-3, "family": "bert"} | other
    checkpoint = checkpoints[options.pop("family")]
    wanted = _fit(many_labels, checkpoint, tmp_path / "alone", **options)
    with monkeypatch.context() as patch:
        patch.setattr(*_killed_in(ResumableTrainer, "training_step", lambda own, *_: own.state.global_step == 5))
        with pytest.raises(_Killed, match=r"^$"):
            _fit(many_labels, checkpoints["bert"], tmp_path / "used", epochs=2, learning_rate=3e-3)
    found = _fit(many_labels, checkpoint, tmp_path / "used", **options)
    assert all(torch.equal(one, one_alone) for one, one_alone in zip(found, wanted, strict=True))


def test_what_a_killed_run_leaves_can_be_cleaned_away(many_labels, checkpoints, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(*MOMENTS["at the end"]())
        with pytest.raises(_Killed, match=r"^$"):
            _fit(many_labels, checkpoints["bert"], tmp_path / "cache", epochs=1, learning_rate=3e-3)
    assert not list((tmp_path / "cache/encoder").glob("state-0/encoder.safetensors")), "the best state alone is kept"
    found = find_leftovers(tmp_path)
    assert any(one.path.name == "state-1" and one.is_needed and one.owner == tmp_path for one in found)
    remove_leftovers(found, tmp_path)
    assert not list(tmp_path.rglob("*.safetensors"))
    after = _fit(many_labels, checkpoints["bert"], tmp_path / "cache", epochs=1, learning_rate=3e-3)
    alone = _fit(many_labels, checkpoints["bert"], tmp_path / "alone", epochs=1, learning_rate=3e-3)
    assert all(torch.equal(one, other) for one, other in zip(after, alone, strict=True))


def test_an_interrupt_while_the_last_epoch_is_measured_ends_the_run(many_labels, checkpoints, tmp_path, monkeypatch):
    wanted = _fit(many_labels, checkpoints["bert"], tmp_path / "whole", epochs=1, learning_rate=3e-3)
    measure = Comparison.measure

    def interrupted(*arguments):
        if arguments[-1].name == "state-1":
            os.kill(os.getpid(), signal.SIGINT)
        return measure(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(Comparison, "measure", interrupted)
        with pytest.raises(KeyboardInterrupt, match=r"^$"):
            _fit(many_labels, checkpoints["bert"], tmp_path / "stopped", epochs=1, learning_rate=3e-3)
    found = _fit(many_labels, checkpoints["bert"], tmp_path / "stopped", epochs=1, learning_rate=3e-3)
    assert all(torch.equal(one, other) for one, other in zip(found, wanted, strict=True))


@pytest.mark.parametrize(("found", "loses"), [(50, False), (41, False), (39, True), (60, False)])
def test_unseen_labels_are_lost_beyond_two_standard_errors(found, loses):
    before = CandidateRecall(500, 1000, 50, 100)
    assert CandidateRecall(600, 1000, found, 100).loses_unseen(before) is loses
    assert not CandidateRecall(600, 1000, 0, 0).loses_unseen(CandidateRecall(500, 1000, 0, 0))


def test_a_recall_names_that_of_unseen_labels_where_there_are_some():
    assert str(CandidateRecall(1, 4, 1, 2)) == "0.2500 (0.5000 of unseen labels)"
    assert str(CandidateRecall(1, 4, 0, 0)) == "0.2500"


def test_the_first_state_has_the_embeddings_of_hard_negatives(many_labels, checkpoints, tmp_path, monkeypatch):
    there = []

    def measure(*given):
        there.append(len(list(given[-1].glob("*"))))
        return CandidateRecall(1, 9, 0, 0)

    monkeypatch.setattr(Comparison, "measure", measure)
    label_space, rows = many_labels
    chosen = ContrastiveSettings(epochs=1, batch_size=8, hard_negatives=2)
    fit_retriever(label_space, rows, rows, checkpoints["bert"], tmp_path, contrastive=chosen, lexical=False)
    assert there[0] == 2, "texts and names are embedded once"
