"""Saves that are broken off: the old model stays whole, whatever was written when it happened."""

from __future__ import annotations

import errno
import hashlib
import os
import subprocess
import sys

import pytest
import torch
from safetensors import SafetensorError

from xlgen_hf.errors import ModelFolderError, SaveError
from xlgen_hf.files import saving
from xlgen_hf.files import serialization as _io
from xlgen_hf.files.saving import finish_interrupted_save, replace_files
from xlgen_hf.loading import load_model
from xlgen_hf.modeling_xlgen import XLGenForConditionalGeneration
from xlgen_hf.processing_xlgen import XLGenProcessor
from xlgen_hf.training.arguments import XLGenTrainingArguments
from xlgen_hf.training.trainer import XLGenTrainer

FULL = OSError(errno.ENOSPC, "No space left on device")


def _state(folder):
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


@pytest.fixture
def old(make_model, tmp_path):
    """A folder with a model, and another model to save over it."""
    model, processor = make_model("t5", "bcl")
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.1
    return tmp_path / "model", model, processor


@pytest.mark.parametrize("error", [FULL, SafetensorError("I/O error: No space left on device (os error 28)")])
def test_full_disk_while_the_weights_are_written(old, monkeypatch, error):
    folder, model, _ = old
    before = _state(folder)

    def full(tensors, path, **kwargs):
        with open(path, "wb") as file:
            file.write(b"half")
        raise error

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", full)
    with pytest.raises(SaveError, match=f"Nothing was saved to {folder}: .*No space left .* save again"):
        model.save_pretrained(folder)
    assert _state(folder) == before


@pytest.mark.parametrize("target", ["label_space.json", "label_clusters.json", "processor_config.json"])
def test_full_disk_while_the_processor_is_written(old, monkeypatch, target):
    folder, _, processor = old
    before = _state(folder)
    write = _io.Path.write_text

    def full(path, *args, **kwargs):
        if target in path.name:
            raise FULL
        return write(path, *args, **kwargs)

    processor.max_source_length = 32
    monkeypatch.setattr(_io.Path, "write_text", full)
    with pytest.raises(SaveError, match="No space left on device"):
        processor.save_pretrained(folder)
    monkeypatch.undo()
    assert _state(folder) == before
    processor.save_pretrained(folder)
    assert XLGenProcessor.from_pretrained(folder).max_source_length == 32


def test_a_folder_that_was_not_there_is_not_there_after(make_model, tmp_path, monkeypatch):
    model, _ = make_model("t5")
    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", lambda *a, **k: (_ for _ in ()).throw(FULL))
    with pytest.raises(SaveError, match="Nothing was saved"):
        model.save_pretrained(tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_full_disk_in_earnest(old):
    """A process that may write no file beyond 20,000 bytes; the weights are larger."""
    folder, _, _ = old
    before = _state(folder)
    assert (folder / "model.safetensors").stat().st_size > 40_000
    script = (
        "import resource, sys\n"
        "from xlgen_hf.loading import load_model\n"
        "from xlgen_hf.errors import SaveError\n"
        f"model, _ = load_model({str(folder)!r})\n"
        "model.cluster_head.bias.data += 1\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))\n"
        "try:\n"
        f"    model.save_pretrained({str(folder)!r})\n"
        "except SaveError as err:\n"
        "    print(err)\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.startswith(f"Nothing was saved to {folder}: "), done.stderr
    assert "ile too large" in done.stdout
    assert _state(folder) == before


def test_ctrl_c_leaves_the_old_model(old, monkeypatch):
    folder, model, _ = old
    before = _state(folder)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        model.save_pretrained(folder)
    assert _state(folder) == before


@pytest.mark.parametrize("moved", range(4))
def test_death_while_files_take_their_places(old, tmp_path, monkeypatch, moved):
    """The process dies after some of the renames: the next load, or save, ends them."""
    folder, model, processor = old
    whole = tmp_path / "whole"
    with replace_files(whole) as aside:
        model.save_pretrained(aside)
        processor.save_pretrained(aside)
    rename, calls = os.replace, []

    def dying(source, target):
        if str(source).startswith(str(folder / saving._READY)):
            calls.append(target)
            if len(calls) > moved:
                raise KeyboardInterrupt
        rename(source, target)

    monkeypatch.setattr(saving.os, "replace", dying)
    with pytest.raises(KeyboardInterrupt), replace_files(folder) as aside:
        model.save_pretrained(aside)
        processor.save_pretrained(aside)
    monkeypatch.undo()
    assert (folder / saving._READY).is_dir()
    load_model(str(folder))
    assert _state(folder) == _state(whole)


def test_trainer_saves_all_or_nothing(old, rows, monkeypatch):
    """Weights, processor and arguments of the trained model are of one time."""
    folder, model, processor = old
    args = XLGenTrainingArguments(str(folder), use_cpu=True)
    trainer = XLGenTrainer(model, args, processing_class=processor, train_dataset=rows)
    before = _state(folder)
    monkeypatch.setattr(
        "xlgen_hf.training.trainer.write_json", lambda *a: (_ for _ in ()).throw(FULL)
    )  # the last of its files
    with pytest.raises(SaveError, match=f"Nothing was saved to {folder}: No space left"):
        trainer.save_model()
    assert _state(folder) == before
    monkeypatch.undo()
    trainer.save_model()
    after = _state(folder)
    assert after["model.safetensors"] != before["model.safetensors"]
    assert "training_args.json" in after
    assert not [name for name in after if name.endswith(".bin") or name.startswith(".xlgen")]


def test_weights_of_an_older_model_do_not_stay(old):
    folder, model, _ = old
    (folder / "notes.txt").write_text("mine")
    (folder / "adapter_config.json").write_text("{}")
    model.save_pretrained(folder, max_shard_size="20KB")
    assert not (folder / "model.safetensors").exists()
    assert not (folder / "adapter_config.json").exists()
    shards = sorted(path.name for path in folder.glob("model-*.safetensors"))
    assert len(shards) > 1
    again = XLGenForConditionalGeneration.from_pretrained(folder)
    assert torch.equal(again.cluster_head.weight, model.cluster_head.weight)
    model.save_pretrained(folder)
    assert not list(folder.glob("model-*")) + list(folder.glob("*.index.json"))
    assert {"notes.txt", "label_clusters.safetensors", "label_space.json"} <= set(_state(folder))


def test_errors_that_are_not_of_the_disk_stay_what_they_are(tmp_path):
    with pytest.raises(OSError, match="the Hub says no") as caught, replace_files(tmp_path):
        raise OSError("the Hub says no")
    assert not isinstance(caught.value, SaveError)
    with pytest.raises(ZeroDivisionError), replace_files(tmp_path) as aside:
        (aside / "half").write_text("x")
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("names", ['["../../outside"]', '["/etc/passwd"]', "3", "[1]"])
def test_hostile_list_of_an_unfinished_save(tmp_path, names):
    ready = tmp_path / "model" / saving._READY
    ready.mkdir(parents=True)
    (ready / saving._MANIFEST).write_text(names)
    with pytest.raises(ModelFolderError, match=r"manifest.json is no list of file names"):
        finish_interrupted_save(tmp_path / "model")
