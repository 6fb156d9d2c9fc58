"""Rows with few labels that have many rows each, for `few_labels.sh`: train.jsonl, validation.jsonl and test.jsonl.

python benchmarks/few_labels_rows.py tibkat TIBKAT_DIR OUTPUT_DIR
    English titles and abstracts with the 60 most frequent subjects, whose names are German. TIBKAT_DIR holds
    train.jsonl.gz, validation.jsonl.gz and test.jsonl.gz.
python benchmarks/few_labels_rows.py domains TIBKAT_DIR OUTPUT_DIR
    The first 250 characters of English titles and abstracts with the 4 most frequent domains; half have none of them.
python benchmarks/few_labels_rows.py german-domains TIBKAT_DIR OUTPUT_DIR
    The first 300 characters of German titles and abstracts with the 7 domains after the 4 most frequent ones; two
    thirds have none of them.
python benchmarks/few_labels_rows.py emotions GOEMOTIONS_DIR OUTPUT_DIR
    GoEmotions as published: comments with 27 emotions and `neutral`. GOEMOTIONS_DIR holds train.tsv, dev.tsv, test.tsv
    and emotions.txt, from goemotions/data of github.com/google-research/google-research.
python benchmarks/few_labels_rows.py packages OUTPUT_DIR [LANGUAGE]
    Descriptions of Debian's packages with their tags (`implemented-in::python`, `use::editing`); needs Debian and a
    connection, since apt's lists hold no long descriptions. LANGUAGE is en, or that of a translation, such as de.
"""

from __future__ import annotations

import bz2
import collections
import gzip
import json
import lzma
import random
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

SIZES = {"train": 6_000, "validation": 600, "test": 1_500}
DOMAINS = {"train": 6_000, "validation": 1_000, "test": 2_000}
PACKAGES = {"test": 2_000, "validation": 800, "train": 10_000}
UNPACK = {"xz": lzma.decompress, "bz2": bz2.decompress}


def records(data: Path, language: str) -> dict[str, list[dict]]:
    """The records of each split in a language."""
    read = {name: gzip.open(data / f"{name}.jsonl.gz", "rt", encoding="utf-8") for name in SIZES}
    rows = {name: [json.loads(line) for line in file] for name, file in read.items()}
    return {name: [row for row in part if row["language"] == language] for name, part in rows.items()}


def most_frequent(rows: list[dict], column: str, number: int, first: int = 0) -> set[str]:
    """The labels that most rows have, without the `first` ones of them."""
    counts = collections.Counter(one for row in rows for one in row[column])
    return {label for label, _ in counts.most_common(number)[first:]}


def tibkat(data: Path) -> dict[str, list[dict]]:
    """Splits of records, with their labels among the 60 most frequent ones."""
    splits = records(data, "en")
    wanted = most_frequent(splits["train"], "labels", 60)
    taken = {}
    for name, part in splits.items():
        found = [{"text": row["text"], "labels": [one for one in row["labels"] if one in wanted]} for row in part]
        taken[name] = [row for row in found if row["labels"]][: SIZES[name]]
    return taken


def domains(data: Path, language: str = "en", number: int = 4, first: int = 0, size: int = 250) -> dict[str, list]:
    """Splits of the beginnings of records, with their domains among the most frequent ones, or without any."""
    splits = {name: part[: DOMAINS[name]] for name, part in records(data, language).items()}
    wanted = most_frequent(splits["train"], "domains", number, first)
    return {
        name: [
            {"text": row["text"][:size], "labels": [one for one in row["domains"] if one in wanted]} for row in rows
        ]
        for name, rows in splits.items()
    }


def emotions(data: Path) -> dict[str, list[dict]]:
    """The published splits, whose labels are places in the list of emotions, counted from 0."""
    names = (data / "emotions.txt").read_text(encoding="utf-8").split()
    splits = {}
    for name, file in {"train": "train", "validation": "dev", "test": "test"}.items():
        lines = (data / f"{file}.tsv").read_text(encoding="utf-8").rstrip("\n").split("\n")
        cells = [line.split("\t") for line in lines]
        splits[name] = [{"text": text, "labels": [names[int(one)] for one in of.split(",")]} for text, of, _ in cells]
    return splits


def paragraphs(text: str) -> list[dict[str, str]]:
    """Paragraphs of a control file as fields by name; lines that go on a field are joined."""
    found = []
    for block in text.split("\n\n"):
        fields: dict[str, str] = {}
        name = ""
        for line in block.splitlines():
            if line[:1] in (" ", "\t"):
                fields[name] += "\n" + line[1:]
            else:
                name, _, value = line.partition(":")
                fields[name] = value.strip()
        found.append(fields)
    return found


def descriptions(language: str) -> dict[str, str]:
    """The long descriptions of a language, by the digest of the English ones."""
    command = ["apt-get", "indextargets", "--format", "$(URI)", "Created-By: Packages"]
    address = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[0]
    place = address.rpartition("/binary-")[0]
    for ending, unpack in UNPACK.items():
        try:
            with urllib.request.urlopen(f"{place}/i18n/Translation-{language}.{ending}") as answer:
                text = unpack(answer.read()).decode()
        except urllib.error.HTTPError:
            continue
        field = f"Description-{language}"
        return {one["Description-md5"]: one[field] for one in paragraphs(text) if field in one}
    raise SystemExit(f"There are no descriptions in {language!r}.")


def packages(language: str) -> dict[str, list[dict]]:
    """Splits of packages with tags, in a random order; of equal descriptions the first one stays."""
    texts = descriptions(language)
    available = subprocess.run(["apt-cache", "dumpavail"], capture_output=True, text=True, check=True).stdout
    rows = {}
    for one in paragraphs(available):
        text = texts.get(one.get("Description-md5", ""), "").replace("\n.\n", "\n\n")
        tags = [tag.strip() for tag in one.get("Tag", "").replace("\n", " ").split(",") if tag.strip()]
        if text and tags:
            rows.setdefault(text, {"id": one["Package"], "text": text, "labels": tags})
    mixed = sorted(rows.values(), key=lambda row: row["id"])
    random.Random(0).shuffle(mixed)
    taken, start = {}, 0
    for name, size in PACKAGES.items():
        taken[name], start = mixed[start : start + size], start + size
    return taken


OF_FOLDER = {
    "tibkat": tibkat,
    "domains": domains,
    "german-domains": lambda data: domains(data, "de", number=11, first=4, size=300),
    "emotions": emotions,
}


def main() -> None:
    """Make the rows of the command line."""
    source, *arguments = sys.argv[1:] or [""]
    if source in OF_FOLDER and len(arguments) == 2:
        rows, output = OF_FOLDER[source](Path(arguments[0])), Path(arguments[1])
    elif source == "packages" and len(arguments) in (1, 2):
        rows, output = packages(*arguments[1:] or ["en"]), Path(arguments[0])
    else:
        raise SystemExit(__doc__)
    output.mkdir(parents=True, exist_ok=True)
    for name, part in rows.items():
        lines = (json.dumps(row, ensure_ascii=False) + "\n" for row in part)
        with (output / f"{name}.jsonl").open("w", encoding="utf-8") as file:
            file.writelines(lines)


if __name__ == "__main__":
    main()
