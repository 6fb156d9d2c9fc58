"""Adapters of peft: checked before use and before training, put on their base, and merged into it."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, NamedTuple

import torch
from safetensors import safe_open
from torch import nn
from transformers import PreTrainedModel

from ..configuration_xlgen import TUNED_FIELDS, XLGenConfig
from ..errors import ConfigurationError, MissingExtraError, ModelFolderError
from ..files.adapter_base import base_of
from ..files.model_checks import load_config
from ..files.model_folder import ADAPTER_CONFIG_FILE, ADAPTER_WEIGHTS_FILE, CONFIG_FILE
from ..files.schema import read_object
from ..files.serialization import read_errors
from .adapter_settings import AdapterSettings, as_saved, check_settings, check_sizes

if TYPE_CHECKING:
    from peft import PeftConfig, PeftModel
    from peft.tuners.tuners_utils import BaseTunerLayer

__all__ = [
    "AdapterFiles",
    "attach_adapter",
    "check_adapter",
    "enable_adapters",
    "load_adapter",
    "read_adapter",
    "require_peft",
    "switch_adapters",
]

_PICKLE = "adapter_model.bin"
_DECODING = (*TUNED_FIELDS, "max_labels", "max_clusters")
_PREFIX = "base_model.model."  # of the names in a file of weights
_OF_BASE = ".base_layer."  # in the names of what peft saves of an embedding matrix or output layer that is adapted
_CHANGE_BASE = ("mica", "olora", "pissa")  # initialisations that move a part of the base into the adapter
# What peft raises for settings or weights that make no sense to it.
_PEFT_ERRORS = (AttributeError, LookupError, RuntimeError, TypeError, ValueError)

_Tensors = dict[str, torch.Tensor]


def load_adapter(model_class: type[PreTrainedModel], folder: Path, **options: object) -> PreTrainedModel:
    """Load the base of an adapter, put the adapter on it and merge the two into one model.

    Args:
        model_class: class of the model.
        folder: the adapter's folder.
        options: those of `from_pretrained`, for the base; its revision is the one that the adapter names. Fields of
            the config that are about decoding, and those of `config`, have precedence over the adapter's own.

    Returns:
        The merged model; with `output_loading_info` also what was told of the base's weights.

    Raises:
        MissingExtraError: if peft is not installed.
        ModelFolderError: if files of adapter or base are damaged, or do not fit each other.
    """
    peft, path = require_peft(), folder / ADAPTER_CONFIG_FILE
    files = read_adapter(folder)
    config = options.pop("config", None)  # weights go by the base's
    wants_info = options.pop("output_loading_info", False)
    where = base_of(folder)
    hub = {**options, "revision": where.revision, "output_loading_info": True}
    base, info = model_class.from_pretrained(where.name, **hub)
    check_sizes(files.settings, base.config.hidden_size, base.config.vocab_size, path)
    _choose_decoding(base.config, folder, config, options)
    untied = base.get_output_embeddings().weight is not base.get_input_embeddings().weight
    try:
        with _adding_layers():
            # It takes from the base what its initialisation took.
            adapted = peft.get_peft_model(base, _config(peft, files.settings, files.tensors))
        expected = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
    except _PEFT_ERRORS as err:
        raise ModelFolderError(f"{path} does not fit its base: {err}") from err
    _check_weights(folder, files.tensors, {**expected, **_of_base(adapted, files.tensors)})
    problem = _sharing_problem(peft, adapted)
    if problem is not None:
        raise ModelFolderError(f"{path}: {problem}")
    wrapped = any(_is_copied(peft, layer) for layer in (base.get_output_embeddings(), base.get_input_embeddings()))
    if untied or wrapped:
        base.config.tie_word_embeddings = False  # a T5 v1.1; peft would find it out, and warn
    try:
        peft.set_peft_model_state_dict(adapted, files.tensors)
        merged: PreTrainedModel = adapted.merge_and_unload().eval()
    except _PEFT_ERRORS as err:
        raise ModelFolderError(f"{folder} cannot be merged into its base: {err}") from err
    merged.name_or_path = str(folder)
    return (merged, info) if wants_info else merged


def _choose_decoding(config: XLGenConfig, folder: Path, given: object, options: Mapping[str, object]) -> None:
    """Let a base decode as the given config says, else its adapter's; fields among the options have precedence."""
    own = XLGenConfig.from_pretrained(given) if isinstance(given, (str, Path)) else given
    if not isinstance(own, XLGenConfig):
        own = load_config(folder) if (folder / CONFIG_FILE).is_file() else config
    for name in _DECODING:
        if name not in options:
            setattr(config, name, getattr(own, name))


