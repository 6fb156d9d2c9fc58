"""Pictures of scores. They need matplotlib, the extra `plot`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from ..data.inspection import SHOT_BUCKETS
from ..errors import ConfigurationError, MissingExtraError
from ..files.atomic import atomic_path
from ..ranking.reliability import ReliabilityTable, table_calibration_error
from .risk_coverage import RiskCoverage

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "PLOT_SHOTS",
    "check_picture",
    "plot_reliability",
    "plot_risk_coverage",
    "plot_shot_buckets",
    "save_figure",
]

PLOT_SHOTS = tuple(SHOT_BUCKETS)
"""Buckets of labels by training count that together hold every label."""

_BUCKET = re.compile(r"^([\d+-]+)_shot_labels$")
_NAMES = {"macro_f1": "Macro F1", "micro_f1": "Micro F1", "macro_f1_harmonic": "Harmonic mean of macro P and macro R"}
_RISKS = {"example_f1": "1 - F1 of a text", "best_label": "best label is wrong"}
_OVERALL = ("macro_f1", "micro_f1")  # also scored over all labels
_SUFFIXES = (".png", ".svg", ".pdf")
_BLUE, _ORANGE = "#0072B2", "#E69F00"  # told apart by the colour-blind, and as dark and light in print (Okabe and Ito)


def check_picture(path: str | Path) -> None:
    """Check that a picture can be drawn, before the work whose result it shows.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        ConfigurationError: if the name ends in no known kind of picture.
    """
    if find_spec("matplotlib") is None:
        raise MissingExtraError("matplotlib", "plot")
    if Path(path).suffix.lower() not in _SUFFIXES:
        raise ConfigurationError(f"{path} is not a picture file; its name must end in {', '.join(_SUFFIXES)}.")


def plot_shot_buckets(
    systems: Mapping[str, Mapping[str, float]], path: str | Path, *, score: str = "macro_f1", title: str | None = None
) -> None:
    """Draw a group of bars for each bucket of labels by training count, and for all labels if the score exists.

    Args:
        systems: the scores of each system, as `score_labels` returns them; all over the same references and
            buckets. Where they hold bootstrap intervals, these are drawn too.
        path: the picture to write: .png, .svg or .pdf.
        score: `macro_f1`, `micro_f1` or `macro_f1_harmonic`.
        title: line above the picture.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        ConfigurationError: if there are no buckets in the scores, or no such score or kind of picture.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    if score not in _NAMES:
        raise ConfigurationError(f"There is no bar chart of {score!r}; choose one of {', '.join(_NAMES)}.")
    buckets = _buckets(systems)
    width = max(6.4, 1.2 * (len(buckets) + 1) * len(systems) ** 0.5)  # inches
    figure = Figure(figsize=(width, 4.0), layout="constrained")
    axes = figure.subplots()
    _draw_bars(axes, systems, buckets, score)
    _label_axes(axes, systems, buckets, score, title)
    save_figure(figure, path)


def _buckets(systems: Mapping[str, Mapping[str, float]]) -> list[str]:
    found = [[match[1] for name in scores if (match := _BUCKET.match(name))] for scores in systems.values()]
    if not found or not found[0]:
        raise ConfigurationError(
            "The scores hold no buckets of labels by training count; score with the labels of the training data."
        )
    if any(buckets != found[0] for buckets in found):
        raise ConfigurationError(f"The systems were scored over different buckets: {found}; score them alike.")
    return found[0]


def _score_names(buckets: list[str], score: str) -> list[str]:
    """Keys of the bars; the harmonic mean exists for buckets only."""
    return [f"{bucket}_shot_{score}" for bucket in buckets] + [score] * (score in _OVERALL)


