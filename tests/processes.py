"""Processes of their own for tests, forked from one that has imported the libraries: to import them takes seconds.

[`Forked`] is for tests about limits, signals and death, and has imported this package. [`run_fresh`] has not, and has
an environment of its own: for tests of what a user's process does. Where the imports of all libraries or a launcher
are what is tested, a process is started in the ordinary way.
"""

from __future__ import annotations

import atexit
import functools
import json
import multiprocessing
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path

CONTEXT = multiprocessing.get_context("forkserver")
"""For processes of the standard library, forked from the same one as those below."""
CONTEXT.set_forkserver_preload(["xlgen_hf.modeling_xlgen", "xlgen_hf.cli.train", "xlgen_hf.training.run"])

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
        self._process = CONTEXT.Process(target=_run, args=(script, words, self.stdout, self.stderr), daemon=True)
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


# Runs `xlgen` with the environment that stands in its argument.
_MEMBER = """
import json, os, sys, warnings
warnings.simplefilter("always")
os.environ.update(json.loads(sys.argv.pop(1)))
from xlgen_hf.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


def free_port() -> str:
    """A port that nobody listens to."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])


def run_two(folder: Path, *arguments: str, **environment: str) -> tuple[str, str]:
    """Run a command line of `xlgen` in two processes of one group, as torchrun starts them.

    Args:
        folder: where their outputs go.
        arguments: the command line.
        environment: more variables than those that torchrun sets.

    Returns:
        What both wrote to `stdout` and to `stderr`.
    """
    group = {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port()}
    started = []
    for rank in ("0", "1"):
        (folder / f"process-{rank}").mkdir()
        variables = json.dumps({**group, **environment, "RANK": rank, "LOCAL_RANK": rank})
        started.append(Forked(folder / f"process-{rank}", _MEMBER, variables, *arguments))
    codes = [process.wait(280) for process in started]
    stdout = "".join(process.stdout.read_text() for process in started)
    stderr = "".join(process.stderr.read_text() for process in started)
    assert codes == [0, 0], stderr
    return stdout, stderr


class _Fresh:
    """The process of `fresh_server.py`, and a folder for requests and outputs."""

    def __init__(self) -> None:
        self.place = tempfile.TemporaryDirectory(prefix="fresh-processes")
        self.folder = Path(self.place.name)
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("HF_", "PYTHONPATH"))}
        self.said = (self.folder / "said").open("w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [sys.executable, str(Path(__file__).parent / "fresh_server.py")], stdin=subprocess.PIPE,
            stdout=subprocess.PIPE, stderr=self.said, text=True, env=environment,
        )  # fmt: skip

    def ask(self, request: Mapping[str, object], timeout: float) -> int:
        """Have a process forked, and wait for its end: the exit code, or the number of a signal, negative."""
        (self.folder / "request.json").write_text(json.dumps(request), encoding="utf-8")
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(f"{self.folder / 'request.json'}\n")
        self.process.stdin.flush()
        pid = int(self.process.stdout.readline())
        timer = threading.Timer(timeout, os.kill, (pid, signal.SIGKILL))
        timer.start()
        try:
            return int(self.process.stdout.readline())
        finally:
            timer.cancel()

    def end(self) -> None:
        """End the process, and remove the folder."""
        self.process.communicate()
        self.said.close()
        self.place.cleanup()


@functools.cache
def _fresh() -> _Fresh:
    fresh = _Fresh()
    atexit.register(fresh.end)
    return fresh


def run_fresh(
    script: str,
    *arguments: str,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    missing: tuple[str, ...] = (),
    together: bool = False,
    timeout: float = 280,
) -> subprocess.CompletedProcess[str]:
    """Run `python -c SCRIPT ARGUMENTS` as if in a process that was just started, see `fresh_server.py`.

    Args:
        script: what it runs.
        arguments: what it finds behind the first element of `sys.argv`.
        environment: its whole environment, by default that of this process.
        folder: its working directory, by default that of this process.
        missing: packages that it cannot import.
        together: whether what it writes to `stderr` goes to `stdout`.
        timeout: seconds after which it is killed.

    Returns:
        As of `subprocess.run`; what libraries said when they were imported comes first in `stderr`.
    """
    fresh = _fresh()
    paths = [fresh.folder / "stdout", fresh.folder / ("stdout" if together else "stderr")]
    for path in paths:
        path.write_bytes(b"")
    request = {
        "script": script, "arguments": arguments, "environment": dict(environment or os.environ),
        "folder": str(folder or Path.cwd()),
        "missing": missing, "stdout": str(paths[0]), "stderr": str(paths[1]),
    }  # fmt: skip
    code = fresh.ask(request, timeout)
    stdout, stderr = (path.read_text(encoding="utf-8") for path in paths)
    said = (fresh.folder / "said").read_text(encoding="utf-8")
    return subprocess.CompletedProcess(script, code, stdout, "" if together else said + stderr)
