"""Twenty threads, two processes into one output, and training by two processes."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from children import Child, run, start
from inputs import Inputs, leftovers
from transformers import pipeline

from xlgen_hf.loading import load_predictor
from xlgen_hf.pipeline import TASK

if TYPE_CHECKING:
    from tiny import Hub

    from xlgen_hf.prediction.predictor import Predictor

_THREADS = 20
_ROUNDS = 3
_TEXTS = [f"a history of {word} music and the {word}" for word in ("organ", "church", "piano", "modern", "art")]
_SHARED = ("train", "index", "predict", "experiment", "hybrid")


def try_writers(inputs: Inputs, root: Path, hub: Hub, seed: int) -> dict[str, Any]:
    """Counts of wrong results of threads and processes."""
    results = root / "threads.json"
    child = Child(lambda: _threads(inputs, results), root / "log.txt")
    ended = child.wait()
    assert ended.code == 0, ended.said
    shared = {name: _two_writers(inputs, root, name) for name in _SHARED}
    return {"threads": json.loads(results.read_text()), "two writers": shared, "torchrun": _torchrun(inputs, root)}


# ---------------------------------------------------------------------------------------------------- threads


def _threads(inputs: Inputs, path: Path) -> int:
    """The calls of twenty threads whose result is not that of one."""
    counts = {}
    for kind in ("base", "bcl", "mcg", "hybrid", "adapter", "retriever"):
        predictor = load_predictor(str(inputs.folder / "good" / kind))
        counts[f"predict, {kind}"] = _wrong(partial(_predicted, predictor))
    counts["pipeline, bcl"] = _wrong(pipeline(TASK, model=str(inputs.folder / "good" / "bcl"), device="cpu"))
    path.write_text(json.dumps({"threads": _THREADS, "calls of each": _THREADS * _ROUNDS, "wrong": counts}))
    return 0


def _predicted(predictor: Predictor, texts: list[str]) -> list[dict[str, Any]]:
    return [one.to_dict() for one in predictor.predict(texts)]


def _wrong(call: Callable[[list[str]], Any]) -> int:
    jobs = [_TEXTS[number % len(_TEXTS) :] + _TEXTS[: number % 3] for number in range(_THREADS * _ROUNDS)]
    expected = [_rounded(call(texts)) for texts in jobs]
    with ThreadPoolExecutor(_THREADS) as pool:
        futures = [pool.submit(call, texts) for texts in jobs]
    wrong = 0
    for future, one in zip(futures, expected, strict=True):
        error = future.exception()
        if error is not None:
            print(f"  {type(error).__name__}: {error}", file=sys.stderr)
        wrong += error is not None or _rounded(future.result()) != one
    return wrong


def _rounded(value: Any) -> Any:
    """The same with floats of five digits: sums of other batches differ in their last bits."""
    if isinstance(value, dict):
        return {key: _rounded(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_rounded(one) for one in value]
    return round(value, 5) if isinstance(value, float) else value


# ---------------------------------------------------------------------------------------------------- two writers


def _two_writers(inputs: Inputs, root: Path, name: str) -> str:
    """Start a command while the same one is at work; `refused`, or what went wrong."""
    place = root / "shared" / name
    place.mkdir(parents=True)
    command = inputs.commands(place)[name]
    first = start(command.argv, root / "log.txt")
    while first.poll() is None and not any("xlgen-lock" in path.name for path in place.rglob("*")):
        pass
    second = run(command.argv, root / "log-2.txt")
    ended = first.wait()
    named = f" is being written by process {first.pid} on {socket.gethostname()} (`xlgen {name}`, since "
    problems = {
        "the second was not refused": second.code != 1,
        f"it says {second.last_line!r}": named not in second.last_line,
        f"the first failed: {ended.said[-300:]}": ended.code != 0,
        f"left: {leftovers(place)}": bool(leftovers(place)),
    }
    wrong = [text for text, is_wrong in problems.items() if is_wrong]
    if wrong:
        print(f"  {name}: {wrong}", file=sys.stderr)
    return "; ".join(wrong) or "refused"


# ---------------------------------------------------------------------------------------------------- torchrun


def _torchrun(inputs: Inputs, root: Path) -> dict[str, Any]:
    """Train with two processes and with one, at the same rows of a step; the largest difference of their curves."""
    curves = {}
    for processes, batch_size in ((1, 4), (2, 2)):
        folder = root / f"processes-{processes}"
        folder.mkdir()
        argv = [
            *inputs.commands(folder)["train"].argv,
            "--label-rows",
            "0",
            "--dropout",
            "0",
            "--cluster-source",
            "gold",
        ]
        argv += ["--logging_steps", "1", "--learning_rate", "1e-3", "--per_device_train_batch_size", str(batch_size)]
        if processes == 1:
            ended = run(argv, root / "log.txt")
            assert ended.code == 0, ended.said
        else:
            command = [
                sys.executable,
                "-m",
                "torch.distributed.run",
                "--nproc_per_node",
                "2",
                "--master_port",
                _port(),
            ]
            done = subprocess.run(
                [*command, "-m", "xlgen_hf", *argv], env={**os.environ}, capture_output=True, text=True
            )
            assert done.returncode == 0, done.stderr
        history = json.loads((folder / "out" / "trainer_state.json").read_text())["log_history"]
        names = ("loss", "eval_loss", "eval_micro_f1")
        curves[processes] = {(one["step"], name): one[name] for one in history for name in names if name in one}
    assert curves[1].keys() == curves[2].keys()
    return {
        "points of the curves": len(curves[1]),
        "largest difference": round(max(abs(curves[1][key] - curves[2][key]) for key in curves[1]), 6),
        "same evaluation": all(
            abs(value - curves[2][key]) < 1e-9 for key, value in curves[1].items() if key[1] == "eval_micro_f1"
        ),
    }


def _port() -> str:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return str(found.getsockname()[1])
