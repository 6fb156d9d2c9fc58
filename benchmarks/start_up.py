"""Time until the first answer: `xlgen tag` from a cold start, and what of it are imports (SERVING.md).

    python benchmarks/start_up.py --model bcl --model index [--rounds 5] [--json figures.json]

Processes run in turn, in each round each one once, on one thread. Figures are medians of CPU time (user and system)
and of wall time, and the milliseconds of CPU time of a further text when the model is loaded.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

TEXT = "Alpine cheese and wine"
IMPORTS = (
    "torch",
    "transformers.utils",
    "transformers.modeling_utils",
    "xlgen_hf.loading",
    "xlgen_hf.processing_xlgen",
    "xlgen_hf.modeling_xlgen",
)
WARM = """
import statistics, sys, time
from xlgen_hf.loading import load_predictor
predictor, times = load_predictor(sys.argv[1]), []
for number in range(45):
    begin = time.process_time()
    predictor.predict([f"{sys.argv[2]} {number}"])
    times.append(time.process_time() - begin)
print(1000 * statistics.median(times[5:]))
"""


def seconds(command: list[str]) -> tuple[float, float]:
    """CPU time and wall time of a process."""
    before, begin = resource.getrusage(resource.RUSAGE_CHILDREN), time.monotonic()
    done = subprocess.run([sys.executable, *command], capture_output=True, text=True)
    wall, after = time.monotonic() - begin, resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stderr
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, wall


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", action="append", default=[], help="once or more")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    os.environ.update(OMP_NUM_THREADS="1", HF_HUB_OFFLINE="1")
    commands = {"xlgen --help": ["-m", "xlgen_hf", "--help"]}
    commands |= {f"import {name}": ["-c", f"import {name}"] for name in IMPORTS}
    commands |= {f"xlgen tag, {one}": ["-m", "xlgen_hf", "tag", "--model", one, TEXT] for one in arguments.model}
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in commands}
    for _ in range(arguments.rounds):
        for name, command in commands.items():
            times[name].append(seconds(command))
    figures = {
        name: {"cpu_seconds": statistics.median(cpu), "seconds": statistics.median(wall)}
        for name, (cpu, wall) in ((name, zip(*of_one, strict=True)) for name, of_one in times.items())
    }
    for model in arguments.model:
        warm = subprocess.run([sys.executable, "-c", WARM, model, TEXT], capture_output=True, text=True, check=True)
        figures[f"one more text, {model}"] = {"cpu_milliseconds": float(warm.stdout)}
    print(json.dumps({"load_average": os.getloadavg()[0], **figures}, indent=2))
    if arguments.json:
        arguments.json.write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
