"""What wrong clusters cost a BCL or MCG model: its labels by the clusters that it predicts, by the true ones, by none.

    python benchmarks/gold_clusters.py MODEL [MODEL ...] --test F [--rows N] [--batch-size N] [--json F]

Greedy search, and the sets as the search ends them. True clusters are those of a row's labels, as training gives them.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

import torch

from xlgen_hf.data.rows import load_rows
from xlgen_hf.decoding.decoded_sets import DecodingOptions
from xlgen_hf.evaluation.scoring import score_labels
from xlgen_hf.loading import load_model
from xlgen_hf.prediction.encoding import Encoded
from xlgen_hf.prediction.generator import Generator

SHOWN = ("micro_f1", "macro_f1", "micro_precision", "micro_recall")


@torch.no_grad()
def encode(generator: Generator, texts: Sequence[str], clusters: Sequence[list[int]]) -> Encoded:
    """Encode texts with the given clusters instead of predicted ones."""
    encoded = generator.processor.encode_texts(texts)
    if generator.model.config.variant == "mcg":
        return generator.run_encoder(encoded, clusters, "labels")
    bits = torch.zeros(len(texts), generator.processor.clusters.num_clusters)
    for row, of_text in enumerate(clusters):
        bits[row, of_text] = 1
    rows = [generator.processor.build_input(text) for text in encoded]
    inputs = generator.processor.pad(rows, candidates=[text.candidates for text in encoded])
    return Encoded(encoded, generator.model.encode(**inputs, cluster_bits=bits), list(clusters))


def cluster_scores(predicted: Sequence[list[int]], true: Sequence[list[int]]) -> dict[str, float]:
    """Micro precision and recall of clusters, and clusters a text."""
    hits = sum(len(set(one) & set(other)) for one, other in zip(predicted, true, strict=True))
    sizes = [sum(map(len, sets)) for sets in (predicted, true)]
    return {
        "precision": round(hits / max(sizes[0], 1), 4),
        "recall": round(hits / max(sizes[1], 1), 4),
        "predicted a text": round(sizes[0] / len(true), 2),
        "true a text": round(sizes[1] / len(true), 2),
    }


def measure(folder: str, texts: list[str], true: list[list[str]], batch_size: int) -> dict[str, dict[str, float]]:
    """Scores of a model by the clusters that guide it."""
    model, processor = load_model(folder)
    generator = Generator(model, processor, DecodingOptions(num_beams=1))
    space, names = processor.label_space, processor.label_space.names
    gold = [processor.clusters.clusters_of(space.encode_known(labels)[0]) for labels in true]
    found: dict[str, list[list[str]]] = {"predicted": [], "true": [], "none": []}
    predicted_clusters: list[list[int]] = []
    for first in range(0, len(texts), batch_size):
        batch = texts[first : first + batch_size]
        own = generator.encode(processor.encode_texts(batch))
        predicted_clusters += own.clusters
        ways = {
            "predicted": own,
            "true": encode(generator, batch, gold[first : first + batch_size]),
            "none": encode(generator, batch, [[] for _ in batch]),
        }
        for way, encoded in ways.items():
            found[way] += [[names[label] for label in one.labels] for one in generator.decode(encoded)]
    counts = space.train_label_counts()
    scores = {}
    for way, labels in found.items():
        of_way = score_labels(labels, true, train_label_counts=counts)
        scores[way] = {key: round(float(of_way[key]), 4) for key in SHOWN}
        scores[way]["labels_per_text"] = round(sum(map(len, labels)) / len(labels), 2)
    return {**scores, "clusters": cluster_scores(predicted_clusters, gold)}


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--test", required=True)
    parser.add_argument("--rows", type=int, default=1_000)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    rows = load_rows(arguments.test, split="test")
    rows = rows.select(range(min(arguments.rows, len(rows))))
    found = {}
    for model in arguments.models:
        found[model] = measure(model, list(rows["text"]), list(rows["labels"]), arguments.batch_size)
        for way, scores in found[model].items():
            print(f"{model}  {way:<10}  " + "  ".join(f"{name} {value}" for name, value in scores.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
