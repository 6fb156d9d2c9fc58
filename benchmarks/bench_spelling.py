"""Search of label names by their spelling: all of them, and those that share a text's most telling n-grams.

    python benchmarks/bench_spelling.py TEXTS.jsonl NAMES.txt --labels 1000000

TEXTS has a `text` in each row; pairs of words of NAMES make as many names as are asked for. CPU seconds of one thread.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import islice
from pathlib import Path

import numpy as np

from xlgen_hf.retrieval.lexical import LexicalIndex

COUNT = 50


def main() -> None:
    """Read the arguments, and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", type=Path)
    parser.add_argument("names", type=Path)
    parser.add_argument("--labels", type=int, default=200_000)
    parser.add_argument("--queries", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--characters", type=int, help="Characters of a text that are read; by default all.")
    options = parser.parse_args()
    with options.texts.open(encoding="utf-8") as file:
        texts = [json.loads(line)["text"][: options.characters] for line in islice(file, options.queries)]
    words = sorted({word for line in options.names.read_text(encoding="utf-8").splitlines() for word in line.split()})
    first, second = np.random.default_rng(0).integers(0, len(words), size=(2, options.labels)).tolist()
    index = LexicalIndex.fit(texts[:1], [f"{words[a]} {words[b]}" for a, b in zip(first, second, strict=True)])
    queries = index.encode(texts)
    begin = time.process_time()
    index.nearest_names(queries[:1], COUNT)
    print(f"{options.labels:,} names, {queries.nnz / len(texts):.0f} n-grams a text")
    print(f"telling n-grams found in {time.process_time() - begin:.1f} CPU s")
    index.name_similarity(queries[:1])
    for _ in range(options.rounds):
        begin = time.process_time()
        found = index.nearest_names(queries, COUNT)[1]
        middle = time.process_time()
        exact = np.stack([_best(index.name_similarity(queries[row])[0]) for row in range(len(texts))])
        near, whole = middle - begin, time.process_time() - middle
        hits = ((found >= exact[:, -1:] - 1e-6) & (exact[:, -1:] > 0)).sum() / max((exact > 0).sum(), 1)
        all_names, telling = (f"{1000 * seconds / len(texts):.1f} ms" for seconds in (whole, near))
        print(f"all {all_names}, telling {telling} a text: {whole / near:.1f} times; found {hits:.3f} of the best")


def _best(values: np.ndarray) -> np.ndarray:
    return np.sort(values)[::-1][:COUNT]


if __name__ == "__main__":
    main()
