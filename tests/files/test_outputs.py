"""Outputs: nothing is replaced that the same command did not begin, and one process writes at a time."""

from __future__ import annotations

import errno
import fcntl
import gzip
import json
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from xlgen_hf.errors import ConfigurationError, SaveError
from xlgen_hf.files.json_lines import PartialOutput, write_jsonl
from xlgen_hf.files.outputs import RECORD_FILE, claim_file, claim_files, claim_folder, refuse_source, sole_writer
from xlgen_hf.files.saving import replace_files

ROWS = [{"labels": [f"text {number}"]} for number in range(5)]


def _lines(path):
    with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
        return [json.loads(line) for line in file]


# ---------------------------------------------------------------------------------------------------- what is there


def test_a_file_that_is_there_is_not_replaced(tmp_path):
    """The fault: predictions replaced a file of training rows without a word."""
    precious = tmp_path / "precious.jsonl"
    precious.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"precious\.jsonl exists already.* or give --overwrite"):
        PartialOutput(precious, {})
    claim = claim_file(precious, command="xlgen evaluate")
    with pytest.raises(ConfigurationError, match=r"precious\.jsonl exists already"), claim:
        pass
    assert precious.read_text() == "mine"
    assert [path.name for path in tmp_path.iterdir()] == ["precious.jsonl"]
    with PartialOutput(precious, {}, overwrite=True) as output:
        output.append(ROWS)
        assert precious.read_text() == "mine"
        output.finish()
    assert _lines(precious) == ROWS
    with pytest.raises(ConfigurationError, match="is a folder, where a file is to be written"):
        PartialOutput(tmp_path, {}, overwrite=True)
    (tmp_path / "link.jsonl").symlink_to(tmp_path / "nowhere")
    with pytest.raises(ConfigurationError, match=r"link\.jsonl exists already"):
        PartialOutput(tmp_path / "link.jsonl", {})


def test_devices_are_not_replaced(tmp_path):
    with pytest.raises(SaveError, match="it is there and is not a regular file"):
        write_jsonl("/dev/null", ROWS)


def test_rows_of_another_run_are_not_thrown_away(tmp_path):
    path = tmp_path / "out.jsonl"
    with PartialOutput(path, {"beams": 1, "model": "a"}) as first:
        first.append(ROWS[:3])
    with pytest.raises(ConfigurationError, match=r"left by a run with other settings.*: beams is 2, was 1. Repeat"):
        PartialOutput(path, {"beams": 2, "model": "a"})
    with pytest.raises(ConfigurationError, match="command is 'xlgen evaluate', was 'xlgen predict'"):
        PartialOutput(path, {"beams": 1, "model": "a"}, command="xlgen evaluate")
    with PartialOutput(path, {"beams": 1, "model": "a"}) as again:
        assert again.done == 3
    with PartialOutput(path, {"beams": 2, "model": "a"}, overwrite=True) as other:
        assert other.done == 0
    (tmp_path / "out.jsonl.partial").write_text("mine")
    (tmp_path / "out.jsonl.partial.json").unlink()
    with pytest.raises(ConfigurationError, match=r"out\.jsonl\.partial exists already, and nothing tells which run"):
        PartialOutput(path, {"beams": 2, "model": "a"})
    assert (tmp_path / "out.jsonl.partial").read_text() == "mine"


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_an_interrupted_run_is_continued(tmp_path, name):
    path = tmp_path / name
    with PartialOutput(path, {}, block=2, rows=5) as output:
        output.append(ROWS[:3])
    with (tmp_path / f"{name}.partial").open("a") as file:
        file.write('{"labels": ["te')  # killed in the middle of a row
    with PartialOutput(path, {}, block=2, rows=5) as output:
        assert output.done == 2
        output.append(ROWS[2:])
        output.finish()
    assert _lines(path) == ROWS
    assert [path.name for path in tmp_path.iterdir()] == [name]


