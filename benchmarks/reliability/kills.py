"""Commands that are killed (SIGKILL) at moments drawn with a seed, and repeated."""

from __future__ import annotations

import os
import random
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from children import noted_cells, run, start, still_running
from inputs import Command, Content, Inputs, content, differing, half_written, leftovers

if TYPE_CHECKING:
    from tiny import Hub

MOMENTS = {"train": 10, "index": 6, "predict": 8, "push": 8, "experiment": 8}
_ATTEMPTS = 8  # to meet a command while it runs


class Trial:
    """One command in a folder of its own, or on the Hub, and what an undisturbed run of it leaves."""

    def __init__(self, command: Command, place: Path, log: Path, hub: Hub) -> None:
        self.command, self.place, self.log, self.hub = command, place, log, hub
        self.clear()
        self.seconds, first = self._undisturbed()
        self.clear()
        states: set[object] = set()
        child = start(command.argv, log)
        child.kill_when(lambda seconds: bool(states.add(self.state())))  # never: it only watches
        assert child.wait().code == 0, child.wait().said
        self.states = len(states)
        self.expected = self.result()
        self.volatile = differing(first, self.expected)  # times, and what follows from them

    def _undisturbed(self) -> tuple[float, Content]:
        ended = run(self.command.argv, self.log)
        assert ended.code == 0, ended.said
        return ended.seconds, self.result()

    def clear(self) -> None:
        """Remove what the command has left."""
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir(parents=True)
        self.hub.ask("clear")

    def state(self) -> object:
        """What can be seen of its progress from outside."""
        if self.command.output is None:
            return len(self.hub.ask("requests"))
        found = []
        for folder, names, files in os.walk(self.place):  # which passes over what has just gone
            found += [(folder, name, 0) for name in names]
            for name in files:
                with suppress(OSError):
                    found.append((folder, name, os.stat(os.path.join(folder, name)).st_size))
        return tuple(sorted(found))

    def result(self) -> Content:
        """What it has left: files below its folder, or those of the repository."""
        if self.command.output is not None:
            return content(self.place)
        commits = self.hub.history("acme/tiny") or [{"files": []}]
        files = {path: self.hub.file("acme/tiny", path).hex() for path in commits[-1]["files"]}
        return {"commits": len(commits), **files}

    def is_done(self) -> bool:
        """Whether it was killed after its work: the file that it writes is there and whole."""
        output = self.command.output
        name = None if output is None else output.relative_to(self.place).as_posix()
        return name is not None and name in self.expected and self.result().get(name) == self.expected[name]

    def moment(self, chance: random.Random) -> Callable[[float], bool]:
        """Draw a moment: some seconds after the start, or after some changes of what can be seen."""
        if chance.random() < 0.5:
            seconds = chance.random() * self.seconds
            return lambda now: now >= seconds
        wanted, seen = chance.randrange(1, self.states + 1), set()

        def enough(now: float) -> bool:
            seen.add(self.state())
            return len(seen) >= wanted

        return enough


def try_kills(inputs: Inputs, root: Path, hub: Hub, seed: int) -> dict[str, Counter[str]]:
    """Kill each command at its moments and repeat it.

    Returns:
        Command -> counts: `kills`, `half-written` files of outputs after a kill, `processes` of the command that go on
        running, `failed` repetitions, `differences` of the result to an undisturbed one, `leftovers`.
    """
    found = {}
    for name, number in MOMENTS.items():
        place = root / "kills" / name
        trial = Trial(inputs.commands(place)[name], place, root / "log.txt", hub)
        counts = Counter(
            {"kills": 0, "half-written": 0, "processes": 0, "failed": 0, "differences": 0, "leftovers": 0}
        )
        began = time.monotonic()
        for moment in range(number):
            _kill_once(trial, random.Random(f"{seed} {name} {moment}"), counts)
        print(f"{name}: {dict(counts)}, {time.monotonic() - began:.0f} s", file=sys.stderr)
        found[name] = counts
    return found


def _kill_once(trial: Trial, chance: random.Random, counts: Counter[str]) -> None:
    for _ in range(_ATTEMPTS):
        trial.clear()
        if start(trial.command.argv, trial.log).kill_when(trial.moment(chance)):
            break
    else:
        return
    counts["kills"] += 1
    counts["half-written"] += len(_told("half-written", half_written(trial.place)))
    was_done = trial.is_done()
    ended = run(trial.command.argv, trial.log)  # at once: what is still running must not disturb it
    good = ended.code == 0 or (was_done and "exists already and is not replaced" in ended.last_line)
    counts["failed"] += len(_told("failed", [] if good else [ended.said[-500:]]))
    counts["processes"] += still_running(trial.place, noted_cells(trial.log))
    different = differing(trial.expected, trial.result()) - trial.volatile
    counts["differences"] += len(_told("different", sorted({str(place) for place in different})))
    counts["leftovers"] += len(_told("left", leftovers(trial.place)))


def _told(what: str, found: list[str]) -> list[str]:
    """The same, said on stderr if there is anything."""
    if found:
        print(f"  {what}: {found[:5]}", file=sys.stderr)
    return found
