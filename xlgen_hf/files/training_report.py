"""The training report of a model's folder, which cards are filled with."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TypedDict

from .model_folder import REPORT_FILE
from .schema import Fields, anything, boolean, either, integer, list_of, mapping_of, number, optional, string, strings

__all__ = ["Example", "RowFacts", "TrainingReport", "read_report", "score_of", "write_report"]


class RowFacts(TypedDict):
    """Facts about rows.

    Attributes:
        rows: how many there are.
        labels_per_row: mean number of labels of a row.
        sha256: of texts and labels, see `rows_sha256`.
        source: where they come from, as far as that may be published; None if it is not known.
    """

    rows: int
    labels_per_row: float
    sha256: str
    source: str | None


class Example(TypedDict):
    """A validation row and what the model predicts for it: `[name, score]` for each label."""

    text: str
    labels: list[str]
    predicted: list[list[str | float]]


class TrainingReport(TypedDict, total=False):
    """What `training_report.json` holds; what nobody knows is left out or None.

    Attributes:
        xlgen_hf: version of the package that trained.
        backbone: checkpoint that the training started from.
        variant: variant of the model.
        parameters: number of parameters.
        data: split -> facts about its rows.
        arguments: settings and arguments that decide the result, by name.
        decision: how labels are decided on; as `source`, what chose that.
        best_checkpoint: whether validation rows chose the checkpoint.
        scores: scores on the validation rows, by name.
        examples: predictions for the first validation rows.
        history: losses, and scores on the validation rows during the training, by name, with `step` and `epoch`.
        seconds: time that the training took.
        peak_memory, peak_gpu_memory: the most bytes that the process held, and those on a GPU.
        hardware: what it ran on.
        keeps_checkpoints: whether the training was to leave its checkpoints in the folder.
        hybrid: whether the model was fused with other sources after its training.
        kind: what an index is made of: `retrieval`, `bonsai` or `parabel`.
        run: all that decides what an index is, by which the same command sees that there is nothing to do.
    """

    xlgen_hf: str
    backbone: str
    variant: str
    parameters: int
    data: dict[str, RowFacts]
    arguments: dict[str, object]
    decision: dict[str, object]
    best_checkpoint: bool
    scores: dict[str, float]
    examples: list[Example]
    history: list[dict[str, float]]
    seconds: float | None
    peak_memory: int | None
    peak_gpu_memory: int | None
    hardware: str
    keeps_checkpoints: bool
    hybrid: bool
    kind: str
    run: dict[str, object]


_COUNT = integer(minimum=0)
_ROWS = Fields[RowFacts](
    {"rows": _COUNT, "labels_per_row": number(minimum=0), "sha256": string(), "source": optional(string())}
)
_EXAMPLE = Fields[Example](
    {
        "text": string(),
        "labels": strings(),
        "predicted": list_of(list_of(either(string(), number()), min_length=2, max_length=2)),
    }
)
_FORM = Fields[TrainingReport](
    {
        "xlgen_hf": string(),
        "backbone": string(),
        "variant": string(),
        "parameters": _COUNT,
        "data": mapping_of(_ROWS),
        "arguments": mapping_of(anything()),
        "decision": mapping_of(anything()),
        "best_checkpoint": boolean(),
        "scores": mapping_of(number()),
        "examples": list_of(_EXAMPLE),
        "history": list_of(mapping_of(number())),
        "seconds": optional(number(minimum=0)),
        "peak_memory": optional(_COUNT),
        "peak_gpu_memory": optional(_COUNT),
        "hardware": string(),
        "keeps_checkpoints": boolean(),
        "hybrid": boolean(),
        "kind": string(),
        "run": mapping_of(anything()),
    },
    optional=TrainingReport.__optional_keys__,
    format_version=1,
    made_by="xlgen train",
)


def read_report(folder: Path) -> TrainingReport:
    """What training left of itself; empty where there is no report.

    Args:
        folder: the model's folder.

    Raises:
        ModelFolderError: if the file is not a training report.
    """
    path = folder / REPORT_FILE
    return _FORM.read(path) if path.is_file() else {}


def write_report(folder: Path, report: TrainingReport) -> None:
    """Write `training_report.json`.

    Args:
        folder: the model's folder.
        report: what it holds.

    Raises:
        SaveError: if it cannot be written.
    """
    _FORM.write(folder / REPORT_FILE, report)


def score_of(scores: Mapping[str, float | None], name: str) -> float | None:
    """A score by its name in the metric; None where it is not known, or is of a bucket without labels.

    Args:
        scores: what the metric gave.
        name: such as `micro_f1` or `0_shot_macro_f1`.
    """
    bucket, shot, what = name.partition("_shot_")
    is_known = not shot or what in ("labels", "support") or scores.get(f"{bucket}_shot_labels", 1)
    return scores.get(name) if is_known else None
