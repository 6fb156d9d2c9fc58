"""Data sets for the Hub: splits as Parquet shards with typed columns, the label space as its own configuration."""

from __future__ import annotations

import tempfile
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from datasets import Dataset, Features, Value

from ..data.blocks import each_value
from ..data.options import RowOptions
from ..data.rows import FEATURES, LABEL_SPACE_CONFIG, load_label_names, load_rows, row_facts
from ..errors import ConfigurationError
from ..labels.space import LabelSpace
from ..version import __version__
from .card_text import compose_card, merge_cards, render
from .cards import tail_histogram
from .commits import HubTarget, PushReport, TargetOptions, fitting, push_files

if TYPE_CHECKING:
    from typing_extensions import Unpack

__all__ = ["push_dataset"]

_SPLITS = ("train", "validation", "test")
_LABEL_FEATURES = Features({"label": Value("string"), "train_documents": Value("int64")})
_SHARD_BYTES = 400_000_000  # of a split in memory; a shard's file is smaller
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_OWNED = ("data/*.parquet", f"{LABEL_SPACE_CONFIG}/*.parquet")


def push_dataset(
    splits: Mapping[str, Dataset | str | Path],
    repo_id: str,
    *,
    options: RowOptions | None = None,
    vocabulary: Iterable[str] | str | Path | None = None,
    license_id: str | None = None,
    source: str | None = None,
    language: str | None = None,
    shard_bytes: int = _SHARD_BYTES,
    **target: Unpack[TargetOptions],
) -> PushReport:
    """Put a data set up in one commit: Parquet shards of each split, the label space, and a card with statistics.

    It loads by `load_dataset(repo_id)` where this package is not installed; the label space by
    `load_dataset(repo_id, "label_space")`.

    Args:
        splits: `train`, and `validation` and `test` where there are such: rows, or what `load_rows` reads.
        repo_id: `owner/name`.
        options: how they are read.
        vocabulary: names beyond those of the training rows, or a file of them with one name per line. Names of the
            other splits are part of the label space in any case.
        license_id: licence of the texts, as the Hub spells it.
        source: where texts and labels come from, for the card.
        language: language of the texts as an ISO code.
        shard_bytes: bytes of a shard in memory.
        **target: further fields of `HubTarget`: `private`, `revision`, `token`, `create_pr`, `dry_run`, `message`.

    Returns:
        The files and the commit.

    Raises:
        ConfigurationError: if a split is unknown, or there is no training split.
        DataError: if rows cannot be used.
        HubError: if the Hub refuses or cannot be reached.
    """
    place = HubTarget(repo_id, **target)
    unknown = sorted(set(splits) - set(_SPLITS))
    if unknown or "train" not in splits:
        raise ConfigurationError(f"splits={sorted(splits)}; give train, and validation and test where there are such.")
    rows = {name: load_rows(splits[name], options, split=name) for name in _SPLITS if name in splits}
    names = load_label_names(vocabulary) if isinstance(vocabulary, (str, Path)) else list(vocabulary or ())
    used = (label for part in rows.values() for labels in each_value(part, "labels") for label in labels)
    space = LabelSpace.from_label_lists(rows["train"]["labels"], [*names, *used])
    facts = _facts(rows, space, repo_id) | {"source": source}
    metadata = _metadata(rows, license_id, language)
    card = compose_card(metadata, repo_id.rpartition("/")[2], render("dataset.md", facts))
    with tempfile.TemporaryDirectory() as folder:
        return push_files(
            _write(rows, space, Path(folder), shard_bytes),
            replace(place, message=place.message or "Upload data set"), "dataset",
            card=lambda there: merge_cards(card, there), owned=fitting(*_OWNED),
        )  # fmt: skip


def _write(rows: Mapping[str, Dataset], space: LabelSpace, folder: Path, shard_bytes: int) -> dict[str, Path | bytes]:
    """Write the shards; path in the repository -> file."""
    labels = Dataset.from_dict(
        {"label": list(space.names), "train_documents": space.counts.tolist()}, features=_LABEL_FEATURES
    )
    parts = {f"data/{name}": part.cast(Features({**part.features, **FEATURES})) for name, part in rows.items()}
    parts[f"{LABEL_SPACE_CONFIG}/train"] = labels
    files: dict[str, Path | bytes] = {}
    for name, part in parts.items():
        shards = min(len(part), 1 + part.data.nbytes // shard_bytes)
        for number in range(shards):
            path = f"{name}-{number:05d}-of-{shards:05d}.parquet"
            (folder / path).parent.mkdir(exist_ok=True)
            part.shard(shards, number, contiguous=True).to_parquet(folder / path)
            files[path] = folder / path
    return files


def _facts(rows: Mapping[str, Dataset], space: LabelSpace, repo_id: str) -> dict[str, object]:
    """What the card says."""
    seen = set(space.train_label_counts())
    facts = {name: row_facts(part) for name, part in rows.items()}
    splits: list[dict[str, object]] = []
    for name, part in rows.items():
        used = Counter(label for labels in each_value(part, "labels") for label in labels)
        unseen = None if name == "train" else len(set(used) - seen)
        splits.append({"name": name, **facts[name], "labels": len(used), "unseen": unseen})
    documents = sum(one["rows"] for one in facts.values())
    return {
        "repo_id": repo_id,
        "version": __version__,
        "splits": splits,
        "num_labels": len(space),
        "unseen": int((space.counts == 0).sum()),
        "labels_per_row": sum(one["rows"] * one["labels_per_row"] for one in facts.values()) / documents,
        "histogram": tail_histogram(space.counts.tolist()),
    }


def _metadata(rows: Mapping[str, Dataset], license_id: str | None, language: str | None) -> dict[str, object]:
    documents = sum(map(len, rows.values()))
    size = next((name for limit, name in _SIZES if documents < limit), "n>1M")
    files = [{"split": name, "path": f"data/{name}-*.parquet"} for name in rows]
    space = [{"split": "train", "path": f"{LABEL_SPACE_CONFIG}/train-*.parquet"}]
    return {
        "license": license_id,
        "language": None if language is None else [language],
        "task_categories": ["text-classification"],
        "task_ids": ["multi-label-classification"],
        "tags": ["extreme-multi-label-classification", "xlgen"],
        "size_categories": [size],
        "configs": [
            {"config_name": "default", "default": True, "data_files": files},
            {"config_name": LABEL_SPACE_CONFIG, "data_files": space},
        ],
    }
