"""Real processes that run a command of `xlgen` and can be killed at a chosen moment.

A child is forked from a process that has the libraries imported already, so that it starts in milliseconds; apart from
that it does what `python -m xlgen_hf` does, and a SIGKILL ends it as any other process.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import IO

from typing_extensions import Self

from xlgen_hf.cli.main import main
from xlgen_hf.experiments import run as experiment_run
from xlgen_hf.experiments.cell import main as run_cell

LONGEST = 300.0  # seconds of a command, after which it counts as hanging
_POLL = 0.002
_MOST_FILES = 4096
_CELL_TIME = 60.0  # seconds in which a process of a killed command has to end


@dataclass(frozen=True)
class Ended:
    """How a child has ended: exit code (negative for a signal), what it said on stderr, and its seconds."""

    code: int
    said: str
    seconds: float

    @property
    def last_line(self) -> str:
        return (self.said.strip().splitlines() or [""])[-1]


class Child:
    """A process that runs a function, whose result is its exit code."""

    def __init__(self, work: Callable[[], int], log: Path) -> None:
        self._log, self._started, self._code = log, time.monotonic(), None
        sys.stdout.flush()
        sys.stderr.flush()
        self.pid = os.fork()
        if self.pid == 0:
            self._run(work)

    def _run(self, work: Callable[[], int]) -> None:
        code = 70
        try:
            os.setsid()
            nothing, log = os.open(os.devnull, os.O_RDWR), os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            for number, handle in ((0, nothing), (1, nothing), (2, log)):
                os.dup2(handle, number)
            code = work()
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def poll(self) -> int | None:
        """Its exit code, None while it runs."""
        if self._code is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self._code = os.waitstatus_to_exitcode(status) if pid else None
        return self._code

    def wait(self) -> Ended:
        """Wait until it ends; what hangs is killed, and has the exit code -9."""
        while self.poll() is None:
            if time.monotonic() - self._started > LONGEST:
                os.kill(self.pid, signal.SIGKILL)
            time.sleep(_POLL)
        said = self._log.read_text(encoding="utf-8", errors="replace")
        return Ended(self._code or 0, said, time.monotonic() - self._started)

    def kill_when(self, is_time: Callable[[float], bool]) -> bool:
        """Kill it at a moment; False if it had ended before.

        Args:
            is_time: whether the moment has come, given the seconds since the start.
        """
        while self.poll() is None:
            if is_time(time.monotonic() - self._started):
                os.kill(self.pid, signal.SIGKILL)
                return self.wait().code == -signal.SIGKILL
            time.sleep(_POLL)
        return False


def run(argv: Sequence[str], log: Path) -> Ended:
    """Run a command to its end."""
    return start(argv, log).wait()


def start(argv: Sequence[str], log: Path) -> Child:
    """Begin a command; an experiment forks its cells, and notes their ids beside the log."""

    def work() -> int:
        forks_cells(noted_cells(log))
        return main(list(argv))

    return Child(work, log)


def noted_cells(log: Path) -> Path:
    """Where the ids of forked cells are noted."""
    return log.with_suffix(".cells")


def still_running(folder: Path, noted: Path) -> int:
    """The number of processes of a killed command that run on, after they had a minute to end.

    Args:
        folder: what they name on their command line.
        noted: a file with the ids of those that were forked, which is removed.
    """
    forked = noted.read_text(encoding="utf-8").split() if noted.exists() else []
    noted.unlink(missing_ok=True)
    end = time.monotonic() + _CELL_TIME
    while (found := _naming(folder) + sum(map(_is_running, forked))) and time.monotonic() < end:
        time.sleep(0.2)
    return found


def _is_running(process: str) -> bool:
    try:
        return " Z " not in Path(f"/proc/{process}/stat").read_text(encoding="utf-8")
    except OSError:
        return False


class ForkedCell:
    """Stands for the process that `xlgen experiment` starts for a cell: the same work, forked, with the libraries.

    It has of `subprocess.Popen` what the experiment uses. Its id is appended to `noted`.
    """

    noted: Path

    def __init__(self, command: Sequence[str], *, stdin: int, stdout: IO[bytes], **options: object) -> None:
        reads, writes = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.close(writes)
            for number, handle in ((0, reads), (1, stdout.fileno()), (2, stdout.fileno())):
                os.dup2(handle, number)
            os.closerange(3, _MOST_FILES)  # a process that is started has none of them: not the lock of its starter
            code = 1
            try:
                code = run_cell(list(command[3:]))  # behind `python -m MODULE`
            finally:
                sys.stderr.flush()
                os._exit(code)
        os.close(reads)
        self.stdin = os.fdopen(writes, "wb")
        with self.noted.open("a", encoding="utf-8") as file:
            file.write(f"{self.pid}\n")

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    def kill(self) -> None:
        os.kill(self.pid, signal.SIGKILL)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.stdin.close()


def forks_cells(noted: Path) -> None:
    """Let an experiment in this process fork its cells."""
    ForkedCell.noted = noted
    replaced = SimpleNamespace(**{**vars(subprocess), "Popen": ForkedCell})
    experiment_run.subprocess = replaced  # type: ignore[assignment]


def _naming(folder: Path) -> int:
    count = 0
    for place in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = place.read_bytes()
        except OSError:  # it has just ended
            continue
        count += os.fsencode(folder) in words and place.parent.name != str(os.getpid())
    return count
