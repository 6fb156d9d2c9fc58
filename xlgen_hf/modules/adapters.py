"""Loading of LoRA adapters: checked before use, put on their base, and merged into it."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TypedDict

import torch
from safetensors import safe_open
from transformers import PreTrainedModel

from ..configuration_xlgen import XLGenConfig
from ..errors import MissingExtraError, ModelFolderError
from ..files.adapter_base import base_of
from ..files.model_checks import load_config
from ..files.model_folder import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, CONFIG_FILE
from ..files.schema import (
    Fields,
    boolean,
    choice,
    either,
    integer,
    list_of,
    mapping_of,
    number,
    optional,
    read_object,
    shown,
    strings,
)
from ..files.serialization import read_errors

__all__ = ["load_adapter", "require_peft"]

_PICKLE = "adapter_model.bin"
_DECODING = ("min_labels", "max_labels", "num_beams", "pool", "max_clusters", "cluster_threshold")
_MOST_LAYERS = 10_000  # names in a list of them
_FACTOR = 1e6  # no adapter is larger than its base by more
# Initialisations that do nothing to the base, and those whose change of it is made again from the base alone.
_INITS = ("gaussian", "orthogonal", "eva", "mica", "pissa", "olora")
_NAMES = strings(max_length=_MOST_LAYERS)  # of a regular expression nobody could say how long it takes


class _Required(TypedDict):
    peft_type: str
    r: int
    target_modules: list[str]


class _Content(_Required, total=False):
    lora_alpha: float | None
    lora_dropout: float | None
    modules_to_save: list[str] | None
    trainable_token_indices: dict[str, list[int]] | None
    use_rslora: bool | None
    use_dora: bool | None
    init_lora_weights: bool | str | None


# The settings that are taken.
_TAKEN = {
    "r": integer(minimum=1),
    "target_modules": _NAMES,
    "lora_alpha": optional(number(minimum=0, maximum=_FACTOR)),
    "lora_dropout": optional(number(minimum=0, below=1)),
    "modules_to_save": optional(_NAMES),
    "trainable_token_indices": optional(mapping_of(list_of(integer(), unique=True))),
    "fan_in_fan_out": optional(boolean()),
    "use_rslora": optional(boolean()),
    "use_dora": optional(boolean()),
    "init_lora_weights": optional(either(boolean(), choice(*_INITS))),
}
_FORM = Fields[_Content](
    {"peft_type": choice("LORA"), **_TAKEN},
    optional=[name for name in _TAKEN if name not in ("r", "target_modules")],
    others=True,
)
# Initialisations that change the base by data or random numbers that nobody has when the adapter is loaded.
_NOT_REPEATABLE = ("corda", "loftq", "lora_ga", "pissa_niter_")
_WITHOUT_EFFECT = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "peft_type", "peft_version", "revision", "task_type",
}  # fmt: skip


def load_adapter(model_class: type[PreTrainedModel], folder: Path, **options: object) -> PreTrainedModel:
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
    if content.get("init_lora_weights") == "eva":  # it drew from data once; the base is as it was
        content["init_lora_weights"] = True
    taken = {name: value for name, value in content.items() if name in _TAKEN and value is not None}
    settings = peft.LoraConfig(task_type="SEQ_2_SEQ_LM", **taken)
    try:
        with torch.random.fork_rng(devices=[]):  # what is drawn here is replaced by the adapter's weights
            adapted = peft.get_peft_model(base, settings)  # which takes from the base what its initialisation took
    except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as err:
        raise ModelFolderError(f"{folder / ADAPTER_CONFIG_FILE} does not fit its base: {err}") from err
    expected = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    peft.set_peft_model_state_dict(adapted, _checked_weights(folder, expected))
    if untied:
        base.config.tie_word_embeddings = False  # a T5 v1.1; peft would find it out, and warn
    merged = adapted.merge_and_unload().eval()
    merged.name_or_path = str(folder)
    return merged


def _checked_content(peft: ModuleType, path: Path) -> _Content:
    """The settings of an adapter after a check of their types; what peft knows and does not count here is refused."""
    content = read_object(path)
    init = content.get("init_lora_weights")
    if isinstance(init, str) and init.startswith(_NOT_REPEATABLE):
        raise ModelFolderError(
            f"{path}: init_lora_weights={shown(init)} has changed the base in a way that cannot be repeated: by data, "
            "or by random numbers. Save the adapter with `path_initial_model_for_weight_conversion` of peft, which "
            "makes a plain one of it."
        )
    checked = _FORM.check(content, path)
    usual = peft.LoraConfig().to_dict()
    for name, value in content.items():
        unusual = value is not None and value != usual.get(name) and value not in ({}, [])
        if unusual and name not in _TAKEN and name not in _WITHOUT_EFFECT:
            raise ModelFolderError(
                f"{path}: {name}={shown(value)} is not what XLGen's adapters have; make one without it."
            )
    return checked


def _check_against_base(path: Path, content: _Content, config: XLGenConfig) -> None:
    if content["r"] > config.hidden_size:
        raise ModelFolderError(f"{path}: r={content['r']}, above the base's width of {config.hidden_size}.")
    for name, rows in (content.get("trainable_token_indices") or {}).items():
        outside = [row for row in rows if not 0 <= row < config.vocab_size]
        if outside:
            raise ModelFolderError(
                f"{path}: row {outside[0]} of {name} lies outside of the base's vocabulary of {config.vocab_size}."
            )


def _checked_weights(folder: Path, expected: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The weights of an adapter, if they are those that its settings ask for."""
    path = folder / ADAPTER_WEIGHTS_FILE
    if not path.exists() and (folder / _PICKLE).is_file():
        raise ModelFolderError(
            f"{folder} has its weights in {_PICKLE}, a pickle, which can run any code; it is not read. Have them "
            f"saved as {ADAPTER_WEIGHTS_FILE}."
        )
    with read_errors(path, "a safetensors file"), safe_open(path, "pt") as weights:
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