@pytest.mark.parametrize("name", ["out.jsonl", "out.jsonl.gz"])
def test_a_run_that_was_killed_while_it_finished_is_continued(tmp_path, name, monkeypatch):
    """The fault: its file was in place, so the same command was refused for good."""
    path = tmp_path / name

    def die(*args, **kwargs):
        raise SystemExit(9)

    with PartialOutput(path, {}, rows=5) as output, monkeypatch.context() as patch:
        output.append(ROWS)
        patch.setattr(type(path), "unlink", die)
        with pytest.raises(SystemExit, match="9"):
            output.finish()
    assert _lines(path) == ROWS
    (tmp_path / f".{name}.xlgen-lock").touch()  # as it is where the process was killed
    with pytest.raises(ConfigurationError, match=f"{name} exists already and is not replaced"):
        PartialOutput(path, {"beams": 2}, rows=5)
    assert not (tmp_path / f".{name}.xlgen-lock").exists()
    with PartialOutput(path, {}, rows=5) as output:
        assert output.done == 5
        output.finish()
    assert _lines(path) == ROWS
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_a_file_that_was_put_in_place_of_an_unfinished_one_stays(tmp_path):
    path = tmp_path / "out.jsonl"
    with PartialOutput(path, {}, rows=5) as output:
        output.append(ROWS[:2])
    path.write_text("mine")
    with pytest.raises(ConfigurationError, match=r"out\.jsonl exists already and is not replaced"):
        PartialOutput(path, {}, rows=5)
    assert path.read_text() == "mine"


def test_files_of_one_command_take_their_places_together(tmp_path):
    """The fault: the second file did not fit on the disk, and the same command was refused because of the first."""
    names = ("scores.json", "plots/scores.png", "plots/other.png")
    paths = [tmp_path / name for name in names]
    claim = claim_files([*paths, None], command="xlgen evaluate")
    with pytest.raises(SaveError, match=f"^Nothing was saved to {paths[1]}: No space left"), claim as place:
        place(paths[0]).write_text("{}")
        raise SaveError(place(paths[1]), "No space left on device")
    assert not list(tmp_path.iterdir())
    with claim_files(paths, command="xlgen evaluate") as place:
        for path in paths[:2]:
            place(path).write_text("{}")
        assert not [path for path in paths if path.exists()]
    assert [path.exists() for path in paths] == [True, True, False]
    assert not list(tmp_path.rglob(".*"))
    claim = claim_files(paths, command="xlgen evaluate")
    with pytest.raises(ConfigurationError, match=r"scores\.json exists already"), claim:
        pass


def test_files_that_are_not_written_again_go(tmp_path):
    """A picture of the run before would stand beside the new scores."""
    paths = [tmp_path / "scores.json", tmp_path / "plot.png"]
    for texts in (["old", "old"], ["new"]):
        with claim_files(paths, command="xlgen evaluate", overwrite=True) as place:
            for path, text in zip(paths, texts, strict=False):
                place(path).write_text(text)
    assert paths[0].read_text() == "new"
    assert list(tmp_path.iterdir()) == paths[:1]


def test_files_that_cannot_take_their_places_leave_the_old_ones(tmp_path):
    paths = [tmp_path / "scores.json", tmp_path / "plot.png"]
    paths[0].write_text("old")
    claim = claim_files(paths, command="xlgen evaluate", overwrite=True)
    with pytest.raises(SaveError, match=r"plot\.png"), claim as place:
        for path in paths:
            place(path).write_text("new")
        paths[1].mkdir()
        (paths[1] / "of somebody").write_text("mine")
    assert paths[0].read_text() == "old"


def test_a_file_is_not_written_twice(tmp_path):
    twice = claim_files([tmp_path / "a.json", tmp_path / "a.json"], command="xlgen evaluate")
    with pytest.raises(ConfigurationError, match=r"a\.json is to be written twice by one command"), twice:
        pass


def test_a_model_is_not_written_over_itself(tmp_path):
    refuse_source(tmp_path / "new", tmp_path)
    (tmp_path / "x").mkdir()
    with pytest.raises(ConfigurationError, match="is the model that is read, which the new one would replace"):
        refuse_source(tmp_path / "x" / "..", tmp_path)


def test_a_writer_may_wait_for_another(tmp_path):
    """As a cell of an experiment does, whose run was killed and repeated."""
    with sole_writer(tmp_path, command="the first"):
        second = sole_writer(tmp_path, command="the second", timeout=0.3)
        with (
            pytest.raises(ConfigurationError, match=r"is being written by process \d+ on .* \(`the first`, since"),
            second,
        ):
            pass
    first = sole_writer(tmp_path, command="the first")
    first.__enter__()
    ending = threading.Timer(0.3, first.__exit__, (None, None, None))
    ending.start()
    with sole_writer(tmp_path, command="the second", timeout=60):
        assert ending.finished.is_set()


