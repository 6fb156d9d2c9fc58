"""Scores of given labels by teacher forcing: candidates are grouped by what is generated before them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import TYPE_CHECKING

import numpy as np
import torch

from .label_sets import LabelSetConstraint
from .outputs import XLGenMemory
from .search import DecoderRows, DecodeStep, score_continuations

if TYPE_CHECKING:
    from .processing_xlgen import XLGenProcessor

__all__ = ["score_candidates"]

_CANDIDATES_AT_ONCE = 1024


@dataclass
class _Context:
    """What is generated before some candidates of a text.

    Attributes:
        text: the text.
        prefix: tokens so far, start token included.
        places: places of the candidates among those of the text.
    """

    text: int
    prefix: list[int]
    places: list[int] = field(default_factory=list)


def score_candidates(
    step: DecodeStep,
    constraint: LabelSetConstraint,
    memory: XLGenMemory,
    candidates: Sequence[Sequence[int]],
    given: Sequence[Sequence[int]],
    processor: XLGenProcessor,
    start_token: int,
) -> list[list[float]]:
    """Probability of each candidate as the next label, at its place among the labels that are given.

    Args:
        step: runs the decoder, see `search.py`.
        constraint: gives the trie and its columns.
        memory: what the model's `encode` gave for `B` texts.
        candidates: label ids of each text.
        given: label ids that each text has, in decode order.
        processor: gives the label space and how labels are spelled.
        start_token: token that opens a sequence.
    """
    device = memory[0].device
    scores = [[0.0] * len(labels) for labels in candidates]
    contexts = _contexts(candidates, given, processor, start_token)
    for _, same_length in groupby(sorted(contexts, key=lambda one: len(one.prefix)), key=lambda one: len(one.prefix)):
        for part in _parts(same_length):
            texts = torch.tensor([context.text for context in part], device=device)
            pairs = [(row, context.text, place) for row, context in enumerate(part) for place in context.places]
            log_probs = score_continuations(
                DecoderRows(step, memory.select(texts)),
                constraint,
                torch.tensor([context.prefix for context in part], device=device),
                np.array([candidates[text][place] for _, text, place in pairs]),
                np.array([row for row, _, _ in pairs]),
            )
            for (_, text, place), score in zip(pairs, np.exp(log_probs).tolist(), strict=True):
                scores[text][place] = score
    return scores


def _contexts(
    candidates: Sequence[Sequence[int]], given: Sequence[Sequence[int]], processor: XLGenProcessor, start_token: int
) -> list[_Context]:
    """One context for each text and number of given labels that come before a candidate."""
    found: dict[tuple[int, int], _Context] = {}
    for text, labels in enumerate(candidates):
        for place, label in enumerate(labels):
            before = processor.label_space.labels_before(label, given[text])
            if (text, before) not in found:
                tokens = [token for one in given[text][:before] for token in processor.label_token_ids[one]]
                found[text, before] = _Context(text, [start_token, *tokens])
            found[text, before].places.append(place)
    return list(found.values())


def _parts(contexts: Iterator[_Context]) -> Iterator[list[_Context]]:
    """Contexts with at most about so many candidates together."""
    part: list[_Context] = []
    count = 0
    for context in contexts:
        if part and count + len(context.places) > _CANDIDATES_AT_ONCE:
            yield part
            part, count = [], 0
        part.append(context)
        count += len(context.places)
    if part:
        yield part
