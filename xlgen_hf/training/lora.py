"""LoRA: an adapter of a few megabytes that is trained instead of the whole model.

What an adapter holds: low-rank changes to every linear layer that pretraining has seen; whole copies of the modules
that it has not seen (cluster head, cluster embeddings, the decoder that an encoder checkpoint gets), which low-rank
changes of random weights would not make useful; and the embedding rows of the tokens that XLGen adds. All other rows
stay as they are, and so does the bias that a BERT-like decoder adds to its logits, which starts at 0.

An adapter is a change to one base, so the base is kept: [`add_lora`] writes the untrained model to a folder of its own
(`xlgen train --lora` takes `base/` in the output folder), and the adapter's `adapter_config.json` names that folder.
Where the folder was moved, `base/` inside the adapter's folder, or next to that of a checkpoint, is taken. On the Hub
the base has a repository of its own (see `hub_adapters`).
"""

from __future__ import annotations

import importlib.util
import logging
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import torch
from torch import nn
from transformers.pytorch_utils import Conv1D

from ..configuration_xlgen import TUNED_FIELDS, XLGenConfig
from ..errors import ConfigurationError, MissingExtraError
from ..files.saving import replace_files
from ..modeling_xlgen import XLGenForConditionalGeneration
from ..modules.adapters import require_peft
from ..processing_xlgen import XLGenProcessor
from ..settings import Quantization

if TYPE_CHECKING:
    from peft import LoraConfig, PeftModel

__all__ = ["Quantization", "add_lora", "check_quantization", "lora_config", "save_active_adapter", "save_settings"]

logger = logging.getLogger(__name__)

_UNUSED = "pooler"  # BERT's, which only its classifiers read


def lora_config(
    model: XLGenForConditionalGeneration, *, r: int = 16, alpha: float = 32, dropout: float = 0.05
) -> LoraConfig:
    """Settings of peft for an XLGen model: what of it is adapted, and what is trained as a whole.

    Adapted are all linear layers of attention and feed-forward that pretraining has seen: q, k, v, o, wi and wo of a
    T5; q_proj, k_proj, v_proj, out_proj, fc1 and fc2 of a BART; query, key, value and dense of a BERT encoder; Wqkv,
    Wi and Wo of a ModernBERT encoder; q_proj, k_proj, v_proj, o_proj, gate_proj, up_proj and down_proj of a Llama or
    Qwen; c_attn, c_proj and c_fc of a GPT-2; in any other family whatever it calls them. Apply it with
    `peft.get_peft_model(model, lora_config(model))`, or with [`add_lora`], which keeps the base as well.

    Args:
        model: the model, without an adapter.
        r: rank of the changes, at least 1 and at most the model's width.
        alpha: their scale is `alpha / r`.
        dropout: dropout in front of them, in [0, 1).

    Raises:
        ConfigurationError: if a setting is out of range, or the model has no linear layer that pretraining has seen.
        MissingExtraError: if peft is not installed.
    """
    peft = require_peft()
    if not isinstance(model, XLGenForConditionalGeneration):
        raise ConfigurationError(
            f"A {type(model).__name__} was given; LoRA starts from an XLGenForConditionalGeneration that has no "
            "adapter yet."
        )
    if not 1 <= r <= model.config.hidden_size:
        raise ConfigurationError(f"r={r}; a rank from 1 to the model's width, {model.config.hidden_size}, is needed.")
    if alpha <= 0:
        raise ConfigurationError(f"alpha={alpha}; it must be positive.")
    if not 0 <= dropout < 1:
        raise ConfigurationError(f"dropout={dropout}; a share in [0, 1) is needed.")
    layers = _adapted_layers(model)
    config: LoraConfig = peft.LoraConfig(
        task_type="SEQ_2_SEQ_LM",
        r=r,
        lora_alpha=alpha,
        lora_dropout=dropout,
        target_modules=layers,
        fan_in_fan_out=any(isinstance(model.get_submodule(name), Conv1D) for name in layers),
        modules_to_save=_fresh_modules(model) or None,
        trainable_token_indices=_trained_rows(model),
    )
    return config


