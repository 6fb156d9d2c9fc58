"""What a search has found, in ids: label sets of texts with their candidates' probabilities, and how to search."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field, fields, replace
from numbers import Integral
from typing import TYPE_CHECKING, get_args

import numpy as np

from ..errors import ConfigurationError
from ..ranking.scored_labels import Combination, ScoredLabels, combine
from ..settings import Pool

if TYPE_CHECKING:
    from .search import LabelSets

__all__ = ["MAX_BEAMS", "DecodedSet", "DecodingOptions", "scored_sets", "to_decoded"]

MAX_BEAMS = 1000
"""Beams or samples of a text; more would be a mistake, and take all memory."""
_LOWEST_TEMPERATURE = 0.001
_TINY = 1e-300
_OF_THE_MODEL = ("num_beams", "min_labels", "max_labels")  # None stands for the model's own setting


@dataclass(frozen=True)
class DecodingOptions:
    """How label sets are searched for.

    Attributes:
        num_beams: beams of a text; 1 is greedy search; the model's own setting if None.
        num_samples: sets to sample from the model's distribution instead of searching; 0 searches.
        temperature: divides the log-probabilities that are sampled from, at least 0.001; 1 where nothing is sampled.
        pool: how the sets of a text's beams or samples become one: `best` takes the most probable, `average`, `vote`
            and `union` fuse them as [`combine`] fuses models; of a fused set that is too large or too small for the
            bounds, the labels with the highest scores are taken. If None, the model's own setting where the number of
            beams is the model's own too, else `best`.
        seed: of the samples.
        min_labels: minimum number of labels per text; the model's own setting if None.
        max_labels: maximum number of labels per text; the model's own setting if None.
        min_candidates: labels to score for each text where its set holds fewer. Greedy search continues for them; a
            model that has candidates in its input (rcl) scores those as well, by any search, if this is above 0.
        ordered: generate labels in the order of training alone, so that a set has just one sequence. Cannot be used
            with the order `shuffle`.

    Raises:
        ConfigurationError: if a value is out of range, or options exclude each other.
    """

    num_beams: int | None = None
    num_samples: int = 0
    temperature: float = 1.0
    pool: Pool | None = None
    seed: int = 0
    min_labels: int | None = None
    max_labels: int | None = None
    min_candidates: int = 0
    ordered: bool = False

    def __post_init__(self) -> None:
        """Check the values."""
        bounds = {
            "num_beams": (1, MAX_BEAMS), "num_samples": (0, MAX_BEAMS), "min_labels": (0, None),
            "max_labels": (1, None), "min_candidates": (0, None),
        }  # fmt: skip
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if value is None and name in _OF_THE_MODEL:
                continue
            if not _is_integer(value) or value < low or (high is not None and value > high):
                allowed = f">= {low}" if high is None else f"from {low} to {high}"
                raise ConfigurationError(f"{name}={value!r}; it must be an integer {allowed}.")
        if self.num_beams not in (None, 1) and self.num_samples:
            raise ConfigurationError(f"num_beams={self.num_beams} and num_samples={self.num_samples}; choose one.")
        if self.pool is not None and self.pool not in get_args(Pool):
            raise ConfigurationError(f"pool={self.pool!r}; choose one of {sorted(get_args(Pool))}.")
        if not _LOWEST_TEMPERATURE <= self.temperature < math.inf:  # quotients of a lower one overflow
            raise ConfigurationError(
                f"temperature={self.temperature}; it must be a finite number of at least {_LOWEST_TEMPERATURE}."
            )
        if self.temperature != 1 and not self.num_samples:
            raise ConfigurationError(f"temperature={self.temperature} has no effect without num_samples.")

    def resolved(self, num_beams: int, pool: Pool) -> DecodingOptions:
        """The same options with the model's own search where none is given.

        Raises:
            ConfigurationError: if sets are to be pooled, and the search is greedy.
        """
        if self.num_samples:
            return replace(self, num_beams=1, pool=self.pool or "best")
        own = self.num_beams is None
        beams = num_beams if own else self.num_beams
        if beams == 1 and self.pool not in (None, "best"):
            raise ConfigurationError(
                f"pool={self.pool!r} has nothing to pool: greedy search finds one set. Give num_beams or num_samples."
            )
        return replace(self, num_beams=beams, pool=self.pool or (pool if own else "best"))

    def changed(self) -> dict[str, object]:
        """The values of a search that differ from the defaults."""
        plain = DecodingOptions(min_candidates=self.min_candidates, seed=self.seed)
        return {
            one.name: getattr(self, one.name)
            for one in fields(self)
            if getattr(self, one.name) != getattr(plain, one.name)
        }

    @property
    def is_greedy(self) -> bool:
        """Whether it is greedy search; of resolved options."""
        return self.num_beams == 1 and not self.num_samples


def _is_integer(value: object) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


@dataclass
class DecodedSet:
    """The label set of one text, in ids.

    Attributes:
        labels: label ids in the order of their generation.
        log_probs: log-probability of each label given the text and the labels before it.
        would_end: after each label, whether the model gave the end token more than the token that came next; where a
            minimum number of labels went against what the model prefers.
        clusters: ids of the clusters that guided the generation, most probable first.
        complete: whether the sequence came to its end; if not, it was truncated at the maximum length.
        candidates: label id -> probability, for these labels and those of the text's other beams or samples.
        would_be_empty: the same as `would_end` before the first label.
    """

    labels: list[int]
    log_probs: list[float]
    would_end: list[bool]
    clusters: list[int]
    complete: bool
    candidates: dict[int, float] = field(default_factory=dict)
    would_be_empty: bool = False

    def with_bounds(self, min_labels: int, max_labels: int | None = None) -> DecodedSet:
        """The set that greedy search finds with other, lower bounds on the number of labels.

        Greedy search goes the same way under every bound until it may end, so the set is a prefix of this one.

        Args:
            min_labels: minimum number of labels.
            max_labels: maximum number of labels; that of the search if None.
        """
        last = len(self.labels) + 1 if max_labels is None else max_labels
        would_end = enumerate([self.would_be_empty, *self.would_end])
        ends = (n for n, end in would_end if (end and n >= min_labels) or n == last)
        size = next(ends, None)
        return DecodedSet(
            self.labels[:size],
            self.log_probs[:size],
            self.would_end[:size],
            self.clusters,
            self.complete or size is not None,
            self.candidates,
            self.would_be_empty,
        )

    def without(self, given: Collection[int]) -> DecodedSet:
        """The set and its candidates without labels that were given."""
        kept = [place for place, label in enumerate(self.labels) if label not in given]
        return replace(
            self,
            labels=[self.labels[place] for place in kept],
            log_probs=[self.log_probs[place] for place in kept],
            would_end=[self.would_end[place] for place in kept],
            candidates={label: score for label, score in self.candidates.items() if label not in given},
        )


def scored_sets(decoded: Iterable[DecodedSet]) -> ScoredLabels:
    """The candidates of decoded sets with their probabilities; the sets themselves are chosen."""
    return ScoredLabels.from_rows(
        (list(one.candidates), list(one.candidates.values()), [label in one.labels for label in one.candidates])
        for one in decoded
    )


def to_decoded(
    sets: LabelSets, clusters: list[list[int]], options: DecodingOptions, given: Sequence[Sequence[int]] = ()
) -> list[DecodedSet]:
    """The most probable set of each text, or all of them fused, with the candidates of all.

    Args:
        sets: what was found.
        clusters: ids of the clusters that guided each text.
        options: how it was searched for, resolved.
        given: label ids that each text's sets begin with; none if empty. Fused sets count them, and leave them out.
    """
    decoded = _best_sets(sets, clusters, _candidates(sets, sampled=options.num_samples > 0))
    if options.pool is None or options.pool == "best":
        return decoded
    return _pooled(decoded, sets, options.pool, given)


def _best_sets(sets: LabelSets, clusters: list[list[int]], candidates: list[dict[int, float]]) -> list[DecodedSet]:
    sizes = (sets.labels[:, 0] >= 0).sum(1).tolist()
    parts = (sets.labels, sets.log_probs, sets.would_end, sets.complete, sets.would_be_empty)
    first = (part[:, 0].tolist() for part in parts)
    return [
        DecodedSet(labels[:size], log_probs[:size], ends[:size], some, complete, found, empty)
        for size, labels, log_probs, ends, complete, empty, some, found in zip(
            sizes, *first, clusters, candidates, strict=True
        )
    ]


def _candidates(sets: LabelSets, *, sampled: bool) -> list[dict[int, float]]:
    """Probability of each label that a text's sets hold, `B` dictionaries.

    The mean, over the sets, of the probability with which the label was generated; weighted by the sets' own
    probabilities, samples alike (they come as often as they are probable).
    """
    finite = np.isfinite(sets.score)
    weight = finite.astype(np.float64) if sampled else np.exp(sets.score - sets.score[:, :1]) * finite
    weight /= weight.sum(1, keepdims=True).clip(1e-12)
    text, member, place = np.nonzero((sets.labels >= 0) & finite[:, :, None])
    label = sets.labels[text, member, place].astype(np.int64)
    share = weight[text, member] * np.exp(sets.log_probs[text, member, place].astype(np.float64))
    span = int(sets.labels.max(initial=0)) + 1
    keys, inverse = np.unique(text * span + label, return_inverse=True)
    probability = np.bincount(inverse, weights=share, minlength=len(keys)).clip(0.0, 1.0)
    found: list[dict[int, float]] = [{} for _ in range(len(sets.labels))]
    for key, value in zip(keys.tolist(), probability.tolist(), strict=True):
        found[key // span][key % span] = value
    return found


def _pooled(
    decoded: list[DecodedSet], sets: LabelSets, how: Combination, given: Sequence[Sequence[int]]
) -> list[DecodedSet]:
    """One set out of all sets of each text."""
    probability = np.exp(sets.log_probs.astype(np.float64)).clip(0, 1)
    exists = (sets.labels >= 0) & np.isfinite(sets.score)[:, :, None]
    members = [
        ScoredLabels.from_rows(
            (labels[there].tolist(), scores[there].tolist(), [True] * int(there.sum()))
            for labels, scores, there in zip(sets.labels[:, k], probability[:, k], exists[:, k], strict=True)
        )
        for k in range(sets.labels.shape[1])
    ]
    fused = _within_bounds(combine(members, how, present=np.isfinite(sets.score).T), sets, given)
    scores = np.split(fused.scores, fused.start[1:-1])
    names = np.split(fused.labels, fused.start[1:-1])
    return [
        replace(
            one,
            labels=labels,
            log_probs=np.log(np.maximum(values, _TINY)).tolist(),
            would_end=[True] * len(labels),
            candidates=dict(zip(all_names.tolist(), all_scores.tolist(), strict=True)),
        )
        for one, (labels, values), all_names, all_scores in zip(decoded, fused.sets(), names, scores, strict=True)
    ]


def _within_bounds(fused: ScoredLabels, sets: LabelSets, given: Sequence[Sequence[int]]) -> ScoredLabels:
    """The best labels of each text, as many as were chosen within the bounds of the search, without those given."""
    size = np.bincount(fused.text[fused.chosen], minlength=len(fused)).clip(sets.min_labels, sets.max_labels)
    further = fused.without(given) if given else fused
    size -= np.diff(fused.start) - np.diff(further.start)
    return further.choose(further.rank < size[further.text])