class AdapterFiles(NamedTuple):
    """What the files of an adapter say.

    Attributes:
        folder: the adapter's folder.
        settings: its settings, after the check.
        tensors: its weights, by their names in the file; finite.
    """

    folder: Path
    settings: AdapterSettings
    tensors: _Tensors


def read_adapter(folder: Path) -> AdapterFiles:
    """Read and check the files of an adapter.

    Args:
        folder: its folder.

    Raises:
        MissingExtraError: if peft is not installed.
        ModelFolderError: if a file is missing or damaged, or asks for what is not loaded.
    """
    path = folder / ADAPTER_CONFIG_FILE
    settings = check_settings(require_peft(), read_object(path), path)
    return AdapterFiles(folder, settings, _read_weights(folder))


def attach_adapter(model: PreTrainedModel, files: AdapterFiles, name: str, *, is_trainable: bool = False) -> None:
    """Put an adapter into the layers of a model, in addition to those that are there; see `set_adapter`.

    Args:
        model: the adapter's base.
        files: the adapter's.
        name: the adapter's name in the model. The first one is active from here on, others after `set_adapter`.
        is_trainable: whether its weights get gradients.

    Raises:
        ModelFolderError: if the files do not fit the model.
    """
    peft, path, settings = require_peft(), files.folder / ADAPTER_CONFIG_FILE, files.settings
    check_sizes(settings, model.config.hidden_size, model.config.vocab_size, path)
    init = settings.values.get("init_lora_weights")
    if init in _CHANGE_BASE:
        raise ModelFolderError(
            f"{path}: init_lora_weights={init!r} takes a part of the base into the adapter, so the base cannot serve "
            "other adapters. Load it alone, with from_pretrained."
        )
    tensors = {key.removeprefix(_PREFIX): value for key, value in files.tensors.items()}
    config = _config(peft, settings, tensors)
    config.inference_mode, config.base_model_name_or_path = not is_trainable, base_of(files.folder).name
    before = next((list(layer.active_adapters) for layer in _adapter_layers(peft, model)), [])
    try:
        with _adding_layers():
            peft.inject_adapter_in_model(config, model, name)
        expected = peft.get_peft_model_state_dict(model, adapter_name=name, save_embedding_layers=False)
        _check_weights(files.folder, tensors, {**expected, **_of_base(model, tensors)})
        peft.set_peft_model_state_dict(model, tensors, adapter_name=name)
    except ModelFolderError:
        raise
    except _PEFT_ERRORS as err:
        raise ModelFolderError(f"{path} does not fit the model: {err}") from err
    model._hf_peft_config_loaded = True  # by which transformers knows that `set_adapter` has something to set
    switch_adapters(model, before or [name])
    if not is_trainable:
        model.eval()  # the layers are new, and their dropout is on
        model.requires_grad_(False)


def switch_adapters(model: PreTrainedModel, names: str | list[str]) -> None:
    """Let some of the adapters in a model's layers count, and no other.

    Args:
        model: the model, with adapters that [`attach_adapter`] put into its layers.
        names: their names.

    Raises:
        ConfigurationError: if there is no such adapter.
    """
    wanted, known = [names] if isinstance(names, str) else list(names), sorted(getattr(model, "peft_config", {}))
    unknown = sorted(set(wanted) - set(known))
    if unknown or not wanted:
        raise ConfigurationError(f"The model has no adapter {unknown}; it has {known}. Load one with load_adapter.")
    for layer in _adapter_layers(require_peft(), model):
        layer.set_adapter(wanted)


