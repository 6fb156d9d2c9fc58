"""Make two data sets in other languages from a checkout of the Annif corpora: annif_data.py CORPORA_DIR OUTPUT_DIR.

CORPORA_DIR is a clone of the GitHub repository NatLibFi/Annif-corpora. OUTPUT_DIR gets `finnish` (questions to
librarians and their answers, split as there) and `swedish` (6,000, 600 and 1,500 titles of Finna.fi with 3 to 15
subjects), each with train.jsonl, validation.jsonl, test.jsonl and labels.txt, the vocabulary.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterable
from pathlib import Path

_FINNISH = {"train": "train", "validate": "validation", "test": "test"}
_SWEDISH = {"train": 6000, "validation": 600, "test": 1500}
_SUBJECTS = range(3, 16)  # of a title: those with fewer are as good as not indexed

Rows = list[dict[str, object]]


def _names(path: Path) -> dict[str, str]:
    """URI -> name of each subject of a vocabulary."""
    lines = (line.partition("\t") for line in path.read_text(encoding="utf-8").split("\n"))
    return {uri.strip("<>"): name for uri, _, name in lines}


def finnish_rows(folder: Path) -> Rows:
    """A text a file, its subjects in a file beside it."""
    rows: Rows = []
    for path in sorted(folder.glob("*.tsv")):
        lines = path.read_text(encoding="utf-8").split("\n")
        labels = sorted({line.split("\t")[1] for line in lines if "\t" in line} - {""})
        source = path.with_suffix(".txt")
        text = source.read_text(encoding="utf-8").strip() if source.is_file() else ""
        if text and labels:
            rows.append({"text": text, "labels": labels})
    return rows


def swedish_rows(folder: Path, names: dict[str, str]) -> Rows:
    """A subject a file, in it the titles that have it; in an order drawn with seed 0."""
    titles: dict[str, set[str]] = {}
    for path in sorted(folder.glob("*.txt")):
        subject, _, *lines = path.read_text(encoding="utf-8").split("\n")
        name = names.get(subject.split()[0].strip("<>")) if subject else None
        if name:
            for title in {line.strip() for line in lines} - {""}:
                titles.setdefault(title, set()).add(name)
    rows: Rows = [
        {"text": title, "labels": sorted(found)} for title, found in sorted(titles.items()) if len(found) in _SUBJECTS
    ]
    random.Random(0).shuffle(rows)
    return rows


def write(folder: Path, splits: dict[str, Rows], names: Iterable[str]) -> None:
    """Write the splits and the vocabulary: the names, and what else the rows have."""
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = set(names)
    for split, rows in splits.items():
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        (folder / f"{split}.jsonl").write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        vocabulary.update(label for row in rows for label in row["labels"])  # type: ignore[attr-defined]
        print(f"{folder / split}: {len(rows)} rows")
    (folder / "labels.txt").write_text("".join(f"{name}\n" for name in sorted(vocabulary - {""})), encoding="utf-8")


def main() -> None:
    """Read the arguments and make both sets."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("corpora", type=Path)
    parser.add_argument("output", type=Path)
    arguments = parser.parse_args()
    corpora, output = arguments.corpora, arguments.output
    questions = corpora / "fulltext/kirjastonhoitaja"
    splits = {name: finnish_rows(questions / split) for split, name in _FINNISH.items()}
    write(output / "finnish", splits, _names(corpora / "vocab/yso-fi.tsv").values())
    names = _names(corpora / "vocab/yso-sv.tsv")
    rows = swedish_rows(corpora / "subjects/yso-finna-sv", names)
    splits, begin = {}, 0
    for name, size in _SWEDISH.items():
        splits[name] = rows[begin : begin + size]
        begin += size
    write(output / "swedish", splits, names.values())


if __name__ == "__main__":
    main()
