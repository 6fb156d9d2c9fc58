"""The main job end to end on bundled real data: train, predict, score next to two baselines, report."""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TypedDict

from datasets import Dataset

from .data.blocks import each_value
from .data.rows import load_label_names, load_rows
from .errors import MissingExtraError
from .experiments.plots import system_title
from .experiments.scoring import ScoringSpace, choose_decision, score_decided
from .experiments.systems.base import System, SystemData
from .experiments.systems.frequency import MostFrequent
from .experiments.systems.registry import PREFIX, SystemOptions, make_system
from .experiments.systems.retrieval import DenseRetrieval
from .files.json_lines import write_jsonl
from .files.saving import replace_files
from .files.serialization import write_json
from .labels.clustering import fit_clusters
from .labels.space import LabelSpace
from .plots.scores import plot_shot_buckets
from .ranking.score_model import ScoreModel
from .retrieval.model_sources import save_source_alone
from .settings import DEFAULT_BACKBONE, Variant
from .training.retriever import fit_retriever

__all__ = [
    "KEY_SCORES",
    "SAMPLE",
    "QuickstartExample",
    "QuickstartOptions",
    "QuickstartPrediction",
    "QuickstartReport",
    "run_quickstart",
]

logger = logging.getLogger(__name__)

KEY_SCORES = ("micro_f1", "macro_f1", "0_shot_macro_f1", "1_shot_macro_f1")
SAMPLE = Path(__file__).parent / "samples" / "yso"
"""Folder of the bundled data; its README.md says where it is from."""
_CLUSTERS = 30
_EXAMPLES = 4


@dataclass(frozen=True)
class QuickstartOptions:
    """How the models are trained: in minutes on two cores.

    Attributes:
        backbone: checkpoint that they start from, and that embeds texts.
        training: settings of the training by name. Of `rcl` the candidate head is trained alone: in minutes a decoder
            learns less, and the head reads more candidates for that.
        arguments: arguments of the trainer by name.
        epochs: passes over the training rows by variant; those that generate have label-side rows in addition.
    """

    backbone: str = DEFAULT_BACKBONE
    training: Mapping[str, object] = field(
        default_factory=lambda: {
            "decoder_layers": 1,
            "dropout": 0.0,
            "max_source_length": 128,
            "max_target_length": 64,
            "num_input_candidates": 12,
            "generation_loss_weight": 0.0,
        }
    )
    arguments: Mapping[str, object] = field(
        default_factory=lambda: {
            "learning_rate": 3e-4,
            "fresh_learning_rate": 1.5e-3,
            "save_strategy": "no",
            "decision_beams": 1,  # beams would find more, in twice the time
        }
    )
    epochs: Mapping[Variant, float] = field(default_factory=lambda: {"base": 0.5, "bcl": 0.5, "mcg": 0.5, "rcl": 1.0})


class QuickstartPrediction(TypedDict):
    """Labels that a system predicts for a text, best first, and their scores."""

    labels: list[str]
    scores: list[float]


class QuickstartExample(TypedDict):
    """A test row and what a system predicts for it."""

    text: str
    labels: list[str]
    predicted: QuickstartPrediction


class QuickstartReport(TypedDict):
    """What `report.json` of a quickstart holds.

    Attributes:
        data: numbers of rows and labels.
        systems: scores of each system on the test rows.
        examples: what each system predicts for some test rows.
        files: where things were written, by what they are.
        seconds: how long each system took, and all of it.
    """

    data: dict[str, int]
    systems: dict[str, dict[str, float]]
    examples: dict[str, list[QuickstartExample]]
    files: dict[str, str]
    seconds: dict[str, float]


@dataclass(frozen=True)
class _Sample:
    """The bundled titles of library holdings."""

    train: Dataset
    validation: Dataset
    test: Dataset
    space: LabelSpace

    @classmethod
    def load(cls) -> _Sample:
        rows = {split: load_rows(SAMPLE / f"{split}.jsonl.gz") for split in ("train", "validation", "test")}
        vocabulary = load_label_names(SAMPLE / "labels.txt.gz")
        return cls(**rows, space=LabelSpace.from_label_lists(rows["train"]["labels"], vocabulary))

    @property
    def sizes(self) -> dict[str, int]:
        parts = {"train": self.train, "validation": self.validation, "test": self.test, "labels": self.space}
        return {name: len(part) for name, part in parts.items()}

    @cached_property
    def scoring(self) -> ScoringSpace:
        return ScoringSpace(self.space, self.space, [*self.validation["labels"], *self.test["labels"]])


