"""How similarities become scores, chosen on validation texts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from itertools import product

from .retriever import LabelRetriever
from .weighing import RetrievalSettings, RetrievedCandidates

__all__ = ["tune_retriever"]

logger = logging.getLogger(__name__)

_TUNING_CUTS = (2, 3, 4, 5, 6)
_NAME_WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)
_DENSE_CHOICES: dict[str, tuple[float, ...]] = {
    "temperature": (0.02, 0.05, 0.1),
    "name_power": (2.0, 4.0, 8.0),
    "name_weight": _NAME_WEIGHTS,
}
_LEXICAL_CHOICES: tuple[dict[str, tuple[float, ...]], ...] = (  # each round starts from what the one before chose
    {
        "lexical_neighbor_weight": (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
        "lexical_name_weight": (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
    },
    {"temperature": _DENSE_CHOICES["temperature"], "name_weight": (0.0, *_NAME_WEIGHTS)},
)


def tune_retriever(
    retriever: LabelRetriever, texts: Sequence[str], label_ids: Sequence[Sequence[int]]
) -> LabelRetriever:
    """Choose temperature, power and weights on validation texts: the best micro F1 of a fixed number of labels.

    Args:
        retriever: the index, made from training rows alone.
        texts: validation texts.
        label_ids: their label ids.

    Returns:
        The index with these settings; without its lexical part where that does not help.
    """
    found = retriever.find(retriever.embed(texts), max(_TUNING_CUTS), texts=texts)
    best = (-1.0, replace(retriever.settings, lexical_neighbor_weight=0.0, lexical_name_weight=0.0))
    for choices in (_DENSE_CHOICES, *(() if retriever.lexical is None else _LEXICAL_CHOICES)):
        start = best[1]
        for values in product(*choices.values()):
            settings = replace(start, **dict(zip(choices, values, strict=True)))  # type: ignore[arg-type]
            best = max(best, (_best_f1(retriever, found, settings, label_ids), settings), key=lambda pair: pair[0])
    logger.info("Retrieval has micro F1 %.4f on the validation rows with %s.", *best)
    chosen = best[1]
    return retriever.with_settings(chosen, lexical=bool(chosen.lexical_neighbor_weight or chosen.lexical_name_weight))


def _best_f1(
    retriever: LabelRetriever,
    found: RetrievedCandidates,
    settings: RetrievalSettings,
    label_ids: Sequence[Sequence[int]],
) -> float:
    """Micro F1 of the best fixed number of labels."""
    scored = found.weigh(settings, retriever.labels, max(_TUNING_CUTS))
    gold, correct, rank = sum(map(len, label_ids)), scored.correct(label_ids), scored.rank
    return max(float(2 * correct[rank < k].sum() / ((rank < k).sum() + gold)) for k in _TUNING_CUTS)
