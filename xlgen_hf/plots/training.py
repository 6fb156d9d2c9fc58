"""Curves of a training: each loss, and scores on the validation rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigurationError
from ..files.training_report import read_report
from .style import BLUE, GREEN, RED, Sheet, sheet

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["plot_training"]

History = Sequence[Mapping[str, float]]

# A panel: its title, and for each curve its name in the log, how it is called, colour, kind of line, mark.
_Curve = tuple[str, str, str, str, str]
_PANELS: tuple[tuple[str, str, tuple[_Curve, ...]], ...] = (
    (
        "Generation loss",
        "Cross-entropy (nats per token)",
        (("generation_loss", "training", BLUE, "-", ""), ("eval_loss", "validation rows", RED, "--", "o")),
    ),
    ("Cluster loss", "Cross-entropy (nats)", (("cluster_loss", "training", BLUE, "-", ""),)),
    ("Candidate loss", "Cross-entropy (nats)", (("candidate_loss", "training", BLUE, "-", ""),)),
    (
        "Scores of the validation rows",
        "F1",
        (("eval_micro_f1", "micro F1", BLUE, "-", "o"), ("eval_macro_f1", "macro F1", GREEN, "--", "s")),
    ),
)


def plot_training(history: str | Path | History, path: str | Path, *, title: str | None = None) -> Figure:
    """Draw the losses of a training, a panel for each, and the scores of its validation rows, over the epochs.

    Args:
        history: a trained model's folder; or rows of values by name, as `trainer.state.log_history` has them.
        path, title: as [`sheet`] takes them, which raises further errors.

    Returns:
        The figure, as it was written.

    Raises:
        ConfigurationError: if no loss was logged twice.
        ModelFolderError: if the folder's training report is damaged.
    """
    rows = read_report(Path(history)).get("history", []) if isinstance(history, (str, Path)) else history
    panels = [panel for panel in _PANELS if any(len(_points(rows, curve[0])[0]) > 1 for curve in panel[2])]
    if not panels:
        raise ConfigurationError(
            "There is nothing to draw: no loss was logged twice. Train with smaller --logging-steps, such as 0.02."
        )
    with sheet(path, 0.4 + 2.9 * len(panels), 2.9, title=title) as drawn:
        for axes, (name, unit, curves) in zip(
            drawn.figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True
        ):
            _draw_panel(axes, rows, curves)
            axes.set_title(name)
            axes.set_ylabel(unit)
        _label_steps(drawn, rows)
    return drawn.figure


def _points(rows: History, name: str) -> tuple[list[float], list[float]]:
    """Epochs and values of what was logged under a name."""
    there = [row for row in rows if name in row and "epoch" in row]
    return [row["epoch"] for row in there], [row[name] for row in there]


def _draw_panel(axes: Axes, rows: History, curves: Sequence[_Curve]) -> None:
    for name, called, colour, line, mark in curves:
        epochs, values = _points(rows, name)
        if epochs:
            axes.plot(epochs, values, color=colour, linestyle=line, marker=mark, markersize=4, label=called)
    axes.set_xlim(left=0)
    axes.set_ylim(bottom=0)
    axes.grid()
    if len(axes.lines) > 1:
        axes.legend()


def _label_steps(drawn: Sheet, rows: History) -> None:
    steps = max((int(row["step"]) for row in rows if "step" in row), default=0)
    drawn.figure.supxlabel(f"Epoch: pass over the training rows ({steps:,} steps in all)", fontsize=9)
