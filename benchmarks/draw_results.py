"""Draws the table of results in README.md, so that figure and table agree: python benchmarks/draw_results.py"""

from __future__ import annotations

import re
from pathlib import Path

from xlgen_hf.plots.scores import Panel, plot_panels
from xlgen_hf.plots.style import BLUE, ORANGE, PURPLE, SKY

ROOT = Path(__file__).resolve().parent.parent
PANELS = {
    "micro": "Micro F1",
    "macro": "Macro F1",
    "0-shot": "Macro F1, 0 rows",
    "1-shot": "Macro F1, 1 row",
}
# Classifiers are warm, XLGen's variants cold; the first word of a name that fits decides.
FILLS = {
    "Bonsai": (ORANGE, ""),
    "dense": (PURPLE, ""),
    "index": (PURPLE, "\\\\\\\\"),
    "XLGen": (BLUE, ""),
    "candidate head": (SKY, "////"),
    "hybrid": (PURPLE, "////"),
}


def results() -> list[dict[str, str]]:
    """The lines of the table, by its heads."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    lines = text[text.index("| system | micro |") :].split("\n\n")[0].splitlines()
    cells = [[cell.strip().strip("*") for cell in line.strip("|").split("|")] for line in lines]
    return [dict(zip(cells[0], row, strict=True)) for row in cells[2:]]


def main() -> None:
    """Draw the figure."""
    table = results()
    names = [re.split(r"[:(]| on ", row["system"])[0].strip() for row in table]
    fills = [next(fill for word, fill in FILLS.items() if name.startswith(word)) for name in names]
    nothing = [None] * len(table)
    panels = [Panel(title, [float(row[name]) for row in table], nothing) for name, title in PANELS.items()]
    note = "20,000 titles, 27,626 labels, 5,000 test titles; 0 rows and 1 row: labels with so many training rows"
    plot_panels(names, fills, panels, ROOT / "docs/images/results.png", note=note)


if __name__ == "__main__":
    main()
