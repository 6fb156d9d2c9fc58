"""Saves that are broken off: the old model stays whole, whatever was written when it happened."""

from __future__ import annotations

import errno
import hashlib
import json
import multiprocessing
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import pytest
import torch
from processes import Forked, run_forked
from safetensors import SafetensorError

from xlgen_hf.errors import ModelFolderError, SaveError
from xlgen_hf.files import saving
from xlgen_hf.files.atomic import lock_folder
from xlgen_hf.files.saving import finish_interrupted_save, read_folder, replace_files
from xlgen_hf.files.serialization import read_json, write_json
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
    write = Path.write_text

    def full(path, *args, **kwargs):
        if target in path.name:
            raise FULL
        return write(path, *args, **kwargs)

    processor.max_source_length = 32
    monkeypatch.setattr(Path, "write_text", full)
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


def test_full_disk_in_earnest(old, tmp_path):
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
    done = run_forked(tmp_path, script)
    assert done.stdout.startswith(f"Nothing was saved to {folder}: "), done.stderr
    assert "ile too large" in done.stdout
    assert _state(folder) == before


def test_ctrl_c_leaves_the_old_model(old, monkeypatch):
    folder, model, _ = old
    before = _state(folder)

    def interrupted(*args, **kwargs):
        raise KeyboardInterrupt("Ctrl-C")

    monkeypatch.setattr("transformers.modeling_utils.safe_save_file", interrupted)
    with pytest.raises(KeyboardInterrupt, match="Ctrl-C"):
        model.save_pretrained(folder)
    assert _state(folder) == before


class Killed(BaseException):
    """A process that dies: nothing is tidied up."""


@pytest.fixture
def interrupted(old, tmp_path, monkeypatch):
    """Dies in the middle of a save; gives the folder, and one where the same save came to its end."""

    def interrupt(moved):
        folder, model, processor = old
        whole = tmp_path / "whole"
        with replace_files(whole) as aside:
            model.save_pretrained(aside)
            processor.save_pretrained(aside)
        rename, calls = os.replace, []

        def dying(source, target):
            if "/.xlgen-finished/.new/" in str(source):
                calls.append(target)
                if len(calls) > moved:
                    raise Killed("here")
            rename(source, target)

        monkeypatch.setattr(saving.os, "replace", dying)
        with pytest.raises(Killed, match="here"), replace_files(folder) as aside:
            model.save_pretrained(aside)
            processor.save_pretrained(aside)
        monkeypatch.undo()
        assert len(calls) == moved + 1
        return folder, whole

    return interrupt


@pytest.mark.parametrize("moved", [0, 1, 4, 9])
def test_death_while_files_take_their_places(interrupted, old, moved):
    """Readers see the new model, and change nothing; the next save puts it into its place."""
    folder, whole = interrupted(moved)
    _, _, processor = old
    before = _state(folder)
    loaded, loaded_processor = load_model(str(folder))
    for name, value in XLGenForConditionalGeneration.from_pretrained(whole).state_dict().items():
        assert torch.equal(loaded.state_dict()[name], value)
    assert loaded_processor.label_space.names == processor.label_space.names
    assert _state(folder) == before
    finish_interrupted_save(folder)
    assert _state(folder) == _state(whole)
    assert sorted(path.name for path in folder.iterdir()) == sorted(path.name for path in whole.iterdir())


@pytest.mark.parametrize("moved", [0, 4])
def test_the_next_save_finishes_the_last_one(interrupted, old, moved):
    folder, whole = interrupted(moved)
    _, _, processor = old
    processor.max_source_length = 40
    processor.save_pretrained(folder)
    different = {name for name, digest in _state(folder).items() if _state(whole)[name] != digest}
    assert different == {"processor_config.json"}
    assert not [path for path in folder.iterdir() if path.name.startswith(".xlgen")]


def test_an_interrupted_save_in_a_folder_that_may_not_be_written(interrupted, monkeypatch):
    folder, _ = interrupted(2)

    def read_only(source, target):
        raise OSError(errno.EROFS, "Read-only file system", str(source))

    monkeypatch.setattr(saving.os, "replace", read_only)
    with pytest.raises(ModelFolderError, match=r"are whole, but cannot take their places: Read-only file system"):
        finish_interrupted_save(folder)
    load_model(str(folder))


def test_a_copy_of_an_interrupted_save_is_refused(interrupted, tmp_path):
    """Files that only say of themselves that a save left them are not trusted."""
    folder, _ = interrupted(2)
    shutil.copytree(folder, tmp_path / "copy", symlinks=True)
    before = _state(tmp_path / "copy")
    for use in (load_model, finish_interrupted_save, lambda name: XLGenProcessor.from_pretrained(name)):
        with pytest.raises(ModelFolderError, match=r"\.xlgen-finished was not left by a save .*: it came with a copy"):
            use(str(tmp_path / "copy"))
    assert _state(tmp_path / "copy") == before


