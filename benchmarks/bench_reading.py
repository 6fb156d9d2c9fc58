"""Time and memory of reading rows: bench_reading.py [--rows 1800000] [--words 80] [--formats jsonl parquet csv].

Writes made-up rows (as many labels a row as Wiki-500K, 4.75 on average, out of 500,000 in a long tail) to a temporary
folder in each format, and reads each in a process of its own. Prints JSON: seconds of wall and of processor time, and
the peak of resident memory, of which a part are pages of the mapped file, which the system can take back. The columns
are then gone through as training and indexing do: processor seconds of the labels read one by one and in blocks, of
the label space, and of the label ids, with the peak after all of it.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path

import numpy as np

_LABELS = 500_000
_BLOCK = 10_000


def make_rows(count: int, words: int):
    random = np.random.default_rng(0)
    vocabulary = np.array([f"word{number}" for number in range(20_000)])
    for start in range(0, count, _BLOCK):
        size = min(_BLOCK, count - start)
        picked = vocabulary[(random.random((size, words)) ** 3 * len(vocabulary)).astype(int)]
        lengths = 1 + random.poisson(3.75, size)
        labels = (random.random(lengths.sum()) ** 4 * _LABELS).astype(int)
        ends = np.cumsum(lengths)
        for row in range(size):
            own = dict.fromkeys(f"label {label}" for label in labels[ends[row] - lengths[row] : ends[row]])
            yield {"text": f"{start + row} {' '.join(picked[row])}", "labels": list(own)}


def write(path: Path, count: int, words: int) -> None:
    if path.suffix == ".parquet":
        import pyarrow as pa
        import pyarrow.parquet as pq

        writer = None
        block = []
        for number, row in enumerate(make_rows(count, words), 1):
            block.append(row)
            if number % 50_000 == 0 or number == count:
                table = pa.Table.from_pylist(block)
                writer = writer or pq.ParquetWriter(path, table.schema)
                writer.write_table(table)
                block = []
        writer.close()
        return
    with path.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".csv":
            file.write("text,labels\n")
        for row in make_rows(count, words):
            line = json.dumps(row) if path.suffix == ".jsonl" else f"{row['text']},{'|'.join(row['labels'])}"
            file.write(f"{line}\n")


def read(path: Path, queue: multiprocessing.Queue) -> None:
    from xlgen_hf import load_rows

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start, cpu = time.time(), time.process_time()
    rows = load_rows(path)
    wall, cpu = time.time() - start, time.process_time() - cpu
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    report = {"rows": len(rows), "file_mb": round(path.stat().st_size / 1e6), "seconds": round(wall, 1)}
    report |= {"cpu_seconds": round(cpu, 1), "peak_mb": round(peak / 1e3), "before_mb": round(before / 1e3)}
    queue.put(report | passes(rows))


def passes(rows) -> dict:
    """What passes over the labels take."""
    from xlgen_hf import LabelSpace
    from xlgen_hf.data.blocks import each_value

    seconds = {}

    def timed(name: str, work):
        start = time.process_time()
        found = work()
        seconds[f"{name}_cpu_seconds"] = round(time.process_time() - start, 2)
        return found

    timed("labels_one_by_one", lambda: sum(map(len, rows["labels"])))
    timed("labels_in_blocks", lambda: sum(map(len, each_value(rows, "labels"))))
    space = timed("label_space", lambda: LabelSpace.from_label_lists(each_value(rows, "labels")))
    timed("label_ids", lambda: [space.encode(labels) for labels in each_value(rows, "labels")])
    return {**seconds, "peak_after_mb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_800_000)
    parser.add_argument("--words", type=int, default=80)
    parser.add_argument("--formats", nargs="+", default=["jsonl", "parquet", "csv"])
    options = parser.parse_args()
    report = {}
    for form in options.formats:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / f"rows.{form}"
            write(path, options.rows, options.words)
            queue: multiprocessing.Queue = multiprocessing.get_context("spawn").Queue()
            process = multiprocessing.get_context("spawn").Process(target=read, args=(path, queue))
            process.start()
            report[form] = queue.get()
            process.join()
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main()
