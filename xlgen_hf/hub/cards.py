"""Cards of models, adapters and the metric: filled from files, never by hand; what no file says is left out."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TypedDict

from huggingface_hub import EvalResult, ModelCardData

from ..data.inspection import SHOT_BUCKETS
from ..errors import ConfigurationError
from ..files.model_folder import SCORE_MODEL_FILE
from ..files.schema import read_object
from ..files.serialization import JSON
from ..files.training_report import Example, RowFacts, TrainingReport, read_report, score_of
from ..files.updates import read_updates
from ..labels.space import LabelSpace
from ..labels.vocabulary import VocabularySettings, read_vocabulary_settings
from ..version import __version__
from .card_text import CARD_FILE, compose_card, render, split_card

__all__ = [
    "BASE_TAG",
    "CardFacts",
    "adapter_card",
    "base_card",
    "index_card",
    "metric_card",
    "model_card",
    "read_score_file",
    "read_scores",
    "tail_histogram",
]

BASE_TAG = "xlgen-adapter-base"
"""Tag of a repository that holds the base of adapters, and so may be given another one by a push."""

_TASK = "extreme-multi-label-classification"

_ID = re.compile(r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?")
# Scores that the Hub shows next to a model: name of the score -> (kind of metric, what people read)
_INDEXED = {
    "micro_f1": ("f1", "Micro F1"),
    "macro_f1": ("f1", "Macro F1 (labels of the references)"),
    "example_f1": ("f1", "Example F1"),
    "0_shot_macro_f1": ("f1", "Macro F1 of labels without training documents"),
    "1_shot_macro_f1": ("f1", "Macro F1 of labels with one training document"),
    "precision_at_1": ("precision", "P@1"),
    "precision_at_5": ("precision", "P@5"),
    "psp_at_5": ("precision", "PSP@5"),
}
_SHOWN_SCORES = {
    "micro_precision": "micro precision", "micro_recall": "micro recall", "micro_f1": "micro F1",
    "macro_f1": "macro F1 over labels of the references", "example_f1": "example F1",
    "precision_at_1": "P@1", "precision_at_3": "P@3", "precision_at_5": "P@5", "ndcg_at_5": "nDCG@5",
    "psp_at_1": "PSP@1", "psp_at_5": "PSP@5", "novel_label_rate": "share of predicted labels unknown to training",
}  # fmt: skip


_UPDATED = {
    "added_documents": "documents added:", "corrected": "documents corrected:", "added": "labels added:",
    "renamed": "labels renamed:", "merged": "labels merged:", "removed": "labels removed:",
}  # fmt: skip


class CardFacts(TypedDict):
    """What a card says that no file of the model does.

    Attributes:
        scores: scores on test rows, by name.
        dataset: name or Hub id of the data; that of the training report if None.
        license_id: licence, as the Hub spells it.
    """

    scores: Mapping[str, float]
    dataset: str | None
    license_id: str | None


class _Facts(TypedDict):
    """What the templates of models and adapters show."""

    repo_id: str
    version: str
    variant: str | None
    base_model: str | None
    num_labels: int
    unseen: int
    histogram: list[tuple[str, int]]
    dataset: str | None
    splits: dict[str, RowFacts]
    arguments: Mapping[str, object]
    decision: Mapping[str, object]
    chosen_by_validation: str
    cost: list[tuple[str, str]]
    scores: Mapping[str, float]
    test_rows: list[tuple[str, float]]
    test_shots: list[dict[str, object]]
    validation: Mapping[str, float]
    validation_rows: list[tuple[str, float]]
    validation_shots: list[dict[str, object]]
    examples: list[Example]
    vocabulary: VocabularySettings | None
    updates: dict[str, object] | None
    pictures: Collection[str]


def tail_histogram(counts: Sequence[int]) -> list[tuple[str, int]]:
    """Count labels by their training documents: `(range of documents, labels)`, ranges without labels left out.

    Args:
        counts: training documents of each label.
    """
    rows = []
    for low, high in SHOT_BUCKETS.values():
        name = str(low) if low == high else f"{low:,} or more" if high is None else f"{low:,} to {high:,}"
        number = sum(low <= count and (high is None or count <= high) for count in counts)
        if number:
            rows.append((name, number))
    return rows


def read_score_file(path: str | Path) -> dict[str, JSON]:
    """The content of a file that `xlgen evaluate --output-file` wrote.

    Raises:
        ConfigurationError: if there is no such file.
        ModelFolderError: if it is no JSON object.
    """
    if not Path(path).is_file():
        message = f"scores={str(path)!r}: there is no such file; `xlgen evaluate --output-file` writes it."
        raise ConfigurationError(message)
    return read_object(path)


def read_scores(scores: Mapping[str, object]) -> dict[str, float]:
    """Scores by name; what is not a number is left out."""
    given = scores.items()
    return {name: value for name, value in given if isinstance(value, int | float) and not isinstance(value, bool)}


def model_card(
    folder: Path,
    repo_id: str,
    *,
    scores: Mapping[str, float] | None = None,
    dataset: str | None = None,
    license_id: str | None = None,
    with_code: bool = False,
    pictures: Collection[str] = (),
) -> str:
    """The card of a model.

    Args:
        folder: the model's folder.
        repo_id: where the model goes.
        scores: scores on test rows, by name.
        dataset: name or Hub id of the data; that of the training report if None.
        license_id: licence, as the Hub spells it.
        with_code: whether the repository loads without this package.
        pictures: those that lie beside the card, see `xlgen_hf.hub.card_pictures`.

    Raises:
        ModelFolderError: if a file of the folder cannot be read.
    """
    config = read_object(folder / "config.json")
    report = read_report(folder)
    variant, base = config.get("variant"), report.get("backbone")
    facts = _facts(folder, repo_id, report, scores or {}, dataset, _text(variant), base, pictures)
    fused = _fused_sources(folder)
    more = {
        "with_code": with_code,
        "architecture": _architecture(config),
        "hybrid": bool(fused),
        "by_head": config.get("predicts_with") == "candidate_head",
        "label_trees": "label_trees" in fused,
        "retrieval": "retrieval" in fused,
    }
    metadata = _metadata(facts, license_id, ["xlgen-hybrid"] if more["hybrid"] else [])
    return compose_card(metadata, repo_id.rpartition("/")[2], render("model.md", {**facts, **more}))


def adapter_card(
    folder: Path,
    repo_id: str,
    *,
    base_model: str,
    scores: Mapping[str, float] | None = None,
    dataset: str | None = None,
    license_id: str | None = None,
    pictures: Collection[str] = (),
) -> str:
    """The card of an adapter.

    Args:
        folder: the adapter's folder.
        repo_id: where the adapter goes.
        base_model: where its base is on the Hub.
        scores: scores on test rows, by name.
        dataset: name or Hub id of the data; that of the training report if None.
        license_id: licence, as the Hub spells it.
        pictures: those that lie beside the card, see `xlgen_hf.hub.card_pictures`.

    Raises:
        ModelFolderError: if a file of the folder cannot be read.
    """
    adapter = read_object(folder / "adapter_config.json")
    report = read_report(folder)
    facts = _facts(folder, repo_id, report, scores or {}, dataset, report.get("variant"), base_model, pictures)
    modules = adapter.get("target_modules")
    more = {
        "backbone": report.get("backbone"),
        "method": adapter.get("peft_type"),
        **{key: adapter.get(key) for key in ("r", "lora_alpha", "lora_dropout")},
        "target_modules": sorted(map(str, modules)) if isinstance(modules, list) else [],
    }
    metadata = _metadata(facts, license_id) | {"library_name": "peft"}
    if "base_model" in metadata:
        metadata["base_model_relation"] = "adapter"
    return compose_card(metadata, repo_id.rpartition("/")[2], render("adapter.md", {**facts, **more}))


def base_card(folder: Path, repo_id: str, *, backbone: str | None = None, license_id: str | None = None) -> str:
    """The card of the untrained model that adapters change.

    Args:
        folder: its folder.
        repo_id: where it goes.
        backbone: the checkpoint that it was made from, where that is known.
        license_id: licence, as the Hub spells it.

    Raises:
        ModelFolderError: if a file of the folder cannot be read.
    """
    config = read_object(folder / "config.json")
    facts = {
        "variant": config.get("variant"),
        "base_model": backbone,
        "architecture": _architecture(config),
        "num_labels": len(LabelSpace.load(folder)),
        "version": __version__,
    }
    metadata = {
        "base_model": backbone if isinstance(backbone, str) and _is_hub_id(backbone) else None,
        "library_name": "xlgen-hf",
        "license": license_id,
        "tags": ["xlgen", BASE_TAG],
    }
    return compose_card(metadata, repo_id.rpartition("/")[2], render("base.md", facts))


def index_card(
    folder: Path,
    repo_id: str,
    *,
    scores: Mapping[str, float] | None = None,
    dataset: str | None = None,
    license_id: str | None = None,
    pictures: Collection[str] = (),
) -> str:
    """The card of an index or of label trees.

    Args:
        folder: the folder.
        repo_id: what the card calls it.
        scores: scores on test rows, by name.
        dataset: name or Hub id of the data; that of the training report if None.
        license_id: licence, as the Hub spells it.
        pictures: those that lie beside the card, see `xlgen_hf.hub.card_pictures`.

    Raises:
        ModelFolderError: if a file of the folder cannot be read.
    """
    report = read_report(folder)
    facts = _facts(folder, repo_id, report, scores or {}, dataset, None, report.get("backbone"), pictures)
    kind, fused = report.get("kind", "retrieval"), _fused_sources(folder)
    more = {"kind": kind, "label_trees": kind != "retrieval" and not fused, "hybrid": bool(fused)}
    return compose_card(
        _metadata(facts, license_id), repo_id.rpartition("/")[2], render("index.md", {**facts, **more})
    )


def _fused_sources(folder: Path) -> list[JSON]:
    """Names of the sources that a folder's fusion weighs besides what predicts first."""
    scoring = folder / SCORE_MODEL_FILE
    fusion = read_object(scoring).get("fusion") if scoring.is_file() else None
    sources = fusion.get("sources") if isinstance(fusion, dict) else None
    return sources if isinstance(sources, list) else []


