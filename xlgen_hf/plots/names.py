"""Names next to what they name: at the ends of lines, and on a map; they do not overlap."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.transforms import Bbox

__all__ = ["label_ends", "place_names", "spread_out"]

_LINE_HEIGHT = 1.35  # of a font's size
_BACKGROUND = {"facecolor": "white", "alpha": 0.65, "linewidth": 0, "pad": 0.5}  # of names on a map
_SHIFTS = ((0, 0), (0, 1), (0, -1), (0, 2), (0, -2), (0.6, 0.6), (-0.6, 0.6), (0.6, -0.6), (-0.6, -0.6))


def spread_out(wanted: Sequence[float], gap: float, low: float, high: float) -> list[float]:
    """Move places apart, as little as need be, in their order.

    Args:
        wanted: the places.
        gap: least distance of two of them; less where they do not fit otherwise.
        low, high: where the first and the last may be at most.
    """
    if not len(wanted):
        return []
    gap = min(gap, (high - low) / max(len(wanted) - 1, 1))
    order = np.argsort(wanted, kind="stable")
    # Without gaps it is a fit of rising values to the wanted ones; each place in turn pushes those before it.
    places = np.asarray(wanted, dtype=float)[order] - gap * np.arange(len(wanted))
    blocks: list[list[float]] = []
    for place in places:
        blocks.append([place, 1.0])
        while len(blocks) > 1 and blocks[-2][0] > blocks[-1][0]:
            (before, many), (after, more) = blocks[-2:]
            blocks[-2:] = [[(before * many + after * more) / (many + more), many + more]]
    level = np.repeat([block[0] for block in blocks], [int(block[1]) for block in blocks])
    found = np.clip(level, low, high - gap * (len(wanted) - 1)) + gap * np.arange(len(wanted))
    result = np.empty(len(wanted))
    result[order] = found
    return [float(place) for place in result]


def label_ends(figure: Figure, axes: Axes, ends: Sequence[tuple[float, str, str]]) -> None:
    """Write the names of lines at the right border, each at the height where its line ends.

    Args:
        figure, axes: where, with their final limits.
        ends: height, name and colour of each line.
    """
    figure.draw_without_rendering()  # so that the layout is known, and with it how high the axes are
    low, high = axes.get_ylim()
    size = 8.5  # points
    height = axes.get_window_extent().height * 72 / figure.dpi  # points
    gap = size * _LINE_HEIGHT * max(text.count("\n") + 1 for _, text, _ in ends) / height * (high - low)
    places = spread_out([end[0] for end in ends], gap, low, high)
    for place, (_, text, colour) in zip(places, ends, strict=True):
        axes.annotate(
            text, (1, place), (6, 0), xycoords=axes.get_yaxis_transform(), textcoords="offset points", va="center",
            fontsize=size, color=colour, annotation_clip=False,
        )  # fmt: skip


def place_names(figure: Figure, axes: Axes, places: np.ndarray, names: Sequence[str], size: float = 8) -> list[int]:
    """Write names on a map, the first ones first; one that would cover another name is left out.

    Args:
        figure, axes: where, with their final limits.
        places: where each name belongs, `(n, 2)`, in the units of the axes.
        names: the names.
        size: of the font, in points.

    Returns:
        Which names are written.
    """
    figure.draw_without_rendering()  # see `label_ends`
    border = axes.get_window_extent()
    taken: list[Bbox] = []
    written = []
    for number, (place, name) in enumerate(zip(places, names, strict=True)):
        text = axes.text(place[0], place[1], name, ha="center", va="center", fontsize=size, weight="bold", zorder=5)
        text.set_bbox(_BACKGROUND)  # an outline would turn the text of an .svg into shapes
        box = text.get_window_extent().padded(1)
        moves = [np.array([right * box.width, up * box.height]) for right, up in _SHIFTS]
        free = (move for move in moves if _is_free(box.translated(*move), border, taken))
        move = next(free, None)
        if move is None:
            text.remove()
            continue
        x, y = axes.transData.inverted().transform(axes.transData.transform(place) + move)
        text.set_position((x, y))
        taken.append(box.translated(*move))
        written.append(number)
    return written


def _is_free(box: Bbox, border: Bbox, taken: Sequence[Bbox]) -> bool:
    is_inside = border.x0 <= box.x0 and box.x1 <= border.x1 and border.y0 <= box.y0 and box.y1 <= border.y1
    return is_inside and not box.count_overlaps(taken)
