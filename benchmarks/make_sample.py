"""Make the sample that quickstart trains on, `xlgen_hf/samples/yso`, out of the data set yso-titles.

    python benchmarks/make_sample.py YSO_TITLES_FOLDER

The same input gives the same bytes. The README of the sample, which this writes too, says how rows were chosen.
"""

from __future__ import annotations

import argparse
import gzip
from collections import Counter
from pathlib import Path
from string import Template

import numpy as np
from scipy.sparse import csr_matrix

from xlgen_hf.data.rows import load_rows
from xlgen_hf.files.json_lines import write_jsonl

SEEDS = ("dishes (food)", "milk")
NUM_LABELS = 1000
SMOOTHING = 20  # co-occurrences outside that every concept is given, so that rare concepts do not come first
MIN_LABELS = 2
MIN_SHARE = 0.5
NUM_TEST, NUM_VALIDATION = 800, 300
NUM_HELD_OUT = 80  # concepts each that are to be 0-shot and 1-shot
MAX_HELD_OUT_ROWS = 5
RANDOM_SEED = 0
README = Path(__file__).with_name("sample_readme.md")
OUTPUT = Path(__file__).parent.parent / "xlgen_hf" / "samples" / "yso"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, help="folder with train.jsonl.gz of yso-titles")
    parser.add_argument("--output-dir", type=Path, default=OUTPUT)
    options = parser.parse_args()
    rows = list(load_rows(options.source / "train.jsonl.gz"))
    chosen = topical_labels(rows)
    kept = rows_of_topic(rows, chosen)
    splits = split_rows(kept)
    write(options.output_dir, splits, len(rows))


def topical_labels(rows):
    """Grow a topic: always add the concept that has the largest share of its co-occurrences inside."""
    names = sorted({label for row in rows for label in row["labels"]})
    index = {name: position for position, name in enumerate(names)}
    columns = [index[label] for row in rows for label in row["labels"]]
    lines = np.repeat(np.arange(len(rows)), [len(row["labels"]) for row in rows])
    matrix = csr_matrix((np.ones(len(columns), dtype=np.int64), (lines, columns)), shape=(len(rows), len(names)))
    together = (matrix.T @ matrix).tocsr()
    together.setdiag(0)
    everywhere = np.asarray(together.sum(1)).ravel() + SMOOTHING
    inside = np.zeros(len(names))
    chosen = []
    for step in range(NUM_LABELS):
        share = inside / everywhere
        share[chosen] = -1
        best = index[SEEDS[step]] if step < len(SEEDS) else int(np.argmax(share))
        chosen.append(best)
        inside += together[best].toarray().ravel()
    return {names[position] for position in chosen}


def rows_of_topic(rows, chosen):
    """Rows that the topic describes, with its labels alone; one row a title."""
    kept = {}
    for row in rows:
        labels = [label for label in row["labels"] if label in chosen]
        if len(labels) >= max(MIN_LABELS, MIN_SHARE * len(row["labels"])):
            kept.setdefault(fold(row["text"]), {"text": row["text"], "labels": labels})
    return list(kept.values())


def fold(title):
    return "".join(character for character in title.casefold() if character.isalnum())


def split_rows(rows):
    """Random splits in which some rare concepts, drawn at random, are missing or stand once in training."""
    random = np.random.default_rng(RANDOM_SEED)
    rows = [rows[position] for position in random.permutation(len(rows))]
    counts = Counter(label for row in rows for label in row["labels"])
    rare = sorted(label for label, count in counts.items() if 2 <= count <= MAX_HELD_OUT_ROWS)
    drawn = [rare[position] for position in random.permutation(len(rare))[: 2 * NUM_HELD_OUT]]
    zero_shot, one_shot = set(drawn[:NUM_HELD_OUT]), set(drawn[NUM_HELD_OUT:])
    train, test, rest = [], [], []
    for row in rows:
        labels = set(row["labels"])
        if labels & zero_shot:
            test.append(row)
        elif labels & one_shot:
            # The first row with such a concept is for training, unless another of its concepts has its row already.
            has_one = labels & one_shot & {label for one in train for label in one["labels"]}
            (test if has_one else train).append(row)
        else:
            rest.append(row)
    more = NUM_TEST - len(test)
    test += rest[:more]
    validation = rest[more : more + NUM_VALIDATION]
    train += rest[more + NUM_VALIDATION :]
    return {"train": shuffled(train, random), "validation": validation, "test": shuffled(test, random)}


def shuffled(rows, random):
    return [rows[position] for position in random.permutation(len(rows))]


def write(folder, splits, num_source_rows):
    for split, rows in splits.items():
        write_jsonl(folder / f"{split}.jsonl.gz", rows)
    labels = sorted({label for rows in splits.values() for row in rows for label in row["labels"]})
    with (folder / "labels.txt.gz").open("wb") as raw, gzip.GzipFile("", "wb", fileobj=raw, mtime=0) as file:
        file.write("".join(f"{label}\n" for label in labels).encode("utf-8"))
    (folder / "README.md").write_text(readme(splits, labels, num_source_rows), encoding="utf-8")


def readme(splits, labels, num_source_rows):
    counts = Counter(label for row in splits["train"] for label in row["labels"])
    tested = Counter(label for row in splits["test"] for label in row["labels"])
    shots = {shot: [count for label, count in tested.items() if counts[label] == shot] for shot in (0, 1)}
    per_row = {split: np.mean([len(row["labels"]) for row in rows]) for split, rows in splits.items()}
    files = "\n".join(
        f"| `{split}.jsonl.gz` | {len(rows):,} rows, {per_row[split]:.1f} labels a row |"
        for split, rows in splits.items()
    )
    return Template(README.read_text(encoding="utf-8")).substitute(
        files=files,
        labels=f"{len(labels):,}",
        tested=len(tested),
        zero_shot=len(shots[0]),
        zero_shot_occurrences=sum(shots[0]),
        one_shot=len(shots[1]),
        one_shot_occurrences=sum(shots[1]),
        source_rows=f"{num_source_rows:,}",
        seeds=" and ".join(f'"{seed}"' for seed in SEEDS),
        added=NUM_LABELS - len(SEEDS),
        smoothing=SMOOTHING,
        least=MIN_LABELS,
        share=f"{MIN_SHARE:.0%}",
        rare=MAX_HELD_OUT_ROWS,
        held_out=NUM_HELD_OUT,
        test=NUM_TEST,
        validation=NUM_VALIDATION,
    )


if __name__ == "__main__":
    main()
