"""What a training leaves of itself in the model's folder: the facts that a card is filled with."""

from __future__ import annotations

import math
import platform
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import cast

import torch
from datasets import Dataset

from ..configuration_xlgen import XLGenConfig
from ..data.rows import row_facts
from ..errors import ConfigurationError
from ..files.training_report import Example, TrainingReport, write_report
from ..modeling_xlgen import XLGenForConditionalGeneration
from ..prediction.predictor import Predictor
from ..processing_xlgen import XLGenProcessor
from ..settings import Variant, definitions, uses
from ..version import __version__
from .arguments import XLGenTrainingArguments
from .losses import LOSSES
from .trainer_settings import TrainerSettings

__all__ = [
    "FUSION_TUNED_BY",
    "deciding_arguments",
    "examples_of",
    "hardware",
    "hybrid_report",
    "peak_memory",
    "source_name",
    "weights_name",
    "write_training_report",
]

_EXAMPLES = 3
_KEPT_LOGS = ("step", "epoch", "loss", *LOSSES, "eval_loss", "eval_micro_f1", "eval_macro_f1")
_MOST_LOGS = 500  # of losses; a picture shows no more
FUSION_TUNED_BY = (
    "macro F1 on the validation rows, never, once and more often seen labels alike, near the best micro F1"
)
"""What the threshold of a fusion was chosen by, as a card says it."""
# Of all arguments, those that decide the result; among the others are paths and tokens, which are nobody's business.
_ARGUMENTS = (
    *(name for name, one in definitions(TrainerSettings).items() if one.about.published),
    "lr_scheduler_type", "optim", "max_grad_norm", "label_smoothing_factor", "fp16",
)  # fmt: skip


def source_name(source: str) -> str:
    """The name of a source of rows that may be published: a file's or folder's own name, or a Hub id."""
    return Path(source).name if Path(source).expanduser().exists() else source


def weights_name(source: str) -> str:
    """The name of pretrained weights that may be published: a Hub id, or a folder's own name with `/` after it.

    A folder of one's own may be called like a model on the Hub, and is not that.
    """
    return f"{Path(source).expanduser().resolve().name}/" if Path(source).expanduser().exists() else source


def write_training_report(
    folder: Path,
    settings: Mapping[str, object],
    args: XLGenTrainingArguments,
    rows: dict[str, Dataset | None],
    sources: dict[str, str],
    *,
    model: XLGenForConditionalGeneration,
    processor: XLGenProcessor,
    scores: dict[str, float],
    seconds: float | None,
    logs: Sequence[Mapping[str, object]] = (),
) -> None:
    """Write `training_report.json`.

    Args:
        folder: the model's folder.
        settings: `backbone`, `variant` and further settings, as JSON holds them.
        args: the training arguments.
        rows: split -> rows, None where there are none.
        sources: split -> where its rows come from, as the user gave it.
        model: the trained model; it labels the first three validation rows.
        processor: its processor.
        scores: scores on the validation rows.
        seconds: time that training took, clusters included; None where it is not known, as of a resumed run.
        logs: what the trainer logged during the training (`state.log_history`).
    """
    validation = rows.get("validation")
    given = {
        name: row_facts(part, source_name(sources[name]) if name in sources else None)
        for name, part in rows.items()
        if part is not None
    }
    tuned = validation is not None and args.tune_decisions
    report: TrainingReport = {
        "xlgen_hf": __version__,
        "backbone": weights_name(str(settings["backbone"])),
        "variant": str(settings["variant"]),
        "parameters": model.num_parameters(),
        "data": given,
        "arguments": {
            **{name: value for name, value in settings.items() if name not in ("backbone", "variant")},
            **deciding_arguments(
                args, cast("Variant", settings["variant"]), candidates=bool(settings.get("candidates"))
            ),
        },
        "decision": {
            **_guidance(model.config),
            "min_labels": model.config.min_labels,
            "num_beams": model.config.num_beams,
            "pool": model.config.pool,
            **_thresholds(processor.score_model.thresholds),
            "source": "micro F1 on the validation rows" if tuned else None,
        },
        "best_checkpoint": bool(args.load_best_model_at_end),
        "scores": scores,
        "examples": [] if validation is None else examples_of(Predictor.from_model(model, processor), validation),
        "history": _history(logs),
        "seconds": None if seconds is None else round(seconds, 1),
        "peak_memory": peak_memory(),
        "peak_gpu_memory": torch.cuda.max_memory_allocated() if torch.cuda.is_available() else None,
        "hardware": hardware(),
        "keeps_checkpoints": args.keep_checkpoints,
    }
    write_report(folder, report)