def enable_adapters(model: PreTrainedModel, enabled: bool) -> None:
    """Let the active adapters in a model's layers count, or none.

    Args:
        model: the model.
        enabled: whether they count.

    Raises:
        ConfigurationError: if the model has no adapters.
    """
    if not getattr(model, "peft_config", {}):
        raise ConfigurationError("The model has no adapters. Load one with load_adapter.")
    for layer in _adapter_layers(require_peft(), model):
        layer.enable_adapters(enabled)


def check_adapter(model: PeftModel) -> None:
    """Refuse an adapter that could be trained, but not loaded afterwards with the same predictions.

    Args:
        model: the model with its adapters.

    Raises:
        ConfigurationError: if not exactly one adapter is active, or that one is not as XLGen loads them.
    """
    peft, active = require_peft(), list(model.active_adapters)
    if len(active) != 1:
        raise ConfigurationError(
            f"The adapters {active} are active; a training writes the folder of one. Choose it with model.set_adapter."
        )
    what = f"The adapter {active[0]!r}"
    try:
        settings = check_settings(peft, as_saved(model.peft_config[active[0]]), what)
        check_sizes(settings, model.config.hidden_size, model.config.vocab_size, what)
        problem = _sharing_problem(peft, model)
        if problem is not None:
            raise ModelFolderError(f"{what}: {problem}")
    except ModelFolderError as err:
        raise ConfigurationError(f"{err} It is refused now, as it could not be loaded after the training.") from err


def require_peft() -> ModuleType:
    """The module peft.

    Raises:
        MissingExtraError: if it is not installed.
    """
    try:
        return import_module("peft")
    except ImportError as err:
        raise MissingExtraError("peft", "lora") from err


# ---------------------------------------------------------------------------------------------------- weights


def _config(peft: ModuleType, settings: AdapterSettings, tensors: _Tensors) -> PeftConfig:
    """The settings as peft takes them; where patterns name the layers, the weights do it in their place."""
    values = dict(settings.values)
    if values.get("init_lora_weights") == "eva":  # it drew from data once; the base is as it was
        values["init_lora_weights"] = True
    if settings.layers_by_pattern:
        shapes = _layers(settings.method.part, tensors)
        for name in ("exclude_modules", "layers_to_transform", "layers_pattern"):
            values.pop(name, None)
        values["target_modules"] = sorted(shapes)
        if "feedforward_modules" in values:  # IA3 scales their inputs, `(1, inputs)`, and others' outputs
            values["feedforward_modules"] = sorted(name for name, shape in shapes.items() if shape[0] == 1)
    config: PeftConfig = getattr(peft, settings.method.config)(task_type="SEQ_2_SEQ_LM", **values)
    return config


def _layers(part: str, tensors: _Tensors) -> dict[str, tuple[int, ...]]:
    """Names of the layers that a file has weights for -> the shape of one of these weights."""
    names = {name: name.removeprefix(_PREFIX).partition(f".{part}")[0] for name in tensors if f".{part}" in name}
    return {layer: tuple(tensors[name].shape) for name, layer in names.items()}


def _read_weights(folder: Path) -> _Tensors:
    """The weights of an adapter, which are finite and no pickle."""
    path = folder / ADAPTER_WEIGHTS_FILE
    if not path.exists() and (folder / _PICKLE).is_file():
        raise ModelFolderError(
            f"{folder} has its weights in {_PICKLE}, a pickle, which can run any code; it is not read. Have them "
            f"saved as {ADAPTER_WEIGHTS_FILE}."
        )
    with read_errors(path, "a safetensors file"), safe_open(path, "pt") as weights:
        tensors = {name: weights.get_tensor(name) for name in weights.keys()}
    broken = sorted(name for name, value in tensors.items() if not torch.isfinite(value).all())
    if broken:
        raise ModelFolderError(f"{path}: {broken[0]} holds NaN or infinity.")
    return tensors


