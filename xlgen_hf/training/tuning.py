"""After training: validation rows choose how a model searches and decides, and calibrate its scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, get_args

from ..configuration_xlgen import Pool
from ..decoding.decoded_sets import DecodedSet, DecodingOptions, score_decoded, to_decoded
from ..processing_xlgen import XLGenProcessor
from ..ranking.calibration import fit_calibrator

__all__ = ["tune_model"]

logger = logging.getLogger(__name__)

_CANDIDATES = 12  # labels of a text that greedy search scores

Texts = Sequence[Sequence[Sequence[int]]]
Score = Callable[[list[list[int]]], float]


def tune_model(
    model: Any,
    processor: XLGenProcessor,
    batches: Texts,
    references: Sequence[Sequence[int]],
    score: Score,
    *,
    num_beams: int = 5,
    choices: Sequence[int] = (1, 2, 3, 4, 5, 6),
) -> None:
    """Choose least number of labels and search, and fit the processor's calibrator, on validation rows.

    A generator that learned from incomplete label lists stops early; the least number of labels makes up for it. The
    most probable of several beams is a short set, and what several beams agree on is better than one of them: so
    greedy search and `num_beams` beams, each way of pooling them, compete with their own label sets.

    Args:
        model: a model in evaluation mode; its config keeps `min_labels`, `num_beams` and `pool`.
        processor: its processor, which keeps calibrator and thresholds.
        batches: tokenized texts, batch by batch.
        references: label ids of all texts, in the order of the batches.
        score: micro F1 of label sets in that order.
        num_beams: beams that compete with greedy search; 1 leaves them out.
        choices: least numbers of labels to choose from.
    """
    config = model.config
    greedy = _greedy(model, processor, batches, choices)
    scores = {n: score([one.with_min_labels(n).labels for one in greedy]) for n in choices}
    config.min_labels = max(scores, key=lambda n: scores[n])
    logger.info("min_labels=%d has the best micro F1 on the evaluation rows: %s", config.min_labels, _rounded(scores))
    found = {(1, "best"): [one.with_min_labels(config.min_labels) for one in greedy]}
    if num_beams > 1:
        found |= {(num_beams, pool): sets for pool, sets in _pooled(model, processor, batches, num_beams).items()}
    micro = {search: score([one.labels for one in sets]) for search, sets in found.items()}
    config.num_beams, config.pool = best = max(micro, key=lambda search: micro[search])
    shown = _rounded({f"{beams} ({pool})": value for (beams, pool), value in micro.items()})
    logger.info("num_beams=%d, pool=%s has the best micro F1 on the evaluation rows: %s", *best, shown)
    processor.calibrator = None
    chosen = found[best]
    start = 0
    for texts in batches:
        model.add_input_candidates(chosen[start : start + len(texts)], texts, processor)
        start += len(texts)
    scored = score_decoded(chosen, processor)
    processor.calibrator = fit_calibrator(scored, references, processor.label_space.counts)


def _greedy(model: Any, processor: XLGenProcessor, batches: Texts, choices: Sequence[int]) -> list[DecodedSet]:
    """Sets under a high lower bound; those of lower ones are prefixes of them."""
    highest = min(max(*choices, _CANDIDATES), model.config.max_labels)
    options = DecodingOptions(num_beams=1, min_labels=highest)
    return [one for texts in batches for one in model.decode_texts(texts, processor, options)]


def _pooled(model: Any, processor: XLGenProcessor, batches: Texts, num_beams: int) -> dict[str, list[DecodedSet]]:
    """Way of pooling -> the sets of all texts; each text is searched once."""
    found: dict[str, list[DecodedSet]] = {pool: [] for pool in get_args(Pool)}
    for texts in batches:
        options = DecodingOptions(num_beams=num_beams, pool="best")
        sets, clusters = model.search_texts(texts, processor, options)
        for pool in found:
            options = DecodingOptions(num_beams=num_beams, pool=pool)  # type: ignore[arg-type]
            found[pool] += to_decoded(sets, clusters, options)
    return found


def _rounded(scores: dict[Any, float]) -> dict[Any, float]:
    return {choice: round(score, 4) for choice, score in scores.items()}
