"""Which files of a folder belong to a model, and to which part of it.

The one description from which all else follows: what a save replaces, what goes to the Hub and comes from there, and
what a reader watches while it loads. The rest of a folder (checkpoints, logs, caches) is nobody else's business.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from typing import TypedDict

from ..errors import ConfigurationError, ModelFolderError
from .schema import Fields, mapping_of, string

__all__ = [
    "ADAPTER_CONFIG_FILE",
    "ADAPTER_WEIGHTS_FILE",
    "CONFIG_FILE",
    "EXPORT_FILE",
    "GRAPHS_FOLDER",
    "LABEL_TREES_FOLDER",
    "MODEL_FILES",
    "PARTS",
    "PROCESSOR_FILE",
    "PROCESSOR_FILES",
    "REPORT_FILE",
    "RETRIEVER_FOLDER",
    "SCORE_MODEL_FILE",
    "UPDATES_FILE",
    "WEIGHTS",
    "WEIGHTS_FILE",
    "Part",
    "download_patterns",
    "files_of_model",
    "holds_graphs",
    "holds_index",
    "is_exported",
    "matches",
    "model_files",
    "obsolete_files",
    "processor_files",
    "variant_of",
    "weight_files",
]

CONFIG_FILE = "config.json"
ADAPTER_CONFIG_FILE = "adapter_config.json"
ADAPTER_WEIGHTS_FILE = "adapter_model.safetensors"
EXPORT_FILE = "export.json"
GRAPHS_FOLDER = "onnx"
PROCESSOR_FILE = "processor_config.json"
REPORT_FILE = "training_report.json"
SCORE_MODEL_FILE = "score_model.json"
LABEL_TREES_FOLDER = "label_trees"
RETRIEVER_FOLDER = "retriever"
UPDATES_FILE = "updates.jsonl"

WEIGHTS_FILE = "model.safetensors"
_INDEX_FILE = "model.safetensors.index.json"
_GRAPHS = (EXPORT_FILE, f"{GRAPHS_FOLDER}/*.onnx")  # instead of most weights, see `xlgen export`
_SHARDS = "model-*-of-*.safetensors"
_WEIGHTS = (WEIGHTS_FILE, _SHARDS, _INDEX_FILE, *_GRAPHS)
_VARIANTS = ("model.*.safetensors", "model.safetensors.index.*.json")
_VARIANT = re.compile(r"\w[\w-]*")
_TOKENIZER = (
    "added_tokens.json", "chat_template.jinja", "merges.txt", "sentencepiece.bpe.model", "source.spm",
    "special_tokens_map.json", "spiece.model", "target.spm", "tokenizer.json", "tokenizer.model",
    "tokenizer_config.json", "vocab.json", "vocab.txt",
)  # fmt: skip
_RETRIEVER = ("retriever.json", "retriever.safetensors")
_LABEL_TREES = ("label_trees.json", "label_trees.safetensors", "trees/settings.json", "trees/tree*.cbor")


class _Index(TypedDict):
    weight_map: dict[str, str]


_INDEX = Fields[_Index]({"weight_map": mapping_of(string())}, others=True)


@dataclass(frozen=True)
class Part:
    """Files that are of one save: none of an older one may remain next to those of a newer one.

    Attributes:
        name: what it is.
        files: patterns of its files; `*` stops at a folder's border.
        saved_with: a save that writes one of these replaces the whole part.
        leftovers: patterns of files that other releases and libraries have in its place; they are removed with the
            part, and are neither loaded nor uploaded.
    """

    name: str
    files: tuple[str, ...]
    saved_with: tuple[str, ...]
    leftovers: tuple[str, ...] = ()


def _below(folder: str, names: Iterable[str]) -> tuple[str, ...]:
    return tuple(f"{folder}/{name}" for name in names)


PARTS = (
    Part(
        "weights",
        (*_WEIGHTS, ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE),
        (*_WEIGHTS, ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE),
        ("model*.safetensors", "pytorch_model*.bin*", "adapter_model.*"),
    ),
    # `save_pretrained(..., variant="fp16")` adds weights of another precision to those that are there.
    Part("variants", _VARIANTS, ()),
    Part("config", (CONFIG_FILE,), (CONFIG_FILE,)),
    Part("generation", ("generation_config.json",), ("generation_config.json",)),
    Part("tokenizer", _TOKENIZER, ("tokenizer_config.json",)),
    Part(
        "processor",
        (
            PROCESSOR_FILE,
            "label_space.json",
            "label_clusters.json",
            "label_clusters.safetensors",
            "label_trie.safetensors",
            "vocabulary.json",
            "vocabulary.jsonl",
            UPDATES_FILE,
        ),
        (PROCESSOR_FILE, "label_space.json"),
    ),
    Part(
        "scores",
        (
            SCORE_MODEL_FILE,
            *_below(RETRIEVER_FOLDER, (CONFIG_FILE, *_WEIGHTS, *_RETRIEVER, *_TOKENIZER)),
            *_below(LABEL_TREES_FOLDER, _LABEL_TREES),
        ),
        (SCORE_MODEL_FILE,),
    ),
    Part("report", (REPORT_FILE,), (REPORT_FILE,)),
)
MODEL_FILES = tuple(pattern for part in PARTS for pattern in part.files)
"""Patterns of the files of a model or adapter that go to the Hub."""

PROCESSOR_FILES = tuple(
    pattern for part in PARTS if part.name in ("tokenizer", "processor", "scores") for pattern in part.files
)
"""Patterns of those that a processor writes."""
WEIGHTS = (*PARTS[0].files, *_below(RETRIEVER_FOLDER, _WEIGHTS))
"""Patterns of the files of weights, those of a retriever's encoder included."""