def metric_card(folder: Path, repo_id: str) -> str:
    """The card of the metric's Space: the metric's own card, and how to load it from there.

    Args:
        folder: the metric's folder.
        repo_id: where the Space goes.
    """
    metadata, body = split_card((folder / CARD_FILE).read_text(encoding="utf-8"))
    facts = {"repo_id": repo_id, "metric": folder.name, "body": body.strip(), "version": __version__}
    return compose_card(metadata, folder.name, render("metric.md", facts))


def _text(value: JSON) -> str | None:
    return value if isinstance(value, str) else None


def _architecture(config: Mapping[str, JSON]) -> str | None:
    """The type of the backbone, as far as a model's `config.json` has it."""
    backbone = config.get("backbone")
    return _text(backbone.get("model_type")) if isinstance(backbone, dict) else None


def _facts(
    folder: Path,
    repo_id: str,
    report: TrainingReport,
    scores: Mapping[str, float],
    dataset: str | None,
    variant: str | None,
    base_model: str | None,
    pictures: Collection[str] = (),
) -> _Facts:
    """What both templates show."""
    space = LabelSpace.load(folder)
    data = report.get("data", {})
    validation = {name.removeprefix("eval_"): value for name, value in report.get("scores", {}).items()}
    return {
        "repo_id": repo_id,
        "version": __version__,
        "variant": variant,
        "base_model": base_model,
        "num_labels": len(space),
        "unseen": int((space.counts == 0).sum()),
        "histogram": tail_histogram(space.counts.tolist()),
        "dataset": dataset or (data["train"]["source"] if "train" in data else None),
        "splits": {name: data[name] for name in ("train", "validation") if name in data},
        "arguments": report.get("arguments", {}),
        "decision": report.get("decision", {}),
        "chosen_by_validation": _chosen_by_validation(report),
        "cost": _cost(report),
        "scores": dict(scores),
        "test_rows": _score_rows(scores),
        "test_shots": _shot_rows(scores),
        "validation": validation,
        "validation_rows": _score_rows(validation),
        "validation_shots": _shot_rows(validation),
        "examples": report.get("examples", []),
        "vocabulary": read_vocabulary_settings(folder),
        "updates": _update_numbers(folder),
        "pictures": pictures,
    }