@pytest.mark.parametrize("names", ['["sub/authorized_keys"]', '["../outside"]', "3", '{"obsolete": ["sub/id"]}'])
def test_a_cloned_folder_changes_nothing_outside(old, tmp_path, names):
    """The fault: the list of an unfinished save led through a link, and loading wrote there."""
    folder, model, processor = old
    home = tmp_path / "home"
    home.mkdir()
    for name in ("authorized_keys", "id"):
        (home / name).write_text("mine")
    (folder / "sub").symlink_to(home)
    for name in ("", ".new"):
        ready = folder / ".xlgen-finished" / name / "sub"
        ready.mkdir(parents=True)
        (ready / "authorized_keys").write_text("evil")
    for name in (".manifest.json", ".save.json"):
        (folder / ".xlgen-finished" / name).write_text(names)
    before, outside = _state(folder), _state(home)
    for use in (load_model, lambda name: model.save_pretrained(name), lambda name: processor.save_pretrained(name)):
        with pytest.raises(ModelFolderError, match="was not left by a save"):
            use(str(folder))
    assert (_state(folder), _state(home)) == (before, outside)


def test_a_save_does_not_follow_links(old, tmp_path):
    folder, model, _ = old
    (tmp_path / "home").mkdir()
    (folder / "retriever").symlink_to(tmp_path / "home")
    with (
        pytest.raises(SaveError, match="retriever is a link, which a save does not follow"),
        replace_files(folder) as aside,
    ):
        (aside / "retriever").mkdir()
        (aside / "retriever" / "retriever.json").write_text("{}")
    assert not list((tmp_path / "home").iterdir())
    (tmp_path / "weights").write_text("mine")
    (folder / "model.safetensors").unlink()
    (folder / "model.safetensors").symlink_to(tmp_path / "weights")
    model.save_pretrained(folder)  # a link in the place of a file is replaced, not followed
    assert (tmp_path / "weights").read_text() == "mine"
    assert not (folder / "model.safetensors").is_symlink()


def test_what_a_dead_process_left_is_removed(tmp_path):
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    for place in (tmp_path, tmp_path / "model"):
        (place / f".xlgen-unfinished-{gone.pid}-0").mkdir(parents=True)
        (place / f".xlgen-unfinished-{gone.pid}-0" / ".tmpAbC").write_text("half of the weights")
    (tmp_path / "model" / ".xlgen-unfinished-notes").mkdir()  # of somebody else
    with replace_files(tmp_path / "model") as aside:
        (aside / "config.json").write_text("{}")
    write_json(tmp_path / "report.json", {})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "report.json"]
    assert sorted(path.name for path in (tmp_path / "model").iterdir()) == [".xlgen-unfinished-notes", "config.json"]


def test_what_an_earlier_process_of_the_same_id_left_is_removed(tmp_path):
    """In a container every process is number 1, and none removed what the one before had left."""
    left = tmp_path / f".xlgen-unfinished-{os.getpid()}-999999999"
    left.mkdir()
    with replace_files(tmp_path) as mine:
        write_json(tmp_path / "report.json", {})
        assert not left.exists()
        assert mine.is_dir()


def test_what_a_living_process_writes_stays(tmp_path):
    """Also where its process id is not known here, as in another container: its lock tells."""
    with replace_files(tmp_path) as mine:
        (mine / "config.json").write_text("{}")
        other = tmp_path / ".xlgen-unfinished-4194399-0"  # above all process ids
        other.mkdir()
        (other / "label_space.json").write_text("{}")
        with lock_folder(other, exclusive=True):
            with replace_files(tmp_path) as aside:
                (aside / "processor_config.json").write_text("{}")
            assert other.is_dir()
            assert mine.is_dir()
    assert {path.name for path in tmp_path.iterdir()} == {"config.json", "processor_config.json", other.name}


def _pairs(folder, stop, results):
    """Read pairs of files until told to stop."""
    count = 0
    while not stop.is_set():
        pair = read_folder(
            folder, lambda place: [read_json(place / name)["n"] for name in ("config.json", "hybrid.json")]
        )
        if pair[0] != pair[1]:
            results.put(pair)
            return
        count += 1
    results.put(count)


def test_readers_beside_a_saver_see_one_save(tmp_path):
    """The fault: one of 60 saves failed, and readers saw files of two models."""
    context = multiprocessing.get_context("fork")
    stop, results = context.Event(), context.Queue()

    def save(number):
        with replace_files(tmp_path) as aside:
            for name in ("config.json", "processor_config.json", "hybrid.json"):
                (aside / name).write_text(json.dumps({"n": number, "filling": " " * 10_000}))

    save(0)
    readers = [context.Process(target=_pairs, args=(tmp_path, stop, results)) for _ in range(2)]
    for reader in readers:
        reader.start()
    for number in range(1, 61):
        save(number)
        time.sleep(0.002)
    stop.set()
    found = [results.get(timeout=60) for _ in readers]
    for reader in readers:
        reader.join()
    assert all(isinstance(count, int) and count > 5 for count in found), found
    assert read_json(tmp_path / "hybrid.json")["n"] == 60
    assert not list(tmp_path.glob(".xlgen*"))


