"""The one style of all pictures, and what they need matplotlib for; no other package imports it.

Hues are those of Okabe and Ito, which the colour-blind tell apart. A hue never stands alone: hatches, marks, kinds of
lines or words part the same things in black-and-white print.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError, MissingExtraError
from ..files.atomic import atomic_path

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "BLUE",
    "FILLS",
    "GREEN",
    "ORANGE",
    "PURPLE",
    "RED",
    "SKY",
    "YELLOW",
    "Sheet",
    "check_picture",
    "draw_bars",
    "sheet",
]

logger = logging.getLogger(__name__)

BLUE, ORANGE, GREEN, RED = "#0072B2", "#E69F00", "#009E73", "#D55E00"
SKY, PURPLE, YELLOW = "#56B4E9", "#CC79A7", "#F0E442"
FILLS = ((BLUE, ""), (ORANGE, "///"), (SKY, "..."), (RED, "\\\\\\"), (GREEN, "xxx"), (PURPLE, "---"), (YELLOW, "|||"))
"""Colour and hatch of bars that stand next to each other."""

_SUFFIXES = (".png", ".svg", ".pdf")
_FONT = "DejaVu Sans"  # comes with matplotlib
# Fonts for what that one lacks, where one of them is installed.
_MORE_FONTS = (
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans CJK TC", "Noto Sans CJK KR", "Noto Sans SC", "Noto Sans JP",
    "Noto Sans KR", "Source Han Sans SC", "Droid Sans Fallback", "WenQuanYi Zen Hei", "WenQuanYi Micro Hei",
    "IPAGothic", "NanumGothic", "Microsoft YaHei", "SimHei", "Yu Gothic", "Malgun Gothic", "PingFang SC",
    "Hiragino Sans", "Apple SD Gothic Neo", "Arial Unicode MS", "Noto Sans Devanagari", "Noto Sans Bengali",
    "Noto Sans Tamil", "Noto Sans Thai", "Nirmala UI", "Leelawadee UI",
)  # fmt: skip
_TITLE_CHARACTERS = 12  # in an inch
_NO_GLYPH = "\N{REPLACEMENT CHARACTER}"
_STYLE: Mapping[str, object] = {
    "font.size": 9, "axes.titlesize": 10, "axes.labelsize": 9, "xtick.labelsize": 8.5, "ytick.labelsize": 8.5,
    "legend.fontsize": 8.5, "figure.titlesize": 10.5,  # points, at the sizes in inches that the figures have
    "axes.spines.top": False, "axes.spines.right": False, "axes.axisbelow": True, "axes.titlelocation": "left",
    "axes.edgecolor": "0.35", "xtick.color": "0.25", "ytick.color": "0.25", "grid.color": "0.9",
    "legend.frameon": False, "lines.linewidth": 1.6, "hatch.linewidth": 0.7,
    "text.parse_math": False,  # a `$` in a name is a `$`
    "axes.formatter.use_mathtext": False,
    "savefig.dpi": 150, "savefig.bbox": "tight", "savefig.pad_inches": 0.08,
    "svg.fonttype": "none", "svg.hashsalt": "xlgen-hf", "pdf.fonttype": 42,
}  # fmt: skip
_NO_DATES = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}  # equal pictures are equal files


@dataclass(frozen=True)
class Sheet:
    """A picture that is being drawn; made by [`sheet`].

    Attributes:
        figure: what is drawn on.
        holds_text: whether the file will hold text as text, which a viewer draws with fonts of its own.
    """

    figure: Figure
    holds_text: bool

    def text(self, text: str, most: int = 60, instead: str | None = None) -> str:
        """Text that can be drawn, of whatever a name holds: in one line, not too long, and with no unknown characters.

        Args:
            text: any text.
            most: characters; a longer one ends in an ellipsis.
            instead: what is drawn where a character is in no font of this machine; by default the text, with a
                mark for each such character.
        """
        line = " ".join("".join(char if char.isprintable() else " " for char in text).split())
        if len(line) > most:
            line = line[: most - 1].rstrip() + "\N{HORIZONTAL ELLIPSIS}"
        missing = {} if self.holds_text else {ord(char): _NO_GLYPH for char in line if ord(char) not in _glyphs()}
        if not missing:
            return line
        _tell_of_fonts()
        return line.translate(missing) if instead is None else instead


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


@contextmanager
def sheet(path: str | Path, width: float, height: float, *, title: str | None = None) -> Iterator[Sheet]:
    """Draw a picture and write it, in the format of its name; an earlier one stays until the new one is complete.

    Args:
        path: the picture: .png, .svg or .pdf.
        width, height: inches, about; margins without anything are cut off.
        title: line above the picture.

    Raises:
        MissingExtraError: if matplotlib is not installed.
        ConfigurationError: if there is no such kind of picture.
        SaveError: if it cannot be written.
    """
    check_picture(path)
    from matplotlib import style
    from matplotlib.figure import Figure

    suffix = Path(path).suffix.lower()
    with warnings.catch_warnings(), style.context(["default", {**_STYLE, "font.family": _families()}]):
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)  # where a viewer has the font
        figure = Figure(figsize=(width, height), layout="constrained")
        drawn = Sheet(figure, holds_text=suffix == ".svg")
        if title:
            figure.suptitle(drawn.text(title, round(_TITLE_CHARACTERS * width)), x=0.005, ha="left")
        yield drawn
        with atomic_path(Path(path)) as aside:
            if suffix == ".png":
                _write_png(figure, aside)
            else:
                figure.savefig(aside, format=suffix[1:], metadata=_NO_DATES[suffix])


def _write_png(figure: Figure, path: Path) -> None:
    """Write a picture in 256 colours: it looks the same, in a third of the bytes."""
    from PIL import Image  # comes with matplotlib

    content = BytesIO()
    figure.savefig(content, format="png")
    with Image.open(content) as image:
        dpi = image.info["dpi"]
        image.convert("RGB").quantize(256, dither=Image.Dither.NONE).save(path, format="PNG", optimize=True, dpi=dpi)


@cache
def _families() -> list[str]:
    from matplotlib.font_manager import fontManager

    installed = set(fontManager.get_font_names())
    return [_FONT, *(name for name in _MORE_FONTS if name in installed)]


@cache
def _glyphs() -> frozenset[int]:
    """The characters that can be drawn on this machine, as code points."""
    from matplotlib.font_manager import findfont, get_font

    return frozenset().union(*(get_font(findfont(name)).get_charmap() for name in _families()))


@cache
def _tell_of_fonts() -> None:
    logger.info(
        "Some names have characters that no font for pictures has here. Install one, such as Noto Sans CJK, or draw "
        "an .svg, which is shown with the fonts of its viewer."
    )


def draw_bars(
    axes: Axes, places: Sequence[float], heights: Sequence[float], width: float, *, number: int, name: str
) -> None:
    """Bars of one of several series, told from those of others by hue and hatch.

    Args:
        axes: where they are drawn.
        places, heights: of the bars.
        width: what a bar has, with the gap to the next.
        number: the number of the series, from 0.
        name: what the legend calls it.
    """
    colour, hatch = FILLS[number % len(FILLS)]
    shown = f" {name}" if name.startswith("_") else name  # matplotlib leaves names out that begin with `_`
    axes.bar(places, heights, width * 0.92, label=shown, color=colour, hatch=hatch, edgecolor="white", linewidth=0)
