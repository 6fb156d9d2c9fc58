"""How many threads compute, for libraries that do not follow torch by themselves."""

from __future__ import annotations

import os
import sys

__all__ = ["num_threads", "told_threads"]


def num_threads() -> int:
    """As many threads as torch uses; where it is not loaded, those that OpenMP is told to use, or all cores."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    return told_threads() or os.cpu_count() or 1


def told_threads() -> int | None:
    """What `OMP_NUM_THREADS` says, of a list for nested levels the first; None for nothing that OpenMP would take."""
    told = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0].strip()
    return (int(told) or None) if told.isdecimal() else None
