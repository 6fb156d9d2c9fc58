"""What the commands that answer texts share: the model on its device, and the rule that options ask for."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..prediction.predictor import Predictor
    from ..ranking.decisions import DecisionRule

__all__ = ["chosen_rule", "load_on_device"]

_AUTO = "auto"


def load_on_device(name: str, device: str | None) -> Predictor:
    """Whatever predicts labels, on a device: by default on a GPU where there is one, and it can be moved there."""
    import torch

    from ..files.model_checks import local_model
    from ..files.model_folder import holds_graphs
    from ..loading import load_predictor

    if device is None and torch.cuda.is_available() and not holds_graphs(local_model(name, {})):
        device = "cuda"
    return load_predictor(name, device=device or "cpu")


def chosen_rule(
    predictor: Predictor,
    top_k: int | None,
    threshold: str | None,
    objective: str | None = None,
    *,
    expected_f1: bool = False,
) -> DecisionRule | None:
    """The decision rule that the options ask for, None for the model's own.

    Args:
        predictor: what the thresholds for `auto` come from.
        top_k: value of `--top-k`.
        threshold: value of `--threshold`: a number, or `auto`.
        objective: value of `--objective`.
        expected_f1: whether `--expected-f1` was given.

    Raises:
        ConfigurationError: if options exclude each other, or a value is not allowed.
    """
    from ..errors import ConfigurationError
    from ..ranking.decisions import DecisionRule

    given = {"--top-k": top_k is not None, "--threshold": threshold is not None, "--expected-f1": expected_f1}
    chosen = [name for name, is_given in given.items() if is_given]
    if len(chosen) > 1:
        raise ConfigurationError(f"{' and '.join(chosen)} exclude each other; choose one.")
    if objective is not None and threshold != _AUTO:
        raise ConfigurationError(
            f"--objective {objective} chooses among the thresholds of --threshold auto; add that."
        )
    if expected_f1:
        return DecisionRule("expected_f1")
    if top_k is not None:
        return DecisionRule("top_k", top_k)
    if threshold is None:
        return None
    if threshold == _AUTO:
        return _tuned(predictor, objective or "micro")
    try:
        return DecisionRule("threshold", float(threshold))
    except ValueError as err:
        raise ConfigurationError(f"--threshold {threshold}: give a number from 0 to 1, or auto.") from err


def _tuned(predictor: Predictor, objective: str) -> DecisionRule:
    from ..errors import ConfigurationError
    from ..ranking.thresholds import tuned_threshold

    known = predictor.score_model.thresholds
    if objective not in known:
        raise ConfigurationError(
            f"--threshold auto: the model has no threshold for {objective!r}, only {sorted(known)}. Train it with "
            "validation rows, or give a number."
        )
    return tuned_threshold(known[objective])
