"""Disks that are full, read-only or over quota: one line that names the place, and nothing half-written."""

from __future__ import annotations

import errno
import os
import subprocess

import numpy as np
import pytest
from processes import run_forked

from xlgen_hf.errors import SaveError
from xlgen_hf.files import atomic
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.saving import replace_files
from xlgen_hf.files.serialization import write_json, write_tensors

# Saves a model and single files with a limit to the size of a file, for which every write beyond it fails as on a full
# disk; prints the errors and what has changed.
LIMITED = """
import hashlib, resource, sys
from pathlib import Path
import numpy as np
from xlgen_hf.errors import SaveError
from xlgen_hf.files.json_lines import write_jsonl
from xlgen_hf.files.saving import replace_files
from xlgen_hf.files.serialization import write_json, write_tensors
from xlgen_hf.loading import load_model

folder = Path(sys.argv[1])
model, processor = load_model(str(folder / "model"))
model.cluster_head.bias.data += 1
processor.max_source_length = 40

def save(place):
    with replace_files(place / "model") as aside:
        processor.save_pretrained(aside)
        model.save_pretrained(aside)

def state():
    return {path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
            for path in folder.rglob("*") if path.is_file()}

rows = [{"text": hashlib.sha256(str(number).encode()).hexdigest()} for number in range(1_500)]
writers = {
    "model": save,
    "a.json": lambda place: write_json(place / "a.json", rows),
    "a.safetensors": lambda place: write_tensors(place / "a.safetensors", {"a": np.ones(30_000)}),
    "a.jsonl": lambda place: write_jsonl(place / "a.jsonl", rows),
    "a.jsonl.gz": lambda place: write_jsonl(place / "a.jsonl.gz", rows),
    "new/b.json": lambda place: write_json(place / "new" / "b.json", rows),
}
limits = [int(limit) for limit in sys.argv[2:]]
for name, write in writers.items():
    before = state()
    for limit in limits:
        resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
        try:
            write(folder)
        except SaveError as err:
            found = str(err)
        else:
            found = f"saved with {limit}"
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        print(f"{name}: {found}")  # now that the file behind stdout may grow again
        if state() != before:
            print("changed", sorted(set(state().items()) ^ set(before.items())))
    write(folder)
    assert state() != before
"""


def _run(folder, script, *arguments):
    done = run_forked(folder, script, *arguments)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def test_files_may_not_grow(make_model, tmp_path, tmp_path_factory):
    """Also in the writers of safetensors and tokenizers, which raise errors of their own."""
    model, processor = make_model("bert", "bcl")
    with replace_files(tmp_path / "model") as aside:
        model.save_pretrained(aside)
        processor.save_pretrained(aside)
    sizes = sorted({path.stat().st_size - 1 for path in (tmp_path / "model").iterdir()})
    limits = [size for size in sizes if size < 40_000]
    assert len(limits) > 8
    lines = _run(tmp_path_factory.mktemp("run"), LIMITED, tmp_path, 10, *limits)
    assert [line for line in lines if ": Nothing was saved to" not in line] == []
    assert len(lines) == 6 * (len(limits) + 1)
    for line in lines:
        name, _, message = line.partition(": ")
        assert message.startswith(f"Nothing was saved to {tmp_path / name}: File too large. "), line
    assert not list(tmp_path.rglob(".xlgen*"))


# Fills a file system of 1 MB but for some bytes, and saves to it.
FULL = """
import os, sys
from pathlib import Path
from xlgen_hf.errors import SaveError
from xlgen_hf.loading import load_model

place, model_folder = Path(sys.argv[1]), sys.argv[2]
model, processor = load_model(model_folder)
model.save_pretrained(place / "model")
before = sorted((path.name, path.stat().st_size) for path in (place / "model").iterdir())
free = os.statvfs(place).f_bavail * os.statvfs(place).f_bsize
for left in range(0, 200_000, 10_000):
    with (place / "filling").open("wb") as file:
        file.write(bytes(max(free - left, 0)))
    try:
        model.save_pretrained(place / "model")
        processor.save_pretrained(place / "model" / "new")
        print("saved")
        (place / "filling").unlink()
        break
    except SaveError as err:
        print(str(err).replace(str(place), ""))
    after = sorted((path.name, path.stat().st_size) for path in (place / "model").iterdir())
    print("changed", before, after) if before != after else None
    (place / "filling").unlink()
"""


def test_a_disk_with_less_and_less_room(make_model, tmp_path):
    """A real file system of 1 MB, where this process may mount one."""
    model, processor = make_model("t5", "base")
    model.save_pretrained(tmp_path / "model")
    processor.save_pretrained(tmp_path / "model")
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(disk)]
    if os.getuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root can mount a small file system")
    try:
        lines = _run(tmp_path, FULL, disk, tmp_path / "model")
    finally:
        subprocess.run(["umount", str(disk)], check=True)
    assert lines[-1] == "saved"
    assert len(lines) > 3
    assert all(line.startswith("Nothing was saved to /model: No space left on device. ") for line in lines[:2])
    assert not [line for line in lines if line.startswith("changed")]


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.EIO])
@pytest.mark.parametrize("step", ["mkdir", "replace"])
def test_what_the_system_says_is_passed_on(tmp_path, monkeypatch, number, step):
    """At making the folder aside, and at the last rename."""
    writers = {
        tmp_path / "a.json": lambda path: write_json(path, {}),
        tmp_path / "a.safetensors": lambda path: write_tensors(path, {"a": np.ones(1)}),
        tmp_path / "a.jsonl": lambda path: write_jsonl(path, [{}]),
    }
    owner, name = (atomic.Path, "mkdir") if step == "mkdir" else (atomic.os, "replace")
    for path, write in writers.items():
        path.write_text("old")

        def refuse(*args, **kwargs):
            raise OSError(number, os.strerror(number))

        with monkeypatch.context() as patch:
            patch.setattr(owner, name, refuse)
            with pytest.raises(SaveError, match=f"^Nothing was saved to {path}: {os.strerror(number)}\\."):
                write(path)
        assert path.read_text() == "old"
    assert len(list(tmp_path.iterdir())) == len(writers)


def test_errors_of_other_files_stay_what_they_are(tmp_path):
    """Rows come from somewhere: where they cannot be read, the output is not to blame."""

    def rows():
        yield {"text": (tmp_path / "missing.txt").read_text()}

    with pytest.raises(FileNotFoundError, match=r"missing\.txt"):
        write_jsonl(tmp_path / "out.jsonl", rows())
    assert not list(tmp_path.iterdir())
