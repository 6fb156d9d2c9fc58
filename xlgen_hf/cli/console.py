"""What the commands print: results on stdout, messages and progress on stderr."""

from __future__ import annotations

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console

__all__ = [
    "is_first_process",
    "is_interactive",
    "messages",
    "print_error",
    "print_message",
    "print_table",
    "print_written",
    "results",
    "setup_logging",
]

_WIDE = 160  # columns of a file or a pipe, where nothing needs to be wrapped

# Environment variables by which libraries are told, before they are imported, to leave progress bars out.
_PROGRESS_SWITCHES = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS", "TQDM_DISABLE")


def results() -> Console:
    """The console for results, stdout."""
    return _console(sys.stdout)


def messages() -> Console:
    """The console for messages and progress, stderr."""
    return _console(sys.stderr)


def is_interactive() -> bool:
    """Whether somebody watches: progress is shown only where stderr is a terminal."""
    return sys.stderr.isatty()


def _console(stream: TextIO) -> Console:
    # Made again each time, because tests and shells put other streams in the place of sys.stdout.
    from rich.console import Console

    return Console(file=stream, width=None if stream.isatty() else _WIDE, highlight=False)


def print_table(title: str | None, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    """Print a table on stdout.

    Args:
        title: line above the table.
        header: names of the columns. The first column is set left, the others right.
        rows: cells as anything with a `str`; floats get three decimals, None is a dash.
    """
    from rich import box
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for number, name in enumerate(header):
        table.add_column(Text(name), justify="right" if number else "left")
    for row in rows:
        table.add_row(*(Text(_cell(value)) for value in row))
    out = results()
    if title is not None:  # not as the table's own title, which is wrapped to the width of the table
        out.print(Text(title, style="bold"), soft_wrap=True)
    out.print(table)


def print_written(folder: Path, what: str) -> None:
    """Print where a model is, how large it is, and how to get rid of what it does not need.

    Args:
        folder: the model's folder.
        what: what it is, such as `Model`.
    """
    from ..files.leftovers import find_leftovers, folder_size, size_text

    left = find_leftovers(folder)
    size = sum(one.size for one in left)
    lines = [f"{what} written to {folder} ({size_text(folder_size(folder) - size)})"]
    if left:
        kinds = "caches and checkpoints" if any(one.kind == "checkpoint" for one in left) else "caches"
        lines.append(
            f"It also holds {kinds} of {size_text(size)}; `xlgen clean {quote(str(folder))} --yes` removes them."
        )
    results().print("\n".join(lines), markup=False, soft_wrap=True)


def _cell(value: object) -> str:
    if value is None:
        return "-"
    return f"{value:.3f}" if isinstance(value, float) else str(value)


def print_error(message: str) -> None:
    """Print an error on stderr, as one line."""
    print_message(f"error: {' '.join(line.strip() for line in message.splitlines() if line.strip())}")


def print_message(message: str) -> None:
    """Print what the program has to say on stderr."""
    sys.stderr.write(f"xlgen: {message}\n")


class _StderrHandler(logging.Handler):
    """Writes to what sys.stderr is at the time, unlike `StreamHandler`, which keeps what it was."""

    def emit(self, record: logging.LogRecord) -> None:
        sys.stderr.write(self.format(record) + "\n")


def is_first_process() -> bool:
    """Whether this is the first of several processes that work together (`torchrun`), or the only one."""
    return int(os.environ.get("RANK") or 0) == 0


def setup_logging(*, verbose: bool = False) -> None:
    """Send log messages to stderr, and switch progress bars off where stderr is not a terminal.

    Of several processes that work together, the first one reports for all; the others report errors alone.

    Args:
        verbose: show messages for developers too.
    """
    form = "%(asctime)s %(levelname)s %(name)s: %(message)s" if verbose else "%(levelname)s: %(message)s"
    handler = _StderrHandler()
    handler.setFormatter(logging.Formatter(form))
    logger = logging.getLogger("xlgen_hf")
    logger.handlers[:] = [handler]
    logger.setLevel(logging.DEBUG if verbose else logging.INFO)
    if not is_first_process():
        logger.setLevel(logging.ERROR)
        os.environ["TRANSFORMERS_VERBOSITY"] = os.environ["DATASETS_VERBOSITY"] = "error"
        warnings.simplefilter("ignore")
    if not is_interactive() or not is_first_process():
        for name in _PROGRESS_SWITCHES:
            os.environ.setdefault(name, "1")
