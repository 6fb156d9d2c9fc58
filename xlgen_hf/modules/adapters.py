"""Loading of LoRA adapters: checked before use, put on their base, and merged into it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from ..errors import MissingExtraError, ModelFolderError
from ..files.adapter_base import base_of
from ..files.model_checks import load_config
from ..files.model_folder import ADAPTER_CONFIG_FILE, CONFIG_FILE
from ..files.serialization import read_json

__all__ = ["load_adapter", "require_peft"]

_WEIGHTS_FILE = "adapter_model.safetensors"
_PICKLE = "adapter_model.bin"
_DECODING = ("min_labels", "max_labels", "num_beams", "pool", "max_clusters", "cluster_threshold")
_MOST_LAYERS = 10_000  # names in a list of them
# Settings that are taken; every other one of peft's must have the value that it has by default.
_TAKEN = {
    "r", "lora_alpha", "lora_dropout", "target_modules", "modules_to_save", "trainable_token_indices", "use_rslora",
    "use_dora",
}  # fmt: skip
_WITHOUT_EFFECT = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "init_lora_weights", "peft_type", "peft_version",
    "revision", "task_type",
}  # fmt: skip


def load_adapter(model_class: Any, folder: Path, **options: Any) -> Any:
    """Load the base of an adapter, put the adapter on it and merge the two into one model.

    Args:
        model_class: class of the model.
        folder: the adapter's folder.
        options: those of `from_pretrained`, for the base; its revision is the one that the adapter names.

    Raises:
        MissingExtraError: if peft is not installed.
        ModelFolderError: if files of adapter or base are damaged, or do not fit each other.
    """
    peft = require_peft()
    content = _checked_content(peft, folder / ADAPTER_CONFIG_FILE)
    options.pop("config", None)  # the Auto classes read it from the adapter's folder; weights go by the base's
    where = base_of(folder)
    base = model_class.from_pretrained(where.name, **{**options, "revision": where.revision})
    _check_against_base(folder / ADAPTER_CONFIG_FILE, content, base.config)
    if (folder / CONFIG_FILE).is_file():
        own = load_config(folder)
        for name in _DECODING:
            setattr(base.config, name, getattr(own, name))
    untied = base.get_output_embeddings().weight is not base.get_input_embeddings().weight
    settings = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", **content)
    try:
        adapted = peft.get_peft_model(base, settings)
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as err:
        raise ModelFolderError(f"{folder / ADAPTER_CONFIG_FILE} does not fit its base: {err}") from err
    expected = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    peft.set_peft_model_state_dict(adapted, _checked_weights(folder, expected))
    if untied:
        base.config.tie_word_embeddings = False  # a T5 v1.1; peft would find it out, and warn
    merged = adapted.merge_and_unload().eval()
    merged.name_or_path = str(folder)
    return merged


def _checked_content(peft: Any, path: Path) -> dict[str, Any]:
    """The settings of an adapter that count, after a check of their types; whatever else peft knows is refused."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ModelFolderError(f"{path}: a JSON object is expected, not {type(content).__name__}.")
    if content.get("peft_type") != "LORA":
        raise ModelFolderError(f"{path}: peft_type {content.get('peft_type')!r}; XLGen loads adapters of type 'LORA'.")
    usual = peft.LoraConfig().to_dict()
    for name, value in content.items():
        if name not in _TAKEN | _WITHOUT_EFFECT and value and value != usual.get(name):
            raise ModelFolderError(f"{path}: {name}={value!r} is not what XLGen's adapters have; make one without it.")
    taken = {name: content[name] for name in _TAKEN if content.get(name) is not None}
    problem = next((problem for name, value in taken.items() if (problem := _setting_problem(name, value))), None)
    if problem or "target_modules" not in taken or "r" not in taken:
        raise ModelFolderError(f"{path}: {problem or 'r and target_modules are needed.'}")
    return taken


def _setting_problem(name: str, value: Any) -> str | None:
    if name == "r":
        good = type(value) is int and value > 0
    elif name in ("lora_alpha", "lora_dropout"):
        # peft wants a dropout below 1; no adapter is larger than its base by a factor of a million.
        good = type(value) in (int, float) and 0 <= value < (1 if name == "lora_dropout" else 1e6)
    elif name in ("use_rslora", "use_dora"):
        good = type(value) is bool
    elif name == "trainable_token_indices":
        good = isinstance(value, dict) and all(
            isinstance(rows, list) and all(type(row) is int for row in rows) and len(set(rows)) == len(rows)
            for rows in value.values()
        )
    else:  # lists of names; of a regular expression nobody could say how long it takes
        good = isinstance(value, list) and len(value) <= _MOST_LAYERS and all(type(one) is str for one in value)
    return None if good else f"{name}={str(value)[:80]} is no setting of an XLGen adapter."


def _check_against_base(path: Path, content: dict[str, Any], config: Any) -> None:
    if content["r"] > config.hidden_size:
        raise ModelFolderError(f"{path}: r={content['r']}, above the base's width of {config.hidden_size}.")
    for name, rows in content.get("trainable_token_indices", {}).items():
        outside = [row for row in rows if not 0 <= row < config.vocab_size]
        if outside:
            raise ModelFolderError(
                f"{path}: row {outside[0]} of {name} lies outside of the base's vocabulary of {config.vocab_size}."
            )


def _checked_weights(folder: Path, expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of an adapter, if they are those that its settings ask for."""
    path = folder / _WEIGHTS_FILE
    if not path.is_file():
        if (folder / _PICKLE).is_file():
            raise ModelFolderError(
                f"{folder} has its weights in {_PICKLE}, a pickle, which can run any code; it is not read. Have them "
                f"saved as {_WEIGHTS_FILE}."
            )
        raise ModelFolderError(f"{path} is missing; is {folder} the folder of an adapter?")
    try:
        with safe_open(path, "pt") as weights:
            names = set(weights.keys())
            if names != set(expected):
                odd = sorted(names ^ set(expected))
                raise ModelFolderError(
                    f"{path} does not fit {ADAPTER_CONFIG_FILE} and the base: {len(odd)} weights are in one of them "
                    f"alone, e.g. {odd[0]}."
                )
            for name, value in expected.items():
                shape = tuple(weights.get_slice(name).get_shape())
                if shape != tuple(value.shape):
                    raise ModelFolderError(f"{path}: {name} is {shape}; {tuple(value.shape)} fits the base.")
            tensors = {name: weights.get_tensor(name) for name in names}
    except (SafetensorError, OSError) as err:
        raise ModelFolderError(f"{path} is no safetensors file that can be read: {err}") from err
    broken = sorted(name for name, value in tensors.items() if not torch.isfinite(value).all())
    if broken:
        raise ModelFolderError(f"{path}: {broken[0]} holds NaN or infinity.")
    return tensors


def require_peft() -> ModuleType:
    """The module peft.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        return import_module("peft")
    except ImportError as err:
        raise MissingExtraError("peft", "lora") from err
