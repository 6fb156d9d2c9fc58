"""Measures how fast this package is beside others, and writes SPEED.md: make_speed.py [--texts N] [--rounds N].

[--authors CHECKOUT --authors-python PYTHON] [--only NAME ...] [--json speed.json]

CHECKOUT: a checkout of the authors' repository (github.com/alexa/xlgen-eacl-2023), of which nothing is in ours.
PYTHON: the Python of an environment that can import it. It was written for transformers 4.2, which has no packages for
today's Python; 4.28.1 still runs it: `pip install torch==2.13.0 "numpy<2" transformers==4.28.1 coloredlogs colorama
tqdm scipy scikit-learn pandas "ipython<8.15" captum`. sentence-transformers is measured where it is installed.

Two ways to do the same work take turns in one run, on one thread, after a first turn that does not count. A ratio is
of CPU seconds; the page has its least, median and greatest value over the rounds. `--only` measures some comparisons
anew; what else `speed.json` holds stays.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import tempfile
from collections.abc import Callable
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

import torch

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE / "speed"))

from bench import Bench  # noqa: E402
from page import write_page  # noqa: E402
from task import make_task  # noqa: E402

TITLES = {"titles": 1, "ten titles a text": 10}


def comparisons(bench: Bench, given: argparse.Namespace) -> dict[str, Callable[[], dict]]:
    """What can be measured here, by name."""
    found: dict[str, Callable[[], dict]] = {
        "train": bench.train,
        "decode": lambda: bench.decode(5, constrained=True),
        "limit": lambda: bench.decode(1, constrained=False),
        "shares": bench.shares,
    }
    if find_spec("sentence_transformers") is not None:
        found["embed"] = bench.embed
    if given.authors is not None:
        found["authors"] = bench.authors
    return found


def measured(given: argparse.Namespace) -> dict[str, dict]:
    """All figures, by comparison and kind of text."""
    found: dict[str, dict] = {}
    for kind, titles in TITLES.items():
        task, more = make_task(given.texts, titles), make_task(8 * given.texts, titles)
        with tempfile.TemporaryDirectory() as folder:
            bench = Bench(Path(folder), task, more, given)
            for name, measure in comparisons(bench, given).items():
                if not given.only or name in given.only:
                    found.setdefault(name, {})[kind] = measure()
                    print(name, kind, json.dumps(found[name][kind]), flush=True)
    return found


def main() -> None:
    """Measure, and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--texts", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--authors", type=Path)
    parser.add_argument("--authors-python")
    parser.add_argument("--only", nargs="+", default=[])
    parser.add_argument("--json", type=Path, default=HERE / "speed.json")
    given = parser.parse_args()
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    known = json.loads(given.json.read_text(encoding="utf-8")) if given.json.exists() else {}
    about = {
        "texts": given.texts, "rounds": given.rounds, "python": platform.python_version(),
        "versions": {name: version(name) for name in ("torch", "transformers") if find_spec(name)},
    }  # fmt: skip
    if find_spec("sentence_transformers") is not None:
        about["versions"]["sentence-transformers"] = version("sentence-transformers")
    content = {**known, **measured(given), "about": about}
    given.json.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    write_page(HERE / "SPEED.md", content)


if __name__ == "__main__":
    main()
