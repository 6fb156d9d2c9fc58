"""The map of a label space: labels as marks, clusters by their names."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..errors import ConfigurationError
from ..labels.clusters import LabelClusters
from .names import place_names
from .style import BLUE, GREEN, ORANGE, PURPLE, RED, SKY, Sheet, sheet

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["plot_clusters"]

_COLOURS = (BLUE, ORANGE, GREEN, PURPLE, SKY, RED, "0.35")
_MARKS = ("o", "^", "s", "D", "v")  # with the colours, 35 different clusters; names say which is which in any case
_LONGEST_NAME = 28  # characters


def plot_clusters(clusters: LabelClusters, path: str | Path, *, title: str | None = None) -> Figure:
    """Draw labels on a map on which related ones are near, with the names of their clusters.

    Each cluster has a colour and a mark, and the name of its most frequent label in the middle of its labels, where
    that fits: the names of clusters with frequent labels first.

    Args:
        clusters: clusters with a map, which `fit_clusters` makes.
        path, title: as [`sheet`] takes them, which raises further errors.

    Returns:
        The figure, as it was written.

    Raises:
        ConfigurationError: if the clusters have no map.
    """
    if clusters.label_map is None:
        raise ConfigurationError(
            "These clusters have no map: their labels have fewer than 20 different embeddings, or an earlier version "
            "made them. `xlgen cluster` makes clusters of more labels with one."
        )
    labels, positions = clusters.label_map
    of_label = clusters.assignment[labels]
    there = np.unique(of_label)
    with sheet(path, 7.6, 6.4, title=title) as drawn:
        axes = drawn.figure.subplots()
        for cluster in there:
            colour = _COLOURS[cluster % len(_COLOURS)]
            mark = _MARKS[cluster // len(_COLOURS) % len(_MARKS)]
            x, y = positions[of_label == cluster].T
            axes.scatter(x, y, s=11, color=colour, marker=mark, linewidths=0, alpha=0.75)
        axes.set(xticks=[], yticks=[])
        axes.spines[:].set_color("0.85")
        axes.spines[["top", "right"]].set_visible(True)
        note = drawn.figure.supxlabel(_note(clusters, len(labels), len(there)), fontsize=8)
        middles = np.stack([np.median(positions[of_label == cluster], axis=0) for cluster in there])
        written = place_names(
            drawn.figure, axes, middles, [_name(drawn, clusters.names[cluster], cluster) for cluster in there]
        )
        note.set_text(_note(clusters, len(labels), len(written)))
    return drawn.figure


def _name(drawn: Sheet, name: str, cluster: int) -> str:
    return drawn.text(name.split(" / ")[0], _LONGEST_NAME, instead=f"cluster {cluster}")


def _note(clusters: LabelClusters, shown: int, named: int) -> str:
    whole = len(clusters.assignment)
    labels = f"{whole:,}" if shown == whole else f"{shown:,} of {whole:,}"
    names = f"{named} of {clusters.num_clusters}" if named < clusters.num_clusters else f"all {named}"
    return (
        f"A mark is a label ({labels}); labels of similar documents are near each other (t-SNE; the axes have no "
        f"unit).\nColour and mark tell neighbouring clusters apart; named are {names}, by their most frequent label."
    )
