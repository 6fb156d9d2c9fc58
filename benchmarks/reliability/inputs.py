"""Tiny rows, checkpoints and models, and the commands that are tried on them."""

from __future__ import annotations

import hashlib
import json
import random
from dataclasses import dataclass
from pathlib import Path

import torch
from files.folder_mutations import make_folders
from safetensors import SafetensorError, safe_open
from tiny import ROWS, VOCABULARY

from xlgen_hf.files.json_lines import write_jsonl

# What results say of their run: times, interruptions, and the trainer's flags of the moment.
_OF_THE_RUN = {"cost", "environment", "seconds", "command", "TrainerControl"}
_OF_CARDS = (b"training time", b"peak memory")  # of these a run that was resumed knows less
_PREDICTED = 3_500  # texts: several blocks of `xlgen predict`
_LEFTOVERS = (".xlgen-unfinished", ".xlgen-lock", ".xlgen-finished", ".partial", ".unfinished-", ".incomplete")
_OWN_PLACES = (
    "checkpoint-",
    ".unfinished-",
    ".xlgen-unfinished",
    "cache",
    "embeddings",
    ".partial",
)  # not for readers


@dataclass(frozen=True)
class Command:
    """A command and where it writes.

    Attributes:
        name: its name, for the report.
        argv: the command line.
        output: the file or folder that it writes, None for what goes to the Hub.
    """

    name: str
    argv: tuple[str, ...]
    output: Path | None


@dataclass(frozen=True)
class Inputs:
    """Files that commands read, in one folder."""

    folder: Path

    @classmethod
    def make(cls, folder: Path) -> Inputs:
        """Write them."""
        rng = random.Random(0)
        rows = [{**row, "text": f"{row['text']} {number}"} for number in range(12) for row in ROWS]
        write_jsonl(folder / "data" / "train.jsonl", rows)
        write_jsonl(folder / "data" / "validation.jsonl", ROWS * 2)
        write_jsonl(folder / "data" / "test.jsonl", ROWS)
        words = sorted({word for row in ROWS for word in str(row["text"]).split()})
        texts = [" ".join(rng.choices(words, k=4)) for _ in range(_PREDICTED)]
        write_jsonl(folder / "texts.jsonl", ({"text": text} for text in texts))
        predicted = [{"labels": row["labels"], "scores": [0.5] * len(row["labels"])} for row in ROWS]
        write_jsonl(folder / "predicted.jsonl", predicted)
        (folder / "labels.txt").write_text("\n".join(VOCABULARY), encoding="utf-8")
        make_folders(folder)
        torch.manual_seed(0)
        return cls(folder)

    def _split(self, name: str) -> str:
        return str(self.folder / "data" / f"{name}.jsonl")

    def _checkpoint(self, name: str) -> str:
        return str(self.folder / "checkpoints" / name)

    def _model(self, name: str) -> str:
        return str(self.folder / "good" / name)

    def commands(self, place: Path) -> dict[str, Command]:
        """Name -> command that writes below a folder."""
        train = ["--train-file", self._split("train"), "--labels", str(self.folder / "labels.txt")]
        splits = [*train, "--validation-file", self._split("validation")]
        tests = ["--test-file", self._split("test")]
        lines = {
            "train": [
                *splits, "--backbone", self._checkpoint("bert"), "--variant", "bcl", "--num-clusters", "3",
                "--decoder-layers", "1", "--use_cpu", "True", "--max_steps", "40", "--eval_strategy", "steps",
                "--per_device_train_batch_size", "4", "--eval_steps", "10", "--save_strategy", "steps",
                "--save_steps", "10", "--learning_rate", "1e-2",
            ],
            "index": [*splits, "--encoder", self._checkpoint("bert"), "--epochs", "5", "--batch-size", "4"],
            "cluster": [*train, "--encoder", self._checkpoint("bert"), "--num-clusters", "3"],
            "experiment": [*splits, *tests, "--systems", "most-frequent,dense-retrieval,xlgen-base",
                           "--settings", "full", "--seeds", "0", "--backbone", self._checkpoint("bert"),
                           "--set", "decoder_layers=1", "--use_cpu", "True", "--max_steps", "12", "--save_strategy",
                           "steps", "--save_steps", "4", "--no-figures"],
            "hybrid": ["--model", self._model("base"), "--retriever", self._model("retriever"),
                       "--validation-file", self._split("validation")],
            "merge": ["--model", self._model("adapter")],
            "predict": ["--model", self._model("bcl"), "--input-file", str(self.folder / "texts.jsonl"),
                        "--num-beams", "1", "--batch-size", "64"],
            "evaluate": ["--predictions", str(self.folder / "predicted.jsonl"), "--references", self._split("test"),
                         "--train-file", self._split("train"), "--plot", str(place / "plots" / "scores.png")],
            "inspect": [self._split("train"), "--plot", str(place / "plots" / "rows.png")],
            "convert": [self._split("train")],
            "push": ["model", "--model", self._model("bcl"), "--repo-id", "acme/tiny"],
        }  # fmt: skip
        files = {
            "predict": "out.jsonl",
            "evaluate": "scores.json",
            "inspect": "report.json",
            "convert": "rows.parquet",
        }
        found = {}
        for name, line in lines.items():
            output = None if name == "push" else place / files.get(name, "out")
            named = [] if output is None else ["--output-file" if name in files else "--output-dir", str(output)]
            named = [str(output)] if name == "convert" else named
            found[name] = Command(name, (name, *line, *named), output)
        return found


