"""Checks of model folders that come from elsewhere, before anything in them is used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import distributions
from math import prod
from pathlib import Path
from typing import TypedDict

import torch
from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError, safe_open
from torch import nn
from transformers import AutoConfig, AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from ..configuration_xlgen import XLGenConfig
from ..errors import MissingExtraError, ModelFolderError, XLGenError
from .downloads import HUB_OPTIONS, download, hub_options
from .model_folder import CONFIG_FILE, PROCESSOR_FILE, download_patterns, variant_of, weight_files
from .saving import current_folder
from .schema import Fields, anything, boolean, integer, read_object, shown, string
from .serialization import JSON, read_errors

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
    "local_model",
    "read_processor_settings",
    "try_tokenizer",
]

_MOST_CLASSES = 100_000
_BOUNDS = {"max_window_layers"}  # layers below which others are told apart (Qwen); a model may have fewer
_SPARE_NUMBERS = 50_000_000  # numbers that a model may hold beyond those of its weights file: tied weights and tables
_SHORTEST, _LONGEST = 4, 1_000_000  # tokens of an input or target
_TOKENIZER_CONFIG_FILE = "tokenizer_config.json"
_TOKENIZER_FILES = ("tokenizer.json", _TOKENIZER_CONFIG_FILE)
_SUBWORD_MODELS = {".model", ".spm", ".tiktoken"}  # how files of SentencePiece and tiktoken end
_FIRST_FIELD = b"\n"  # with which the protocol buffers of SentencePiece begin; tiktoken has lines of text
_SPECIAL_IDS = ("pad_token_id", "unk_token_id", "eos_token_id", "sep_token_id", "bos_token_id", "cls_token_id")
_TRIED_TEXTS = ("a", "", "Ab, c-1 \u00e4\u4e2d\U0001f600 " * 8)  # what a tokenizer knows, and what none may know
_TRIED_LENGTH = 16


class _RequiredSettings(TypedDict):
    processor_class: str
    max_source_length: int
    max_target_length: int
    clusters: bool
    candidates: object


class ProcessorSettings(_RequiredSettings, total=False):
    """What `processor_config.json` holds."""

    auto_map: object


PROCESSOR_FORM = Fields[ProcessorSettings](
    {
        "processor_class": string(),
        "max_source_length": integer(minimum=_SHORTEST, maximum=_LONGEST),
        "max_target_length": integer(minimum=_SHORTEST, maximum=_LONGEST),
        "clusters": boolean(),
        "candidates": anything(),
        "auto_map": anything(),  # where the modules are in a repository with code; for transformers
    },
    optional=["auto_map"],
    format_version=3,
    made_by="xlgen train",
)
"""The form of `processor_config.json`."""

# What transformers and torch raise for a config or for weights that make no sense to them.
_LOAD_ERRORS = (
    ArithmeticError, AttributeError, AssertionError, ImportError, LookupError, MemoryError, OSError, RuntimeError,
    SafetensorError, StrictDataclassError, TypeError, ValueError,
)  # fmt: skip


def local_model(name: str | Path, options: dict[str, object], *parts: str) -> Path:
    """The folder of a model; one on the Hub is brought here first, all files of one commit.

    Args:
        name: a folder, or a Hub id.
        options: those of `from_pretrained`; the ones about the Hub are taken out where they served.
        parts: the parts of the model that are needed (see `model_folder.PARTS`); all if none is named.

    Raises:
        HubError: if it is not a folder, and the Hub does not give it.
        ModelFolderError: if it is a file, or the folder holds an interrupted save of elsewhere.
    """
    folder = Path(name)
    if folder.is_dir():
        if options.get("subfolder"):
            folder = folder / str(options.pop("subfolder"))
        if __package__ == "xlgen_hf.files":
            return current_folder(folder)
        return folder
    if folder.is_file():
        raise ModelFolderError(f"{folder} is a file, where the folder of a model is needed.")
    of_hub, variant = hub_options(options), None if parts else variant_of(options)
    for key in (*HUB_OPTIONS, "_commit_hash"):
        options.pop(key, None)
    return download(str(name), download_patterns(*parts, variant=variant), of_hub)


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
        if isinstance(value, dict):
            yield from _hostile_values(value, most_layers)
        elif "layer" in name and name not in _BOUNDS and type(value) is int and value > most_layers:
            yield f"{name}={value}; at most {most_layers} fit the weights."
        elif name == "num_labels" and type(value) is int and value > _MOST_CLASSES:
            yield f"{name}={value}; XLGen has no classes of that kind."
        elif name.endswith("attn_implementation") and isinstance(value, str) and "/" in value:
            yield f"{name}={value!r} is code from the Hub, which is not run."


def _check_token_ids(path: Path, config: XLGenConfig) -> None:
    size = config.vocab_size
    if type(size) is not int or size < 1:
        raise ModelFolderError(f"{path}: a vocabulary of {size!r} tokens.")
    first = config.first_cluster_token_id
    ids = {
        "separator_token_id": config.separator_token_id,
        "first_cluster_token_id": first,
        "last cluster token": None if first is None else first + max(config.num_clusters, 1) - 1,
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
    read_object(folder / _TOKENIZER_CONFIG_FILE)
    # Without a config the Auto class would read the model's, and warn where it does not know its type: code out of a
    # repository registers none.
    tokenizer = try_tokenizer(folder, XLGenConfig(backbone=PreTrainedConfig()))
    if tokenizer.pad_token_id is None or {tokenizer.eos_token_id, tokenizer.sep_token_id} == {None}:
        raise ModelFolderError(f"{folder / _TOKENIZER_CONFIG_FILE}: a padding token and an end token are needed.")
    return tokenizer


def try_tokenizer(folder: Path, config: PreTrainedConfig | None = None) -> PreTrainedTokenizerBase:
    """The tokenizer of any checkpoint, which has encoded a few texts.

    Args:
        folder: the folder of the checkpoint.
        config: its config, where that is known; read from the folder if None.

    Raises:
        MissingExtraError: if its files need a package that is not installed.
        ModelFolderError: if its files make no tokenizer, or one that cannot encode.
    """
    found = [name for name in _TOKENIZER_FILES if (folder / name).exists()]  # some tokenizers have other files alone
    for name in found:
        read_object(folder / name)
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            folder, config=config, trust_remote_code=False
        )
        for text in _TRIED_TEXTS:
            tokenizer(text, truncation=True, max_length=_TRIED_LENGTH, verbose=False)
        ids = {name: getattr(tokenizer, name) for name in _SPECIAL_IDS}
        longest = tokenizer.model_max_length
    except (KeyboardInterrupt, SystemExit):
        raise
    except BaseException as err:  # of a damaged file the Rust library of tokenizers raises `Exception`, or it panics
        if __package__ == "xlgen_hf.files":
            for package, extra in _needed_packages(folder):
                if not any(distributions(name=package)):
                    raise MissingExtraError(package, extra) from err
        raise ModelFolderError(
            f"{folder}: {' or '.join(found) or 'what it holds'} makes no tokenizer: {err or type(err).__name__}"
        ) from err
    odd = next((name for name, token in ids.items() if token is not None and type(token) is not int), None)
    settings = folder / _TOKENIZER_CONFIG_FILE
    if odd is not None:
        raise ModelFolderError(f"{settings}: {odd} is {shown(ids[odd])}; it must be an integer.")
    if type(longest) not in (int, float) or not longest >= _SHORTEST:
        raise ModelFolderError(
            f"{settings}: model_max_length is {shown(longest)}; it must be a number >= {_SHORTEST}."
        )
    return tokenizer


def _needed_packages(folder: Path) -> list[tuple[str, str]]:
    """Packages that read the files of a tokenizer, and the extras that bring them; none for a `tokenizer.json`."""
    if (folder / _TOKENIZER_FILES[0]).is_file():
        return []
    needed: list[tuple[str, str]] = []
    for path in sorted(path for path in folder.glob("*") if path.suffix in _SUBWORD_MODELS):
        with path.open("rb") as file:
            is_sentencepiece = file.read(1) == _FIRST_FIELD
        extra = "sentencepiece" if is_sentencepiece else "tiktoken"
        needed += [(extra, extra)]
        needed += [("protobuf", extra)] if is_sentencepiece else []
    return needed
