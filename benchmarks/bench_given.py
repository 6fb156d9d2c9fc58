"""What it brings to give a model the labels that texts have already: half of each test row's labels, F1 on the others.

    python benchmarks/bench_given.py MODEL [MODEL ...] --test F [--rows N] [--json F]

Only rows with two labels or more count. "ignored" predicts without the given labels and takes them out of what was
predicted; "kept" predicts with them (`xlgen predict --keep-column`).
"""

from __future__ import annotations

import argparse
import json
import random
from pathlib import Path

from xlgen_hf.data.rows import load_rows
from xlgen_hf.evaluation.scoring import score_labels
from xlgen_hf.loading import load_predictor
from xlgen_hf.prediction.predictor import Predictor

SHOWN = ("micro_f1", "macro_f1", "example_f1", "micro_precision", "micro_recall", "precision_at_1")


def halves(rows: list[list[str]], seed: int) -> tuple[list[list[str]], list[list[str]]]:
    """Each row's labels in two halves, the first of them the smaller one."""
    draw = random.Random(seed)
    shuffled = [draw.sample(sorted(labels), len(labels)) for labels in rows]
    return [row[: len(row) // 2] for row in shuffled], [row[len(row) // 2 :] for row in shuffled]


def scores(predictor: Predictor, texts: list[str], given: list[list[str]], others: list[list[str]]) -> dict:
    """Scores of both ways, on the labels that were not given."""
    ways = {
        "ignored": predictor.predict(texts, progress=True),
        "kept": predictor.predict(texts, given=given, progress=True),
    }
    known = predictor.label_space.train_label_counts()
    found = {}
    for name, predictions in ways.items():
        held = (set(labels) for labels in given)
        labels = [
            [label for label in one.labels if label not in of_text]
            for one, of_text in zip(predictions, held, strict=True)
        ]
        all_scores = score_labels(labels, others, train_label_counts=known)
        found[name] = {key: round(float(all_scores[key]), 4) for key in SHOWN}
        found[name]["labels_per_text"] = round(sum(map(len, labels)) / len(labels), 2)
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--test", required=True)
    parser.add_argument("--rows", type=int, default=1_000, help="test rows with two labels or more")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = load_rows(arguments.test, split="test")
    chosen = [row for row in rows if len(row["labels"]) > 1][: arguments.rows]
    given, others = halves([row["labels"] for row in chosen], arguments.seed)
    results = {}
    for name in arguments.models:
        results[name] = scores(load_predictor(name), [row["text"] for row in chosen], given, others)
        print(f"{name}, {len(chosen)} rows")
        for way, of_way in results[name].items():
            print(f"  {way:8}", "  ".join(f"{key} {value}" for key, value in of_way.items()))
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
