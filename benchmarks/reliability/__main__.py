"""Kill, fill disks, start twice: python benchmarks/reliability [kills disks writers] [--seed 0] [--json FILE].

All on tiny models, in processes of their own, on a Hub on this machine. The results of all parts are kept in the JSON
file and make `benchmarks/RELIABILITY.md`. Takes about twenty minutes on two cores.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

os.environ |= {"OMP_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false", "CUDA_VISIBLE_DEVICES": ""}
os.environ |= {"HF_DATASETS_DISABLE_PROGRESS_BARS": "1", "TQDM_DISABLE": "1"}  # as the program does without a terminal
ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT), str(ROOT / "tests"), str(ROOT / "benchmarks")]
os.environ["PYTHONPATH"] = str(ROOT)  # of the cells of an experiment

import argparse
import importlib
import json
import pkgutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def running_hub() -> Iterator[str]:
    """The Hub of the tests; its address."""
    command = [sys.executable, str(ROOT / "tests" / "hub" / "hub_server.py")]
    pipe, nothing = subprocess.PIPE, subprocess.DEVNULL  # it says when a client was killed
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=nothing, text=True) as process:
        assert process.stdin is not None and process.stdout is not None
        yield process.stdout.readline().strip()
        process.stdin.close()  # which ends it


def import_all() -> None:
    """Import what commands need, so that the processes that are forked have it."""
    import xlgen_hf

    for module in pkgutil.walk_packages(xlgen_hf.__path__, "xlgen_hf."):
        if "pecos_worker" not in module.name and "__main__" not in module.name:
            importlib.import_module(module.name)


def measure(parts: list[str], seed: int, path: Path, hub_url: str) -> None:
    """Run the parts and add their results to a file."""
    import_all()
    import disks
    import kills
    import report
    import writers
    from inputs import Inputs
    from tiny import Hub

    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    runs = {"kills": kills.try_kills, "disks": disks.try_disks, "writers": writers.try_writers}
    with tempfile.TemporaryDirectory(prefix="reliability-") as folder:
        root = Path(folder)
        inputs = Inputs.make(root / "inputs")
        for part in parts:
            began = time.monotonic()
            counts = runs[part](inputs, root, Hub(hub_url), seed)
            seconds = round(time.monotonic() - began)
            results[part] = {**report.about_run(), "seed": seed, "seconds": seconds, "counts": counts}
            path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", default=["kills", "disks", "writers"])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, default=ROOT / "benchmarks" / "reliability.json")
    parser.add_argument("--report", action="store_true", help="run nothing, write the page")
    options = parser.parse_args()
    if not options.report:
        run(options)
    import report

    report.write(options.json, ROOT / "benchmarks" / "RELIABILITY.md")


def run(options: argparse.Namespace) -> None:
    """Run the parts on a Hub of their own."""
    with running_hub() as url, tempfile.TemporaryDirectory() as home:
        os.environ |= {
            "HF_ENDPOINT": url, "HF_HOME": home, "HF_TOKEN": "hf_aliceSecretToken", "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        }  # fmt: skip
        os.environ.pop("HF_HUB_OFFLINE", None)
        measure(options.parts, options.seed, options.json, url)


if __name__ == "__main__":
    main()
