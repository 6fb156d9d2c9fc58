"""The device that a process computes on where nobody names one: the same for models and encoders."""

from __future__ import annotations

import os

import torch

__all__ = ["own_device"]


def own_device() -> str:
    """The GPU of this process, by its number on the machine (`torchrun`), or the first one; without any the CPU."""
    if not torch.cuda.is_available():
        return "cpu"
    number = os.environ.get("LOCAL_RANK")
    return f"cuda:{int(number) % torch.cuda.device_count()}" if number else "cuda"