def _of_base(model: nn.Module, tensors: _Tensors) -> _Tensors:
    """The weights of the base that an adapter's file holds as well."""
    state = model.state_dict() if any(_OF_BASE in name for name in tensors) else {}
    return {name: state[name] for name in tensors if _OF_BASE in name and name in state}


def _check_weights(folder: Path, tensors: _Tensors, expected: _Tensors) -> None:
    """Check that the weights of an adapter are those that its settings ask for."""
    path = folder / ADAPTER_WEIGHTS_FILE
    odd = sorted(set(tensors) ^ set(expected))
    if odd:
        raise ModelFolderError(
            f"{path} does not fit {ADAPTER_CONFIG_FILE} and the base: {len(odd)} weights are in one of them alone, "
            f"e.g. {odd[0]}."
        )
    for name, value in expected.items():
        shape = tuple(tensors[name].shape)
        if shape != tuple(value.shape):
            raise ModelFolderError(f"{path}: {name} is {shape}; {tuple(value.shape)} fits the base.")


# ---------------------------------------------------------------------------------------------------- layers


@contextmanager
def _adding_layers() -> Iterator[None]:
    """Leaves the generator of random numbers alone: what is drawn is replaced by the adapter's weights."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Already found a `peft_config`")  # several adapters are meant
        warnings.filterwarnings("ignore", "The following rank_pattern keys")  # AdaLoRA's are of weights, not of layers
        yield


def _adapter_layers(peft: ModuleType, model: nn.Module) -> list[BaseTunerLayer]:
    """The layers that hold adapters: those of a method, and those that are trained as a whole or in some rows."""
    kinds = (peft.tuners.tuners_utils.BaseTunerLayer, peft.utils.other.AuxiliaryTrainingWrapper)
    return [module for module in model.modules() if isinstance(module, kinds)]


def _is_copied(peft: ModuleType, layer: nn.Module) -> bool:
    """Whether an adapter holds a whole copy of a layer (`modules_to_save`)."""
    return isinstance(layer, peft.utils.ModulesToSaveWrapper)


def _sharing_problem(peft: ModuleType, model: PeftModel) -> str | None:
    """What is wrong with adapted layers that share their weights with others, or lie inside of each other.

    A merge would change the others as well, or leave them as they were; then predictions differ.
    """
    owners: dict[int, list[tuple[str, nn.Module]]] = {}
    for name, module in model.named_modules():
        weight = module._parameters.get("weight")
        if weight is not None:
            owners.setdefault(id(weight), []).append((name, module))
    output = model.get_output_embeddings()
    of_output = {id(module) for module in output.modules()}
    for name, module in model.named_modules():
        if _is_copied(peft, module):
            if {"modules_to_save", "original_module"} & set(name.split(".")):
                return f"modules_to_save names layers inside of others ({name}), which peft cannot load."
            sharing = owners.get(id(module.original_module._parameters.get("weight")), [])
            left = [
                other
                for other, one in sharing
                if not other.endswith(".original_module") and id(one) not in of_output and module is not output
            ]
        elif isinstance(module, peft.tuners.tuners_utils.BaseTunerLayer) and not _trains_rows(peft, module):
            weight = module.get_base_layer()._parameters.get("weight")
            left = [other for other, _ in owners.get(id(weight), []) if not other.startswith(f"{name}.")]
        else:
            continue
        if left:
            return (
                f"{name.removeprefix(_PREFIX)} shares its weights with {left[0].removeprefix(_PREFIX)}, which the "
                "adapter would change or miss when it is merged. Leave it out; trainable_token_indices trains rows of "
                "both."
            )
    return None


def _trains_rows(peft: ModuleType, module: nn.Module) -> bool:
    """Whether a layer is that of `trainable_token_indices`, which copes with weights that layers share."""
    return isinstance(module, peft.tuners.trainable_tokens.TrainableTokensLayer)
