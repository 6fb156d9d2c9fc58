"""Caches and checkpoints: found with their sizes, told from what models need, removed without following links."""

from __future__ import annotations

import shutil
import signal

import pytest
from processes import run_forked

from xlgen_hf.cli.main import main
from xlgen_hf.files.leftovers import find_leftovers, folder_size, remove_leftovers, size_text
from xlgen_hf.files.outputs import sole_writer

HASH = "0123456789abcdef" * 2


def _write(path, size=1000):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"x" * size)


@pytest.fixture
def runs(tmp_path):
    """A finished model, a finished index, an unfinished run, and folders of other programs."""
    _write(tmp_path / "model" / "training_report.json")
    _write(tmp_path / "model" / "model.safetensors")
    _write(tmp_path / "model" / "checkpoint-3" / "checkpoint.json")
    _write(tmp_path / "model" / "cache" / f"embeddings-{HASH}" / "about.json")
    _write(tmp_path / "model" / "cache" / "retriever" / "encoder-12ab" / "checkpoint-9" / "checkpoint.json")
    _write(tmp_path / "index" / "score_model.json")
    _write(tmp_path / "index" / "retriever" / "model.safetensors")
    _write(tmp_path / "index" / "cache" / "embeddings" / f"embeddings-{HASH}" / "about.json")
    _write(tmp_path / "experiment" / "result.json")
    _write(tmp_path / "experiment" / "encoder" / "checkpoint-4" / "checkpoint.json")
    _write(tmp_path / "run" / "checkpoint-5" / "checkpoint.json")
    _write(tmp_path / "run" / ".unfinished-checkpoint-6" / "model.safetensors", 500)
    _write(tmp_path / "other" / "checkpoint-7" / "trainer_state.json")
    _write(tmp_path / "other" / "cache" / "mine.bin")
    _write(tmp_path / "other" / "embeddings-mine" / "about.json")
    return tmp_path


REMOVED = {
    "model/checkpoint-3",
    f"model/cache/embeddings-{HASH}",
    "model/cache/retriever/encoder-12ab/checkpoint-9",
    f"index/cache/embeddings/embeddings-{HASH}",
    "experiment/encoder/checkpoint-4",
}
NEEDED = {"run/checkpoint-5", "run/.unfinished-checkpoint-6"}


def _names(folder):
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def test_what_is_ours_is_found(runs):
    found = {one.path.relative_to(runs).as_posix(): one for one in find_leftovers(runs)}
    assert set(found) == REMOVED | NEEDED
    assert {name for name, one in found.items() if one.is_needed} == NEEDED
    assert found["run/.unfinished-checkpoint-6"].size == 500


def test_links_are_not_followed(runs, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    _write(elsewhere / "checkpoint-1" / "checkpoint.json")
    (runs / "model" / "checkpoint-1").symlink_to(elsewhere / "checkpoint-1")
    (runs / "linked").symlink_to(elsewhere)
    (runs / "model" / "checkpoint-3" / "link").symlink_to(elsewhere / "checkpoint-1")
    found = find_leftovers(runs)
    assert {one.path.relative_to(runs).as_posix() for one in found} == REMOVED | NEEDED
    remove_leftovers(found, runs)
    assert (elsewhere / "checkpoint-1" / "checkpoint.json").is_file()


def test_the_command_lists_and_removes_what_no_run_needs(runs, capsys):
    before = _names(runs)
    assert main(["clean", str(runs)]) == 0
    shown = capsys.readouterr().out
    assert "5 kB can be removed; nothing was. Give --yes" in shown and "unfinished run, kept" in shown
    assert _names(runs) == before
    assert main(["clean", str(runs / "model"), str(runs), "--yes"]) == 0
    assert "Removed 5 kB." in capsys.readouterr().out
    assert _names(runs) == {name for name in before if not any(name.startswith(f"{one}/") for one in REMOVED)}
    assert not (runs / "model" / "cache").exists() and (runs / "index" / "retriever").is_dir()
    assert main(["clean", str(runs), "--yes", "--unfinished"]) == 0
    assert {name.split("/")[0] for name in _names(runs)} == {"model", "index", "experiment", "other"}
    capsys.readouterr()
    assert main(["clean", str(runs)]) == 0
    assert capsys.readouterr().out == "Nothing to remove.\n"


# Removes leftovers, and is killed when the first file is gone.
KILLED = """
import os, signal, sys
from xlgen_hf.files.leftovers import find_leftovers, remove_leftovers

def die(event, arguments):
    global removed
    if event == "os.remove" and (removed := removed + 1) == 2:
        os.kill(os.getpid(), signal.SIGKILL)

removed = 0
found = find_leftovers(sys.argv[1])
sys.addaudithook(die)
remove_leftovers(found, sys.argv[1])
"""


@pytest.mark.parametrize("name", [f"trimmed-{HASH}", f"embeddings-{HASH}", "state-2", "checkpoint-3"])
def test_what_is_left_of_a_removal_that_was_killed(runs, tmp_path_factory, name):
    """The fault: without its weights or its pooling, a trimmed checkpoint was used; without its description, nothing
    removed the rest.
    """
    shutil.rmtree(runs / "model" / "cache")
    shutil.rmtree(runs / "model" / "checkpoint-3")
    before, folder = _names(runs), runs / "model" / "cache" / name
    for file in ("trimmed.json", "about.json", "encoder.safetensors", "checkpoint.json", "modules.json"):
        _write(folder / file)
    assert run_forked(tmp_path_factory.mktemp("run"), KILLED, runs / "model").returncode == -signal.SIGKILL
    assert not folder.exists() and (runs / "model" / "cache").exists()
    (found,) = find_leftovers(runs / "model")
    assert found.size > 0 and not found.is_needed
    remove_leftovers([found], runs / "model")
    assert _names(runs) == before and not (runs / "model" / "cache").exists()


def test_a_folder_that_is_not_there_is_one_line(tmp_path, capsys):
    assert main(["clean", str(tmp_path / "none")]) == 1
    shown = capsys.readouterr().err
    assert "There is no folder" in shown and shown.count("\n") == 1


def test_a_folder_that_is_being_written_is_left_alone(runs, capsys):
    with sole_writer(runs / "model", command="xlgen train"):
        assert main(["clean", str(runs / "model"), "--yes"]) == 1
    assert "is being written by process" in capsys.readouterr().err
    assert (runs / "model" / "checkpoint-3").is_dir()


@pytest.mark.parametrize("looked_through", [".", "model"])
def test_what_a_command_around_it_writes_is_left_alone(runs, capsys, looked_through):
    """The fault: an experiment claims its own folder, and lost the checkpoints of the cell that was being trained."""
    before = _names(runs)
    with sole_writer(runs, command="xlgen experiment"):
        assert main(["clean", str(runs / looked_through), "--yes"]) != 0
    assert "is being written by process" in capsys.readouterr().err
    assert _names(runs) == before


def test_sizes(tmp_path):
    _write(tmp_path / "a" / "b", 1_500)
    assert folder_size(tmp_path) == 1_500
    assert [size_text(size) for size in (0, 999, 1_000, 999_600, 102_400_000, 3e9)] == [
        "0 bytes", "999 bytes", "1 kB", "1 MB", "102 MB", "3 GB",
    ]  # fmt: skip
