"""What the candidate head does for the decoder: copying weighed by its probabilities, improbable candidates hidden.

    python benchmarks/bench_conditioning.py MODEL --test F [--rows N] [--json F]

MODEL is an RCL that learned to generate and has a head (`xlgen train`). Its generator searches greedily, and ends the
sets itself, with every way of `candidate_gate` and `candidate_threshold`; nothing is trained anew. Prints F1 and CPU
seconds.
"""

from __future__ import annotations

import argparse
import json
import time
from itertools import product
from pathlib import Path

import torch

from xlgen_hf.data.rows import load_rows
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.evaluation.scoring import score_labels
from xlgen_hf.loading import load_model
from xlgen_hf.prediction.generator import Generator

SHOWN = ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1")
THRESHOLDS = (0.0, 0.05, 0.2)


@torch.no_grad()
def labels_of(generator: Generator, texts: list[str], batch_size: int) -> list[list[str]]:
    """The label names of greedy search."""
    names, found = generator.processor.label_space.names, []
    for first in range(0, len(texts), batch_size):
        encoded = generator.encode(generator.processor.encode_texts(texts[first : first + batch_size]))
        found += [[names[label] for label in one.labels] for one in generator.decode(encoded)]
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("--test", required=True)
    parser.add_argument("--rows", type=int, default=800)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = load_rows(arguments.test, split="test")
    rows = rows.select(range(min(arguments.rows, len(rows))))
    texts, references, batch_size = list(rows["text"]), list(rows["labels"]), arguments.batch_size
    model, processor = load_model(arguments.model)
    counts = processor.label_space.train_label_counts()
    table = []
    for gate, threshold in product((False, True), THRESHOLDS):
        model.config.candidate_gate, model.config.candidate_threshold = gate, threshold
        started = time.process_time()
        found = labels_of(Generator(model, processor, DecodingOptions(num_beams=1)), texts, batch_size)
        seconds = time.process_time() - started
        scores = score_labels(found, references, train_label_counts=counts)
        line = {"gate": gate, "threshold": threshold, **{name: round(float(scores[name]), 4) for name in SHOWN}}
        table.append({**line, "seconds": round(seconds, 1)})
        print("  ".join(f"{name} {value}" for name, value in table[-1].items()), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(table, indent=1) + "\n")


if __name__ == "__main__":
    main()
