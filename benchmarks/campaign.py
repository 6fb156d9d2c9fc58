"""Runs many small jobs in a process of its own, so that a crash or a hang counts as a result; for `fuzz_*.py`."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import queue as queues
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

Job = tuple[str, int]  # what is damaged, and the number of the mutation
Attempt = Callable[[str, int], str]  # result of a job

_LONGEST = 60.0  # seconds of one job, after which it counts as hanging
_MEMORY = 3 * 2**30  # bytes that a process may take beyond what it has at its start


def run(jobs: list[Job], prepare: Callable[[Path], Attempt]) -> dict[Job, str]:
    """The result of each job; a process that dies is started again after the job that killed it.

    Args:
        jobs: the jobs.
        prepare: makes in a folder what the jobs need, in the process that does them.
    """
    results: dict[Job, str] = {}
    while len(results) < len(jobs):
        left = [job for job in jobs if job not in results]
        with tempfile.TemporaryDirectory() as root:
            queue: multiprocessing.Queue = multiprocessing.Queue()
            process = multiprocessing.Process(target=_work, args=(queue, left, Path(root), prepare))
            process.start()
            begun = _collect(queue, process, results)
            process.join()
        if begun is not None:
            hung = process.exitcode == -9 and results.get(begun) == "hangs"
            results[begun] = "hangs" if hung else f"the process died: exit code {process.exitcode}"
    return results


def _work(queue, jobs: list[Job], root: Path, prepare: Callable[[Path], Attempt]) -> None:
    attempt = prepare(root)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + _MEMORY, size + _MEMORY))
    for name, number in jobs:
        queue.put((name, number, None))
        queue.put((name, number, attempt(name, number)))
    queue.put(None)


def _collect(queue, process, results: dict[Job, str]) -> Job | None:
    """Take results until the process ends; the job that was begun and not finished, None at a good end."""
    begun, since = None, time.monotonic()
    while True:
        try:
            item = queue.get(timeout=1)
        except queues.Empty:
            if not process.is_alive():
                return begun
            if begun is not None and time.monotonic() - since > _LONGEST:
                results[begun] = "hangs"
                process.kill()
            continue
        if item is None:
            return None
        name, number, result = item
        begun, since = ((name, number) if result is None else None), time.monotonic()
        if result is not None:
            results[name, number] = result


def main(about: str, names: list[str], prepare: Callable[[int, Path], Attempt], good: Collection[str]) -> int:
    """Read `--mutations` and `--seed`, run that many jobs in turn over what can be damaged, and print counts as JSON.

    Args:
        about: help of the command.
        names: what can be damaged.
        prepare: see [`run`], with the seed before it.
        good: results that are right.

    Returns:
        The exit code, 1 if a result is not right.
    """
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--mutations", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first mutation, to repeat one")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--json", type=Path, help="`reliability.json`, to add the numbers to")
    options = parser.parse_args()
    numbers = range(options.first, options.first + options.mutations)
    jobs = [(names[number % len(names)], number) for number in numbers]
    start = time.time()
    parts = [jobs[first :: options.processes] for first in range(options.processes)]
    results: dict[Job, str] = {}
    with ThreadPoolExecutor(options.processes) as pool:
        for part in pool.map(lambda part: run(part, lambda root: prepare(options.seed, root)), parts):
            results |= part
    counts: dict[str, Counter[str]] = {}
    for (name, _), result in results.items():
        counts.setdefault(name, Counter())[result if result in good else "fault"] += 1
    faults = {f"{name} {number}": result for (name, number), result in results.items() if result not in good}
    totals = Counter(result if result in good else "fault" for result in results.values())
    about = {"mutations": len(results), "seed": options.seed, "seconds": round(time.time() - start), "results": totals}
    print(json.dumps({**about, "damaged": counts, "faults": faults}, indent=1))
    if options.json is not None:
        _keep(options.json, about)
    return int(bool(faults))


def _keep(path: Path, about: dict[str, object]) -> None:
    """Add the numbers to those that `RELIABILITY.md` is made of."""
    sys.path.insert(0, str(Path(__file__).parent / "reliability"))
    import report

    results = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    results[Path(sys.argv[0]).stem] = {**report.about_run(), **about}
    path.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