def _guidance(config: XLGenConfig) -> dict[str, object]:
    """What validation rows chose of how the decoder is guided, as far as the model has it."""
    has_head, copies = config.candidate_head, config.candidate_head and config.copies_candidates
    known = {
        "predicts_with": has_head,
        "candidate_gate": copies and config.generation_loss_weight > 0,
        "cluster_threshold": config.variant == "bcl",
        "min_clusters": config.variant == "mcg",
    }
    return {name: getattr(config, name) for name, is_there in known.items() if is_there}


def _history(logs: Sequence[Mapping[str, object]]) -> list[dict[str, float]]:
    """What a report keeps of the log: all evaluations, and losses as often as a picture can show."""
    rows = [
        {name: round(float(value), 5) for name in _KEPT_LOGS if isinstance(value := log.get(name), int | float)}
        for log in logs
    ]
    rows = [{name: value for name, value in row.items() if math.isfinite(value)} for row in rows]
    losses = [row for row in rows if "loss" in row]
    kept = {id(row) for row in losses[:: -(-len(losses) // _MOST_LOGS) or 1]}
    return [row for row in rows if id(row) in kept or "eval_loss" in row]


def hybrid_report(report: TrainingReport, predictor: Predictor, validation: Dataset) -> TrainingReport:
    """The report of what has become a hybrid: its own scores, decisions and examples no longer apply.

    Args:
        report: the report of the model or index alone.
        predictor: the hybrid, with a fusion in its score model.
        validation: the rows that the hybrid learned from; scores on them would say little.

    Raises:
        ConfigurationError: if the score model has no fusion.
    """
    score_model = predictor.score_model
    fusion, threshold = score_model.fusion, score_model.rule.value
    if fusion is None or threshold is None:
        raise ConfigurationError("The score model fuses nothing; a hybrid has a fusion and a threshold.")
    decision = {
        "threshold": round(threshold, 4),
        "candidates_per_source": fusion.candidates_per_source,
        "logit_adjustment": fusion.logit_adjustment,
        "label_trees": "label_trees" in score_model.sources,
    }
    kept = cast("TrainingReport", {name: value for name, value in report.items() if name != "run"})
    return {
        **kept,
        "hybrid": True,
        "decision": {**decision, **_thresholds(score_model.thresholds), "source": FUSION_TUNED_BY},
        "scores": {},
        "examples": examples_of(predictor, validation),
    }


def _thresholds(thresholds: Mapping[str, float]) -> dict[str, float]:
    return {f"threshold for {name} F1": round(value, 4) for name, value in thresholds.items()}


def deciding_arguments(
    args: XLGenTrainingArguments, variant: Variant, *, candidates: bool = False
) -> dict[str, object]:
    """The arguments of the trainer that decide the result.

    Args:
        args: the arguments.
        variant: variant of the model; arguments that only others use are left out.
        candidates: whether it reads candidates beside its clusters.
    """
    own = definitions(TrainerSettings)
    names = [name for name in _ARGUMENTS if name not in own or uses(own[name], variant, candidates)]
    values = {name: getattr(args, name) for name in names if hasattr(args, name)}
    return {name: getattr(value, "value", value) for name, value in values.items()}


def examples_of(predictor: Predictor, rows: Dataset) -> list[Example]:
    """The first rows with what is predicted for them, as a report holds them."""
    first = list(rows.select(range(min(_EXAMPLES, len(rows)))))
    predictions = predictor.predict([row["text"] for row in first])
    return [
        {
            "text": row["text"],
            "labels": row["labels"],
            "predicted": [list(pair) for pair in zip(one.labels, one.scores, strict=True)],
        }
        for row, one in zip(first, predictions, strict=True)
    ]


def peak_memory() -> int | None:
    """The most bytes that this process held so far; None where the system does not tell."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    status = Path("/proc/self/status")
    if status.is_file():  # Linux; its ru_maxrss begins with what the process held that started this one
        line = next(line for line in status.read_text(encoding="ascii").splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def hardware() -> str:
    """What this process computes on, in words."""
    if torch.cuda.is_available():
        return f"{torch.cuda.device_count()} x {torch.cuda.get_device_name()}"
    return f"{torch.get_num_threads()} threads of a {platform.machine()} CPU"