def test_a_reader_that_is_always_disturbed_says_so(tmp_path):
    write_json(tmp_path / "config.json", 0)
    with pytest.raises(ModelFolderError, match="was changed each of the 5 times that it was read"):
        read_folder(tmp_path, lambda folder: write_json(folder / "config.json", 1))
    # What has nothing to do with a save is not tried again.
    with pytest.raises(ZeroDivisionError, match="division by zero"):
        read_folder(tmp_path, lambda folder: 1 / 0)


SAVER = """
import sys, time
from pathlib import Path
from xlgen_hf.files.saving import replace_files
folder = Path(sys.argv[1])
number = int(sys.argv[2])
print("ready", flush=True)
while True:
    number += 1
    with replace_files(folder) as aside:
        for name in ("config.json", "hybrid.json", "processor_config.json", "retriever/retriever.json"):
            (aside / name).parent.mkdir(exist_ok=True)
            (aside / name).write_text(str(number) + " " * 50_000)
        if number % 2:
            (aside / "label_clusters.json").write_text(str(number))
"""


def test_kill_at_any_moment(tmp_path):
    """kill -9 of a process that saves all the time: what is there is of one save, and the next one tidies up."""
    folder, chance, last = tmp_path / "model", random.Random(0), 0
    names = ("config.json", "hybrid.json", "processor_config.json", "retriever/retriever.json")
    for _ in range(8):
        saver = Forked(tmp_path, SAVER, folder, last)
        saver.wait_for("ready", saver.stdout)
        time.sleep(0.02 + chance.random() / 10)
        saver.send_signal(signal.SIGKILL)
        assert saver.wait() == -signal.SIGKILL
        found = read_folder(folder, lambda place: [read_json(place / name) for name in names])
        assert len(set(found)) == 1
        last = found[0]
        there = read_folder(folder, lambda place: (place / "label_clusters.json").exists())
        assert there == bool(last % 2)
    write_json(folder / "notes.json", 0)
    with replace_files(folder) as aside:
        (aside / "config.json").write_text("0")
    assert not list(folder.rglob(".xlgen*"))


def test_files_follow_the_umask(make_model, tmp_path):
    """The fault: weights and tries were for their owner alone, and others were told that they are missing."""
    model, processor = make_model("t5", "bcl")
    old = os.umask(0o027)
    try:
        with replace_files(tmp_path / "model") as aside:
            model.save_pretrained(aside, max_shard_size="20KB")
            processor.save_pretrained(aside)
        processor.label_tokenizer.trie.save(tmp_path)
        processor.label_space.save(tmp_path)
    finally:
        os.umask(old)
    modes = {path.name: oct(path.stat().st_mode & 0o777) for path in tmp_path.rglob("*") if path.is_file()}
    assert set(modes.values()) == {"0o640"}
    assert len(modes) > 10


@pytest.mark.skipif(os.getuid() == 0, reason="root may read everything")
def test_unreadable_files_are_called_unreadable_by_their_reader(old):
    folder, _, _ = old
    (folder / "model.safetensors").chmod(0)
    with pytest.raises(ModelFolderError, match=r"model\.safetensors cannot be read: Permission denied"):
        load_model(str(folder))


def test_unreadable_files_are_called_unreadable(old, tmp_path):
    """As another user (nobody), in a process of its own."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    folder, _, _ = old
    place = Path(tempfile.mkdtemp())
    shutil.copytree(folder, place / "model")
    place.chmod(0o755)
    script = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from xlgen_hf.files.serialization import read_json, read_tensors\n"
        "from xlgen_hf.files.model_checks import check_encoder\n"
        "from xlgen_hf.labels.trie import LabelTrie\n"
        "from xlgen_hf.errors import ModelFolderError\n"
        "folder = Path(sys.argv[1])\n"
        "os.setuid(65534)\n"
        "for read in (lambda: read_json(folder / 'config.json'), lambda: LabelTrie.load(folder, num_tokens=9),\n"
        "             lambda: read_tensors(folder / 'model.safetensors'), lambda: check_encoder(folder)):\n"
        "    try:\n"
        "        read()\n"
        "    except ModelFolderError as err:\n"
        "        print(err)\n"
    )
    for name in ("model.safetensors", "label_trie.safetensors", "config.json"):
        (place / "model" / name).chmod(0o600)
    done = run_forked(tmp_path, script, place / "model")
    shutil.rmtree(place)
    lines = done.stdout.splitlines()
    assert len(lines) == 4, done.stderr
    assert all(
        re.match(r"/.*\.(json|safetensors) cannot be read: Permission denied\. .*chmod a\+r", line) for line in lines
    )


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
    with pytest.raises(ZeroDivisionError, match="division by zero"), replace_files(tmp_path) as aside:
        (aside / "half").write_text("x")
        _ = 1 / 0
    assert list(tmp_path.iterdir()) == []
