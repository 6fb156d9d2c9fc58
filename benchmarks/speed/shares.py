"""Where the CPU time of a training goes: matrix products, parts of the model, optimizer, and what is left."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.profiler import ProfilerActivity, profile, record_function

__all__ = ["step_shares"]

_PRODUCTS = {"aten::mm", "aten::addmm", "aten::bmm", "aten::baddbmm"}


def step_shares(train: Callable[[], object], model: torch.nn.Module) -> dict[str, float]:
    """Shares of the CPU time of a training, in which each operation is timed.

    Args:
        train: trains; called once.
        model: what it trains, with encoder and decoder.

    Returns:
        Shares of the whole: `encoder`, `decoder`, `rest of forward` (output layer, losses, clusters), forward alone,
        `backward`, `optimizer`, and `outside` (collator, norm of gradients, Python of the trainer): together 1;
        `products`, the matrix products of all of these; and `seconds`.
    """
    hooks = []
    for name, part in (("encoder", model.get_encoder()), ("decoder", model.get_decoder()), ("forward", model)):
        hooks += _timed(name, part)
    with profile(activities=[ProfilerActivity.CPU]) as timed, record_function("whole"):
        train()
    for hook in hooks:
        hook.remove()
    events = {one.key: one for one in timed.key_averages()}
    whole = events["whole"].cpu_time_total
    found = {name: events[name].cpu_time_total / whole for name in ("encoder", "decoder")}
    found["rest of forward"] = events["forward"].cpu_time_total / whole - sum(found.values())
    backward = [one for key, one in events.items() if key.startswith("autograd::engine::evaluate_function")]
    found["backward"] = sum(one.cpu_time_total for one in backward) / whole
    steps = [one for key, one in events.items() if key.startswith("Optimizer.step#")]
    found["optimizer"] = sum(one.cpu_time_total for one in steps) / whole
    found["outside"] = 1 - sum(found.values())
    found["products"] = sum(one.self_cpu_time_total for key, one in events.items() if key in _PRODUCTS) / whole
    return {**{name: round(value, 3) for name, value in found.items()}, "seconds": round(whole / 1e6, 2)}


def _timed(name: str, part: torch.nn.Module) -> list[torch.utils.hooks.RemovableHandle]:
    """Let the profiler time the runs of a part."""
    running: list[record_function] = []

    def begin(*_: object) -> None:
        running.append(record_function(name))
        running[-1].__enter__()

    def end(*_: object) -> None:
        running.pop().__exit__(None, None, None)

    return [part.register_forward_pre_hook(begin), part.register_forward_hook(end)]
