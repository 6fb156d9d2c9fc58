"""Which clusters a text's labels are found in: those of the vocabulary's tree, or those of k-means.

    python benchmarks/bench_clusters.py --train F --validation F --vocabulary F --language de --encoder E

Both have the same number of clusters. A ridge regression from the embeddings of the training texts ranks the clusters
for the validation texts, in place of the model that would learn it: the fraction of labels whose cluster is among the
first ones, and the fraction of all labels that these hold. A label that is drawn at random has that second fraction.
"""

from __future__ import annotations

import argparse
import json

import numpy as np
from bench_concepts import Experiment, add_arguments

from xlgen_hf.labels.clustering import fit_clusters
from xlgen_hf.labels.clusters import LabelClusters

FIRST = (1, 3, 5, 10)
RIDGE = 1.0


def incidence(rows: list[list[int]], clusters: LabelClusters) -> np.ndarray:
    """Which row has labels of which cluster, `(N, C)`."""
    found = np.zeros((len(rows), clusters.num_clusters), np.float32)
    for row, labels in enumerate(rows):
        found[row, clusters.assignment[labels]] = 1
    return found


def measured(experiment: Experiment, clusters: LabelClusters) -> dict[str, float]:
    """Labels found in the first clusters, and the fraction of all labels there."""
    train, true = (
        [experiment.space.encode_known(labels)[0] for labels in rows["labels"]]
        for rows in (experiment.train, experiment.validation)
    )
    texts, queries = (np.hstack([one, np.ones((len(one), 1))]) for one in (experiment.documents, experiment.queries))
    penalty = RIDGE * np.eye(texts.shape[1])
    weights = np.linalg.solve(texts.T @ texts + penalty, texts.T @ incidence(train, clusters))
    place = np.argsort(np.argsort(-(queries @ weights), axis=1), axis=1)
    sizes, total = clusters.sizes(), sum(map(len, true))
    found = {"clusters": clusters.num_clusters, "largest": int(sizes.max())}
    for first in FIRST:
        hit = sum(int((place[row, clusters.assignment[labels]] < first).sum()) for row, labels in enumerate(true))
        held = ((place < first) * sizes).sum(axis=1).mean() / sizes.sum()
        found |= {
            f"labels in the first {first}": round(hit / total, 4),
            f"all labels in them, {first}": round(held, 4),
        }
    return found


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_arguments(parser)
    parser.add_argument("--num-clusters", type=int)
    arguments = parser.parse_args()
    arguments.keys = []
    experiment = Experiment(arguments)
    ids = [experiment.space.encode_known(labels)[0] for labels in experiment.train["labels"]]
    for kind, hierarchy in (("hierarchy", experiment.vocabulary), ("embeddings", None)):
        clusters = fit_clusters(
            experiment.space, experiment.train["text"][:], ids, experiment.encoder,
            num_clusters=arguments.num_clusters, passage_prompt=arguments.passage_prompt, hierarchy=hierarchy,
            cache_dir=arguments.cache, max_length=arguments.max_length,
        )  # fmt: skip
        arguments.num_clusters = clusters.num_clusters  # the tree may have fewer than were asked for
        print(json.dumps({"made by": kind, **measured(experiment, clusters)}), flush=True)


if __name__ == "__main__":
    main()
