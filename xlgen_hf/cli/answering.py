"""What the commands that answer texts share: the model on its device, the rule that options ask for, a server."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from socket import socket

    from ..encoders.number_types import NumberType
    from ..prediction.predictor import Predictor
    from ..ranking.decisions import DecisionRule

__all__ = [
    "SERVER_PACKAGES",
    "check_packages",
    "chosen_rule",
    "load_on_device",
    "option_name",
    "web_address",
]

SERVER_PACKAGES = ("fastapi", "uvicorn", "prometheus_client", "python_multipart")
"""What a server needs, as it is imported."""


def load_on_device(
    name: str,
    device: str | None,
    predict_with: str | None = None,
    dtype: NumberType | None = None,
    *,
    quiet: bool = False,
) -> Predictor:
    """Whatever predicts labels, on a device: by default on a GPU where there is one, and it can be moved there.

    Args:
        name: its folder, or its Hub id.
        device: the device; None for the default, where each of several processes of a machine takes another GPU.
        predict_with: the part that predicts; see `load_model`.
        dtype: what it computes in; see `load_model`. What was exported has a type of its own, which `auto` keeps.
        quiet: show no progress bar of weights that load.
    """
    with _collecting_later():
        from ..files.model_folder import holds_graphs
        from ..files.saving import local_model
        from ..loading import load_predictor

        exported = holds_graphs(local_model(name, {}))
        if device is None and not exported:
            from ..encoders.loaded import own_device

            device = own_device()
        if quiet and not exported:
            from transformers.utils import logging

            logging.disable_progress_bar()
        chosen = None if exported and dtype == "auto" else dtype
        return load_predictor(name, device=device or "cpu", dtype=chosen, predict_with=predict_with)


@contextmanager
def _collecting_later() -> Iterator[None]:
    """Leave circular garbage where it is for a while: to look for it as libraries are imported is 0.5 s of a start."""
    collects = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if collects:
            gc.enable()


def check_packages(extra: str, packages: Iterable[str]) -> None:
    """Refuse to begin where a package of an extra is not installed.

    Raises:
        MissingExtraError: naming the first one that is missing.
    """
    from importlib.util import find_spec

    from ..errors import MissingExtraError

    for package in packages:
        if find_spec(package) is None:
            raise MissingExtraError(package, extra)


def web_address(host: str, listener: socket) -> str:
    """The address of a server, for people.

    Args:
        host: what it was told to listen at.
        listener: its socket.
    """
    shown = f"[{host}]" if ":" in host else host
    return f"http://{shown}:{listener.getsockname()[1]}"


def option_name(name: str) -> str:
    """How an option is written on the command line."""
    return f"--{name.replace('_', '-')}"


def chosen_rule(
    predictor: Predictor,
    top_k: int | None,
    threshold: str | None,
    objective: str | None = None,
    *,
    expected_f1: bool = False,
) -> DecisionRule | None:
    """The decision rule that the options of a command ask for; see `prediction.options.chosen_rule`."""
    from ..prediction import options

    return options.chosen_rule(
        predictor,
        top_k=top_k,
        threshold=threshold,
        objective=objective,
        expected_f1=expected_f1,
        spelling=option_name,
    )
