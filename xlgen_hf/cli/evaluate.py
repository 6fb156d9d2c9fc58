"""`xlgen evaluate`: the scores of predictions, as tables, JSON and a picture."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated

import typer

from ..data.options import RowOptions
from .rows import takes_row_options

__all__ = ["evaluate", "print_groups", "print_scores", "print_systems"]

_RANKING = {
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "ndcg": "nDCG",
    "psp": "PSP",
    "psndcg": "PSnDCG",
    "coverage": "coverage",
}
_QUALITIES = {"example_f1": "F1 of a text", "best_label": "best label is right"}
_SELECTIVE = ("at_coverage_50", "at_coverage_80", "risk_coverage_area", "least_risk_coverage_area")
_PROMISES = {
    "expected_f1_calibration_error": "calibration error of expected F1",
    "best_label_probability_calibration_error": "calibration error of the best label's probability",
}


@takes_row_options(leave_out=("keep_columns",))
def evaluate(
    predictions: Annotated[
        Path,
        typer.Option(
            help="What `xlgen predict` wrote: one row per text, with `labels`, the best first, perhaps `scores`."
        ),
    ],
    references: Annotated[
        str,
        typer.Option(
            help="Rows with the true `labels`, in the same order or with the same ids; texts are not needed. A file as"
            " for training, or a Hub data set."
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
            " reliability diagram and risk-coverage curves are drawn next to it, under the same name with"
            " `_reliability` and `_risk_coverage`."
        ),
    ] = None,
    baseline: Annotated[
        list[Path] | None,
        typer.Option(
            help="Predictions of another system for the same rows, scored and drawn next to these; give it again for a"
            " further system."
        ),
    ] = None,
    per_label_file: Annotated[Path | None, typer.Option(help="Write one row per label as JSON Lines.")] = None,
    k: Annotated[str, typer.Option(help="Cut-offs of the ranking scores, separated by commas.")] = "1,3,5",
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
    hierarchical: Annotated[
        bool,
        typer.Option(
            "--hierarchical",
            help="Also score labels together with all concepts above them: one near the true one counts in part. Needs"
            " --vocabulary.",
        ),
    ] = False,
    by: Annotated[
        list[str] | None,
        typer.Option(
            help="Score again for each value of this column of the references; give it again for a further column.",
            metavar="<str>",
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace files that are there already.")] = False,
    *,
    rows: RowOptions,
) -> None:
    """Score predictions: micro, macro and example F1, ranking scores, and the same F1 on rare labels."""
    from ..evaluation.evaluate import run_evaluate

    scores = run_evaluate(
        predictions,
        references,
        train_file,
        output_file,
        plot,
        per_label_file=per_label_file,
        baselines=baseline or (),
        k=_numbers(k, "--k"),
        shots=None if shots is None else [part.strip() for part in shots.split(",") if part.strip()],
        bootstrap=bootstrap,
        confidence=confidence,
        seed=seed,
        oracle=oracle,
        hierarchical=hierarchical,
        rows=rows,
        by=by or (),
        overwrite=overwrite,
    )
    print_scores(scores)
    print_groups(scores.get("groups", {}))
    print_systems({predictions.stem: scores, **scores.get("baselines", {})})


def _numbers(text: str, option: str) -> list[int]:
    try:
        return [int(part) for part in text.split(",") if part.strip()]
    except ValueError as err:
        raise typer.BadParameter(f"{text!r} is not a list of integers such as 1,3,5.", param_hint=option) from err


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
        recall = [f"recall_at_{k}" for k in cutoffs if f"{buckets[0]}_shot_recall_at_{k}" in scores]
        header = ["training documents", "labels", "support", "micro F1", "macro F1", "harmonic"]
        header += [name.replace("_at_", "@") for name in recall]
        rows = [_shot_row(scores, one, recall) for one in buckets]
        print_table("Labels of the references by training documents", header, rows)
    print_table("Labels of a text", ["", "mean"], _size_rows(scores))
    if "example_f1_risk_coverage_area" in scores:
        selective = [
            [shown, *(_value(scores, f"{name}_{part}") for part in _SELECTIVE)] for name, shown in _QUALITIES.items()
        ]
        header = ["the surest texts first", "50 % of them", "80 %", "area under risk", "least area"]
        print_table("The least sure texts left to people", header, selective)
    if "expected_calibration_error" in scores:
        rows = [
            ["mean score", _value(scores, "mean_score")],
            ["expected calibration error", _value(scores, "expected_calibration_error")],
            *([shown, _value(scores, name)] for name, shown in _PROMISES.items() if name in scores),
        ]
        print_table("Scores", ["of the predicted labels only; the file has none of others", "value"], rows)


def print_groups(groups: Mapping[str, Mapping[str, Mapping[str, float]]]) -> None:
    """Print the scores of groups of texts on stdout, a table for each field."""
    from .console import print_table

    names = ("micro_f1", "macro_f1", "example_f1")
    for field, scores in groups.items():
        rows = [
            [value, f"{found['texts']:,}", *(_value(found, name) for name in names)] for value, found in scores.items()
        ]
        print_table(f"Texts by {field}", [field, "texts", "micro F1", "macro F1", "example F1"], rows)


def print_systems(systems: Mapping[str, Mapping[str, float]]) -> None:
    """Print the main scores of several systems on stdout, where there are several."""
    from .console import print_table

    parts = {"micro_f1": "micro F1", "macro_f1": "macro F1", "example_f1": "example F1"}
    parts |= {f"{bucket}_shot_macro_f1": f"{bucket}-shot macro F1" for bucket in ("0", "1")}
    shown = [part for part in parts if all(part in scores for scores in systems.values())]
    if len(systems) > 1:
        rows = [[system, *(_value(found, part) for part in shown)] for system, found in systems.items()]
        print_table("Next to other systems", ["predictions", *(parts[part] for part in shown)], rows)


def _is_score(name: str, prefix: str) -> bool:
    return name.startswith(prefix) and not name.endswith(("_ci_low", "_ci_high"))


def _set_names(scores: Mapping[str, float]) -> list[tuple[str, str]]:
    names = [("micro", "all decisions (micro)"), ("macro", "labels of the references (macro)"), ("example", "texts")]
    if "oracle_micro_f1" in scores:
        names += [(f"oracle_{prefix}", f"oracle, cut at the true number: {name}") for prefix, name in names]
    if "hierarchical_f1" in scores:
        names.append(("hierarchical", "all decisions, with all above each label (hierarchical)"))
    return [*names[:2], ("macro_all", "labels of references or predictions"), *names[2:]]


def _set_row(scores: Mapping[str, float], prefix: str, name: str) -> list[str | None]:
    if prefix == "macro_all":
        return [name, None, None, _value(scores, "macro_f1_all")]
    return [name, *(_value(scores, f"{prefix}_{part}") for part in ("precision", "recall", "f1"))]


def _shot_row(scores: Mapping[str, float], bucket: str, recall: Sequence[str]) -> list[str | None]:
    labels, support = (int(scores[f"{bucket}_shot_{part}"]) for part in ("labels", "support"))
    parts = ("micro_f1", "macro_f1", "macro_f1_harmonic", *recall)
    values = [_value(scores, f"{bucket}_shot_{part}") if labels else None for part in parts]
    return [bucket, f"{labels:,}", f"{support:,}", *values]


def _size_rows(scores: Mapping[str, float]) -> list[list[str | None]]:
    rows = [
        ["predicted", _value(scores, "mean_labels_predicted")],
        ["true", _value(scores, "mean_labels_reference")],
    ]
    if "novel_label_rate" in scores:
        rows.append(["fraction of predicted labels unknown to training", _value(scores, "novel_label_rate")])
    return rows


def _value(scores: Mapping[str, float], name: str) -> str | None:
    """A score, with its interval where there is one."""
    if name not in scores:
        return None
    if f"{name}_ci_low" not in scores:
        return f"{scores[name]:.3f}"
    return f"{scores[name]:.3f} [{scores[f'{name}_ci_low']:.3f}, {scores[f'{name}_ci_high']:.3f}]"