def _draw_bars(axes: Axes, systems: Mapping[str, Mapping[str, float]], buckets: list[str], score: str) -> None:
    names = _score_names(buckets, score)
    width = 0.8 / len(systems)
    for number, (system, scores) in enumerate(systems.items()):
        places = [group + (number + 0.5) * width - 0.4 for group in range(len(names))]
        values = [scores[name] for name in names]
        tops = [scores.get(f"{name}_ci_high", value) for name, value in zip(names, values, strict=True)]
        lows = [scores.get(f"{name}_ci_low", value) for name, value in zip(names, values, strict=True)]
        axes.bar(places, values, width * 0.92, label=system, zorder=2)
        if f"{names[0]}_ci_low" in scores:
            axes.vlines(places, lows, tops, color="0.2", linewidth=1, zorder=3)
        empty = [scores[f"{bucket}_shot_labels"] == 0 for bucket in buckets] + [False] * (score in _OVERALL)
        for place, top, value, nothing in zip(places, tops, values, empty, strict=True):
            text = "\N{EN DASH}" if nothing else f"{value:.3f}"
            axes.annotate(text, (place, top), (0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=8)


def _label_axes(
    axes: Axes, systems: Mapping[str, Mapping[str, float]], buckets: list[str], score: str, title: str | None
) -> None:
    first = next(iter(systems.values()))
    counts = [int(first[f"{bucket}_shot_labels"]) for bucket in buckets]
    groups = [f"{bucket}\n{count:,} label{'s' * (count != 1)}" for bucket, count in zip(buckets, counts, strict=True)]
    if score in _OVERALL:
        axes.axvline(len(groups) - 0.5, color="0.8", linewidth=1, zorder=1)
        groups.append("all labels")
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlabel("Training documents of a label; labels of the references in each bucket")
    axes.set_ylabel(_NAMES[score])
    axes.margins(y=0.12)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y", color="0.9", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    if len(systems) > 1:
        axes.legend(frameon=False)
    if title:
        axes.set_title(title, loc="left")


def plot_reliability(table: ReliabilityTable, path: str | Path, *, title: str | None = None) -> None:
    """Draw how often decisions come true against their scores: on the diagonal they do as often as they say.

    Bars from the diagonal to the points are the gaps whose mean is the expected calibration error, which the picture
    names; lines along the bottom show which scores each bin holds.

    Args:
        table: what `xlgen_hf.ranking.reliability.reliability_table` returns.
        path: the picture to write: .png, .svg or .pdf.
        title: line above the picture.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        ConfigurationError: if there is no such kind of picture.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.8, 4.8), layout="constrained")  # inches
    axes = figure.subplots()
    scores, shares = table["mean_score"], table["accuracy"]
    axes.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1, label="perfectly calibrated", zorder=2)
    axes.vlines(scores, scores, shares, color=_ORANGE, linewidth=4, label="gap", zorder=3)
    axes.plot(scores, shares, color=_BLUE, marker="o", markersize=5, label="decisions of a bin", zorder=4)
    axes.hlines([-0.03] * len(scores), table["low"], table["high"], color="0.4", linewidth=2, zorder=3)
    axes.plot(table["low"], [-0.03] * len(scores), color="0.2", linestyle="none", marker="|", markersize=7, zorder=4)
    note = f"Expected calibration error {table_calibration_error(table):.3f}\n{table['count'].sum():,} decisions"
    axes.text(0.98, 0.08, note, ha="right", va="bottom", fontsize=9, transform=axes.transAxes)
    axes.set_xlabel("Mean score of a bin; below: the scores that it holds")
    axes.set_ylabel("Share of its labels that are true")
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.06, 1.02), aspect="equal")
    axes.grid(color="0.9", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="upper left", fontsize=9)
    if title:
        axes.set_title(title, loc="left")
    save_figure(figure, path)


def plot_risk_coverage(curves: Mapping[str, RiskCoverage], path: str | Path, *, title: str | None = None) -> None:
    """Draw the risk of the texts that a system is surest of, against how many they are.

    Args:
        curves: name of a quality (`example_f1`, `best_label`) -> what
            `xlgen_hf.evaluation.risk_coverage.risk_coverage` returns.
        path: the picture to write: .png, .svg or .pdf.
        title: line above the picture.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        ConfigurationError: if there is no such kind of picture.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 4.4), layout="constrained")  # inches
    axes = figure.subplots()
    for color, (name, curve) in zip((_BLUE, _ORANGE), curves.items(), strict=False):
        coverage = curve["coverage"]
        axes.plot(coverage, curve["risk"], color=color, zorder=3, label=f"{_RISKS[name]}, area {curve['area']:.3f}")
        axes.plot(coverage, curve["best"], color=color, linestyle=":", linewidth=1, zorder=2, label="  best order")
        axes.hlines(curve["risk"][-1], 0, 1, color=color, linestyle="--", linewidth=1, label="  random order")
    axes.set_xlabel("Coverage: fraction of the texts, the surest first; the others are left to people")
    axes.set_ylabel("Mean over these texts")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    axes.grid(color="0.9", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, fontsize=9)
    if title:
        axes.set_title(title, loc="left")
    save_figure(figure, path)


def save_figure(figure: Figure, path: str | Path) -> None:
    """Write a picture in the format of its name; an earlier one stays until the new one is complete."""
    path = Path(path)
    with atomic_path(path) as aside:
        figure.savefig(aside, format=path.suffix[1:].lower(), dpi=150)
