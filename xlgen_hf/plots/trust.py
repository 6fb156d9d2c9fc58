"""Whether scores come true: the reliability diagram, and risk against coverage."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from ..ranking.reliability import ReliabilityTable, table_calibration_error
from ..ranking.risk_coverage import RiskCoverage
from .names import label_ends
from .style import BLUE, GREEN, ORANGE, RED, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_reliability", "plot_risk_coverage"]

_RISKS = {"example_f1": "1 - F1 of a text", "best_label": "best label is wrong"}
_COLOURS = (BLUE, RED, GREEN)


def plot_reliability(table: ReliabilityTable, path: str | Path, *, title: str | None = None) -> Figure:
    """Draw how often decisions come true against their scores: on the diagonal they do as often as they say.

    Bars from the diagonal to the points are the gaps whose mean is the expected calibration error, which the picture
    names; lines along the bottom show which scores each bin holds.

    Args:
        table: what `reliability_table` returns.
        path, title: as [`sheet`] takes them, which raises errors.

    Returns:
        The figure, as it was written.
    """
    with sheet(path, 4.6, 4.6, title=title) as drawn:
        axes = drawn.figure.subplots()
        scores, shares = table["mean_score"], table["accuracy"]
        axes.plot([0, 1], [0, 1], color="0.4", linestyle="--", linewidth=1, label="perfectly calibrated", zorder=2)
        axes.vlines(scores, scores, shares, color=ORANGE, linewidth=4, label="gap", zorder=3)
        axes.plot(scores, shares, color=BLUE, marker="o", markersize=5, label="labels of a bin", zorder=4)
        axes.hlines([-0.03] * len(scores), table["low"], table["high"], color="0.4", linewidth=2, zorder=3)
        axes.plot(table["low"], [-0.03] * len(scores), color="0.2", linestyle="none", marker="|", markersize=7)
        note = f"Expected calibration error {table_calibration_error(table):.3f}\n{table['count'].sum():,} decisions"
        axes.text(0.98, 0.08, note, ha="right", va="bottom", transform=axes.transAxes)
        axes.set_xlabel("Mean score of the predicted labels in a bin\n(line at the bottom: the scores that it holds)")
        axes.set_ylabel("Fraction of them that are true")
        axes.set(xlim=(-0.02, 1.02), ylim=(-0.06, 1.02), aspect="equal")
        axes.grid()
        axes.legend(loc="upper left")
    return drawn.figure


def plot_risk_coverage(curves: Mapping[str, RiskCoverage], path: str | Path, *, title: str | None = None) -> Figure:
    """Draw the risk of the texts that a system is surest of, against how many they are.

    Args:
        curves: name of a quality (`example_f1`, `best_label`, or another) -> what `risk_coverage` returns.
        path, title: as [`sheet`] takes them, which raises errors.

    Returns:
        The figure, as it was written.
    """
    with sheet(path, 6.4, 3.8, title=title) as drawn:
        axes = drawn.figure.subplots()
        ends = []
        for number, (name, curve) in enumerate(curves.items()):
            colour, (coverage, risk) = _COLOURS[number % len(_COLOURS)], (curve["coverage"], curve["risk"])
            axes.plot(coverage, risk, color=colour, zorder=3)
            axes.plot(coverage, curve["best"], color=colour, linestyle=":", linewidth=1.1, zorder=2)
            axes.hlines(risk[-1], 0, 1, color=colour, linestyle="--", linewidth=0.9)
            ends.append((float(risk[-1]), f"{drawn.text(_RISKS.get(name, name))}\narea {curve['area']:.3f}", colour))
        for style, label in (("-", "the order of the predictions"), ("--", "a random order"), (":", "the best order")):
            axes.plot([], [], color="0.3", linestyle=style, label=label)
        axes.set_xlabel("Coverage: fraction of the texts, the surest first; the others are left to people")
        axes.set_ylabel("Risk: mean over these texts")
        axes.set(xlim=(0, 1), ylim=(0, 1))
        axes.grid()
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3, borderaxespad=0.2)
        label_ends(drawn.figure, axes, ends)
    return drawn.figure