def _update_numbers(folder: Path) -> dict[str, object] | None:
    """What updates since the training have changed, in numbers; None where there were none, or all were undone."""
    records = [one for one in read_updates(folder) if one["undone"] is None]
    if not records:
        return None
    numbers: Counter[str] = Counter()
    for changes in (one["changes"] for one in records):
        rows = changes.get("rows")
        documents = rows if isinstance(rows, dict) else {}
        of_documents = {"added_documents": documents.get("added"), "corrected": documents.get("corrected")}
        for name, value in {**changes, **of_documents}.items():
            if name in _UPDATED:
                size = len(value) if isinstance(value, list) else value
                numbers[_UPDATED[name]] += size if isinstance(size, int) else 0
    shown = [f"{name} {numbers[name]:,}" for name in _UPDATED.values() if numbers[name]]
    return {"number": len(records), "last": records[-1]["time"][:10], "changes": ", ".join(shown)}


def _chosen_by_validation(report: TrainingReport) -> str:
    decided = report.get("decision", {}).get("source")
    return " and ".join(
        what for what, is_so in (("the checkpoint", report.get("best_checkpoint")), ("the decision", decided)) if is_so
    )


def _score_rows(scores: Mapping[str, float]) -> list[tuple[str, float]]:
    return [(shown, scores[name]) for name, shown in _SHOWN_SCORES.items() if name in scores]


