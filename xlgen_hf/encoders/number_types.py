"""The type of numbers that a model computes in: float32, or bfloat16 where the processor has instructions for it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, TypeAlias

import torch

__all__ = ["NumberType", "has_bfloat16", "number_type"]

NumberType: TypeAlias = Literal["auto", "float32", "bfloat16"]
"""A type by name; `auto` is bfloat16 where [`has_bfloat16`] says so, else float32."""

_INSTRUCTIONS = ("avx512_bf16", "amx_bf16")


def has_bfloat16(device: str | torch.device) -> bool:
    """Whether a device multiplies in bfloat16 by instructions of its own; without them it is slower than float32.

    Args:
        device: the device. Of processors only those with AVX512-BF16 or AMX count, as far as torch tells.
    """
    kind = torch.device(device).type
    if kind == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    tell: Callable[[], dict[str, object]] = getattr(torch.cpu, "get_capabilities", dict)  # old releases do not tell
    capabilities = tell()
    return kind == "cpu" and any(capabilities.get(name) for name in _INSTRUCTIONS)


def number_type(name: NumberType, device: str | torch.device) -> torch.dtype:
    """The type of numbers that a name stands for on a device.

    Args:
        name: `auto`, `float32` or `bfloat16`.
        device: where they are computed.
    """
    if name == "auto":
        return torch.bfloat16 if has_bfloat16(device) else torch.float32
    return torch.bfloat16 if name == "bfloat16" else torch.float32
