"""Memory of `xlgen index` over many rows: bench_index_memory.py [--rows 1800000] [--words 100] [--tokens 256].

The command itself, but for the encoder's work: each text has so many tokens that no tokenizer found, and a vector of
384 random numbers, since both are proportional to the rows and need no memory that grows with them. Rows have 4.75
labels of 500,000; texts are 10,000 different ones, each with its number. Prints JSON: CPU seconds, and the peaks of
memory in MB: all that is resident, and that without pages of mapped files.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from bench_commands import make_encoder, run
from bench_reading import make_rows

_POOL = 10_000


def write(path: Path, count: int, words: int) -> None:
    """Rows that are fast to make."""
    pool = [row["text"] for row in make_rows(_POOL, words)]
    random = np.random.default_rng(1)
    with path.open("w", encoding="utf-8") as file:
        for start in range(0, count, _POOL):
            sizes = 1 + random.poisson(3.75, _POOL)
            labels = (random.random(int(sizes.sum())) ** 4 * 500_000).astype(int).tolist()
            ends = np.cumsum(sizes).tolist()
            for row, end in enumerate(ends[: count - start]):
                own = [f"label {label}" for label in dict.fromkeys(labels[end - sizes[row] : end])]
                file.write(json.dumps({"text": f"{start + row} {pool[row]}", "labels": own}) + "\n")


def index(arguments: list[str]) -> None:
    """`xlgen index` without tokenizer and encoder; in a process of its own."""
    from xlgen_hf.cli import index as command
    from xlgen_hf.cli.main import main
    from xlgen_hf.encoders import embedding
    from xlgen_hf.encoders.loaded import LoadedTokenizer

    number = int(arguments.pop(0))

    def compute(self, shards: list[np.ndarray], missing: list[int], found: np.ndarray) -> None:
        random = np.random.default_rng(len(found))
        for start in range(0, len(found), _POOL):
            found[start : start + _POOL] = random.random(found[start : start + _POOL].shape, np.float32) - 0.5

    embedding._Run._compute = compute
    LoadedTokenizer.ids = lambda self, texts: [list(range(1000, 1000 + number)) for _ in texts]
    command._SHOWN_TEXTS = 100
    raise SystemExit(main(["index", *arguments]))


def main() -> None:
    if len(sys.argv) > 1 and sys.argv[1] == "index":
        index(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_800_000)
    parser.add_argument("--words", type=int, default=100)
    parser.add_argument("--tokens", type=int, default=256)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        make_encoder(folder / "encoder")
        write(folder / "rows.jsonl", options.rows, options.words)
        print((folder / "rows.jsonl").stat().st_size, file=sys.stderr, flush=True)
        made = ["--train-file", str(folder / "rows.jsonl"), "--encoder", str(folder / "encoder"), "--epochs", "0"]
        made += ["--no-lexical", "--output-dir", str(folder / "index")]
        print(json.dumps({"rows": options.rows, **run([__file__, "index", str(options.tokens), *made])}))


if __name__ == "__main__":
    main()
