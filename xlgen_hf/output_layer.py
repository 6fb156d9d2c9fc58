"""The output layer of a backbone, plain or wrapped by an adapter that trains some of its rows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

__all__ = ["is_wrapped", "layer_rows", "layer_state", "unwrapped"]


def is_wrapped(layer: nn.Module) -> bool:
    """Whether peft has put a wrapper around the layer, because an adapter trains rows of it."""
    return hasattr(layer, "original_module")


def _plain(layer: nn.Module) -> Any:
    return getattr(layer, "original_module", layer)


def layer_state(layer: nn.Module) -> tuple[Any, ...]:
    """What changes whenever the layer's weights do."""
    sources = [_plain(layer).weight, *(p for name, p in layer.named_parameters() if "trainable_tokens" in name)]
    return getattr(layer, "disable_adapters", False), *((p.data_ptr(), p._version) for p in sources)


def layer_rows(layer: nn.Module, name: str, rows: torch.Tensor | slice) -> dict[str, torch.Tensor]:
    """Rows of the layer's weight and bias, by parameter name, with those that an adapter trains.

    Args:
        layer: the layer.
        name: its name in the model.
        rows: their numbers.
    """
    weight: Any = layer.weight
    kept = {f"{name}.weight": weight[rows]}
    bias = getattr(_plain(layer), "bias", None)
    if bias is not None:
        kept[f"{name}.bias"] = bias[rows]
    return kept


@contextmanager
def unwrapped(model: nn.Module, name: str) -> Iterator[None]:
    """Put a layer in the place of the wrapper that peft has set around it, for the length of a block.

    The wrapper writes trained rows by their numbers in the vocabulary, which a restricted layer does not have, and
    leaves out the layer's bias (peft 0.21). So the layer itself runs, with the rows of [`layer_rows`].

    Args:
        model: the model.
        name: name of the layer in it; nothing happens where it is not wrapped.
    """
    above, _, last = name.rpartition(".")
    parent = model.get_submodule(above)
    layer = parent._modules[last]
    assert layer is not None
    parent._modules[last] = _plain(layer)
    try:
        yield
    finally:
        parent._modules[last] = layer
