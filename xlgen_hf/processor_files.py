"""Reading and checking of a processor's files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoTokenizer, PreTrainedTokenizerBase

from ._io import read_json
from .errors import ModelFolderError
from .model_files import CONFIG_FILE, check_config, load_config

__all__ = ["PROCESSOR_FILE", "WANTED_FROM_HUB", "checked_settings", "known_options", "load_tokenizer"]

PROCESSOR_FILE = "processor_config.json"
# The patterns match a file in any folder: the weights of the model are left to the model.
WANTED_FROM_HUB = [
    "*.json", "*.txt", "*.model", "label_*.safetensors", "retriever/*.safetensors", "linear/*.safetensors",
    "linear/trees/*.cbor",
]  # fmt: skip
_LONGEST = 1_000_000  # tokens of an input or target


def checked_settings(path: Path, processor_class: str) -> dict[str, Any]:
    """The settings of a processor.

    Raises:
        ModelFolderError: if the file is missing, or is not one of such a processor.
    """
    settings = read_json(path)
    if not isinstance(settings, dict) or settings.get("processor_class") != processor_class:
        raise ModelFolderError(f"{path}: not the processor of an XLGen model.")
    for key in ("max_source_length", "max_target_length"):
        value = settings.get(key)
        if type(value) is not int or not 4 <= value <= _LONGEST:
            raise ModelFolderError(f"{path}: {key}={value!r}; a whole number from 4 to {_LONGEST} is needed.")
    if type(settings.get("clusters")) is not bool:
        raise ModelFolderError(f"{path}: clusters={settings.get('clusters')!r}; true or false is needed.")
    settings.setdefault("candidates", None)  # folders of before XLGen-RCL
    return settings


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a folder, after a try."""
    # The Auto class reads the model's config as well, where there is one.
    if (folder / CONFIG_FILE).is_file() and check_config(folder).get("model_type") == "xlgen":
        load_config(folder)
    for name in ("tokenizer.json", "tokenizer_config.json"):
        needed = name == "tokenizer_config.json"  # tokenizers in Python (ByT5) have the config alone
        if (needed or (folder / name).exists()) and not isinstance(read_json(folder / name), dict):
            raise ModelFolderError(f"{folder / name}: a JSON object is expected.")
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        odd = [key for key in ("pad_token_id", "unk_token_id", "eos_token_id") if _is_odd(getattr(tokenizer, key))]
        tokenizer("a", verbose=False)
    except Exception as err:  # of a damaged file the Rust library of tokenizers raises `Exception` itself
        raise ModelFolderError(f"{folder}: tokenizer.json or tokenizer_config.json makes no tokenizer: {err}") from err
    if odd or tokenizer.pad_token_id is None or {tokenizer.eos_token_id, tokenizer.sep_token_id} == {None}:
        raise ModelFolderError(f"{folder / 'tokenizer_config.json'}: a padding token and an end token are needed.")
    return tokenizer


def _is_odd(token: Any) -> bool:
    return token is not None and type(token) is not int


def known_options(hub_options: dict[str, Any]) -> dict[str, Any]:
    """The options that `snapshot_download` takes; the rest is meant for other parts of a `from_pretrained` call."""
    allowed = {"revision", "token", "cache_dir", "force_download", "local_files_only"}
    return {key: value for key, value in hub_options.items() if key in allowed}
