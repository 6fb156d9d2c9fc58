"""Ensembles: the predictions of several models, trained from other seeds or in other label orders, fused into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..decoding.decoded_sets import DecodingOptions, to_predictions
from ..errors import ConfigurationError
from ..labels.space import LabelSpace
from ..processing_xlgen import XLGenProcessor
from ..ranking.decisions import DecisionRule
from ..ranking.scored_labels import Combination, ScoredLabels, combine
from .results import LabelPrediction

__all__ = ["predict_ensemble"]


def predict_ensemble(
    members: Sequence[tuple[Any, XLGenProcessor]],
    texts: Sequence[str],
    *,
    how: Combination = "average",
    rule: DecisionRule | None = None,
    batch_size: int = 64,
    **options: Any,
) -> list[LabelPrediction]:
    """Predict with several models of the same labels.

    Args:
        members: models with their processors; the first one's clusters are reported.
        texts: the texts.
        how: see [`combine`].
        rule: which of the scored labels are predicted; what `how` chooses if None.
        batch_size: texts in a batch.
        options: see [`DecodingOptions`]; `labels` are ids of the first member.

    Raises:
        ConfigurationError: if the models have different labels.

    Source: Jung et al., EACL 2023, find ensembles of decodings critical.
    """
    rule = rule or DecisionRule()
    wanted = DecodingOptions(**{"num_candidates": rule.num_candidates, **options})
    space = members[0][1].label_space
    scored: list[ScoredLabels] = []
    first = None
    for model, processor in members:
        to_first = _ids_in(space, processor.label_space)
        own = wanted
        if wanted.labels is not None:
            own = replace(wanted, labels=np.flatnonzero(np.isin(to_first, wanted.labels)))
        decoded, part = model.scored_labels(texts, processor, own, batch_size=batch_size)
        scored.append(replace(part, labels=to_first[part.labels]))
        first = decoded if first is None else first
    return to_predictions(rule.apply(combine(scored, how)), first or [], members[0][1])


def _ids_in(space: LabelSpace, other: LabelSpace) -> np.ndarray:
    """Id in `space` of each label of `other`, `(L,)`."""
    if space.names == other.names:
        return np.arange(len(space))
    different = set(space.names) ^ set(other.names)
    if different:
        raise ConfigurationError(
            f"The models of an ensemble need the same labels; {len(different)} names are labels of one alone, e.g. "
            f"{sorted(different)[:3]}."
        )
    return np.array([space.index[name] for name in other.names])