def test_what_dead_processes_left_anywhere_in_a_folder_is_removed(tmp_path):
    with claim_folder(tmp_path / "out", command="xlgen index"):
        pass
    left = tmp_path / "out" / "cache" / ".xlgen-unfinished-999999999-0"
    left.mkdir(parents=True)
    with claim_folder(tmp_path / "out", command="xlgen index"):
        assert not left.exists()


def test_a_folder_that_holds_something_else_is_refused(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "thesis.txt").write_text("mine")
    refused = claim_folder(folder, command="xlgen index")
    with (
        pytest.raises(ConfigurationError, match=r"out holds thesis\.txt, which `xlgen index` did not.*--overwrite"),
        refused,
    ):
        pass
    assert [path.name for path in folder.iterdir()] == ["thesis.txt"]
    with claim_folder(folder, command="xlgen index", overwrite=True):
        (folder / "label_space.json").write_text("{}")
    assert (folder / "thesis.txt").read_text() == "mine"
    with claim_folder(folder, command="xlgen index"):
        pass
    other = claim_folder(folder, command="xlgen train")
    with pytest.raises(ConfigurationError, match="was written by `xlgen index`, not by `xlgen train`"), other:
        pass
    with (
        pytest.raises(ConfigurationError, match="is a file, where a folder"),
        claim_folder(folder / "thesis.txt", command="xlgen index"),
    ):
        pass


def test_a_folder_of_the_same_command_with_other_settings_is_refused(tmp_path):
    folder = tmp_path / "new" / "out"
    with claim_folder(folder, command="xlgen index", settings={"seed": 1, "train_file": tmp_path}):
        pass
    with claim_folder(folder, command="xlgen index", settings={"seed": 1, "train_file": tmp_path}):
        pass
    other = claim_folder(folder, command="xlgen index", settings={"seed": 2, "train_file": tmp_path})
    with pytest.raises(ConfigurationError, match="with other settings: seed is 2, was 1"), other:
        pass
    with claim_folder(folder, command="xlgen index", settings={"seed": 2}, overwrite=True):
        pass
    with claim_folder(folder, command="xlgen index", settings={"seed": 2}):
        pass
    assert [path.name for path in folder.iterdir()] == [RECORD_FILE]


class Killed(BaseException):
    """A process that dies: nothing is tidied up."""


def test_a_claim_finishes_a_save_that_was_interrupted(tmp_path, monkeypatch):
    folder = tmp_path / "model"
    rename = os.replace

    def dying(source, target):
        if Path(target) == folder / "config.json":
            raise Killed("here")
        rename(source, target)

    with claim_folder(folder, command="xlgen train"), monkeypatch.context() as patch:
        patch.setattr(os, "replace", dying)
        with pytest.raises(Killed, match="here"), replace_files(folder) as aside:
            (aside / "config.json").write_text("{}")
    assert not (folder / "config.json").exists()
    with claim_folder(folder, command="xlgen train"):
        assert (folder / "config.json").exists()
        assert not list(folder.glob(".xlgen-finished"))


# ---------------------------------------------------------------------------------------------------- one writer


def _write(path, start_after, per_chunk, results):
    """What `xlgen predict` does, with a model that sleeps."""
    time.sleep(start_after)
    rows = [{"labels": [f"text {number}"]} for number in range(200)]
    try:
        with PartialOutput(path, {"model": "a"}, 10, rows=len(rows)) as output:
            for first in range(output.done, len(rows), 10):
                time.sleep(per_chunk)
                output.append(rows[first : first + 10])
            output.finish()
        results.put("done")
    except ConfigurationError as err:
        results.put(str(err))


