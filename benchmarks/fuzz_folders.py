"""Damage files in model folders of every kind, load and predict: fuzz_folders.py [--mutations 10000] [--seed 0].

A folder must predict, or be refused by an error of this package that names the folder or a file in it. Counts are
printed as JSON; anything else is printed with the number that repeats it (`--first N --mutations 1`), and makes the
exit code 1. All runs in a process of its own with limited memory, so that crashes, hangs and huge allocations count.
"""

from __future__ import annotations

import logging
import sys
import tempfile
import traceback
import warnings
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent / "tests"))

import campaign
import torch
from data.mutations import seeded
from files.folder_mutations import damaged_folder, files_of, make_folders

from xlgen_hf.errors import XLGenError
from xlgen_hf.loading import load_predictor

GOOD = ("predicts", "refused", "refused at predicting")
TEXT = "a history of organ music"


def try_one(root: Path, good: Path, name: str, seed: int, number: int) -> str:
    """One of `GOOD`, or what went wrong."""
    kind, _, file = name.partition("/")
    folder = root / "damaged" / kind
    damage = damaged_folder(good, file, folder, seeded(seed, name, number))
    stage = "refused"
    try:
        predictor = load_predictor(str(folder))
        stage = "refused at predicting"
        predictor.predict([TEXT])
    except XLGenError as err:
        return stage if str(folder) in str(err) or stage != "refused" else f"names no file ({damage}): {err}"
    except Exception as err:  # whatever it is, it is a fault
        where = traceback.extract_tb(err.__traceback__)
        ours = [f"{Path(frame.filename).name}:{frame.lineno}" for frame in where if "xlgen_hf" in frame.filename]
        return f"{stage}, {damage}: {type(err).__module__}.{type(err).__name__}: {str(err)[:160]} {ours[-2:]}"
    return "predicts"


def prepare(seed: int, root: Path) -> campaign.Attempt:
    """Make the folders, and what damages and loads them."""
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    folders = make_folders(root)
    for folder in folders.values():
        load_predictor(str(folder)).predict([TEXT])  # all is imported before memory is limited
    return lambda name, number: try_one(root, folders[name.partition("/")[0]], name, seed, number)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        made = make_folders(Path(place))
        names = [f"{kind}/{file}" for kind, folder in made.items() for file in files_of(folder)]
    sys.exit(campaign.main(__doc__, names, prepare, GOOD))
