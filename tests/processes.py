"""Processes of their own for tests, forked from one that has imported the libraries: to import them takes seconds.

For tests about limits, signals and death. Where imports, the environment or a launcher are what is tested, a process
is started in the ordinary way.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import time
from pathlib import Path

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["xlgen_hf.modeling_xlgen", "xlgen_hf.cli.train", "xlgen_hf.training.run"])

COMMAND = "import sys; from xlgen_hf.cli.main import main; sys.exit(main(sys.argv[1:]))"
"""A script that is the program `xlgen`."""


class Forked:
    """A process that runs a script.

    Args:
        folder: where its output goes, to the files `stdout` and `stderr`.
        script: what it runs.
        arguments: what it finds behind the first element of `sys.argv`.
    """

    def __init__(self, folder: Path, script: str, *arguments: object) -> None:
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"
        for path in (self.stdout, self.stderr):
            path.write_bytes(b"")
        words = list(map(str, arguments))
        self._process = _CONTEXT.Process(target=_run, args=(script, words, self.stdout, self.stderr), daemon=True)
        self._process.start()

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def wait_for(self, text: str, path: Path | None = None) -> None:
        """Wait until a text stands in a file that need not exist yet, by default the process's `stderr`."""
        path = path or self.stderr
        while not path.is_file() or text not in path.read_text():
            assert self._process.is_alive(), self.stderr.read_text()
            time.sleep(0.02)

    def send_signal(self, number: int) -> None:
        """Send a signal."""
        os.kill(self.pid, number)

    def wait(self, timeout: float = 120) -> int:
        """Wait for the end; the exit code, or the number of the signal that ended it, negative."""
        self._process.join(timeout)
        assert self._process.exitcode is not None, f"it still runs after {timeout} s"
        return self._process.exitcode


def _run(script: str, arguments: list[str], stdout: Path, stderr: Path) -> None:
    for number, path in ((1, stdout), (2, stderr)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_APPEND), number)
    sys.argv = ["-c", *arguments]
    exec(compile(script, "<script>", "exec"), {"__name__": "__main__"})


def run_forked(folder: Path, script: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a script to its end, as `subprocess.run` with `capture_output` and `text` does."""
    process = Forked(folder, script, *arguments)
    code = process.wait()
    return subprocess.CompletedProcess(
        [script, *arguments], code, process.stdout.read_text(), process.stderr.read_text()
    )
