"""Bars: F1 of rare and frequent labels, and scores of systems side by side."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from ..data.inspection import SHOT_BUCKETS
from ..errors import ConfigurationError
from .style import check_picture, draw_bars, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["PLOT_SHOTS", "Panel", "plot_panels", "plot_shot_buckets"]

PLOT_SHOTS = tuple(SHOT_BUCKETS)
"""Buckets of labels by training count that together hold every label."""

_BUCKET = re.compile(r"^([\d+-]+)_shot_labels$")
_NAMES = {"macro_f1": "Macro F1", "micro_f1": "Micro F1", "macro_f1_harmonic": "Harmonic mean of macro P and macro R"}
_OVERALL = ("macro_f1", "micro_f1")  # also scored over all labels
_LONGEST_NAME = 40  # characters of a system's name
_LEGEND_WIDTH = 80  # characters that stand in a line above the narrowest picture
_LEVEL_VALUES = 3  # systems up to which values are written level; of more they would run into each other
_BAR_WIDTHS = (0.40, 0.17)  # inches of a bar with a level and with an upright value


def plot_shot_buckets(
    systems: Mapping[str, Mapping[str, float]], path: str | Path, *, score: str = "macro_f1", title: str | None = None
) -> Figure:
    """Draw a group of bars for each bucket of labels by training count, and for all labels if the score exists.

    Args:
        systems: the scores of each system, as `score_labels` returns them; all over the same references and
            buckets. Where they hold bootstrap intervals, these are drawn too.
        path, title: as [`sheet`] takes them, which raises further errors.
        score: `macro_f1`, `micro_f1` or `macro_f1_harmonic`.

    Returns:
        The figure, as it was written.

    Raises:
        ConfigurationError: if there are no buckets in the scores, or no such score.
    """
    check_picture(path)
    if score not in _NAMES:
        raise ConfigurationError(f"There is no bar chart of {score!r}; choose one of {', '.join(_NAMES)}.")
    buckets = _buckets(systems)
    bar = _BAR_WIDTHS[len(systems) > _LEVEL_VALUES]
    with sheet(path, max(6.4, bar * len(_score_names(buckets, score)) * len(systems)), 3.6, title=title) as drawn:
        axes = drawn.figure.subplots()
        _draw_bars(
            axes, [(drawn.text(name, _LONGEST_NAME), scores) for name, scores in systems.items()], buckets, score
        )
        _label_axes(axes, systems, buckets, score)
    return drawn.figure


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


def _draw_bars(axes: Axes, systems: Sequence[tuple[str, Mapping[str, float]]], buckets: list[str], score: str) -> None:
    names = _score_names(buckets, score)
    width = 0.8 / len(systems)
    for number, (system, scores) in enumerate(systems):
        places = [group + (number + 0.5) * width - 0.4 for group in range(len(names))]
        values = [scores[name] for name in names]
        tops = [scores.get(f"{name}_ci_high", value) for name, value in zip(names, values, strict=True)]
        lows = [scores.get(f"{name}_ci_low", value) for name, value in zip(names, values, strict=True)]
        draw_bars(axes, places, values, width, number=number, name=system)
        if f"{names[0]}_ci_low" in scores:
            axes.vlines(places, lows, tops, color="0.2", linewidth=1, zorder=3)
        empty = [scores[f"{bucket}_shot_labels"] == 0 for bucket in buckets] + [False] * (score in _OVERALL)
        texts = ["\N{EN DASH}" if nothing else f"{value:.3f}" for nothing, value in zip(empty, values, strict=True)]
        for place, top, text in zip(places, tops, texts, strict=True):
            axes.annotate(
                text, (place, top), (0, 2), textcoords="offset points", ha="center", va="bottom", fontsize=7.5,
                rotation=0 if len(systems) <= _LEVEL_VALUES else 90,
            )  # fmt: skip


def _label_axes(axes: Axes, systems: Mapping[str, Mapping[str, float]], buckets: list[str], score: str) -> None:
    first = next(iter(systems.values()))
    counts = [int(first[f"{bucket}_shot_labels"]) for bucket in buckets]
    shown = [bucket.replace("-", "\N{EN DASH}") for bucket in buckets]
    groups = [f"{bucket}\n{count:,} label{'s' * (count != 1)}" for bucket, count in zip(shown, counts, strict=True)]
    if score in _OVERALL:
        axes.axvline(len(groups) - 0.5, color="0.8", linewidth=1, zorder=1)
        groups.append("all labels")
    axes.set_xticks(range(len(groups)), groups)
    axes.tick_params(axis="x", length=0)
    axes.set_xlabel("Training documents of a label, and number of such labels in the references")
    axes.set_ylabel(_NAMES[score])
    axes.margins(x=0.02, y=0.12 if len(systems) <= _LEVEL_VALUES else 0.2)
    axes.set_ylim(bottom=0)
    axes.grid(axis="y")
    if len(systems) > 1:
        longest = min(_LONGEST_NAME, max(map(len, systems)))
        columns = max(1, min(4, _LEGEND_WIDTH // longest))
        axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=columns, borderaxespad=0.2)


class Panel(NamedTuple):
    """One score of several systems.

    Attributes:
        title: what it is.
        values: of each system, None where it was not measured.
        spreads: standard deviation of each, None where there is none.
    """

    title: str
    values: Sequence[float | None]
    spreads: Sequence[float | None]


def plot_panels(
    names: Sequence[str],
    fills: Sequence[tuple[str, str]],
    panels: Sequence[Panel],
    path: str | Path,
    *,
    note: str = "",
    same_scale: bool = False,
) -> Figure:
    """Draw scores of systems as level bars, a panel for each score.

    Args:
        names: the systems, from above.
        fills: colour and hatch of each.
        panels: the scores.
        path: as [`sheet`] takes it, which raises errors.
        note: line below the picture.
        same_scale: whether the panels have the same scale.

    Returns:
        The figure, as it was written.
    """
    with sheet(path, 9.0, 1.3 + 0.3 * len(names)) as drawn:
        all_axes = drawn.figure.subplots(1, len(panels), sharey=True, sharex=same_scale, squeeze=False)[0]
        for axes, panel in zip(all_axes, panels, strict=True):
            _draw_panel(axes, panel, fills)
        all_axes[0].set_yticks(range(len(names)), [drawn.text(name, _LONGEST_NAME) for name in names])
        all_axes[0].invert_yaxis()
        drawn.figure.supxlabel(note, fontsize=8)
    return drawn.figure


def _draw_panel(axes: Axes, panel: Panel, fills: Sequence[tuple[str, str]]) -> None:
    for place, (value, spread, fill) in enumerate(zip(panel.values, panel.spreads, fills, strict=True)):
        if value is None:
            axes.annotate("not measured", (0, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
            continue
        colour, hatch = fill
        axes.barh(place, value, 0.72, color=colour, hatch=hatch, edgecolor="0.15", linewidth=0.6)
        if spread is not None:
            axes.errorbar(value, place, xerr=spread, color="0.1", capsize=3, linewidth=1, zorder=3)
        end = value + (spread or 0.0)
        axes.annotate(f"{value:.3f}", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_title(panel.title)
    axes.locator_params(axis="x", nbins=5)
    axes.margins(x=0.14)
    axes.set_xlim(left=0)
    axes.grid(axis="x")
    axes.tick_params(axis="y", length=0)
