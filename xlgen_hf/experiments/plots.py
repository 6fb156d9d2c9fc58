"""The three figures of the XLGen article as bar charts. They need matplotlib, the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..evaluation.plots import check_picture, save_figure
from .results import Results, mean_of, spread_of

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["plot_figures", "system_title"]

# Hues of Okabe and Ito, which the colour-blind tell apart; classifiers are warm, XLGen's variants cold. Hatches part
# equal hues, and bars in black-and-white print.
_STYLES: dict[str, tuple[str, str]] = {
    "most-frequent": ("#BBBBBB", ""),
    "parabel": ("#F0E442", ""),
    "bonsai": ("#E69F00", ""),
    "napkinxc": ("#D55E00", ""),
    "pecos": ("#F0E442", "////"),
    "dense-retrieval": ("#CC79A7", ""),
    "dense-retrieval-trained": ("#CC79A7", "...."),
    "retrieval": ("#CC79A7", "\\\\\\\\"),
    "xlgen-base": ("#56B4E9", ""),
    "xlgen-bcl": ("#0072B2", ""),
    "xlgen-mcg": ("#009E73", ""),
    "xlgen-rcl": ("#56B4E9", "////"),
    "hybrid": ("#CC79A7", "////"),
}
_MORE = ("#E69F00", "#56B4E9", "#009E73", "#F0E442", "#0072B2", "#D55E00", "#CC79A7")
_TITLES = {
    "most-frequent": "most frequent labels",
    "parabel": "Parabel",
    "bonsai": "Bonsai",
    "napkinxc": "napkinXC",
    "pecos": "PECOS",
    "dense-retrieval": "dense retrieval",
    "dense-retrieval-trained": "dense retrieval (trained)",
    "retrieval": "retrieval (trained, and lexical)",
}

_Panel = tuple[str, str, str]  # setting, score, title
_FIGURES: dict[str, tuple[_Panel, ...]] = {
    "figure_1_overall": (("full", "micro_f1", "Micro F1"), ("full", "macro_f1", "Macro F1")),
    "figure_2_long_tail": (
        ("full", "0_shot_macro_f1", "0-shot macro F1 (labels of no training row)"),
        ("full", "1_shot_macro_f1", "1-shot macro F1 (labels of one training row)"),
    ),
    "figure_3_pu": (
        ("full", "macro_f1", "Macro F1, all training labels"),
        ("pu", "macro_f1", "Macro F1, PU: {rate:.0%} of them dropped"),
    ),
}


def plot_figures(results: Results, folder: Path) -> list[Path]:
    """Draw the figures for which anything was measured.

    Args:
        results: what `collect_results` returns.
        folder: where the pictures go, each as .png and .svg.

    Returns:
        The .png files.

    Raises:
        MissingExtraError: if matplotlib is not installed.
    """
    drawn = []
    for name, panels in _FIGURES.items():
        measured = [
            system
            for system in results["systems"]
            if any(mean_of(results, setting, system, score) is not None for setting, score, _ in panels[-1:])
        ]
        if measured:
            _draw(results, measured, panels, folder / f"{name}.png")
            drawn.append(folder / f"{name}.png")
    return drawn


def system_title(name: str) -> str:
    """The name of a system as it is printed."""
    if name.startswith("xlgen-"):
        variant = name.removeprefix("xlgen-")
        return f"XLGen-{variant if variant == 'base' else variant.upper()}"
    return _TITLES.get(name, name)


def _style(name: str, systems: Sequence[str]) -> tuple[str, str]:
    unknown = [one for one in systems if one not in _STYLES]
    return _STYLES[name] if name in _STYLES else (_MORE[unknown.index(name) % len(_MORE)], "...")


def _draw(results: Results, systems: Sequence[str], panels: Sequence[_Panel], path: Path) -> None:
    check_picture(path)
    import matplotlib as mpl
    from matplotlib.figure import Figure

    rate = results["settings"].get("pu", {}).get("rate", 0.0)
    figure = Figure(figsize=(9.0, 1.3 + 0.34 * len(systems)), layout="constrained")  # inches
    with mpl.rc_context({"hatch.linewidth": 0.8, "svg.fonttype": "none"}):
        all_axes = figure.subplots(1, len(panels), sharey=True, sharex=path.stem == "figure_3_pu", squeeze=False)[0]
        for axes, (setting, score, title) in zip(all_axes, panels, strict=True):
            _draw_panel(axes, results, systems, setting, score)
            axes.set_title(title.format(rate=rate), loc="left", fontsize=10)
        all_axes[0].set_yticks(range(len(systems)), [system_title(name) for name in systems])
        all_axes[0].invert_yaxis()
        figure.supxlabel("Mean over seeds; lines: standard deviation, where there are several seeds", fontsize=8)
        for suffix in (".png", ".svg"):
            save_figure(figure, path.with_suffix(suffix))


def _draw_panel(axes: Axes, results: Results, systems: Sequence[str], setting: str, score: str) -> None:
    for place, name in enumerate(systems):
        value = mean_of(results, setting, name, score)
        if value is None:
            axes.annotate("not measured", (0, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
            continue
        colour, hatch = _style(name, list(results["systems"]))
        spread = spread_of(results, setting, name, score)
        axes.barh(place, value, 0.72, color=colour, hatch=hatch, edgecolor="0.15", linewidth=0.6, zorder=2)
        if spread is not None:
            axes.errorbar(value, place, xerr=spread, color="0.1", capsize=3, linewidth=1, zorder=3)
        end = value + (spread or 0.0)
        axes.annotate(f"{value:.3f}", (end, place), (4, 0), textcoords="offset points", va="center", fontsize=8)
    axes.locator_params(axis="x", nbins=5)
    axes.margins(x=0.14)
    axes.set_xlim(left=0)
    axes.grid(axis="x", color="0.9", zorder=0)
    axes.tick_params(axis="y", length=0)
    axes.tick_params(labelsize=9)
    axes.spines[["top", "right"]].set_visible(False)
