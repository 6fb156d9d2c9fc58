"""After training: validation rows choose how a model searches and decides, and calibrate its scores."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar, get_args

import numpy as np

from ..configuration_xlgen import Pool, XLGenConfig
from ..decoding.decoded_sets import DecodedSet, DecodingOptions, scored_sets, to_decoded
from ..prediction.candidate_ranker import CandidateRanker
from ..prediction.encoding import Encoded, GeneratorModel, ModelSource
from ..prediction.generator import Generator
from ..prediction.predictor import Predictor, candidate_values
from ..processing_xlgen import EncodedText, XLGenProcessor
from ..ranking.fitting import (
    MIN_RIGHT_CANDIDATES,
    calibrated_model,
    decided_sets,
    fit_fusion,
    weighed_model,
    with_confidence,
)
from ..ranking.score_model import ScoreModel
from ..ranking.scored_labels import ScoredLabels
from ..ranking.sources import SavedSource, TextBatch
from ..ranking.thresholds import often_without_labels

__all__ = ["fuse_sources", "tune_model"]

logger = logging.getLogger(__name__)

_HEAD = "candidate_head"
_CANDIDATES = 12  # labels of a text that greedy search scores

_Key = TypeVar("_Key")

Batches = Sequence[Sequence[EncodedText]]
Score = Callable[[list[list[int]]], float]
_Bounded = dict[int, list[DecodedSet]]
"""Minimum number of labels -> the sets of all texts."""


def tune_model(
    model: GeneratorModel,
    processor: XLGenProcessor,
    batches: Batches,
    references: Sequence[Sequence[int]],
    score: Score,
    *,
    num_beams: int = 5,
    choices: Sequence[int] = (1, 2, 3, 4, 5, 6),
    predict_with: str | None = None,
) -> ScoreModel:
    """Choose guidance, minimum number of labels and search on validation rows, and calibrate what is found.

    A generator that learned from incomplete label lists stops early; the minimum number of labels makes up for it. The
    most probable of several beams is a short set, and what several beams agree on is better than one of them: so
    greedy search and `num_beams` beams, each way of pooling them, compete with their own label sets. For a model that
    predicts with its candidate head there is no search to choose: its scores are fused with those of retrieval. A
    model that has learned both, and is not told what to predict with, does so with what has the better micro F1.

    Args:
        model: a model in evaluation mode; its config keeps `predicts_with`, `cluster_threshold` (`bcl`),
            `min_clusters` (`mcg`), `candidate_gate` (with a head), `min_labels`, `num_beams` and `pool`.
        processor: its processor.
        batches: encoded texts, batch by batch.
        references: label ids of all texts, in the order of the batches.
        score: micro F1 of label sets in that order.
        num_beams: beams that compete with greedy search; 1 leaves them out.
        choices: minimum numbers of labels to choose from, at least 1; beside them 0, where texts are often without
            labels, see `often_without_labels`.
        predict_with: what the model predicts with, `generator` or `candidate_head`; the better of those that it has
            learned if None.

    Returns:
        Calibrator and thresholds; of a candidate head fusion, rule and thresholds.

    Raises:
        ConfigurationError: if the model does not have what it is to predict with.
    """
    config, counts = model.config, processor.label_space.counts
    has_both = config.candidate_head and config.generation_loss_weight > 0 and config.variant != "mcg"
    if predict_with is not None:
        config.predicts_with = predict_with
        config.validate_xlgen()
    if config.predicts_with == "candidate_head" and (predict_with or not has_both):
        return weighed_model(_ranked(model, processor, batches), references, counts, _HEAD)
    if often_without_labels([*map(len, references)]):
        choices = (0, *choices)
    tuned, micro = _tune_generator(model, processor, batches, references, score, num_beams, choices)
    if predict_with or not has_both:
        return tuned
    ranked = _ranked(model, processor, batches)
    scores = {"generator": micro, "candidate_head": score(_decided_by_halves(ranked, references, counts))}
    config.predicts_with = max(scores, key=lambda name: scores[name])
    shown = (config.predicts_with, _rounded(scores))
    logger.info("predicts_with=%s has the best micro F1 on the evaluation rows: %s", *shown)
    return tuned if config.predicts_with == "generator" else weighed_model(ranked, references, counts, _HEAD)


def _tune_generator(
    model: GeneratorModel,
    processor: XLGenProcessor,
    batches: Batches,
    references: Sequence[Sequence[int]],
    score: Score,
    num_beams: int,
    choices: Sequence[int],
) -> tuple[ScoreModel, float]:
    """Score model of a generator, and the micro F1 of the sets by the search that its config then keeps."""
    config, generator = model.config, Generator(model, processor)
    greedy, scores = _best_guided(generator, batches, choices, score)
    config.min_labels = max(scores, key=lambda n: scores[n])
    logger.info("min_labels=%d has the best micro F1 on the evaluation rows: %s", config.min_labels, _rounded(scores))
    found = {(1, "best"): greedy[config.min_labels]}
    if num_beams > 1:
        found |= {(num_beams, pool): sets for pool, sets in _pooled(generator, batches, num_beams).items()}
    micro = {search: score([one.labels for one in sets]) for search, sets in found.items()}
    config.num_beams, config.pool = best = max(micro, key=lambda search: micro[search])
    shown = _rounded({f"{beams} ({pool})": value for (beams, pool), value in micro.items()})
    logger.info("num_beams=%d, pool=%s has the best micro F1 on the evaluation rows: %s", *best, shown)
    chosen = found[best]
    own, counts = scored_sets(chosen), processor.label_space.counts
    if processor.candidates is not None:
        start = 0
        for texts, encoded in zip(batches, _encoded(generator, batches), strict=True):
            generator.add_input_candidates(chosen[start : start + len(texts)], encoded)
            start += len(texts)
    tuned = calibrated_model(scored_sets(chosen), references, counts)
    return with_confidence(tuned, tuned.calibrate(own, counts), references), micro[best]


def _ranked(model: GeneratorModel, processor: XLGenProcessor, batches: Batches) -> ScoredLabels:
    """What the head says of the candidates of all texts; their parts are what retrieval says of them."""
    ranker = CandidateRanker(model, processor)
    return ScoredLabels.concatenated([ranker.encode(texts).ranked_candidates() for texts in batches])


def _decided_by_halves(
    ranked: ScoredLabels, references: Sequence[Sequence[int]], counts: np.ndarray
) -> list[list[int]]:
    """Label sets of a head's candidates, each half of the texts decided by what the other half teaches.

    The weights of a fusion fit the rows that they are learned from; a generator, for which a few choices are made
    there, could not compete with them on few rows.
    """
    halves, sets = np.arange(len(ranked)) % 2, dict[int, list[int]]()
    for half in (0, 1):
        learned_from, decided_on = np.flatnonzero(halves != half), np.flatnonzero(halves == half)
        if not len(decided_on):  # a text alone is decided by itself
            continue
        learned_from = learned_from if len(learned_from) else decided_on
        with _without_report():
            known = [references[row] for row in learned_from.tolist()]
            model = weighed_model(ranked.take(learned_from), known, counts, _HEAD)
        found = decided_sets(model, ranked.take(decided_on), counts, _HEAD)
        sets |= zip(decided_on.tolist(), found, strict=True)
    return [sets[row] for row in range(len(ranked))]


@contextmanager
def _without_report() -> Iterator[None]:
    """What is learned on the way, and not kept, is not reported."""
    reporting = logging.getLogger(weighed_model.__module__)
    level = reporting.level
    reporting.setLevel(logging.ERROR)
    try:
        yield
    finally:
        reporting.setLevel(level)


def _best_guided(
    generator: Generator, batches: Batches, choices: Sequence[int], score: Score
) -> tuple[_Bounded, dict[int, float]]:
    """The greedy sets of each minimum number of labels, and their micro F1, guided in the best way.

    The clusters that a model predicts are fewer, or more, than those that help its labels most, and its head may know
    better than its decoder what to copy. The config keeps what was chosen.
    """
    config = generator.model.config

    def searched() -> tuple[_Bounded, dict[int, float]]:
        greedy = _greedy(generator, batches, choices)
        return greedy, {n: score([one.labels for one in sets]) for n, sets in greedy.items()}

    best = searched()
    for name, values in _guidance(config):
        found = {getattr(config, name): best}
        for value in values:
            setattr(config, name, value)
            found[value] = found[value] if value in found else searched()
        micro = {value: max(scores.values()) for value, (_, scores) in found.items()}
        chosen = max(micro, key=lambda value: micro[value])
        setattr(config, name, chosen)
        best = found[chosen]
        logger.info("%s=%s has the best micro F1 on the evaluation rows: %s", name, chosen, _rounded(micro))
    return best


def _guidance(config: XLGenConfig) -> Iterable[tuple[str, tuple[float, ...]]]:
    """What says how the decoder is guided, and the values that compete with the one in the config."""
    if config.variant == "bcl":
        yield "cluster_threshold", (0.25, 0.5, 0.75)
    if config.variant == "mcg":
        most = min(config.max_clusters, config.num_clusters)
        yield "min_clusters", tuple(range(1, min(3, most) + 1))
    if config.candidate_head and config.copies_candidates:
        yield "candidate_gate", (False, True)


def _encoded(generator: Generator, batches: Batches) -> Iterable[Encoded]:
    return (generator.encode(texts) for texts in batches)


def _greedy(generator: Generator, batches: Batches, choices: Sequence[int]) -> _Bounded:
    """Sets under a high lower bound; those of lower ones are prefixes of them."""
    highest = min(max(*choices, _CANDIDATES), generator.model.config.max_labels)
    searching = generator.searching(DecodingOptions(num_beams=1, min_labels=highest))
    sets = [one for encoded in _encoded(searching, batches) for one in searching.decode(encoded)]
    return {n: [one.with_bounds(n) for one in sets] for n in choices}


def _pooled(generator: Generator, batches: Batches, num_beams: int) -> dict[str, list[DecodedSet]]:
    """Way of pooling -> the sets of all texts; each text is searched once."""
    found: dict[str, list[DecodedSet]] = {pool: [] for pool in get_args(Pool)}
    for encoded in _encoded(generator, batches):
        sets = generator.search(encoded, DecodingOptions(num_beams=num_beams, pool="best"))
        for pool in found:
            options = DecodingOptions(num_beams=num_beams, pool=pool)  # type: ignore[arg-type]
            found[pool] += to_decoded(sets, encoded.clusters, options)
    return found


def _rounded(scores: dict[_Key, float]) -> dict[_Key, float]:
    return {choice: round(score, 4) for choice, score in scores.items()}


def fuse_sources(
    predictor: Predictor,
    sources: Mapping[str, SavedSource],
    texts: Sequence[str],
    references: Sequence[Sequence[int]],
    *,
    candidates_per_source: int = 20,
    batch_size: int = 64,
    features: Collection[str] | None = None,
) -> ScoreModel:
    """Learn on validation rows how the scores of what predicts and of further sources are fused.

    Args:
        predictor: a generator, a candidate head, an index or label trees; the calibrator of its score model, if any,
            is kept.
        sources: further sources, `retrieval` and `label_trees`, made from training rows alone.
        texts: validation texts.
        references: their label ids.
        candidates_per_source: labels of a text that each further source contributes.
        batch_size: texts in a batch.
        features: what the model has to say of all candidates: `teacher_forced`, `candidate_head`; all that it can if
            None. Predictions spend no time on what is left out.

    Raises:
        ConfigurationError: if the candidates are all right or all wrong, so that nothing can be learned.
    """
    source, counts = predictor.source, predictor.label_space.counts
    calibrator, depth = (
        predictor.score_model.calibrator,
        0 if isinstance(source, ModelSource) else candidates_per_source,
    )
    blocks: list[ScoredLabels] = []
    order = sorted(range(len(texts)), key=lambda row: -len(texts[row]))
    for first in range(0, len(order), batch_size):
        batch = TextBatch([texts[row] for row in order[first : first + batch_size]], candidates_per_source)
        own = ScoreModel(calibrator).calibrate(source.rank(batch, depth), counts)
        candidates, values = candidate_values(source, own, sources, batch, candidates_per_source, features)
        blocks.append(ScoredLabels(candidates.start, candidates.labels, candidates.scores, candidates.chosen, values))
    found = ScoredLabels.concatenated(blocks).take(np.argsort(order))
    right = int(found.correct(references).sum())
    if right < MIN_RIGHT_CANDIDATES:
        logger.warning(
            "%d candidates are right on the validation rows; weights that are learned from less than %d may fit these "
            "rows alone.",
            *(right, MIN_RIGHT_CANDIDATES),
        )
    fusion, rule, thresholds = fit_fusion(found, found.parts, references, counts, candidates_per_source)
    model = ScoreModel(calibrator, fusion, rule, thresholds, sources)
    return with_confidence(model, fusion.fuse(found, found.parts, counts), references)
