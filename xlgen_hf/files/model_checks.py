"""Checks of model folders that come from elsewhere, before anything in them is used."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import TypedDict

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, PreTrainedConfig, PreTrainedTokenizerBase

from ..configuration_xlgen import XLGenConfig
from ..errors import ModelFolderError, XLGenError
from .model_folder import CONFIG_FILE, PROCESSOR_FILE, weight_files
from .schema import Fields, anything, boolean, integer, read_object, shown, string
from .serialization import JSON, read_errors
from .tokenizer_checks import SHORTEST_TEXT, TOKENIZER_CONFIG_FILE, try_tokenizer

__all__ = [
    "PROCESSOR_FORM",
    "ProcessorSettings",
    "check_config",
    "check_encoder",
    "check_loaded",
    "check_model",
    "load_config",
    "load_errors",
    "load_tokenizer",
    "read_processor_settings",
]

_MOST_CLASSES = 100_000
_MOST_PARTS = 10_000
_PARTS = re.compile("expert|(num|n)_blocks?$")  # parts of a model that are made one by one, besides layers
_KERNELS = re.compile("(attn|experts)_implementation")  # settings whose values may be code on the Hub
_BOUNDS = {"max_window_layers"}  # layers below which others are told apart (Qwen); a model may have fewer
_SPARE_NUMBERS = 50_000_000  # numbers that a model may hold beyond those of its weights file: tied weights and tables
_LONGEST = 1_000_000  # tokens of an input or target


class _RequiredSettings(TypedDict):
    processor_class: str
    max_source_length: int
    max_target_length: int
    clusters: bool
    candidates: object


class ProcessorSettings(_RequiredSettings, total=False):
    """What `processor_config.json` holds."""

    auto_map: object
    cluster_tokens: bool


PROCESSOR_FORM = Fields[ProcessorSettings](
    {
        "processor_class": string(),
        "max_source_length": integer(minimum=SHORTEST_TEXT, maximum=_LONGEST),
        "max_target_length": integer(minimum=SHORTEST_TEXT, maximum=_LONGEST),
        "clusters": boolean(),
        "candidates": anything(),
        "auto_map": anything(),  # where the modules are in a repository with code; for transformers
        "cluster_tokens": boolean(),
    },
    optional=["auto_map", "cluster_tokens"],
    format_version=3,
    made_by="xlgen train",
)
"""The form of `processor_config.json`."""

# What transformers and torch raise for a config or for weights that make no sense to them.
_LOAD_ERRORS = (
    ArithmeticError, AttributeError, AssertionError, ImportError, LookupError, MemoryError, OSError, RuntimeError,
    SafetensorError, StrictDataclassError, TypeError, ValueError,
)  # fmt: skip


@contextmanager
def load_errors(folder: Path) -> Iterator[None]:
    """Name the folder where transformers and torch say that its files make no sense.

    Args:
        folder: the folder.

    Raises:
        ModelFolderError: instead of what they raise.
    """
    try:
        yield
    except XLGenError:
        raise
    except (*_LOAD_ERRORS, RecursionError) as err:
        answer = (str(err).strip().splitlines() or [type(err).__name__])[0]
        raise ModelFolderError(f"{folder} cannot be loaded: {answer}") from err


def check_config(folder: Path, *, most_layers: int = 1_000) -> dict[str, JSON]:
    """Read `config.json` and check what must not reach transformers, which parses it for a tokenizer too.

    Args:
        folder: a folder with a `config.json`.
        most_layers: most layers that it may ask for.

    Raises:
        ModelFolderError: if the file is missing, no JSON object, or asks for sizes beyond all measure.
    """
    path = folder / CONFIG_FILE
    content = read_object(path)
    problem = next(_hostile_values(content, most_layers), None)
    if problem:
        raise ModelFolderError(f"{path}: {problem}")
    return content


def load_config(folder: Path, *, most_layers: int = 1_000) -> XLGenConfig:
    """Read and check `config.json`.

    Args:
        folder: the folder of a model.
        most_layers: most layers that it may ask for.

    Raises:
        ModelFolderError: if the file is missing, or no configuration of an XLGen model.
    """
    path = folder / CONFIG_FILE
    content = check_config(folder, most_layers=most_layers)
    if content.get("model_type") != XLGenConfig.model_type:
        given = content.get("model_type")
        raise ModelFolderError(f"{path}: model_type {given!r}, where an XLGen model has 'xlgen'. Train one first.")
    if not isinstance(content.get("backbone"), dict):
        raise ModelFolderError(f"{path}: 'backbone' must be the configuration of a seq2seq model.")
    for name, kinds in XLGenConfig.json_types().items():
        if name in content and type(content[name]) not in kinds:
            raise ModelFolderError(f"{path}: no configuration of an XLGen model: {name}={str(content[name])[:80]!r}.")
    try:
        config: XLGenConfig = XLGenConfig.from_dict(content)
        _ = config.vocab_size, config.hidden_size
    except (*_LOAD_ERRORS, RecursionError) as err:
        raise ModelFolderError(f"{path}: no configuration of an XLGen model: {err}") from err
    if not all(isinstance(prefix, str) for prefix in config.fresh_modules or ()):
        raise ModelFolderError(f"{path}: 'fresh_modules' must be names of modules.")
    _check_token_ids(path, config)
    return config


def _hostile_values(config: Mapping[str, JSON], most_layers: int) -> Iterator[str]:
    """What costs memory or runs code as soon as a configuration is made of the parsed file, or a model of that."""
    for name, value in config.items():
        if _KERNELS.search(name):
            yield from (
                f"{name}={one!r} is code from the Hub, which is not run." for one in _strings(value) if "/" in one
            )
        elif isinstance(value, dict):
            yield from _hostile_values(value, most_layers)
        elif "layer" in name and name not in _BOUNDS and type(value) is int and value > most_layers:
            yield f"{name}={value}; at most {most_layers} fit the weights."
        elif name == "num_labels" and type(value) is int and value > _MOST_CLASSES:
            yield f"{name}={value}; XLGen has no classes of that kind."
        elif _PARTS.search(name) and type(value) is int and value > _MOST_PARTS:
            yield f"{name}={value}; at most {_MOST_PARTS} are allowed."
        elif isinstance(value, list):
            yield from (found for one in value if isinstance(one, dict) for found in _hostile_values(one, most_layers))


def _strings(value: JSON) -> Iterator[str]:
    """The strings of a parsed value at any depth, those of keys too."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, (dict, list)):
        for one in [*value, *value.values()] if isinstance(value, dict) else value:
            yield from _strings(one)


