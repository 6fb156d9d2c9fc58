"""The three figures of the XLGen article as bar charts. They need matplotlib, the extra `plot`."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from ..plots.scores import Panel, plot_panels
from ..plots.style import BLUE, GREEN, ORANGE, PURPLE, RED, SKY, YELLOW
from .results import Results, mean_of, spread_of

__all__ = ["plot_figures", "system_title"]

# Classifiers are warm, XLGen's variants cold. Hatches part equal hues.
_STYLES: dict[str, tuple[str, str]] = {
    "most-frequent": ("#BBBBBB", ""),
    "parabel": (YELLOW, ""),
    "bonsai": (ORANGE, ""),
    "napkinxc": (RED, ""),
    "pecos": (YELLOW, "////"),
    "dense-retrieval": (PURPLE, ""),
    "dense-retrieval-trained": (PURPLE, "...."),
    "retrieval": (PURPLE, "\\\\\\\\"),
    "xlgen-base": (SKY, ""),
    "xlgen-bcl": (BLUE, ""),
    "xlgen-mcg": (GREEN, ""),
    "xlgen-rcl": (SKY, "////"),
    "hybrid": (PURPLE, "////"),
}
_MORE = (ORANGE, SKY, GREEN, YELLOW, BLUE, RED, PURPLE)
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

_OF_BOTH_SETTINGS = "figure_3_pu"
_Panel = tuple[str, str, str]  # setting, score, title
_FIGURES: dict[str, tuple[_Panel, ...]] = {
    "figure_1_overall": (("full", "micro_f1", "Micro F1"), ("full", "macro_f1", "Macro F1")),
    "figure_2_long_tail": (
        ("full", "0_shot_macro_f1", "0-shot macro F1 (labels of no training row)"),
        ("full", "1_shot_macro_f1", "1-shot macro F1 (labels of one training row)"),
    ),
    _OF_BOTH_SETTINGS: (
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
        needed = panels[-1:] if name == _OF_BOTH_SETTINGS else panels
        measured = [
            system
            for system in results["systems"]
            if any(mean_of(results, setting, system, score) is not None for setting, score, _ in needed)
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
    rate = results["settings"].get("pu", {}).get("rate", 0.0)
    drawn = [
        Panel(
            title.format(rate=rate),
            [mean_of(results, setting, name, score) for name in systems],
            [spread_of(results, setting, name, score) for name in systems],
        )
        for setting, score, title in panels
    ]
    titles = [system_title(name) for name in systems]
    fills = [_style(name, list(results["systems"])) for name in systems]
    note = "Mean over seeds; lines: standard deviation, where there are several seeds"
    for suffix in (".png", ".svg"):
        same_scale = path.stem == _OF_BOTH_SETTINGS
        plot_panels(titles, fills, drawn, path.with_suffix(suffix), note=note, same_scale=same_scale)
