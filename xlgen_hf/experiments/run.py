"""Runs of an experiment, each in a process of its own."""

from __future__ import annotations

import logging
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ..errors import ModelFolderError
from ..files.serialization import write_json
from .cell import INTERRUPTED, MISSING_EXTRA, RESULT, RESULT_FORM, SPEC, CellResult, CellSpec
from .data import ExperimentData

__all__ = ["CellFailure", "read_result", "run_cells"]

logger = logging.getLogger(__name__)


_LOG_LINES = 5  # of the log of a cell that failed without an explanation, which are repeated


_LOG = "log.txt"


@dataclass(frozen=True)
class CellFailure:
    """A cell without a result.

    Attributes:
        cell: its name.
        reason: the last lines of its log.
        log: the log.
        missing_extra: whether all that it lacks is a package.
    """

    cell: str
    reason: str
    log: Path
    missing_extra: bool


def read_result(root: Path, spec: CellSpec) -> CellResult | None:
    """The result of a cell; None if it is not there, or is that of other rows, settings or version."""
    path = root / "cells" / spec.name / RESULT
    if not path.is_file():
        return None
    try:
        result = RESULT_FORM.read(path)
    except ModelFolderError as err:
        logger.warning("The cell is run again: %s", err)
        return None
    return result if result["digest"] == spec.digest else None


def run_cells(cells: Sequence[CellSpec], root: Path) -> list[CellFailure]:
    """Run the cells that have no result yet, each in a process of its own, one after the other.

    Args:
        cells: the cells.
        root: folder of the experiment, with the rows of `ExperimentData.prepare` in `data/`.

    Returns:
        The cells that failed; the others were run all the same.

    Raises:
        KeyboardInterrupt: after an interrupt, once the running cell has ended. Cells that were done stay.
    """
    ExperimentData.load(root / "data")  # refuses a folder that is not complete
    failures = []
    for number, spec in enumerate(cells, start=1):
        what = f"Run {number} of {len(cells)}, {spec.name}"
        if read_result(root, spec) is not None:
            logger.info("%s: done before.", what)
            continue
        logger.info("%s ...", what)
        started = time.monotonic()
        failure = _run(spec, root / "cells" / spec.name)
        if failure is not None:
            logger.warning("%s failed: %s", what, failure.reason)
            failures.append(failure)
            continue
        result = RESULT_FORM.read(root / "cells" / spec.name / RESULT)
        micro = result["scores"]["micro_f1"]
        logger.info("%s: micro F1 %.3f after %.0f seconds.", what, micro, time.monotonic() - started)
    return failures


def _run(spec: CellSpec, folder: Path) -> CellFailure | None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / RESULT).unlink(missing_ok=True)  # of other settings
    write_json(folder / SPEC, asdict(spec))
    command = [sys.executable, "-m", f"{__package__}.cell", str(folder / SPEC), "--attached"]
    with (folder / _LOG).open("wb") as log:
        # In a session of its own a cell does not get the terminal's Ctrl-C as well: closing its stdin ends it, once.
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=log, stderr=subprocess.STDOUT, start_new_session=True
        ) as process:
            code = _wait(process)
    if code == INTERRUPTED:
        raise KeyboardInterrupt
    if code == 0:
        return None
    reason = _reason(folder / _LOG) if code > 0 else f"killed by signal {-code}"
    return CellFailure(spec.name, reason or f"exit code {code}", folder / _LOG, code == MISSING_EXTRA)


def _reason(log: Path) -> str:
    """What a failed cell says: the line of an error that is explained, the last lines of its log for any other."""
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    is_explained = not any(line.startswith("Traceback") for line in lines)
    return "\n".join(lines[-1 if is_explained else -_LOG_LINES :])


def _wait(process: subprocess.Popen[bytes]) -> int:
    """Wait for a cell; an interrupt is handed on to it, and it may save a checkpoint."""
    assert process.stdin is not None
    try:
        return process.wait()
    except KeyboardInterrupt:
        logger.warning(
            "Interrupted: waiting for the running cell to save what it has. Ctrl-C again to end it at once."
        )
        process.stdin.close()
        try:
            process.wait()
        except KeyboardInterrupt:
            process.kill()
        raise