def _check_token_ids(path: Path, config: XLGenConfig) -> None:
    size = config.vocab_size
    if type(size) is not int or size < 1:
        raise ModelFolderError(f"{path}: a vocabulary of {size!r} tokens.")
    first = config.first_cluster_token_id
    ids = {
        "separator_token_id": config.separator_token_id,
        "first_cluster_token_id": first,
        "last cluster token": None if first is None else first + max(config.num_clusters, 1) - 1,
        "cluster_start_token_id": config.cluster_start_token_id,
        "first_level_token_id": config.first_level_token_id,
        "last level token": config.level_token_ids[-1] if config.level_token_ids else None,
        "pad_token_id": config.pad_token_id,
        "decoder_start_token_id": config.decoder_start_token_id,
    }
    for name, token in ids.items():
        if token is not None and not 0 <= token < size:
            raise ModelFolderError(f"{path}: {name} is {token}, outside of the vocabulary of {size} tokens.")
    if config.num_output_tokens is not None and not 1 <= config.num_output_tokens <= size:
        raise ModelFolderError(f"{path}: num_output_tokens={config.num_output_tokens}, of {size} tokens.")


def _weight_shapes(folder: Path, variant: str | None = None) -> dict[str, tuple[int, ...]]:
    """Shape of each weight, read from the heads of the files."""
    shapes: dict[str, tuple[int, ...]] = {}
    for path in weight_files(folder, variant):
        with read_errors(path, "a safetensors file"), safe_open(path, "numpy") as weights:
            shapes |= {name: tuple(weights.get_slice(name).get_shape()) for name in weights.keys()}
    return shapes


def check_model(cls: type, folder: Path, config: object, variant: str | None = None) -> None:
    """Check that weights and config fit each other, before anything of the config's sizes is made.

    Args:
        cls: class of the model.
        folder: its folder.
        config: the configuration to use; that of the folder if None.
        variant: the variant of the weights; the plain ones if None.
    """
    shapes = _weight_shapes(folder, variant)
    own = load_config(folder, most_layers=len(shapes))
    config = own if config is None else config
    with load_errors(folder), torch.device("meta"):
        model: nn.Module = cls(config)
    _compare(folder / CONFIG_FILE, model, shapes)


