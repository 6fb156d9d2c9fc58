"""The picture of an inspected data set: its tail, the labels of a document, and the lengths of texts."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..data.inspection import Distribution, Inspection
from .plots import check_picture, save_figure

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_inspection"]

_BLUE, _ORANGE = "#0072B2", "#E69F00"  # told apart by the colour-blind (Okabe and Ito)


def plot_inspection(inspection: Inspection, path: str | Path, *, title: str | None = None) -> None:
    """Draw labels by training documents, labels per document, and words (or tokens) per text.

    Args:
        inspection: what `inspect_rows` returns.
        path: the picture to write: .png, .svg or .pdf.
        title: line above the picture.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        ConfigurationError: if the name is not a picture's.
    """
    check_picture(path)
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12.0, 4.2), layout="constrained")  # inches
    tail, labels, lengths = figure.subplots(1, 3)
    _draw_tail(tail, inspection)
    first = next(iter(inspection.splits.values()))
    _draw_distribution(labels, first.labels_per_document, "Labels of a document")
    if first.tokens is not None:
        _draw_distribution(lengths, first.tokens, "Tokens of a text")
    else:
        _draw_distribution(lengths, first.words, "Words of a text")
    if title:
        figure.suptitle(title, x=0.01, ha="left")
    save_figure(figure, path)


def _draw_tail(axes: Axes, inspection: Inspection) -> None:
    """Labels of each split by the number of training documents; the training split has none with 0."""
    width = 0.8 / len(inspection.splits)
    colours = [_BLUE, _ORANGE, "0.5", "0.7", "0.3"]
    for number, (name, facts) in enumerate(inspection.splits.items()):
        places = [place + (number + 0.5) * width - 0.4 for place in range(len(facts.shots))]
        counts = [bucket.labels for bucket in facts.shots]
        axes.bar(places, counts, width * 0.92, label=name, color=colours[number % len(colours)], zorder=2)
    axes.set_xticks(range(len(facts.shots)), [bucket.shots for bucket in facts.shots])
    axes.set_yscale("symlog", linthresh=1)
    axes.set_xlabel("Training documents of a label")
    axes.set_ylabel("Labels")
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    _clean(axes)


def _draw_distribution(axes: Axes, found: Distribution, name: str) -> None:
    width = found.edges[1] - found.edges[0]
    centres = [edge + (width - 1) / 2 for edge in found.edges[:-1]]  # values are integers, a bar of one is around it
    axes.bar(centres, found.documents, width, color=_BLUE, edgecolor="white", zorder=2)
    axes.axvline(found.mean, color=_ORANGE, linestyle="--", zorder=3, label=f"mean {found.mean:,.1f}")
    axes.set_xlabel(f"{name}\n(last bar: {found.edges[-2]:,.0f} to {found.maximum:,})")
    axes.set_ylabel("Documents")
    axes.legend(frameon=False, fontsize=9, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    _clean(axes)


def _clean(axes: Axes) -> None:
    axes.grid(axis="y", color="0.9", zorder=0)
    axes.spines[["top", "right"]].set_visible(False)
