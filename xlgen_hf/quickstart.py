"""The main job end to end on bundled real data: train, predict, compare with a baseline, report."""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from .configuration_xlgen import Variant
from .data.rows import load_label_names, load_rows
from .evaluation.scoring import score_labels
from .experiments.systems.frequency import best_most_frequent_k, most_frequent_predictions
from .files.json_lines import write_jsonl
from .files.serialization import write_json
from .labels.clustering import fit_clusters
from .labels.space import LabelSpace
from .prediction.results import LabelPrediction
from .training.arguments import XLGenTrainingArguments
from .training.run import train_model
from .training.settings import TrainingSettings

__all__ = ["ARGUMENTS", "BACKBONE", "KEY_SCORES", "SAMPLE", "SETTINGS", "run_quickstart"]

logger = logging.getLogger(__name__)

BACKBONE = "sentence-transformers/all-MiniLM-L6-v2"
KEY_SCORES = ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1")
SAMPLE = Path(__file__).parent / "samples" / "yso"
"""Folder of the bundled data; its README.md says where it is from."""
_CLUSTERS = 30
_EXAMPLES = 4
SETTINGS: dict[str, Any] = {
    "decoder_layers": 1,
    "dropout": 0.0,
    "max_source_length": 128,
    "max_target_length": 64,
}
"""Fields of [`TrainingSettings`] for two minutes on two cores: a one-layer decoder, no dropout."""
ARGUMENTS: dict[str, Any] = {
    "num_train_epochs": 0.85,
    "learning_rate": 3e-4,
    "fresh_learning_rate": 1.5e-3,
    "eval_strategy": "no",
    "save_strategy": "no",
    "tune_decisions": True,
    "decision_beams": 1,  # beams would find more, in twice the time
}
"""Fields of [`XLGenTrainingArguments`] for the same: less than a full pass over the rows."""


def run_quickstart(output_dir: str | Path, variants: Sequence[Variant] = ("bcl",), seed: int = 0) -> dict[str, Any]:
    """Train the variants on the bundled sample of library titles and score them.

    Args:
        output_dir: folder for models, predictions and `report.json`.
        variants: the variants to train.
        seed: seed of clusters and training.

    Returns:
        What `report.json` holds: under `systems` the scores of the most-frequent-labels baseline and of each variant
        on the test rows, under `examples` the predictions for some of them, under `files` where things were written.
    """
    output_dir = Path(output_dir)
    started = time.monotonic()
    train, validation, test = (load_rows(SAMPLE / f"{split}.jsonl.gz") for split in ("train", "validation", "test"))
    vocabulary = load_label_names(SAMPLE / "labels.txt.gz")
    space = LabelSpace.from_label_lists(train["labels"], vocabulary)
    clusters = _fit_clusters(space, train, output_dir / "clusters", seed) if set(variants) - {"base"} else None
    report: dict[str, Any] = {
        "data": {"train": len(train), "validation": len(validation), "test": len(test), "labels": len(space)},
        "systems": {"most-frequent": _score_baseline(space, validation, test)},
        "examples": {},
        "files": {},
        "seconds": {},
    }
    for variant in variants:
        began = time.monotonic()
        folder = output_dir / variant
        predictions = _train_and_predict(variant, folder, vocabulary, clusters, (train, validation, test), seed)
        write_jsonl(folder / "predictions.jsonl", (one.to_dict() for one in predictions))
        report["systems"][variant] = _scores([one.labels for one in predictions], test, space)
        report["examples"][variant] = _examples(test, predictions)
        report["files"][variant] = str(folder)
        report["seconds"][variant] = round(time.monotonic() - began, 1)
    report["seconds"]["all"] = round(time.monotonic() - started, 1)
    report["files"]["report"] = str(output_dir / "report.json")
    write_json(output_dir / "report.json", report)
    return report


def _fit_clusters(space: LabelSpace, train: Dataset, folder: Path, seed: int) -> Path:
    clusters = fit_clusters(
        space,
        train["text"][:],
        [space.encode(labels) for labels in train["labels"]],
        BACKBONE,
        num_clusters=_CLUSTERS,
        seed=seed,
        cache_dir=folder / "embeddings",
    )
    space.save(folder)
    clusters.save(folder)
    return folder


def _train_and_predict(
    variant: Variant,
    folder: Path,
    vocabulary: list[str],
    clusters: Path | None,
    rows: tuple[Dataset, Dataset, Dataset],
    seed: int,
) -> list[LabelPrediction]:
    """Train a variant on the first data set, decide on the second, predict the third."""
    settings = TrainingSettings(
        backbone=BACKBONE, variant=variant, vocabulary=vocabulary, clusters=clusters, **SETTINGS
    )
    args = XLGenTrainingArguments(output_dir=str(folder), seed=seed, report_to=[], **ARGUMENTS)
    model, processor, _ = train_model(settings, args, rows[0], rows[1])
    return model.predict(rows[2]["text"][:], processor, progress=True)


def _score_baseline(space: LabelSpace, validation: Dataset, test: Dataset) -> dict[str, float]:
    k = best_most_frequent_k(space, validation["labels"][:])
    return _scores(most_frequent_predictions(space, len(test), k), test, space)


def _scores(predictions: list[list[str]], test: Dataset, space: LabelSpace) -> dict[str, float]:
    scores = score_labels(predictions, test["labels"][:], train_label_counts=space.train_label_counts(), k=())
    kept = (*KEY_SCORES, "mean_labels_predicted", "mean_labels_reference")
    return {name: scores[name] for name in kept}


def _examples(test: Dataset, predictions: list[LabelPrediction]) -> list[dict[str, Any]]:
    rows = [{**row, "predicted": one.to_dict()} for row, one in zip(test, predictions, strict=True)]
    return rows[:_EXAMPLES]
