"""Small data files of every format, and seeded damage to them; shared by the test and the long campaign."""

from __future__ import annotations

import gzip
import json
import random
import shutil
from pathlib import Path

from datasets import ClassLabel, Dataset, Features, List, Value

from xlgen_hf.data.conversion import write_rows

ROWS = [
    {"text": f"text {number} äöü about things", "labels": [f"label {number % 3}", "ünicode, and comma"]}
    for number in range(12)
]


def make_files(folder: Path) -> dict[str, tuple[Path, Path]]:
    """Format -> (what `load_rows` is given, the file of it that is damaged)."""
    rows = Dataset.from_list(ROWS)
    folder.mkdir(parents=True, exist_ok=True)
    files = {}
    for name in ("rows.jsonl", "rows.jsonl.gz", "rows.csv", "rows.tsv.gz", "rows.parquet"):
        write_rows({"": rows}, folder / name)
        files[name] = (folder / name, folder / name)
    features = Features({"text": Value("string"), "labels": List(ClassLabel(names=["one", "two"]))})
    classes = Dataset.from_list([{"text": "a", "labels": [1, 0]}, {"text": "b", "labels": []}], features=features)
    classes.to_parquet(folder / "classes.parquet")
    files["classes.parquet"] = (folder / "classes.parquet", folder / "classes.parquet")
    (folder / "rows.json").write_text(json.dumps([{**row, "n": 12345} for row in ROWS]), encoding="utf-8")
    files["rows.json"] = (folder / "rows.json", folder / "rows.json")
    rows.save_to_disk(folder / "saved")
    files["saved"] = (folder / "saved", folder / "saved" / "data-00000-of-00001.arrow")
    files["saved state"] = (folder / "saved", folder / "saved" / "state.json")
    files["saved info"] = (folder / "saved", folder / "saved" / "dataset_info.json")
    _make_corpora(folder, rows, files)
    _make_excel(folder / "rows.xlsx")
    files["rows.xlsx"] = (folder / "rows.xlsx", folder / "rows.xlsx")
    return files


def _make_corpora(folder: Path, rows: Dataset, files: dict[str, tuple[Path, Path]]) -> None:
    damaged = {
        "annif": "vocab.tsv train.tsv",
        "annif-documents": "train/01.key train/01.txt",
        "xc": "trn_X_Y.txt raw_data/label.raw.txt",
        "pecos": "Y.trn.npz X.trn.txt",
    }
    for form, names in damaged.items():
        write_rows({"train": rows}, folder / form, form)
        for name in names.split():
            files[f"{form} {name}"] = (folder / form, folder / form / name)
    lf = folder / "lf"
    lf.mkdir()
    (lf / "lbl.json.gz").write_bytes(gzip.compress(b'{"title": "a"}\n{"title": "b"}\n', mtime=0))
    (lf / "trn.json").write_text('{"title": "t", "content": "c", "target_ind": [0, 1]}\n' * 5)
    files["lf"] = (lf, lf / "trn.json")


def _make_excel(path: Path) -> None:
    from openpyxl import Workbook

    book = Workbook()
    book.active.append(["text", "labels", "year"])
    for row in ROWS:
        book.active.append([row["text"], "; ".join(row["labels"]), 1999])
    book.save(path)


def damage(content: bytes, random_source: random.Random) -> bytes:
    """Some bytes changed, removed, repeated or inserted."""
    data = bytearray(content)
    for _ in range(random_source.choice((1, 1, 1, 2, 4, 16))):
        if not data:
            break
        place = random_source.randrange(len(data))
        length = random_source.choice((1, 1, 2, 8, 64))
        kind = random_source.randrange(7)
        if kind == 0:
            data[place] ^= 1 << random_source.randrange(8)
        elif kind == 1:
            data[place : place + length] = random_source.randbytes(length)
        elif kind == 2:
            del data[place : place + length]
        elif kind == 3:
            del data[place:]
        elif kind == 4:
            data[place:place] = data[place : place + length] * 2
        elif kind == 5:
            data[place : place + 1] = random_source.choice(
                (b"\0", b'"', b"\xff\xfe", b"[" * 2000, b"9" * 4400, b"\n", b"\t")
            )
        else:
            data[place : place + length] = bytes(random_source.choice((0, 255)) for _ in range(length))
    return bytes(data)


def damaged_copy(source: Path, file: Path, folder: Path, random_source: random.Random) -> Path:
    """A copy of a source with one file damaged; what `load_rows` is to be given."""
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir(parents=True)
    if source.is_dir():
        copy = folder / source.name
        shutil.copytree(source, copy)
        changed = copy / file.relative_to(source)
    else:
        copy = changed = folder / source.name
    changed.write_bytes(damage(file.read_bytes(), random_source))
    return copy


def seeded(*parts: object) -> random.Random:
    return random.Random(" ".join(map(str, parts)))
