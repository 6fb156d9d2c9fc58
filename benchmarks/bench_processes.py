"""Predictions of several processes beside those of one: bench_processes.py MODEL TEXTS [--processes 2] [--json F].

`xlgen predict` over the same texts in one process and in several (`torchrun`), in turns, each with one thread; with
`--index` it is `xlgen index --epochs 0`, MODEL being an encoder and TEXTS rows with labels. Prints JSON: seconds by
the clock and of the CPU, with start, of each round, and whether the files (of an index, its arrays) are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_PORT = "29571"


def run(command: list[str]) -> dict[str, float]:
    """Seconds of a command and of all processes that it starts."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false"}
    subprocess.run([sys.executable, "-m", *command], check=True, env=environment, stderr=subprocess.DEVNULL)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime - before.ru_utime + after.ru_stime - before.ru_stime
    return {"clock_s": round(time.perf_counter() - start, 2), "cpu_s": round(cpu, 2)}


def work(options: argparse.Namespace, place: Path) -> list[str]:
    """The command that leaves its result in a place."""
    if options.index:
        made = ["index", "--encoder", options.model, "--train-file", str(options.texts), "--epochs", "0"]
        return ["xlgen_hf", *made, "--output-dir", str(place)]
    made = ["predict", "--model", options.model, "--input-file", str(options.texts), "--device", "cpu"]
    return ["xlgen_hf", *made, "--output-file", str(place / "found.jsonl")]


def files_of(place: Path) -> dict[str, bytes]:
    """What is compared of a result, by its path."""
    found = [*place.rglob("*.safetensors"), *place.rglob("*.jsonl")]
    return {str(path.relative_to(place)): path.read_bytes() for path in found}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("texts", type=Path)
    parser.add_argument("--index", action="store_true")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    launch = ["torch.distributed.run", "--nproc_per_node", str(options.processes), "--master_port", _PORT, "-m"]
    report: dict[str, object] = {"texts": sum(1 for _ in options.texts.open("rb")), "processes": options.processes}
    with tempfile.TemporaryDirectory() as folder:
        places = {name: Path(folder) / name for name in ("one", "several")}
        rounds: dict[str, list[dict[str, float]]] = {name: [] for name in places}
        for _ in range(options.rounds):
            for name, place in places.items():
                shutil.rmtree(place, ignore_errors=True)
                place.mkdir()
                rounds[name].append(run([*([] if name == "one" else launch), *work(options, place)]))
        files = [files_of(place) for place in places.values()]
        report["same_files"] = bool(files[0]) and files[0] == files[1]
    faster = [one["clock_s"] / other["clock_s"] for one, other in zip(*rounds.values(), strict=True)]
    report |= {
        **rounds,
        "faster": [round(value, 2) for value in (min(faster), statistics.median(faster), max(faster))],
    }
    print(json.dumps(report, indent=1))
    if options.json is not None:
        options.json.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
