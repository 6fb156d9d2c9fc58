"""A program that forks a process for each line of its input, as if the interpreter had just been started.

It has imported what takes longest and reads no variable of the environment that a user sets for the Hub: torch, SciPy
and others, but neither `huggingface_hub` nor anything that imports it, nor this package. A line is the path of a JSON
file, see [`processes.run_fresh`]; the answers are the process's id, and its exit code once it has ended.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

_IMPORTED = (
    "torch", "torch._dynamo", "torch.distributed.checkpoint", "torch.distributed.fsdp", "torch.distributed.tensor",
    "torch.nn.attention.flex_attention", "sklearn.isotonic", "sklearn.linear_model", "pandas", "pyarrow.parquet",
    "jinja2",
)  # fmt: skip


def serve() -> dict:
    """Fork for each request until the input ends; gives the request back, in the forked process alone."""
    for line in sys.stdin:
        request = json.loads(Path(line.rstrip("\n")).read_text(encoding="utf-8"))
        process = os.fork()
        if not process:
            return request
        _answer(process)
        _answer(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))
    sys.exit()


def _answer(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


def become(request: dict) -> None:
    """Take on arguments, environment, folder, output and path of modules of a process that was started so."""
    for number, path in enumerate((os.devnull, request["stdout"], request["stderr"])):
        os.dup2(os.open(path, os.O_RDWR | os.O_APPEND), number)
    sys.stdin = open(0, encoding="utf-8", closefd=False)
    sys.stdout.reconfigure(write_through=bool(request["environment"].get("PYTHONUNBUFFERED")))
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    sys.argv = ["-c", *request["arguments"]]
    # Instead of the folder of this program.
    sys.path[:1] = ["", *filter(None, os.environ.get("PYTHONPATH", "").split(os.pathsep))]
    for missing in request["missing"]:
        for name in [name for name in sys.modules if name.startswith(f"{missing}.")]:
            sys.modules[name] = None  # type: ignore[assignment]
        sys.modules[missing] = None  # type: ignore[assignment]


if __name__ == "__main__":
    for library in _IMPORTED:
        importlib.import_module(library)
    found = serve()
    become(found)
    exec(compile(found["script"], "<string>", "exec"), {"__name__": "__main__"})
