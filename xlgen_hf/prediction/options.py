"""Options of prediction as people give them by name, to a command or a server, and what they ask of a model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import numpy as np

from ..errors import ConfigurationError, LabelSpaceError
from ..ranking.decisions import DecisionRule
from ..ranking.thresholds import tuned_threshold
from .predictor import Predictor

__all__ = ["Spelling", "chosen_labels", "chosen_rule"]

Spelling: TypeAlias = Callable[[str], str]
"""How an option is written where it was given, for messages: `top_k` may be `--top-k`."""

_AUTO = "auto"


def chosen_rule(
    predictor: Predictor,
    *,
    top_k: int | None = None,
    threshold: float | str | None = None,
    objective: str | None = None,
    expected_f1: bool = False,
    spelling: Spelling = str,
) -> DecisionRule | None:
    """The decision rule that options ask for, None for the model's own.

    Args:
        predictor: what the thresholds for `auto` come from.
        top_k: number of labels of each text.
        threshold: minimum score of a label, from 0 to 1, or `auto`.
        objective: what `auto` is best for: `micro`, `macro` or `example`; `micro` if None.
        expected_f1: whether as many labels are wanted as promise the highest F1.
        spelling: how options are written in messages.

    Raises:
        ConfigurationError: if options exclude each other, or a value is not allowed.
    """
    given = {"top_k": top_k is not None, "threshold": threshold is not None, "expected_f1": expected_f1}
    chosen = [spelling(name) for name, is_given in given.items() if is_given]
    if len(chosen) > 1:
        raise ConfigurationError(f"{' and '.join(chosen)} exclude each other; choose one.")
    if objective is not None and threshold != _AUTO:
        raise ConfigurationError(
            f"{spelling('objective')} {objective} chooses among the thresholds of {spelling('threshold')} auto; add "
            "that."
        )
    if expected_f1:
        return DecisionRule("expected_f1")
    if top_k is not None:
        return DecisionRule("top_k", top_k)
    if threshold is None:
        return None
    if threshold == _AUTO:
        return _tuned(predictor, objective or "micro", spelling)
    try:
        return DecisionRule("threshold", float(threshold))
    except ValueError as err:
        raise ConfigurationError(f"{spelling('threshold')} {threshold}: give a number from 0 to 1, or auto.") from err


def _tuned(predictor: Predictor, objective: str, spelling: Spelling) -> DecisionRule:
    known = predictor.score_model.thresholds
    if objective not in known:
        raise ConfigurationError(
            f"{spelling('threshold')} auto: the model has no threshold for {objective!r}, only {sorted(known)}. Train "
            "it with validation rows, or give a number."
        )
    own = predictor.score_model.rule
    return tuned_threshold(known[objective], own.min_labels if own.kind == "threshold" else 1)


def chosen_labels(
    predictor: Predictor,
    *,
    allow: Iterable[str] | None = None,
    deny: Iterable[str] | None = None,
    cluster: Iterable[str] | None = None,
    branch: Iterable[str] | None = None,
    without_branch: Iterable[str] | None = None,
    spelling: Spelling = str,
) -> np.ndarray | None:
    """Ids of the labels that may be predicted, sorted; None for all.

    Args:
        predictor: the model.
        allow: names of the labels to choose from, or names and ids of their concepts; all if None.
        deny: labels that are never predicted, named in the same ways.
        cluster: names of clusters whose labels are to choose from.
        branch: concepts to choose from, with all below them.
        without_branch: concepts that are never predicted, nor those below them.
        spelling: how options are written in messages.

    Raises:
        ConfigurationError: if no label is left, or the model has no clusters or no vocabulary.
        LabelSpaceError: if a name is not known.
    """
    space, vocabulary = predictor.label_space, predictor.vocabulary
    chosen = np.ones(len(space), dtype=bool)

    def ids_of(option: str, names: Iterable[str]) -> list[int]:
        try:
            return space.encode(names if vocabulary is None else vocabulary.labels_of(names, space, unclear=False))
        except LabelSpaceError as err:
            raise LabelSpaceError(f"{spelling(option)}: {err}") from err

    if allow is not None:
        chosen[:] = False
        chosen[ids_of("allow", allow)] = True
    if deny is not None:
        chosen[ids_of("deny", deny)] = False
    if cluster:
        chosen &= np.isin(np.arange(len(space)), predictor.labels_of_clusters(list(cluster)))
    if branch:
        chosen &= np.isin(np.arange(len(space)), predictor.labels_of_branches(branch))
    if without_branch:
        chosen[predictor.labels_of_branches(without_branch)] = False
    if not chosen.any():
        names = [spelling(name) for name in ("allow", "deny", "cluster")]
        raise ConfigurationError(f"{', '.join(names)} and branches leave no label to predict.")
    return None if chosen.all() else np.flatnonzero(chosen)