_FOLDERS = sorted({pattern.rpartition("/")[0] for part in PARTS for pattern in (*part.files, *part.leftovers)})


def variant_of(options: Mapping[str, object]) -> str | None:
    """The variant of the weights that the options of a `from_pretrained` call ask for.

    Raises:
        ConfigurationError: if it is not a name.
    """
    variant = options.get("variant")
    if variant is None or (isinstance(variant, str) and _VARIANT.fullmatch(variant)):
        return variant
    raise ConfigurationError(
        f"variant={variant!r}; give a name of letters and digits, such as 'fp16', or leave it out."
    )


def matches(path: str, patterns: Iterable[str]) -> bool:
    """Whether a path fits a pattern; `*` stops at a folder's border.

    Args:
        path: a path in a folder or a repository.
        patterns: those of `fnmatch`.
    """
    return any(path.count("/") == pattern.count("/") and fnmatchcase(path, pattern) for pattern in patterns)


def download_patterns(*parts: str, variant: str | None = None) -> list[str]:
    """What is downloaded of a repository, as `snapshot_download` takes it.

    Args:
        parts: names of parts; all that a model has if none is named.
        variant: the variant of the weights that is wanted in their place.
    """
    wanted = [part for part in PARTS if part.name in parts or (not parts and part.name != "variants")]
    patterns = [pattern for part in wanted for pattern in part.files]
    if variant is None:
        return patterns
    others = (_weights_file(variant), _SHARDS.replace("model-", f"model.{variant}-"), _index_file(variant))
    return [*(pattern for pattern in patterns if pattern not in _WEIGHTS), *others]


def _weights_file(variant: str | None) -> str:
    return WEIGHTS_FILE if variant is None else f"model.{variant}.safetensors"


def _index_file(variant: str | None) -> str:
    return _INDEX_FILE if variant is None else f"model.safetensors.index.{variant}.json"


def files_of_model(folder: Path) -> list[str]:
    """The files of a folder that belong to any part, leftovers included, by their paths in it, sorted.

    Args:
        folder: the folder; it may be missing.
    """
    patterns = [pattern for part in PARTS for pattern in (*part.files, *part.leftovers)]
    return [name for name in _names(folder) if matches(name, patterns)]


def _names(folder: Path) -> Iterator[str]:
    """The files at those places where a model has some; other folders, such as checkpoints, are not looked into."""
    for place in _FOLDERS:
        inside = folder / place
        if inside.is_dir():
            for path in sorted(inside.iterdir()):
                if path.is_file():
                    yield f"{place}/{path.name}" if place else path.name


def obsolete_files(folder: Path, new: Iterable[str]) -> list[str]:
    """The files of a folder that go when others are saved into it: the rest of each part that they replace.

    Args:
        folder: the folder; it may be missing.
        new: the files that are saved, by their paths in it.
    """
    written = set(new)
    replaced = [part for part in PARTS if any(matches(name, part.saved_with) for name in written)]
    patterns = [pattern for part in replaced for pattern in (*part.files, *part.leftovers)]
    return [name for name in files_of_model(folder) if name not in written and matches(name, patterns)]


# ---------------------------------------------------------------------------------------------------- what is needed


def is_exported(folder: Path) -> bool:
    """Whether a folder holds graphs that `xlgen export` wrote, where others hold the weights of a backbone or encoder.

    Args:
        folder: the folder of a model, or of a retriever in it.
    """
    return (folder / EXPORT_FILE).is_file()


