"""Scores of a file of predictions."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..data.formats import RawRow
from ..ranking.reliability import ReliabilityTable

__all__ = ["run_evaluate"]

logger = logging.getLogger(__name__)


def run_evaluate(
    predictions: str | Path,
    references: str | Path,
    train_file: str | Path | None = None,
    output_file: str | Path | None = None,
    plot: str | Path | None = None,
    *,
    per_label_file: str | Path | None = None,
    k: Sequence[int] = (1, 3, 5),
    shots: Sequence[int | str] | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Score a file of predictions.

    Predictions with `scores` also get `expected_calibration_error`, over 15 bins of equally many decisions, and the
    `mean_score` of the decisions. Both are about the labels that were predicted: labels that were not have no score
    in the file.

    Args:
        predictions: rows with `labels`, the best first, in a file that `load_rows` reads; JSON and Parquet rows may
            have `scores`, one for each label.
        references: rows with the true labels, in the same order.
        train_file: training rows.
        output_file: where to write the scores as JSON.
        plot: where to draw the scores of the buckets; needs `train_file`. The reliability diagram is drawn beside it.
        per_label_file: where to write the scores of each label as JSON Lines.
        k: cut-offs of the ranking scores.
        shots: buckets of labels by training count; by default 0 and 1, with `plot` buckets that hold all labels.
        **options: further options of `xlgen_hf.evaluation.scoring.score_labels`.

    Returns:
        Scores by name.

    Raises:
        DataError: if rows cannot be read or scored.
        ConfigurationError: if a plot is wanted without training rows, or under a name that is no picture's.
        MissingExtraError: if a plot is wanted without matplotlib.
    """
    from ..errors import ConfigurationError
    from ..evaluation.plots import PLOT_SHOTS, check_picture, plot_reliability, plot_shot_buckets
    from ..evaluation.scoring import score_labels
    from ..files.serialization import write_json

    if plot is not None:
        check_picture(plot)
        if train_file is None:
            raise ConfigurationError("A plot shows labels by their training documents; give the training rows too.")
    (predicted, given), true = _read_predictions(predictions), _label_column(references, "test")
    _check_lengths(predicted, true, predictions, references)
    scores = score_labels(
        predicted,
        true,
        train_references=None if train_file is None else _label_column(train_file, "train"),
        per_label=per_label_file is not None,
        k=k,
        shots=shots if shots is not None else (PLOT_SHOTS if plot is not None else (0, 1)),
        **options,
    )
    table = scores.pop("per_label", {})
    reliability = _reliability(predicted, given, true, predictions)
    if reliability is not None:
        scores |= _calibration_scores(reliability)
    if per_label_file is not None:
        _write_table(table, per_label_file)
    if output_file is not None:
        write_json(output_file, scores)
    if plot is not None:
        plot_shot_buckets({Path(predictions).stem: scores}, plot, title=Path(predictions).name)
        if reliability is not None:
            beside = Path(plot).with_stem(f"{Path(plot).stem}_reliability")
            plot_reliability(reliability, beside, title=Path(predictions).name)
    return scores


def _write_table(columns: Mapping[str, Sequence[Any]], path: str | Path) -> None:
    from ..files.json_lines import write_jsonl

    write_jsonl(path, (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)))


def _label_column(source: str | Path, split: str) -> Any:
    """The labels of each row as an arrow column, which spares making a Python string of each."""
    from ..data.rows import load_rows

    return load_rows(source, split=split, allow_empty_text=True).with_format("arrow")["labels"][:]


def _read_predictions(path: str | Path) -> tuple[list[list[str]], list[list[float]] | None]:
    """The labels of each row and their scores, if all rows have them; unlike other rows, predictions have no text."""
    from ..data.formats import Columns, read_file
    from ..errors import DataError

    in_cells = any(kind in Path(path).name.lower() for kind in (".csv", ".tsv"))  # where only labels are split
    columns = Columns(text="labels", labels="labels" if in_cells else "scores", require_labels=False)
    predicted, given = [], []
    for raw in read_file(Path(path), columns):
        labels = raw.values.get("labels")
        if not isinstance(labels, list) or not all(isinstance(label, str) and label for label in labels):
            raise DataError(
                f"`labels` must be a list of label names, the best first, got {str(labels)[:80]!r}.",
                file=raw.file,
                row=raw.row,
            )
        predicted.append(labels)
        scores = _scores_of(raw, len(labels))
        if scores is not None:
            given.append(scores)
        if len(given) not in (0, len(predicted)):
            raise DataError("Some rows have `scores`, others have none.", file=raw.file, row=raw.row)
    if not predicted:
        raise DataError("There are no rows.", file=path)
    return predicted, given or None


def _scores_of(raw: RawRow, num_labels: int) -> list[float] | None:
    from ..errors import DataError

    scores = raw.values.get("scores")
    if scores is None:
        return None
    numbers = isinstance(scores, list) and all(type(score) in (int, float) for score in scores)
    if not numbers or len(scores) != num_labels:
        raise DataError(
            f"`scores` must be a list of {num_labels} numbers, one for each label, got {str(scores)[:80]!r}.",
            file=raw.file,
            row=raw.row,
        )
    return scores


def _reliability(
    predicted: Sequence[Sequence[str]], given: Sequence[Sequence[float]] | None, true: Any, path: str | Path
) -> ReliabilityTable | None:
    """How often predicted labels are true, by score; None where there are no scores that could be probabilities."""
    import numpy as np

    from ..ranking.reliability import reliability_table

    scores = np.array([score for row in given or () for score in row], dtype=np.float64)
    if not len(scores):
        return None
    if not ((scores >= 0) & (scores <= 1)).all():
        logger.warning("%s: `scores` are outside [0, 1], so no probabilities; their calibration is not told.", path)
        return None
    references = map(set, true.to_pylist())
    correct = [label in row for labels, row in zip(predicted, references, strict=True) for label in labels]
    return reliability_table(scores, np.array(correct))


def _calibration_scores(table: ReliabilityTable) -> dict[str, float]:
    from ..ranking.reliability import table_calibration_error

    return {
        "expected_calibration_error": table_calibration_error(table),
        "mean_score": float(table["mean_score"] @ table["count"] / table["count"].sum()),
    }


def _check_lengths(predicted: Sequence[Any], true: Sequence[Any], predictions: Any, references: Any) -> None:
    from ..errors import DataError

    if len(predicted) != len(true):
        raise DataError(
            f"{len(predicted)} predictions for the {len(true)} rows of {references}; give one for each row.",
            file=predictions,
        )
