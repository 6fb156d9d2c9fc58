"""The report of an experiment in Markdown: tables, claims, figures, cost; all from the numbers of `results.json`."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from ..files.atomic import atomic_path
from ..ranking.thresholds import MICRO_F1_TOLERANCE
from .cell import CellDecision
from .claims import check_claims
from .plots import system_title
from .results import AblationSummary, Moments, Results, SystemSummary
from .scoring import CUTOFFS

__all__ = ["REPORT", "make_report", "write_report"]

REPORT = "report.md"
_GIB = 2**30
_OVERALL = {
    "micro_f1": "micro F1",
    "macro_f1": "macro F1",
    "example_f1": "example F1",
    "mean_labels_predicted": "labels per text",
}
_ORACLE = {"oracle_micro_f1": "oracle micro F1", "oracle_macro_f1": "oracle macro F1"}
_TAIL = {f"{shot}_shot_{kind}_f1": f"{shot}-shot {kind} F1" for shot in (0, 1) for kind in ("macro", "micro")}
_RANKING = {
    f"{name}_at_{k}": f"{shown}@{k}"
    for name, shown in (("precision", "P"), ("psp", "PSP"), ("ndcg", "nDCG"))
    for k in CUTOFFS
}
_CANDIDATES = {"candidate_recall": "recall of all candidates", "mean_candidates": "candidates per text"}
_OWN = {"own_micro_f1": "own set: micro F1", "own_macro_f1": "own set: macro F1"}
_ABLATIONS = {
    "order": "Order of labels in training",
    "clusters": "Number of clusters",
    "bits": "Clusters that training conditions on",
    "conditioning": "How clusters or candidates reach the decoder",
    "label-rows": "Label-side rows for each training row",
    "decoding": "Search, and how its sets become one",
}


def write_report(results: Results, folder: Path, figures: Sequence[Path] = ()) -> Path:
    """Write `report.md` into a folder and return its path; `figures` are pictures in that folder."""
    path = folder / REPORT
    with atomic_path(path) as aside:
        aside.write_text(make_report(results, [figure.name for figure in figures]), encoding="utf-8")
    return path


def make_report(results: Results, figures: Sequence[str] = ()) -> str:
    """The report as Markdown.

    Args:
        results: what `collect_results` returns.
        figures: file names of pictures to show.
    """
    summary = results["summary"]
    parts = ["# Experiment", _data(results), *_failures(results)]
    full = summary.get("full", {})
    parts += _section("Overall", _OVERALL | _ORACLE, full, _OVERALL_NOTE)
    parts += _section(_tail_title(full), _TAIL, full, _TAIL_NOTE)
    if "pu" in summary:
        parts += _section(_pu_title(results), _OVERALL | _TAIL, summary["pu"], _PU_NOTE)
    for setting, systems in summary.items():
        parts += _section(f"Ranking, setting `{setting}`", _RANKING | _CANDIDATES, systems, _RANKING_NOTE)
    parts += [part for setting, systems in summary.items() for part in _cost(setting, systems)]
    parts += [part for setting, systems in summary.items() for part in _decisions(setting, systems)]
    parts += _ablations(results["ablations"])
    parts += ["## The article's claims", *_claims(results)]
    if figures:
        parts += ["## Figures", "\n\n".join(f"![{name}]({name})" for name in figures)]
    return "\n\n".join(parts) + "\n"


_OVERALL_NOTE = (
    "Mean over seeds, with the sample standard deviation where there are several. Each system's labels are decided on "
    "by a rule, a number of labels for all texts or a threshold: the one with the best macro F1 on the validation "
    f"rows of those that cost at most {MICRO_F1_TOLERANCE:.0%} of the best micro F1 there, the labels that training "
    "never saw, saw once, and saw more often counting a third each (after calibration on these rows, where that was "
    "better). Macro F1: mean over the labels that the test rows have. *Oracle*: the ranking truncated at the true "
    "number of labels of each text, which no system knows; it decides nothing here."
)
_TAIL_NOTE = "Labels by the training rows that have them: 0-shot none, 1-shot one."
_PU_NOTE = (
    "Labels are dropped from training rows alone, the same ones for all systems and seeds; validation and test rows "
    "are whole. Buckets and propensities are those of the training labels before the drop."
)
_RANKING_NOTE = (
    "Of all candidates, sorted by score (calibrated where the table of decisions says so). PSP: propensity-scored "
    "precision over the best possible one, "
    "propensities from the whole training rows (A 0.55, B 1.5). Generators propose as many candidates as their search "
    "finds, fewer than systems that score every label."
)


def _data(results: Results) -> str:
    data, environment = results["data"], results["environment"]
    rows = ", ".join(f"{count:,} {split}" for split, count in data["rows"].items())
    known = {} if environment is None else environment["packages"]
    packages = ", ".join(f"{name} {version}" for name, version in known.items())
    lines = [
        f"* Rows: {rows}, from {', '.join(dict.fromkeys(data['sources'].values()))}.",
        f"* Labels: {data['labels']:,}, of which {data['unseen_labels']:,} are in no training row.",
        f"* Digest of the rows: `{data['digest']}`.",
        f"* Packages: {packages or 'no cell has run'}; report of xlgen_hf {results['xlgen_hf']}.",
    ]
    if environment is not None:
        lines.append(f"* Hardware: {environment['device']}; threads of torch: {environment['threads']}.")
    if results["command"]:
        lines.append(f"* Command: `{shlex.join(results['command'])}`")
    return "\n".join(lines)


def _failures(results: Results) -> list[str]:
    failed = [one for one in results["failed"] if not one["missing_extra"]]
    lacking = [one for one in results["failed"] if one["missing_extra"]]
    parts = []
    if failed:
        lines = [f"* `{one['cell']}` (`{one['log']}`): {_one_line(one['reason'])}" for one in failed]
        parts += ["## Cells that failed", "\n".join(lines)]
    if lacking:
        lines = [f"* `{one['cell']}`: {_one_line(one['reason'])}" for one in lacking]
        parts += ["## Cells left out for a package that is not installed", "\n".join(lines)]
    others = sorted(set(results["missing"]) - {one["cell"] for one in results["failed"]})
    if others:
        parts += ["## Cells that were not run", "\n".join(f"* `{name}`" for name in others)]
    return parts


def _one_line(reason: str) -> str:
    return " ".join(reason.splitlines()[-1:])


def _section(title: str, columns: Mapping[str, str], systems: Mapping[str, SystemSummary], note: str) -> list[str]:
    if not systems:
        return [f"## {title}", "Not measured."]
    rows = [[system_title(name), len(one["seeds"]), *_cells(one["scores"], columns)] for name, one in systems.items()]
    return [f"## {title}", note, _table(["system", "seeds", *columns.values()], rows)]


def _tail_title(systems: Mapping[str, SystemSummary]) -> str:
    first: Mapping[str, Moments] = next((one["scores"] for one in systems.values()), {})
    counts = [f"{int(first[name]['mean'] or 0):,} {shown}" for name, shown in _BUCKETS.items() if name in first]
    return f"Long tail ({', '.join(counts)} labels in the test rows)" if counts else "Long tail"


_BUCKETS = {"0_shot_labels": "0-shot", "1_shot_labels": "1-shot"}


def _pu_title(results: Results) -> str:
    return f"Positive-unlabelled (PU): {results['settings']['pu']['rate']:.0%} of each training row's labels dropped"


def _cells(values: Mapping[str, Moments], columns: Iterable[str]) -> list[str]:
    return [_score(values.get(name)) for name in columns]


def _score(value: Moments | None) -> str:
    if value is None or value["mean"] is None:
        return "-"
    return f"{value['mean']:.3f}" + ("" if value["sd"] is None else f" ± {value['sd']:.3f}")


def _table(header: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    return "\n".join([*lines, *(f"| {' | '.join(map(str, row))} |" for row in rows)])


def _cost(setting: str, systems: Mapping[str, SystemSummary]) -> list[str]:
    if not systems:
        return []
    header = ["system", "fit s", "fit CPU s", "fit GiB", "predict s", "predict CPU s", "peak GiB", "GiB before fit"]
    names = (*(f"{step}_{part}" for step in ("fit", "predict") for part in ("seconds", "cpu_seconds", "memory")),)
    rows = [
        [system_title(name), *(_amount(one["cost"].get(part), part) for part in (*names, "memory_before"))]
        for name, one in systems.items()
    ]
    note = (
        "Means over seeds; each cell ran alone in a process of its own. GiB: the peak of the process's memory up to "
        "there, of which what stood before the fit is libraries and rows. A fit that took up an earlier one is left "
        "out. Predictions are those of the test rows."
    )
    return [f"## Cost, setting `{setting}`", note, _table(header, rows)]


def _amount(value: Moments | None, name: str) -> str:
    if value is None or value["mean"] is None:
        return "-"
    return f"{value['mean'] / _GIB:.2f}" if "memory" in name else f"{value['mean']:,.1f}"


def _decisions(setting: str, systems: Mapping[str, SystemSummary]) -> list[str]:
    if not systems:
        return []
    rows = [
        [
            system_title(name),
            seed,
            _rule(one),
            f"{one['validation_micro_f1']:.3f}",
            "yes" if one["calibrated"] else "no",
        ]
        for name, summary in systems.items()
        for seed, one in zip(summary["seeds"], summary["decisions"], strict=True)
    ]
    header = ["system", "seed", "rule", "micro F1 on validation", "calibrated"]
    return [f"## Decisions, setting `{setting}`", _table(header, rows)]


def _rule(decision: CellDecision) -> str:
    value = decision["value"] or 0.0
    return f"top {int(value)}" if decision["kind"] == "top_k" else f"score of at least {value:.4f}"


def _ablations(rows: Sequence[AblationSummary]) -> list[str]:
    parts = []
    for ablation, title in _ABLATIONS.items():
        mine = [row for row in rows if row["ablation"] == ablation]
        if not mine:
            continue
        own = _OWN if ablation == "decoding" else {}
        columns = {"micro_f1": "micro F1", "macro_f1": "macro F1", **_TAIL, **_CANDIDATES, **own}
        lines = [
            [
                f"{row['value']}{' (as elsewhere)' * row['is_default']}",
                len(row["seeds"]),
                *_cells(row["scores"], columns),
            ]
            for row in mine
        ]
        note = f"{system_title(mine[0]['system'])}, setting `full`."
        if own:
            note += " *Own set*: the labels that the search itself decided on, without the rule that validation chose."
        parts += [f"## Ablation: {title}", note, _table(["value", "seeds", *columns.values()], lines)]
    return parts


def _claims(results: Results) -> list[str]:
    note = (
        "Each is decided by the means over seeds; of several systems on a side the one with the best score is taken, "
        "score by score. A difference below 0.0005 counts as none."
    )
    return [
        note,
        *(
            "\n".join([f"**{one.text}** {one.verdict.capitalize()}.", "", *(f"* {line}" for line in one.evidence)])
            for one in check_claims(results)
        ),
    ]