# ---------------------------------------------------------------------------------------------------- what they leave

Content = dict[str, object]  # what a folder holds: path -> digest, or parsed JSON


def content(folder: Path) -> Content:
    """What a command has left below a folder."""
    found: Content = {}
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            data = path.read_bytes()
            if path.name == "README.md":  # the model's card
                data = b"".join(line for line in data.splitlines(True) if not any(mark in line for mark in _OF_CARDS))
            try:
                found[path.relative_to(folder).as_posix()] = _without_sizes(json.loads(data))
            except ValueError:
                found[path.relative_to(folder).as_posix()] = hashlib.sha256(data).hexdigest()
    return found


def _without_sizes(value: object) -> object:
    """Parsed JSON; of the list of a checkpoint's files the names alone, since times are of many lengths."""
    if isinstance(value, dict) and isinstance(value.get("files"), dict):
        return {**value, "files": sorted(value["files"])}
    return value


def leaves(value: object, place: tuple[object, ...] = ()) -> dict[tuple[object, ...], object]:
    """The values in nested dicts and lists by their places."""
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else None
    if items is None:
        return {place: value}
    return {where: leaf for key, below in items for where, leaf in leaves(below, (*place, key)).items()}


def differing(one: Content, other: Content) -> set[tuple[object, ...]]:
    """The places in which two results differ."""
    before, after = leaves(one), leaves(other)
    absent = object()
    places = {place for place in {*before, *after} if before.get(place, absent) != after.get(place, absent)}
    return {
        place for place in places if not _OF_THE_RUN & set(map(str, place)) and not str(place[0]).endswith("log.txt")
    }


def leftovers(folder: Path) -> list[str]:
    """Names below a folder that only a command at work may have there."""
    names = (path.relative_to(folder).as_posix() for path in folder.rglob("*"))
    return sorted(name for name in names if any(mark in Path(name).name for mark in _LEFTOVERS))


def half_written(folder: Path) -> list[str]:
    """Files that a reader would find damaged: JSON and safetensors that are not whole."""
    return [name for path, name in _for_readers(folder) if not _is_whole(path)]


def _for_readers(folder: Path) -> list[tuple[Path, str]]:
    found = [(path, path.relative_to(folder).as_posix()) for path in sorted(folder.rglob("*")) if path.is_file()]
    return [(path, name) for path, name in found if not any(mark in name for mark in _OWN_PLACES)]


def _is_whole(path: Path) -> bool:
    try:
        if path.suffix == ".json" and not path.name.startswith("."):
            json.loads(path.read_text(encoding="utf-8"))
        elif path.suffix == ".safetensors":
            with safe_open(path, "np") as file:
                return bool(list(file.keys()))
    except (ValueError, SafetensorError):
        return False
    return True