def check_loaded(
    folder: Path, model: nn.Module, info: Mapping[str, Iterable[str]], *, but_for: str | None = None
) -> None:
    """Refuse weights that are not finite, or not all that the config asks for: transformers would make up the rest.

    Args:
        folder: the folder of the model.
        model: the model.
        info: what transformers says of the loading.
        but_for: a part of the names of weights that may be lacking, where the file may also hold others than those of
            the model; None where the weights must be exactly those of the config.

    Raises:
        ModelFolderError: if weights are lacking, hold NaN or infinity, or the model has no place for some.
    """
    kinds = ("missing_keys", "unexpected_keys") if but_for is None else ("missing_keys",)
    for kind in kinds:
        names = sorted(name for name in info.get(kind, ()) if but_for is None or but_for not in name)
        if names:
            told = "the weights lack" if kind == "missing_keys" else "the model has no place for"
            raise ModelFolderError(
                f"{folder}: {CONFIG_FILE} and weights are of different models: {told} {len(names)} "
                f"{'tensor' if len(names) == 1 else 'tensors'}, e.g. {names[0]}."
            )
    broken = next((name for name, value in model.named_parameters() if not torch.isfinite(value).all()), None)
    if broken is not None:
        raise ModelFolderError(f"{folder}: the weights {broken} hold NaN or infinity.")


def check_encoder(folder: Path) -> None:
    """Check that an encoder's weights are safetensors and fit its config, before anything of its sizes is made.

    Args:
        folder: its folder.

    Raises:
        ModelFolderError: if a file is missing or damaged, or they do not fit each other.
    """
    from transformers import AutoModel, AutoModelForTextEncoding  # the classes of models, which graphs do without
    from transformers.models.auto.modeling_auto import MODEL_FOR_TEXT_ENCODING_MAPPING

    shapes = _weight_shapes(folder)
    check_config(folder, most_layers=len(shapes))
    with load_errors(folder), torch.device("meta"):
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
        has_decoder = type(config) in MODEL_FOR_TEXT_ENCODING_MAPPING
        model = (AutoModelForTextEncoding if has_decoder else AutoModel).from_config(config, trust_remote_code=False)
    _compare(folder / CONFIG_FILE, model, shapes)


def _compare(path: Path, model: nn.Module, shapes: dict[str, tuple[int, ...]]) -> None:
    """Compare a model of a config with the shapes of the weights next to it."""
    made = {**dict(model.named_parameters(remove_duplicate=False)), **dict(model.named_buffers())}
    for name, shape in shapes.items():
        if name in made and tuple(made[name].shape) != shape:
            raise ModelFolderError(
                f"{path} says that {name} is {tuple(made[name].shape)}, in the weights it is {shape}. Config and "
                "weights are of different models."
            )
    missing = {name: made[name].numel() for name in made if name not in shapes}
    if sum(missing.values()) > sum(map(prod, shapes.values())) * 2 + _SPARE_NUMBERS:
        worst = max(missing, key=lambda name: missing[name])
        raise ModelFolderError(f"{path} asks for {worst} of {missing[worst]} numbers, which the weights do not hold.")


def read_processor_settings(folder: Path, processor_class: str) -> ProcessorSettings:
    """The settings of a processor.

    Args:
        folder: the model's folder.
        processor_class: class of the processor.

    Raises:
        ModelFolderError: if the file is missing, or is not one of such a processor.
    """
    path = folder / PROCESSOR_FILE
    content = read_object(path)
    given = content.get("processor_class")
    if given != processor_class:
        raise ModelFolderError(
            f"{path}: processor_class is {shown(given)}, where an XLGen model has {processor_class!r}."
        )
    return PROCESSOR_FORM.check(content, path)


def load_tokenizer(folder: Path) -> PreTrainedTokenizerBase:
    """The tokenizer of a model's folder, after a try.

    Args:
        folder: the folder.

    Raises:
        ModelFolderError: if its files make no tokenizer, or one without a padding token or an end token.
    """
    read_object(folder / TOKENIZER_CONFIG_FILE)
    # Without a config the Auto class would read the model's, and warn where it does not know its type: code out of a
    # repository registers none.
    tokenizer = try_tokenizer(folder, XLGenConfig(backbone=PreTrainedConfig()))
    if tokenizer.pad_token_id is None or {tokenizer.eos_token_id, tokenizer.sep_token_id} == {None}:
        raise ModelFolderError(f"{folder / TOKENIZER_CONFIG_FILE}: a padding token and an end token are needed.")
    return tokenizer
