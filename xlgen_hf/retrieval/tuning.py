"""How similarities become scores, chosen on validation texts."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product

from ..ranking.thresholds import MICRO_F1_TOLERANCE
from .retriever import LabelRetriever
from .weighing import RetrievalSettings, RetrievedCandidates

__all__ = ["tune_retriever"]

logger = logging.getLogger(__name__)

_Scored = tuple[float, RetrievalSettings]  # micro F1 on the validation texts

_TUNING_CUTS = (2, 3, 4, 5, 6)
_TEMPERATURES = (0.02, 0.05, 0.1)
_NAME_WEIGHTS = (0.25, 0.5, 1.0, 2.0, 4.0)
_DENSE_CHOICES: dict[str, tuple[float, ...]] = {
    "temperature": _TEMPERATURES,
    "name_power": (2.0, 4.0, 8.0),
    "name_weight": _NAME_WEIGHTS,
}
_LEXICAL_CHOICES: dict[str, tuple[float, ...]] = {
    "lexical_neighbor_weight": (0.0, 0.25, 0.5, 1.0, 2.0, 4.0, 8.0),
    "lexical_name_weight": (0.0, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0),
}
_LAST_CHOICES: dict[str, tuple[float, ...]] = {
    "temperature": _TEMPERATURES,
    "name_weight": _NAME_WEIGHTS,
}
_CLEARLY = 0.01  # of micro F1: a few hundred validation texts give or take as much by chance


def tune_retriever(
    retriever: LabelRetriever, texts: Sequence[str], label_ids: Sequence[Sequence[int]]
) -> LabelRetriever:
    """Choose temperature, power and weights on validation texts: the best micro F1 of a fixed number of labels.

    Args:
        retriever: the index, made from training rows alone.
        texts: validation texts.
        label_ids: their label ids.

    Returns:
        The index with these settings. Its lexical part, and either similarity of names, are left out only where the
        validation texts are clearly better off without: what is made of an index later, a fusion, has use for them
        even where its sum hardly has. Where some labels have no training rows, and so nothing but their names, names
        by spelling count unless that costs more than `MICRO_F1_TOLERANCE`: a few hundred rows hardly have such labels.
    """
    found = retriever.find(retriever.embed(texts), max(_TUNING_CUTS), texts=texts)

    def scored(choices: Iterable[RetrievalSettings]) -> list[_Scored]:
        return [(_best_f1(retriever, found, one, label_ids), one) for one in choices]

    start = replace(retriever.settings, lexical_neighbor_weight=0.0, lexical_name_weight=0.0)
    best = _best(scored(_varied(start, _DENSE_CHOICES)))
    if retriever.lexical is not None:
        spellings = scored(filter(_counts_spelling, _varied(best[1], _LEXICAL_CHOICES)))
        by_names = _best(one for one in spellings if one[1].lexical_name_weight)
        unseen = retriever.labels.getnnz(axis=0).min() == 0
        spelled = _with_the_part(by_names, _best(spellings), MICRO_F1_TOLERANCE if unseen else _CLEARLY)
        best = _with_the_part(spelled, best)
        best = _best(scored([best[1], *_varied(best[1], _LAST_CHOICES)]))
        if best[1].lexical_name_weight:  # else the names would count no longer, and unseen labels be lost
            without = _best(scored(_varied(replace(best[1], name_weight=0.0), {"temperature": _TEMPERATURES})))
            best = _with_the_part(best, without)
    logger.info("Retrieval has micro F1 %.4f on the validation rows with %s.", *best)
    return retriever.with_settings(best[1], lexical=_counts_spelling(best[1]))


def _best(choices: Iterable[_Scored]) -> _Scored:
    return max(choices, key=lambda one: one[0])


def _with_the_part(with_it: _Scored, without: _Scored, tolerance: float = _CLEARLY) -> _Scored:
    """Settings with a part of the score; without it only where that is better by more than a share of its F1."""
    return with_it if with_it[0] >= (1 - tolerance) * without[0] else without


def _varied(start: RetrievalSettings, choices: Mapping[str, Sequence[float]]) -> Iterator[RetrievalSettings]:
    """Settings with all combinations of some values."""
    for values in product(*choices.values()):
        yield replace(start, **dict(zip(choices, values, strict=True)))  # type: ignore[arg-type]


def _counts_spelling(settings: RetrievalSettings) -> bool:
    return bool(settings.lexical_neighbor_weight or settings.lexical_name_weight)


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
