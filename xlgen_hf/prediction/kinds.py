"""Which kind a source is of, told without importing what generates: an index does without, and starts sooner."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeGuard

from ..ranking.sources import CandidateSource
from ..retrieval.retriever import LabelRetriever
from .encoding import ModelSource

if TYPE_CHECKING:
    from .generator import Generator

__all__ = ["is_generator", "name_of_source"]


def is_generator(source: object) -> TypeGuard[Generator]:
    """Whether a source is a generator."""
    return isinstance(source, ModelSource) and source.generates


def name_of_source(source: CandidateSource) -> str:
    """What the scores of a source are called, in a fusion and in evidence.

    Args:
        source: a generator, a candidate head, a retriever or label trees.
    """
    if isinstance(source, ModelSource):
        return "generated" if is_generator(source) else "candidate_head"
    return "retrieval" if isinstance(source, LabelRetriever) else "label_trees"
