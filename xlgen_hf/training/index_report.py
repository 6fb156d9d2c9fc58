"""What `xlgen index` leaves of itself in its folder, by which the same command sees that there is nothing to do."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from datasets import Dataset

from ..data.rows import row_facts
from ..errors import ModelFolderError
from ..files.json_lines import digest
from ..files.model_folder import SCORE_MODEL_FILE
from ..files.training_report import TrainingReport, read_report, write_report
from ..labels.vocabulary import Vocabulary
from ..prediction.predictor import Predictor
from ..retrieval.model_sources import SOURCE_FOLDERS
from ..version import __version__
from .report import FUSION_TUNED_BY, examples_of, hardware, peak_memory, source_name, weights_name
from .run_record import contents_of, digest_of_names, digest_of_rows

__all__ = ["describe_index", "is_finished_index", "write_index_report"]


def describe_index(
    settings: Mapping[str, object],
    rows: Mapping[str, Dataset | None],
    vocabulary: Vocabulary | Sequence[str] | None,
    document_ids: Iterable[str] | None = None,
) -> dict[str, object]:
    """All that decides what an index is, as JSON holds it.

    Args:
        settings: the options of the command that have an effect, by name.
        rows: split -> rows, None where there are none.
        vocabulary: concepts, or further label names, if any.
        document_ids: ids of the training rows that are kept, if any.
    """
    return {
        "settings": json.loads(json.dumps({**settings, **contents_of(settings)}, default=str)),
        "rows": {name: digest_of_rows(part) for name, part in rows.items() if part is not None},
        "vocabulary": None if vocabulary is None else digest_of_names(vocabulary),
        "document_ids": None if document_ids is None else digest(document_ids),
    }


def is_finished_index(folder: Path, description: Mapping[str, object]) -> bool:
    """Whether a folder holds the finished index of this description.

    Args:
        folder: the output folder.
        description: what [`describe_index`] gave.
    """
    try:
        report = read_report(folder)
    except ModelFolderError:
        return False
    if report.get("run") != description or report.get("xlgen_hf") != __version__:
        return False
    places = [folder / place for place in SOURCE_FOLDERS.values()]
    return (folder / SCORE_MODEL_FILE).is_file() and any(any(place.glob("*.json")) for place in places)


def write_index_report(
    folder: Path,
    settings: Mapping[str, object],
    description: Mapping[str, object],
    rows: Mapping[str, Dataset | None],
    sources: Mapping[str, str],
    predictor: Predictor,
    *,
    seconds: float | None,
) -> None:
    """Write `training_report.json`, the last file of an index.

    Args:
        folder: the folder.
        settings: the options of the command that have an effect, by name.
        description: what [`describe_index`] made of them.
        rows: split -> rows, None where there are none.
        sources: split -> where its rows come from, as the user gave it.
        predictor: the index; it labels the first three validation rows.
        seconds: time that making it took; None where it is not known, as of a resumed run.
    """
    validation = rows.get("validation")
    score_model = predictor.score_model
    facts = {name: row_facts(part, source_name(sources[name])) for name, part in rows.items() if part is not None}
    decision = {"rule": score_model.rule.kind, "value": score_model.rule.value}
    tuned = FUSION_TUNED_BY if score_model.fusion is not None else "micro F1 on the validation rows"
    tuned_by = None if validation is None else tuned
    report: TrainingReport = {
        "xlgen_hf": __version__,
        "kind": str(settings["method"]),
        "data": facts,
        "arguments": {name: value for name, value in settings.items() if name not in ("method", "encoder")},
        "decision": {**decision, **score_model.thresholds, "source": tuned_by},
        "scores": {},
        "examples": [] if validation is None else examples_of(predictor, validation),
        "seconds": None if seconds is None else round(seconds, 1),
        "peak_memory": peak_memory(),
        "hardware": hardware(),
        "run": dict(description),
    }
    if "encoder" in settings:
        report["backbone"] = weights_name(str(settings["encoder"]))
    write_report(folder, report)
