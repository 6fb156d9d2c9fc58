"""Which files of a folder belong to a model: the rest of it (checkpoints, logs, caches) is nobody else's business."""

from __future__ import annotations

from fnmatch import fnmatchcase
from pathlib import Path

from ..errors import ModelFolderError
from .serialization import read_json

__all__ = ["LABEL_TREES_FOLDER", "MODEL_FILES", "REPORT_FILE", "SCORE_MODEL_FILE", "model_files"]

REPORT_FILE = "training_report.json"
SCORE_MODEL_FILE = "score_model.json"
LABEL_TREES_FOLDER = "label_trees"

_TOKENIZER_FILES = (
    "added_tokens.json", "chat_template.jinja", "merges.txt", "sentencepiece.bpe.model", "special_tokens_map.json",
    "spiece.model", "tokenizer.json", "tokenizer.model", "tokenizer_config.json", "vocab.json", "vocab.txt",
)  # fmt: skip
_WEIGHTS = ("model.safetensors", "model-*-of-*.safetensors", "adapter_model.safetensors")
_RETRIEVER_FILES = (
    "config.json", "model.safetensors", "model-*-of-*.safetensors", "model.safetensors.index.json", "retriever.json",
    "retriever.safetensors", *_TOKENIZER_FILES,
)  # fmt: skip
_LABEL_TREES_FILES = ("label_trees.json", "label_trees.safetensors", "trees/settings.json", "trees/tree*.cbor")
MODEL_FILES = (
    *_WEIGHTS, "model.safetensors.index.json", "adapter_config.json", "config.json", "generation_config.json",
    "label_space.json", "label_clusters.json", "label_clusters.safetensors", "label_trie.safetensors",
    "processor_config.json", SCORE_MODEL_FILE, REPORT_FILE,
    *_TOKENIZER_FILES, *(f"retriever/{name}" for name in _RETRIEVER_FILES),
    *(f"{LABEL_TREES_FOLDER}/{name}" for name in _LABEL_TREES_FILES),
)  # fmt: skip
"""Patterns of the files of a model or adapter that go to the Hub."""


def model_files(folder: Path) -> dict[str, Path]:
    """The files of a model or adapter, by their path in the folder.

    Args:
        folder: the folder.

    Raises:
        ModelFolderError: if the folder is missing, or lacks something without which the model does not load.
    """
    if not folder.is_dir():
        raise ModelFolderError(f"There is no folder {str(folder)!r}. Give the folder of a trained model.")
    trees = folder / LABEL_TREES_FOLDER
    found = {
        path.relative_to(folder).as_posix(): path
        for path in sorted([*folder.iterdir(), *folder.glob("retriever/*"), *trees.glob("**/*")])
        if path.is_file() and any(fnmatchcase(path.relative_to(folder).as_posix(), pattern) for pattern in MODEL_FILES)
    }
    kind = "adapter_config.json" if "adapter_config.json" in found else "config.json"
    for name in (kind, "label_space.json", "processor_config.json"):
        if name not in found:
            raise ModelFolderError(
                f"{folder / name} is missing; only the folder of a whole XLGen model can be put on the Hub."
            )
    missing = _missing_weights(found, adapter=kind == "adapter_config.json")
    if missing:
        raise ModelFolderError(f"{folder} lacks the weights {missing}; pickled weights are never uploaded.")
    return found


def _missing_weights(found: dict[str, Path], *, adapter: bool) -> list[str]:
    if adapter:
        return [] if "adapter_model.safetensors" in found else ["adapter_model.safetensors"]
    index = found.get("model.safetensors.index.json")
    if index is None:
        return [] if "model.safetensors" in found else ["model.safetensors"]
    content = read_json(index)
    shards = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(shards, dict):
        raise ModelFolderError(f"{index}: 'weight_map' must be an object that names a file for each weight.")
    return sorted({str(name) for name in shards.values()} - set(found))
