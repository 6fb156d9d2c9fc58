"""Train PECOS XR-Linear, or rank labels with it, in a Python that has `libpecos`; it knows nothing of this package.

    PYTHON pecos_worker.py train FEATURES.npz TARGETS.npz MODEL_FOLDER SETTINGS_AS_JSON
    PYTHON pecos_worker.py predict FEATURES.npz RANKED.npz MODEL_FOLDER SETTINGS_AS_JSON

Matrices are sparse ones of scipy, float32. `train` reads rows of features and of targets (1 where a row has a label)
and has the settings `seed`, `threads` and `cost`; `predict` writes a matrix of texts by labels that holds the scores
of the best labels of each text, and has the settings `beam_size`, `top_k` and `threads`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable

from pecos.xmc import Indexer, LabelEmbeddingFactory
from pecos.xmc.xlinear.model import XLinearModel
from scipy.sparse import csr_matrix, load_npz, save_npz


def train(features_path: str, targets_path: str, folder: str, seed: int, threads: int, cost: float) -> None:
    """Cluster labels by the features of their rows (PIFA), train the tree's classifiers, and save the model."""
    features, targets = csr_matrix(load_npz(features_path)), csr_matrix(load_npz(targets_path))
    embeddings = LabelEmbeddingFactory.create(targets, features, method="pifa")
    chain = Indexer.gen(embeddings, indexer_type="hierarchicalkmeans", seed=seed, threads=threads)
    XLinearModel.train(features, targets, C=chain, Cp=cost, Cn=cost, threads=threads).save(folder)


def predict(features_path: str, ranked_path: str, folder: str, beam_size: int, top_k: int, threads: int) -> None:
    """Rank labels with a saved model; it is read by PECOS's C++ part, which knows no Python objects."""
    model = XLinearModel.load(folder, is_predict_only=True)
    features = csr_matrix(load_npz(features_path))
    ranked = model.predict(features, beam_size=beam_size, only_topk=top_k, threads=threads)
    save_npz(ranked_path, csr_matrix(ranked))


if __name__ == "__main__":
    action, first, second, model_folder, settings = sys.argv[1:]
    actions: dict[str, Callable[..., None]] = {"train": train, "predict": predict}
    actions[action](first, second, model_folder, **json.loads(settings))