def run_quickstart(
    output_dir: str | Path,
    variants: Sequence[Variant] = ("rcl",),
    seed: int = 0,
    options: QuickstartOptions | None = None,
) -> QuickstartReport:
    """Train variants on the bundled sample of library titles, and score them next to two baselines.

    The baselines are the most frequent labels, and dense retrieval with the encoder as it comes. For each system the
    validation rows choose, in the same way, which of its candidates are predicted.

    Args:
        output_dir: folder for models, predictions, `scores.png` and `report.json`.
        variants: the variants to train.
        seed: seed of clusters and training.
        options: how they are trained.

    Returns:
        What `report.json` holds.
    """
    folder, options = Path(output_dir), options or QuickstartOptions()
    started = time.monotonic()
    sample = _Sample.load()
    report: QuickstartReport = {"data": sample.sizes, "systems": {}, "examples": {}, "files": {}, "seconds": {}}
    scores = {}
    for name, system in _systems(sample, folder, variants, seed, options).items():
        began = time.monotonic()
        place = folder / name.removeprefix(PREFIX)
        # Retrieval keeps its embeddings where those of the index and of the clusters are: they are the same.
        kept = place if name.startswith(PREFIX) else folder / "cache"
        system.fit(SystemData(sample.train, sample.validation, sample.space, kept, seed))
        scores[system_title(name)], report["examples"][name] = _judge(system, sample, place / "predictions.jsonl")
        report["systems"][name] = {
            key: scores[system_title(name)][key] for key in (*KEY_SCORES, "mean_labels_predicted")
        }
        report["files"][system_title(name)] = str(place)
        report["seconds"][name] = round(time.monotonic() - began, 1)
    report["files"] |= _draw(scores, folder / "scores.png") | {"report": str(folder / "report.json")}
    report["seconds"]["all"] = round(time.monotonic() - started, 1)
    write_json(folder / "report.json", report)
    return report


def _systems(
    sample: _Sample, folder: Path, variants: Sequence[Variant], seed: int, options: QuickstartOptions
) -> dict[str, System]:
    training: dict[str, object] = {"backbone": options.backbone, **options.training}
    if "rcl" in variants:
        training["retriever"] = str(_make_index(sample, folder, options.backbone, seed))
    if {"bcl", "mcg"} & set(variants):
        training["clusters"] = str(_make_clusters(sample, folder, options.backbone, seed))
    systems: dict[str, System] = {
        "most-frequent": MostFrequent(),
        "dense-retrieval": DenseRetrieval(options.backbone),
    }
    for variant in variants:
        arguments = {**options.arguments, "num_train_epochs": options.epochs[variant]}
        trained = SystemOptions(training, arguments, {"num_beams": 1, "pool": "best"})
        systems[f"{PREFIX}{variant}"] = make_system(f"{PREFIX}{variant}", trained)
    return systems


def _make_index(sample: _Sample, folder: Path, encoder: str, seed: int) -> Path:
    """What `xlgen index --epochs 0` makes: training the encoder would take longer than the quickstart may."""
    made = fit_retriever(
        sample.space, sample.train, sample.validation, encoder, folder / "cache", lexical=True, seed=seed
    )
    save_source_alone(folder / "index", sample.space, "retrieval", made, ScoreModel())
    return folder / "index"


def _make_clusters(sample: _Sample, folder: Path, encoder: str, seed: int) -> Path:
    """What `xlgen cluster` makes."""
    made = fit_clusters(
        sample.space,
        sample.train["text"][:],
        [sample.space.encode(labels) for labels in each_value(sample.train, "labels")],
        encoder,
        num_clusters=_CLUSTERS,
        seed=seed,
        cache_dir=folder / "cache" / "embeddings",
    )
    with replace_files(folder / "clusters") as aside:
        sample.space.save(aside)
        made.save(aside)
    return folder / "clusters"


def _judge(system: System, sample: _Sample, path: Path) -> tuple[dict[str, float], list[QuickstartExample]]:
    """Scores on the test rows, and the first of these with what is predicted for them; all predictions are written."""
    space = sample.scoring
    known, true = (space.encode(rows["labels"]) for rows in (sample.validation, sample.test))
    decision = choose_decision(space.take(system.score(sample.validation["text"][:])), known, space.setting_counts)
    scored = decision.calibrate(space.take(system.score(sample.test["text"][:])), space.setting_counts)
    scores = score_decided(scored, decision.rule, true, space.full_counts, len(sample.train))
    predicted: list[QuickstartPrediction] = [
        {"labels": [space.names[label] for label in labels], "scores": [round(value, 4) for value in values]}
        for labels, values in decision.rule.apply(scored).sets()
    ]
    write_jsonl(path, predicted)
    rows = sample.test.select(range(_EXAMPLES))
    return scores, [
        {"text": row["text"], "labels": row["labels"], "predicted": one}
        for row, one in zip(rows, predicted, strict=False)
    ]


def _draw(scores: Mapping[str, Mapping[str, float]], path: Path) -> dict[str, str]:
    try:
        plot_shot_buckets(scores, path, title="Macro F1 on the test titles, by training titles of a label")
    except MissingExtraError as err:
        logger.info("No plot is drawn: %s", err)
        return {}
    return {"plot": str(path)}