def _shot_rows(scores: Mapping[str, float]) -> list[dict[str, object]]:
    """A row for each bucket of labels by training documents; a bucket without labels has no score to show."""
    buckets = [name.removesuffix("_shot_labels") for name in scores if name.endswith("_shot_labels")]
    parts = ("labels", "support", "micro_f1", "macro_f1")
    return [
        {"bucket": bucket, **{part: scores.get(f"{bucket}_shot_{part}") for part in parts}}
        for bucket in buckets
        if scores[f"{bucket}_shot_labels"]
    ]


def _cost(report: TrainingReport) -> list[tuple[str, str]]:
    seconds, memory, gpu_memory = (report.get("seconds"), report.get("peak_memory"), report.get("peak_gpu_memory"))
    hardware, parameters = report.get("hardware"), report.get("parameters")
    rows = []
    if seconds:
        rows.append(("training time", f"{seconds / 60:,.1f} minutes"))
    if memory:
        rows.append(("peak memory of the process", f"{memory / 2**30:.2f} GiB"))
    if gpu_memory:
        rows.append(("peak memory of the GPU", f"{gpu_memory / 2**30:.2f} GiB"))
    if hardware:
        rows.append(("hardware", hardware))
    if parameters:
        rows.append(("parameters", f"{parameters:,}"))
    return rows


def _metadata(facts: _Facts, license_id: str | None, more_tags: Sequence[str] = ()) -> dict[str, object]:
    """What the Hub reads, the scores among it."""
    base, dataset = facts["base_model"], facts["dataset"]
    test = bool(facts["scores"])
    results = _eval_results(facts["scores"] or facts["validation"], dataset, "test" if test else "validation")
    tags = ["xlgen", "text-classification", "multi-label-classification", _TASK]
    data = ModelCardData(
        base_model=base if base is not None and _is_hub_id(base) else None,
        datasets=[dataset] if dataset is not None and "/" in dataset and _is_hub_id(dataset) else None,
        eval_results=results or None,
        library_name="xlgen-hf",
        license=license_id,
        metrics=["f1"] if results else None,
        model_name=facts["repo_id"].rpartition("/")[2],
        pipeline_tag="text-classification",
        tags=[*tags, *([f"xlgen-{facts['variant']}"] if facts["variant"] else []), *more_tags],
    )
    return {key: value for key, value in data.to_dict().items() if key != "model_name"}


def _is_hub_id(name: str) -> bool:
    return _ID.fullmatch(name) is not None and ".." not in name and not Path(name).exists()


def _eval_results(scores: Mapping[str, float], dataset: str | None, split: str) -> list[EvalResult]:
    name = dataset or "the data that the card describes"
    return [
        EvalResult(
            task_type="text-classification",
            task_name="Extreme multi-label classification",
            dataset_type=dataset if dataset and _is_hub_id(dataset) else "unpublished",
            dataset_name=name,
            dataset_split=split,
            metric_type=kind,
            metric_name=shown,
            metric_value=round(float(scores[key]), 4),
        )
        for key, (kind, shown) in _INDEXED.items()
        if score_of(scores, key) is not None
    ]
