"""The picture of an inspected data set: its tail, the labels of a document, and the lengths of texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..data.inspection import Distribution, Inspection
from .style import BLUE, RED, draw_bars, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_inspection"]


def plot_inspection(inspection: Inspection, path: str | Path, *, title: str | None = None) -> Figure:
    """Draw labels by training documents, labels per document, and words (or tokens) per text.

    Args:
        inspection: what `inspect_rows` returns.
        path, title: as [`sheet`] takes them, which raises errors.

    Returns:
        The figure, as it was written.
    """
    with sheet(path, 10.5, 3.4, title=title) as drawn:
        tail, labels, lengths = drawn.figure.subplots(1, 3)
        _draw_tail(tail, inspection)
        first = next(iter(inspection.splits.values()))
        _draw_distribution(labels, first.labels_per_document, "Labels of a document")
        if first.tokens is not None:
            _draw_distribution(lengths, first.tokens, "Tokens of a text")
        else:
            _draw_distribution(lengths, first.words, "Words of a text")
    return drawn.figure


def _draw_tail(axes: Axes, inspection: Inspection) -> None:
    """Labels of each split by the number of training documents; the training split has none with 0."""
    width = 0.8 / len(inspection.splits)
    for number, (name, facts) in enumerate(inspection.splits.items()):
        places = [place + (number + 0.5) * width - 0.4 for place in range(len(facts.shots))]
        counts = [bucket.labels for bucket in facts.shots]
        draw_bars(axes, places, counts, width, number=number, name=name)
    axes.set_xticks(range(len(facts.shots)), [bucket.shots for bucket in facts.shots])
    axes.set_yscale("symlog", linthresh=1)
    axes.yaxis.set_major_formatter("{x:,.0f}")  # its own one writes powers in mathematical text
    axes.set_xlabel("Training documents of a label")
    axes.set_ylabel("Labels")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=3)
    axes.grid(axis="y")


def _draw_distribution(axes: Axes, found: Distribution, name: str) -> None:
    width = found.edges[1] - found.edges[0]
    centres = [edge + (width - 1) / 2 for edge in found.edges[:-1]]  # values are integers, a bar of one is around it
    axes.bar(centres, found.documents, width, color=BLUE, edgecolor="white")
    axes.axvline(found.mean, color=RED, linestyle="--", zorder=3, label=f"mean {found.mean:,.1f}")
    axes.set_xlabel(f"{name}\n(last bar: {found.edges[-2]:,.0f} to {found.maximum:,})")
    axes.set_ylabel("Documents")
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1))
    axes.grid(axis="y")
