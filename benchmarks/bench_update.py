"""What `xlgen update` brings to labels without documents, and how long it takes as documents grow in number.

    python benchmarks/bench_update.py first-documents INDEX --pool F --test F [--rows N] [--json F]
    python benchmarks/bench_update.py time INDEX --texts F [--sizes 10000,100000] [--json F]

`first-documents`: of the labels that no document of the index has, those that test rows have and that enough rows of
the pool have. Their first 1, 2 and 5 documents of the pool join a copy of the index, one update each; F1 of these
labels, and of all others, on the test rows before and after. `time`: the index is repeated to so many documents (with
fingerprints of their own), and 100 new texts join it. INDEX is a folder that `xlgen index` wrote; it is not changed.
"""

from __future__ import annotations

import argparse
import json
import resource
import shutil
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy.sparse import vstack

from xlgen_hf.data.rows import load_rows
from xlgen_hf.evaluation.scoring import score_labels
from xlgen_hf.labels.changes import LabelChange
from xlgen_hf.loading import load_predictor
from xlgen_hf.retrieval.lexical import LexicalIndex
from xlgen_hf.retrieval.model_sources import load_source_alone, save_source_alone
from xlgen_hf.updating.update import undo_update, update_model

STEPS = (1, 2, 5)


def f1_of(predicted: list[list[str]], references: list[list[str]], labels: set[str], *, inside: bool) -> dict:
    """Micro and macro F1 of some labels, or of all others; macro over those that the references have."""
    kept = [
        [[name for name in names if (name in labels) == inside] for names in rows] for rows in (predicted, references)
    ]
    found = score_labels(*kept, k=())
    return {name: round(float(found[name]), 4) for name in ("micro_f1", "macro_f1", "micro_precision", "micro_recall")}


def first_documents(index: Path, pool: str, test: str, rows: int) -> list[dict]:
    """Scores before the first documents and after each step."""
    found = load_source_alone(index)
    space, known = found.label_space, found.vocabulary
    unseen = {name for name, count in zip(space.names, space.counts.tolist(), strict=True) if not count}
    tests = [row for row in load_rows(test, split="test", vocabulary=known) if row["labels"]][:rows]
    texts, references = [row["text"] for row in tests], [row["labels"] for row in tests]
    wanted = unseen & {name for names in references for name in names}
    documents: dict[str, list[dict]] = defaultdict(list)
    for row in load_rows(pool, split="train", suspicions=False, vocabulary=known):
        for name in wanted.intersection(row["labels"]):
            if len(documents[name]) < STEPS[-1] and row["text"] not in set(texts):
                documents[name].append(row)
    labels = {name for name, found in documents.items() if len(found) == STEPS[-1]}
    print(f"{len(labels)} labels without documents, {len(tests)} test rows", flush=True)
    results = []
    with tempfile.TemporaryDirectory(dir=index.parent) as place:
        folder = Path(shutil.copytree(index, Path(place) / "index", ignore=shutil.ignore_patterns("cache")))
        for step in (0, *STEPS):
            new = {row["text"]: row for name in sorted(labels) for row in documents[name][:step]}
            record = update_model(folder, rows=list(new.values()), unknown_labels="leave-out") if new else None
            found = [one.labels for one in load_predictor(str(folder)).predict(texts, progress=True)]
            results.append(
                {
                    "documents_each": step,
                    "added": record["changes"]["rows"]["added"] if record else 0,
                    "update_seconds": record["changes"]["seconds"] if record else 0,
                    "these_labels": f1_of(found, references, labels, inside=True),
                    "other_labels": f1_of(found, references, labels, inside=False),
                }
            )
            print(json.dumps(results[-1]), flush=True)
    return results


def repeated(index: Path, folder: Path, size: int) -> None:
    """An index with so many documents, those of another one again and again."""
    space, name, source, score_model, vocabulary = load_source_alone(index)
    times = -(-size // len(source.documents))
    documents = np.tile(source.documents, (times, 1))[:size]
    labels = vstack([source.labels] * times, format="csr")[:size]
    fingerprints = np.random.default_rng(0).integers(-(2**62), 2**62, size)
    lexical = source.lexical
    if lexical is not None:
        lexical = LexicalIndex(
            lexical.idf, lexical.documents.take(np.arange(size) % len(source.documents)), lexical.names
        )
    names = source.named_documents.take(np.arange(size) % len(source.documents))
    made = source.with_documents(documents, labels, fingerprints, lexical, names)
    sums = np.bincount(made.labels.indices, minlength=len(space))
    change = LabelChange.with_counts(space, sums - space.counts)
    save_source_alone(folder, change.after, name, made.relabelled(change), score_model, vocabulary)


def update_times(index: Path, texts: str, sizes: list[int]) -> list[dict]:
    """Seconds of updates of an index of each size, and of taking one back."""
    rows = [row for row in load_rows(texts, split="test", suspicions=False) if row["labels"]][:100]
    results = []
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=index.parent) as place:
            folder = Path(place) / "index"
            repeated(index, folder, size)
            found = {"documents": size, "megabytes": sum(p.stat().st_size for p in folder.rglob("*.*")) / 1e6}
            for what, more in (("add_100_rows", {"rows": rows}), ("undo", None)):
                start = time.perf_counter()
                if more is None:
                    undo_update(folder)
                else:
                    update_model(folder, unknown_labels="leave-out", **more)
                found[f"{what}_seconds"] = round(time.perf_counter() - start, 2)
            found["peak_gigabytes_so_far"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2)
            results.append(found)
            print(json.dumps(found), flush=True)
    return results


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["first-documents", "time"])
    parser.add_argument("index", type=Path)
    parser.add_argument("--pool", help="rows that documents are taken from")
    parser.add_argument("--test", help="rows that are scored")
    parser.add_argument("--texts", help="rows that join")
    parser.add_argument("--rows", type=int, default=2_000, help="test rows")
    parser.add_argument("--sizes", default="10000,100000", help="numbers of documents")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if arguments.what == "time":
        results = update_times(arguments.index, arguments.texts, [int(size) for size in arguments.sizes.split(",")])
    else:
        results = first_documents(arguments.index, arguments.pool, arguments.test, arguments.rows)
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