def _adapted_layers(model: XLGenForConditionalGeneration) -> list[str]:
    """Names of the linear layers of the backbone that pretraining has seen, but for the output layer."""
    output = model.get_output_embeddings()
    names = [
        name
        for name, module in model.named_modules()
        if isinstance(module, (nn.Linear, Conv1D)) and module is not output and name.startswith("backbone.")
    ]
    seen = [name for name in names if not model.is_fresh(f"{name}.") and _UNUSED not in name.split(".")]
    if not seen:
        raise ConfigurationError(
            f"{type(model.backbone).__name__} has no linear layer that pretraining has seen, so there is nothing to "
            "adapt. Train it without LoRA."
        )
    return seen


def _fresh_modules(model: XLGenForConditionalGeneration) -> list[str]:
    """Names of the layers without pretraining, but for those that share weights with the embedding matrix."""
    layers = (model.get_input_embeddings(), model.get_output_embeddings())
    shared = {id(parameter) for layer in layers for parameter in layer.parameters()}
    return [
        name
        for name, module in model.named_modules()
        if not any(True for _ in module.children())
        and any(True for _ in module.parameters())
        and model.is_fresh(f"{name}.")
        and not any(id(parameter) in shared for parameter in module.parameters())
    ]


def _trained_rows(model: XLGenForConditionalGeneration) -> dict[str, list[int]]:
    """Rows of the tokens that XLGen added: separator, then task prefixes and clusters, or levels of candidates.

    They are trained where they are looked up, and in the output layer too where that has weights of its own; where it
    has not, peft finds what shares the matrix.
    """
    first = model.config.separator_token_id
    if first is None:
        raise ConfigurationError("The model's separator_token_id is None; make the model with from_backbone.")
    end = first + 1
    if model.config.first_cluster_token_id is not None:
        end = model.config.first_cluster_token_id + model.config.num_clusters
    if model.config.level_token_ids:
        end = max(end, model.config.level_token_ids.stop)
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    layers = [embeddings] if output.weight is embeddings.weight else [embeddings, output]
    names = [next(name for name, module in model.named_modules() if module is layer) for layer in layers]
    return {name: list(range(first, end)) for name in names}


def add_lora(
    model: XLGenForConditionalGeneration,
    processor: XLGenProcessor,
    base_dir: str | Path,
    *,
    r: int = 16,
    alpha: float = 32,
    dropout: float = 0.05,
    quantize: Quantization | None = None,
) -> PeftModel:
    """Keep an untrained model as the base of an adapter, and put an adapter on it.

    Args:
        model: the model, as [`XLGenForConditionalGeneration.from_backbone`] made it.
        processor: its processor.
        base_dir: folder of the base; a base of the same checkpoint and settings that is there already is taken instead
            of `model`.
        r: see [`lora_config`].
        alpha: see [`lora_config`].
        dropout: see [`lora_config`].
        quantize: hold the base's weights in 4 or 8 bits; needs a GPU.

    Returns:
        The model to train. Its `save_pretrained` writes the adapter alone; [`XLGenTrainer`] adds config and processor.

    Raises:
        ConfigurationError: if `base_dir` has the base of other settings, or `quantize` finds no GPU.
        MissingExtraError: if peft, or for `quantize` bitsandbytes, is not installed.
    """
    peft = require_peft()
    check_quantization(quantize)
    base_dir = Path(base_dir).resolve()
    untuned = {name: getattr(model.config, name) for name in TUNED_FIELDS}
    settings = lora_config(model, r=r, alpha=alpha, dropout=dropout)
    if (base_dir / "config.json").is_file():
        found = XLGenForConditionalGeneration.from_pretrained(base_dir, dtype=model.dtype)
        _check_same_base(base_dir, found, model, processor)
        model = found
        logger.info("The adapter's base is taken from %s.", base_dir)
    else:
        with replace_files(base_dir) as aside:
            model.save_pretrained(aside)
            processor.save_pretrained(aside)
    if quantize is not None:
        model = _load_quantized(peft, base_dir, model, quantize)
    for name, value in untuned.items():  # a run that ended before its report had written what it chose into the base
        setattr(model.config, name, value)
    model.name_or_path = str(base_dir)  # by which peft names the base in the adapter
    adapted: PeftModel = peft.get_peft_model(model, settings)
    return adapted


