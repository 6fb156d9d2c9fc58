"""Commands whose disk is full: file systems of a size drawn with a seed, below what the command needs."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from children import Child, Ended, forks_cells, noted_cells
from inputs import Command, Content, Inputs, content, differing, half_written, leftovers

from xlgen_hf import quickstart
from xlgen_hf.cli.main import main

if TYPE_CHECKING:
    from tiny import Hub

MOMENTS = {
    "train": 4, "index": 3, "predict": 2, "experiment": 2, "hybrid": 2, "convert": 2, "merge": 1, "cluster": 1,
    "evaluate": 1, "inspect": 1, "quickstart": 1,
}  # fmt: skip
_PAGE = 4096
_ENOUGH = 256 * 2**20
_ATTEMPTS = 12  # to draw a size that is too small
_CONTINUED = (".partial", ".partial.json")  # rows of `xlgen predict`, which the same command continues


@contextmanager
def disk(place: Path, size: int) -> Iterator[None]:
    """A file system of some bytes in memory; needs the right to mount one."""
    place.mkdir(parents=True, exist_ok=True)
    _mount("-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    try:
        yield
    finally:
        subprocess.run(["umount", str(place)], check=True)


def _mount(*arguments: str) -> None:
    done = subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"Disks are filled where this process may mount one: {done.stderr.strip()}")


def _used(place: Path) -> int:
    info = os.statvfs(place)
    return (info.f_blocks - info.f_bfree) * info.f_frsize


def try_disks(inputs: Inputs, root: Path, hub: Hub, seed: int) -> dict[str, Counter[str]]:
    """Run each command on disks that are too small, then give it room and run it again.

    Returns:
        Command -> counts: `full` disks, `unclear` ends (no exit code 1, or no single line that names the file and the
        reason), `half-written` files, `leftovers`, `failed` repetitions, `differences` of their result to that of one
        with enough room.
    """
    found = {}
    for name, number in MOMENTS.items():
        place = root / "disk"
        command = _command(inputs, name, place)
        with disk(place, _ENOUGH):
            first = _run(command, root, inputs)
            assert first.code == 0, first.said
            before = content(place)
        with disk(place, _ENOUGH):
            needed = _watched(command, place, root, inputs)
            expected = content(place)
        counts = Counter(dict.fromkeys(("full", "unclear", "half-written", "leftovers", "failed", "differences"), 0))
        for moment in range(number):
            chance = random.Random(f"{seed} {name} {moment}")
            _fill(command, place, root, inputs, needed, chance, counts, (expected, differing(before, expected)))
        print(f"{name}: {dict(counts)}", file=sys.stderr)
        found[name] = counts
    return found


def _command(inputs: Inputs, name: str, place: Path) -> Command:
    if name == "quickstart":
        return Command(name, (name, "--variant", "bcl", "--output-dir", str(place / "out")), place / "out")
    return inputs.commands(place)[name]


def _run(command: Command, root: Path, inputs: Inputs) -> Ended:
    return _start(command, root, inputs).wait()


def _start(command: Command, root: Path, inputs: Inputs) -> Child:
    def work() -> int:
        if command.name == "quickstart":  # as it is, but for a tiny backbone
            few = {"max_steps": 5, "save_strategy": "no", "use_cpu": True}
            backbone = str(inputs.folder / "checkpoints" / "bert")
            quickstart.QuickstartOptions = partial(  # type: ignore[misc,assignment]
                quickstart.QuickstartOptions, backbone=backbone, arguments=few
            )
        forks_cells(noted_cells(root / "log.txt"))
        return main(list(command.argv))

    return Child(work, root / "log.txt")


def _watched(command: Command, place: Path, root: Path, inputs: Inputs) -> int:
    """Run a command; the bytes of the disk that it needed."""
    needed = [0]
    child = _start(command, root, inputs)
    child.kill_when(lambda seconds: bool(needed.append(_used(place))))
    ended = child.wait()
    assert ended.code == 0, ended.said
    return max(needed)


def _fill(
    command: Command, place: Path, root: Path, inputs: Inputs, needed: int, chance: random.Random,
    counts: Counter[str], expected: tuple[Content, set],
) -> None:  # fmt: skip
    for _ in range(_ATTEMPTS):
        size = max(int(chance.random() * needed) // _PAGE * _PAGE, _PAGE)
        with disk(place, size):
            ended = _run(command, root, inputs)
            if ended.code == 0:  # it had room for all but what it wrote for a moment
                continue
            counts["full"] += 1
            counts["unclear"] += _told(
                "unclear", command, [] if _is_clear(command.name, ended, place) else [ended.said[-900:]]
            )
            counts["half-written"] += _told("half-written", command, half_written(place))
            left = [name for name in leftovers(place) if not name.endswith(_CONTINUED)]
            counts["leftovers"] += _told("left", command, left)
            _mount("-o", f"remount,size={_ENOUGH}", str(place))
            again = _run(command, root, inputs)
            counts["failed"] += _told("failed", command, [] if again.code == 0 else [again.said[-900:]])
            different = differing(expected[0], content(place)) - expected[1]
            counts["differences"] += _told("different", command, sorted({str(one) for one in different}))
            counts["leftovers"] += _told("left in the end", command, leftovers(place))
        return


def _is_clear(command: str, ended: Ended, place: Path) -> bool:
    """Whether it ended with one line that names the file and the reason; an experiment has one for each run."""
    errors = [line for line in ended.said.splitlines() if "error: " in line.lower() or "Traceback" in line]
    named = all(str(place) in line and "No space left on device" in line for line in errors)
    alone = len(errors) == 1 or command == "experiment"
    return ended.code == 1 and errors[-1:] == [ended.last_line] and named and alone


def _told(what: str, command: Command, found: list[str]) -> int:
    """How many there are; said on stderr if there are any."""
    if found:
        print(f"  {command.name} {what}: {found[:5]}", file=sys.stderr)
    return len(found)