def holds_graphs(folder: Path) -> bool:
    """Whether a model's folder, or that of an index, is what `xlgen export` wrote, and so computes on the CPU.

    Args:
        folder: the folder.
    """
    return is_exported(folder) or is_exported(folder / RETRIEVER_FOLDER)


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a model, adapter, index or label trees that go to the Hub, by their path in the folder.

    Args:
        folder: the folder.

    Raises:
        ModelFolderError: if the folder is missing, or lacks something without which the model does not load, or if a
            file is a link to one elsewhere, which might be anything of the user's.
    """
    if not folder.is_dir():
        raise ModelFolderError(f"There is no folder {str(folder)!r}. Give the folder of a trained model.")
    files = {name: folder / name for name in files_of_model(folder) if matches(name, MODEL_FILES)}
    if holds_index(folder):
        _check_index(folder, files)
    else:
        _check_model(folder, files)
    for path in files.values():
        _refuse_foreign_link(folder, path)
    return files


def holds_index(folder: Path) -> bool:
    """Whether a folder holds an index, label trees or a hybrid of them, and no model.

    Args:
        folder: the folder.
    """
    if (folder / PROCESSOR_FILE).is_file() or (folder / CONFIG_FILE).is_file():
        return False
    return (folder / RETRIEVER_FOLDER).is_dir() or (folder / LABEL_TREES_FOLDER).is_dir()


def _check_model(folder: Path, files: Mapping[str, Path]) -> None:
    kind = ADAPTER_CONFIG_FILE if ADAPTER_CONFIG_FILE in files else CONFIG_FILE
    _require(folder, files, (kind, "label_space.json", PROCESSOR_FILE))
    if kind == ADAPTER_CONFIG_FILE:
        needed = [ADAPTER_WEIGHTS_FILE]
    else:
        needed = _shards(folder / _INDEX_FILE) if _INDEX_FILE in files else [WEIGHTS_FILE]
    missing = [name for name in needed if name not in files]
    if missing:
        raise ModelFolderError(f"{folder} lacks the weights {missing}; pickled weights are never uploaded.")


def _check_index(folder: Path, files: Mapping[str, Path]) -> None:
    needed = ["label_space.json", SCORE_MODEL_FILE]
    if (folder / RETRIEVER_FOLDER).is_dir():
        needed += _below(RETRIEVER_FOLDER, (*_RETRIEVER, CONFIG_FILE, "tokenizer_config.json"))
    if (folder / LABEL_TREES_FOLDER).is_dir():
        needed += _below(LABEL_TREES_FOLDER, (*_LABEL_TREES[:2], "trees/settings.json"))
    _require(folder, files, needed)
    weights = _below(RETRIEVER_FOLDER, _WEIGHTS)
    if (folder / RETRIEVER_FOLDER).is_dir() and not any(matches(name, weights) for name in files):
        raise ModelFolderError(f"{folder / RETRIEVER_FOLDER} lacks the weights of the encoder.")


def _require(folder: Path, files: Mapping[str, Path], needed: Iterable[str]) -> None:
    for name in needed:
        if name not in files:
            raise ModelFolderError(
                f"{folder / name} is missing; only the folder of a whole XLGen model, or index, can be put on the Hub."
            )


def processor_files(folder: Path) -> dict[str, Path]:
    """The files of a processor that go to the Hub, by their path in the folder.

    Args:
        folder: a folder that a processor alone has written.
    """
    return {name: folder / name for name in files_of_model(folder) if matches(name, PROCESSOR_FILES)}


def _refuse_foreign_link(folder: Path, path: Path) -> None:
    """Refuse a link that leads out of the folder, but for the Hub's cache, whose files are links to `../../blobs`."""
    place, target = folder.resolve(), path.resolve()
    if not (target.is_relative_to(place) or target.is_relative_to(place.parent.parent / "blobs")):
        raise ModelFolderError(
            f"{path} is a link to {target}, outside of the folder, and is not uploaded. Put a copy of it in its place."
        )


def weight_files(folder: Path, variant: str | None = None) -> list[Path]:
    """The files that hold the weights of a model, whether they are there or not.

    Args:
        folder: its folder.
        variant: the variant of them (`fp16`), as `save_pretrained` was given it; the plain ones if None.

    Raises:
        ModelFolderError: if there are none, or only a pickle, or the index of several files makes no sense.
    """
    if (folder / _weights_file(variant)).is_file():
        return [folder / _weights_file(variant)]
    index = folder / _index_file(variant)
    if not index.is_file() and variant is not None:
        there = [name for name in _names(folder) if matches(name, _VARIANTS)]
        raise ModelFolderError(
            f"{folder} has no weights of the variant {variant!r}; of other variants it has {there or 'none'}."
        )
    if not index.is_file():
        pickles = sorted(path.name for path in folder.glob("*.bin"))
        if pickles:
            raise ModelFolderError(
                f"{folder} has its weights in {pickles[0]}, a pickle, which can run any code; it is not read. Have "
                f"them saved as {WEIGHTS_FILE}."
            )
        raise ModelFolderError(f"{folder} has no {WEIGHTS_FILE}; is it the folder of an XLGen model?")
    return [folder / name for name in _shards(index)]


def _shards(index: Path) -> list[str]:
    """The names of the files that the index of weights in several files lists."""
    names = sorted(set(_INDEX.read(index)["weight_map"].values()))
    if not names:
        raise ModelFolderError(f"{index}: 'weight_map' is empty; it must name the file of each weight.")
    for name in names:
        if Path(name).name != name or not name.endswith(".safetensors"):
            raise ModelFolderError(f"{index}: {name!r} is not the name of a safetensors file in that folder.")
    return names
