"""Damage data files of every format and read them: fuzz_rows.py [--mutations 10000] [--seed 0].

Each file must be read, or refused by a `DataError` that names it. Counts are printed as JSON; anything else is printed
with the seed that repeats it, and makes the exit code 1. Reading runs in a process of its own, so that a crash of a
library counts too. Takes about ten minutes for 10,000 mutations on two cores.
"""

from __future__ import annotations

import logging
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import campaign
from data.mutations import damaged_copy, make_files, seeded

from xlgen_hf.data.rows import load_rows
from xlgen_hf.errors import DataError


def try_one(root: Path, source: Path, file: Path, name: str, seed: int, number: int) -> str:
    """`read`, `refused`, or what went wrong."""
    copy = damaged_copy(source, file, root / "damaged", seeded(seed, name, number))
    try:
        load_rows(copy, require_labels=seeded(seed, number).random() < 0.5)
    except DataError as err:
        return "refused" if err.file is not None else f"names no file: {err}"
    except Exception as err:  # whatever it is, it is a fault
        return f"{type(err).__module__}.{type(err).__name__}: {str(err)[:120]}"
    return "read"


def prepare(seed: int, root: Path) -> campaign.Attempt:
    """Make the files, and what damages and reads them."""
    logging.disable(logging.CRITICAL)
    files = make_files(root / "files")
    return lambda name, number: try_one(root, *files[name], name, seed, number)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        names = list(make_files(Path(place)))
    sys.exit(campaign.main(__doc__, names, prepare, ("read", "refused")))