def _check_same_base(
    base_dir: Path,
    found: XLGenForConditionalGeneration,
    wanted: XLGenForConditionalGeneration,
    processor: XLGenProcessor,
) -> None:
    names = set(XLGenConfig.__annotations__) - {"backbone", *TUNED_FIELDS}
    different = [name for name in sorted(names) if getattr(found.config, name) != getattr(wanted.config, name)]
    shapes = ({name: tuple(p.shape) for name, p in one.named_parameters()} for one in (found, wanted))
    if next(shapes) != next(shapes):
        different.append("backbone")
    elif not _same_pretraining(found, wanted):
        different.append("pretrained weights")
    if XLGenProcessor.from_pretrained(base_dir).label_space.names != processor.label_space.names:
        different.append("labels")
    if different:
        raise ConfigurationError(
            f"{base_dir} holds the base of an adapter that differs in {different}. Choose another output folder, or "
            "remove that one to start from scratch."
        )


def _same_pretraining(one: XLGenForConditionalGeneration, other: XLGenForConditionalGeneration) -> bool:
    """Whether the linear layers that pretraining has seen have the same weights; others may have drawn new ones."""
    return all(
        torch.equal(one.get_submodule(name).weight.cpu(), other.get_submodule(name).weight.cpu())
        for name in _adapted_layers(other)
    )


def save_settings(model: XLGenForConditionalGeneration, folder: str | Path) -> None:
    """Write a model's config again, so that what training set (`min_labels`) is there wherever the folder is loaded.

    Args:
        model: the model.
        folder: the folder of its base or of its adapter.
    """
    with replace_files(folder) as aside:
        model.config.save_pretrained(aside)


def save_active_adapter(
    model: PeftModel, folder: str | Path, state_dict: dict[str, torch.Tensor] | None = None
) -> None:
    """Write the active adapter of a model into a folder itself, whatever its name; peft has folders for names.

    Args:
        model: the model with its adapters.
        folder: the folder.
        state_dict: weights to save instead of the model's, as a trainer of several devices has gathered them.
    """
    (name,) = model.active_adapters
    model.save_pretrained(str(folder), state_dict=state_dict, selected_adapters=[name])
    inner = Path(folder) / name
    if name != "default":
        for path in inner.iterdir():
            path.replace(Path(folder) / path.name)
        inner.rmdir()


# ---------------------------------------------------------------------------------------------------- quantized


def check_quantization(quantize: Quantization | None) -> None:
    """Refuse a quantized base where there cannot be one.

    Args:
        quantize: what was asked for.

    Raises:
        ConfigurationError: if there is no GPU.
        MissingExtraError: if bitsandbytes is not installed.
    """
    if quantize is None:
        return
    if quantize not in ("4bit", "8bit"):
        raise ConfigurationError(f"quantize={quantize!r}; choose '4bit', '8bit' or None.")
    if not torch.cuda.is_available():
        raise ConfigurationError(
            f"quantize={quantize!r} needs a GPU that CUDA knows, and there is none here. Leave it out: LoRA trains on "
            "a CPU too, with the base in full precision."
        )
    if importlib.util.find_spec("bitsandbytes") is None:
        raise MissingExtraError("bitsandbytes", "quantize")


def _load_quantized(
    peft: ModuleType, base_dir: Path, model: XLGenForConditionalGeneration, quantize: Quantization
) -> XLGenForConditionalGeneration:
    """The base with quantized weights, but for what is trained as a whole and for the output layer."""
    from transformers import BitsAndBytesConfig

    output = next(name for name, module in model.named_modules() if module is model.get_output_embeddings())
    bits = BitsAndBytesConfig(
        load_in_4bit=quantize == "4bit",
        load_in_8bit=quantize == "8bit",
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        llm_int8_skip_modules=[*_fresh_modules(model), output],
    )
    loaded = XLGenForConditionalGeneration.from_pretrained(base_dir, quantization_config=bits, device_map={"": 0})
    prepared: XLGenForConditionalGeneration = peft.prepare_model_for_kbit_training(
        loaded, use_gradient_checkpointing=False
    )
    return prepared