def test_two_processes_write_one_file(tmp_path):
    """The fault: 904 and 3,976 of 5,000 rows were left in a file that looked complete."""
    context = multiprocessing.get_context("fork")
    results, path = context.Queue(), tmp_path / "out.jsonl"
    processes = [context.Process(target=_write, args=(path, *times, results)) for times in ((0, 0.02), (0.1, 0.001))]
    for process in processes:
        process.start()
    found = sorted(results.get(timeout=60) for _ in processes)
    for process in processes:
        process.join()
    assert found[1] == "done"
    assert f"{path} is being written by process {processes[0].pid} on" in found[0]
    assert "(`xlgen predict`, since 2" in found[0]
    assert [row["labels"][0] for row in _lines(path)] == [f"text {number}" for number in range(200)]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]


HOLDER = """
import sys, time
from xlgen_hf.files.outputs import claim_folder
with claim_folder(sys.argv[1], command="xlgen train"):
    print("claimed", flush=True)
    time.sleep(60)
"""


def test_one_process_writes_into_a_folder_and_a_dead_one_keeps_nobody_out(tmp_path):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, str(tmp_path / "out")], stdout=subprocess.PIPE, text=True)
    assert holder.stdout.readline() == "claimed\n"
    claim = claim_folder(tmp_path / "out", command="xlgen train")
    with (
        pytest.raises(ConfigurationError, match=rf"being written by process {holder.pid} on .* \(`xlgen train`"),
        claim,
    ):
        pass
    holder.kill()
    holder.wait()
    holder.stdout.close()
    assert list((tmp_path / "out").glob(".xlgen-lock"))
    with claim_folder(tmp_path / "out", command="xlgen train"):
        pass
    assert not list((tmp_path / "out").glob(".xlgen-lock"))


def test_one_writer_where_the_file_system_has_no_locks(tmp_path, monkeypatch):
    """Then the process id in the lock file decides."""

    def no_locks(handle, how):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", no_locks)
    path = tmp_path / "out.jsonl"
    with sole_writer(path, command="xlgen predict"):
        second = sole_writer(path, command="xlgen predict")
        with pytest.raises(ConfigurationError, match=f"is being written by process {os.getpid()}"), second:
            pass
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    owner = {"process": gone.pid, "host": os.uname().nodename, "command": "xlgen predict", "since": "2026"}
    (tmp_path / ".out.jsonl.xlgen-lock").write_text(json.dumps(owner))
    with sole_writer(path, command="xlgen predict"):
        pass
    assert not list(tmp_path.iterdir())


def test_rows_are_counted_before_the_file_takes_its_place(tmp_path):
    path = tmp_path / "out.jsonl"
    with PartialOutput(path, {}, rows=5) as output:
        output.append(ROWS[:4])
        with pytest.raises(SaveError, match=r"out\.jsonl\.partial holds 4 of 5 rows, of which 4 were written"):
            output.finish()
        output.append(ROWS[4:])
        (tmp_path / "out.jsonl.partial").write_text(json.dumps(ROWS[0]) + "\n")
        with pytest.raises(SaveError, match=r"holds 1 of 5 rows, of which 5 were written. If something"):
            output.finish()
    assert not path.exists()


def test_full_disk_while_rows_are_written(tmp_path):
    """A process that may write no file beyond 1,000 bytes; the same command continues once it may."""
    script = (
        "import resource, sys\n"
        "from xlgen_hf.errors import SaveError\n"
        "from xlgen_hf.files.json_lines import PartialOutput\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[2]), resource.RLIM_INFINITY))\n"
        "try:\n"
        "    with PartialOutput(sys.argv[1], {}, rows=100) as output:\n"
        "        for number in range(output.done, 100):\n"
        "            output.append([{'labels': [number], 'filling': 'x' * 50}])\n"
        "        output.finish()\n"
        "except SaveError as err:\n"
        "    print(err)\n"
    )
    path = tmp_path / "out.jsonl"
    run = [sys.executable, "-c", script, str(path)]
    done = subprocess.run([*run, "1000"], capture_output=True, text=True)
    assert done.stdout.startswith(f"Nothing was saved to {path}: File too large."), done.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.jsonl.partial", "out.jsonl.partial.json"]
    done = subprocess.run([*run, str(10**6)], capture_output=True, text=True)
    assert (done.stdout, done.returncode) == ("", 0), done.stderr
    assert [row["labels"] for row in _lines(path)] == [[number] for number in range(100)]
    assert [path.name for path in tmp_path.iterdir()] == ["out.jsonl"]
