"""Damage data files of every format and read them: fuzz_rows.py [--mutations 10000] [--seed 0].

Each file must be read, or refused by a `DataError` that names it. Counts are printed as JSON; anything else is printed
with the seed that repeats it, and makes the exit code 1. Reading runs in a process of its own, so that a crash of a
library counts too. Takes about ten minutes for 10,000 mutations on two cores.
"""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

from data.mutations import damaged_copy, make_files, seeded

from xlgen_hf.data.rows import load_rows
from xlgen_hf.errors import DataError


def try_one(root: Path, source: Path, file: Path, name: str, seed: int, number: int) -> str:
    """`read`, `refused`, or what went wrong."""
    copy = damaged_copy(source, file, root / "damaged", seeded(seed, name, number))
    try:
        load_rows(copy, require_labels=seeded(seed, number).random() < 0.5)
    except DataError as err:
        return "refused" if err.file is not None else f"names no file: {err}"
    except Exception as err:  # whatever it is, it is a fault
        return f"{type(err).__module__}.{type(err).__name__}: {str(err)[:120]}"
    return "read"


def work(queue: multiprocessing.Queue, jobs: list[tuple[str, int]], root: Path, seed: int) -> None:
    logging.disable(logging.CRITICAL)
    files = make_files(root / "files")
    for name, number in jobs:
        queue.put((name, number, None))
        queue.put((name, number, try_one(root, *files[name], name, seed, number)))
    queue.put(None)


def run(jobs: list[tuple[str, int]], seed: int) -> dict[tuple[str, int], str]:
    """The result of each job; a process that dies is started again after the job that killed it."""
    results: dict[tuple[str, int], str] = {}
    while len(results) < len(jobs):
        left = [job for job in jobs if job not in results]
        with tempfile.TemporaryDirectory() as root:
            queue: multiprocessing.Queue = multiprocessing.Queue()
            process = multiprocessing.Process(target=work, args=(queue, left, Path(root), seed))
            process.start()
            begun = collect(queue, process, results)
            process.join()
        if begun is not None:
            results[begun] = f"the process died: exit code {process.exitcode}"
    return results


def collect(queue, process, results) -> tuple[str, int] | None:
    """Take results until the process ends; the job that was begun and not finished, None at a good end."""
    begun = None
    while True:
        try:
            item = queue.get(timeout=1)
        except Exception:  # queue.Empty
            if not process.is_alive():
                return begun
            continue
        if item is None:
            return None
        name, number, result = item
        begun = (name, number) if result is None else None
        if result is not None:
            results[name, number] = result


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as root:
        names = list(make_files(Path(root)))
    jobs = [(names[number % len(names)], number) for number in range(options.mutations)]
    start = time.time()
    results = run(jobs, options.seed)
    counts: dict[str, Counter[str]] = {}
    for (name, _), result in results.items():
        counts.setdefault(name, Counter())[result if result in ("read", "refused") else "fault"] += 1
    wrong = ((job, result) for job, result in results.items() if result not in ("read", "refused"))
    faults = {f"{name} {number}": result for (name, number), result in wrong}
    report = {"mutations": len(results), "seed": options.seed, "seconds": round(time.time() - start)}
    print(json.dumps({**report, "formats": counts, "faults": faults}, indent=1))
    return int(bool(faults))


if __name__ == "__main__":
    sys.exit(main())
