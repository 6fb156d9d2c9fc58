"""How many threads compute, for libraries that do not follow torch by themselves."""

from __future__ import annotations

import os
import sys

__all__ = ["num_threads"]


def num_threads() -> int:
    """As many threads as torch uses; where it is not loaded, those that OpenMP is told to use, or all cores."""
    torch = sys.modules.get("torch")
    if torch is not None:
        return int(torch.get_num_threads())
    told = os.environ.get("OMP_NUM_THREADS", "")
    return int(told) if told.isdecimal() and int(told) else os.cpu_count() or 1
