"""`xlgen evaluate`: the scores of predictions, as tables, JSON and a picture."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from ..calibration import ReliabilityTable
    from ..data_formats import RawRow

__all__ = ["evaluate", "print_scores", "run_evaluate"]

logger = logging.getLogger(__name__)

_RANKING = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "ndcg": "nDCG",
    "psp": "PSP",
    "psndcg": "PSnDCG",
    "coverage": "coverage",
}


def evaluate(
    predictions: Annotated[
        Path,
        typer.Option(
            help="What `xlgen predict` wrote: a row a text, with `labels`, the best first, perhaps `scores`."
        ),
    ],
    references: Annotated[
        str,
        typer.Option(
            help="Rows with the true `labels`, in the same order: a file as for training, or a Hub data set."
        ),
    ],
    train_file: Annotated[
        str | None, typer.Option(help="Training rows; they tell rare labels, propensities and novel labels.")
    ] = None,
    output_file: Annotated[Path | None, typer.Option(help="Write the scores as JSON.")] = None,
    plot: Annotated[
        Path | None,
        typer.Option(
            help="Draw the scores of rare and frequent labels: .png, .svg or .pdf. Where predictions have `scores`, a"
            " reliability diagram is drawn beside it, under the same name with `_reliability`."
        ),
    ] = None,
    per_label_file: Annotated[Path | None, typer.Option(help="Write a row for each label as JSON Lines.")] = None,
    k: Annotated[str, typer.Option(help="Cut-offs of the ranking scores, with commas between them.")] = "1,3,5",
    shots: Annotated[
        str | None,
        typer.Option(
            help="Buckets of labels by training documents: 1 is exactly one, 1-5 one to five, 10+ ten or more.",
            show_default="0,1; with --plot buckets that hold all labels",
        ),
    ] = None,
    bootstrap: Annotated[int, typer.Option(min=0, help="Resamples of the texts for confidence intervals.")] = 0,
    confidence: Annotated[float, typer.Option(min=0.01, max=0.999, help="Level of the intervals.")] = 0.95,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the resampling.")] = 0,
    oracle: Annotated[
        bool,
        typer.Option("--oracle", help="Also score predictions cut at the true number of labels, which nobody knows."),
    ] = False,
) -> None:
    """Score predictions: micro, macro and example F1, ranking scores, and the same F1 on rare labels."""
    scores = run_evaluate(
        predictions,
        references,
        train_file,
        output_file,
        plot,
        per_label_file=per_label_file,
        k=_numbers(k, "--k"),
        shots=None if shots is None else [part.strip() for part in shots.split(",") if part.strip()],
        bootstrap=bootstrap,
        confidence=confidence,
        seed=seed,
        oracle=oracle,
    )
    print_scores(scores)


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as err:
        raise typer.BadParameter(f"{text!r} is no list of whole numbers such as 1,3,5.", param_hint=option) from err


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
        **options: further options of `xlgen_hf.scoring.score_labels`.

    Returns:
        Scores by name.

    Raises:
        DataError: if rows cannot be read or scored.
        ConfigurationError: if a plot is wanted without training rows, or under a name that is no picture's.
        MissingExtraError: if a plot is wanted without matplotlib.
    """
    from .._io import write_json
    from ..errors import ConfigurationError
    from ..plots import PLOT_SHOTS, check_picture, plot_reliability, plot_shot_buckets
    from ..scoring import score_labels

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
    from ..data import write_jsonl

    write_jsonl(path, (dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)))


def _label_column(source: str | Path, split: str) -> Any:
    """The labels of each row as an arrow column, which spares making a Python string of each."""
    from ..data import load_rows

    return load_rows(source, split=split, allow_empty_text=True).with_format("arrow")["labels"][:]


def _read_predictions(path: str | Path) -> tuple[list[list[str]], list[list[float]] | None]:
    """The labels of each row and their scores, if all rows have them; unlike other rows, predictions have no text."""
    from ..data_formats import Columns, read_file
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

    from ..calibration import reliability_table

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
    from ..calibration import table_calibration_error

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


def print_scores(scores: Mapping[str, float]) -> None:
    """Print scores on stdout as tables."""
    from .console import print_table

    sets = [_set_row(scores, prefix, name) for prefix, name in _set_names(scores)]
    print_table("Label sets", ["average over", "precision", "recall", "F1"], sets)
    cutoffs = [name.removeprefix("precision_at_") for name in scores if _is_score(name, "precision_at_")]
    if cutoffs:
        rows = [
            [shown, *(_value(scores, f"{name}_at_{k}") for k in cutoffs)]
            for name, shown in _RANKING.items()
            if f"{name}_at_{cutoffs[0]}" in scores
        ]
        print_table("Ranking", ["at", *cutoffs], rows)
    buckets = [name.removesuffix("_shot_labels") for name in scores if name.endswith("_shot_labels")]
    if buckets:
        header = ["training documents", "labels", "support", "micro F1", "macro F1", "harmonic"]
        print_table(
            "Labels of the references by training documents", header, [_shot_row(scores, one) for one in buckets]
        )
    print_table("Labels of a text", ["", "mean"], _size_rows(scores))
    if "expected_calibration_error" in scores:
        rows = [
            ["mean score", _value(scores, "mean_score")],
            ["expected calibration error", _value(scores, "expected_calibration_error")],
        ]
        print_table("Scores", ["of the predicted labels only; the file has none of others", "value"], rows)


def _is_score(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and not name.endswith(("_ci_low", "_ci_high"))


def _set_names(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    names = [("micro", "all decisions (micro)"), ("macro", "labels of the references (macro)"), ("example", "texts")]
    if "oracle_micro_f1" in scores:
        names += [(f"oracle_{prefix}", f"oracle, cut at the true number: {name}") for prefix, name in names]
    return [*names[:2], ("macro_all", "labels of references or predictions"), *names[2:]]


def _set_row(scores: Mapping[str, float], prefix: str, name: str) -> list[str | None]:
    if prefix == "macro_all":
        return [name, None, None, _value(scores, "macro_f1_all")]
    return [name, *(_value(scores, f"{prefix}_{part}") for part in ("precision", "recall", "f1"))]


def _shot_row(scores: Mapping[str, float], bucket: str) -> list[str | None]:
    labels, support = (int(scores[f"{bucket}_shot_{part}"]) for part in ("labels", "support"))
    parts = ("micro_f1", "macro_f1", "macro_f1_harmonic")
    values = [_value(scores, f"{bucket}_shot_{part}") if labels else None for part in parts]
    return [bucket, f"{labels:,}", f"{support:,}", *values]


def _size_rows(scores: Mapping[str, float]) -> list[list[str | None]]:
    rows = [
        ["predicted", _value(scores, "mean_labels_predicted")],
        ["true", _value(scores, "mean_labels_reference")],
    ]
    if "novel_label_rate" in scores:
        rows.append(["share of predicted labels unknown to training", _value(scores, "novel_label_rate")])
    return rows


def _value(scores: Mapping[str, float], name: str) -> str | None:
    """A score, with its interval where there is one."""
    if name not in scores:
        return None
    if f"{name}_ci_low" not in scores:
        return f"{scores[name]:.3f}"
    return f"{scores[name]:.3f} [{scores[f'{name}_ci_low']:.3f}, {scores[f'{name}_ci_high']:.3f}]"
