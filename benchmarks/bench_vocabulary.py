"""CPU seconds and memory of reading a large vocabulary: bench_vocabulary.py FILE [FILE ...] --concepts N.

The concepts are a tree in which each has ten narrower ones, with two names and an alias each. They are written to the
files that are missing, in the formats that their names say; a process of its own reads each.
"""

from __future__ import annotations

import argparse
import multiprocessing
import resource
from pathlib import Path

from xlgen_hf import Concept, Vocabulary, read_vocabulary, write_vocabulary


def make(paths: list[Path], concepts: int) -> None:
    """Write the vocabulary."""
    made = [
        Concept(
            f"http://example.org/{number}",
            {"en": f"concept number {number}", "de": f"Begriff Nummer {number}"},
            {"en": (f"notion {number}",)},
            (f"http://example.org/{(number - 1) // 10}",) if number else (),
        )
        for number in range(concepts)
    ]
    for path in paths:
        write_vocabulary(path, Vocabulary(made, "en"))


def read(path: Path) -> None:
    """Read it, and print what that took."""
    before = resource.getrusage(resource.RUSAGE_SELF)
    number = len(read_vocabulary(path, "en"))
    after = resource.getrusage(resource.RUSAGE_SELF)
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{path}: {number:,} concepts, {seconds:.1f} CPU seconds, {after.ru_maxrss / 2**20:.2f} GiB", flush=True)


def main() -> None:
    """Write what is missing, and read all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--concepts", type=int, default=1_000_000)
    arguments = parser.parse_args()
    missing = [path for path in arguments.files if not path.is_file()]
    tasks = [(make, (missing, arguments.concepts))] if missing else []
    for task, given in [*tasks, *((read, (path,)) for path in arguments.files)]:
        process = multiprocessing.get_context("spawn").Process(target=task, args=given)
        process.start()
        process.join()


if __name__ == "__main__":
    main()
