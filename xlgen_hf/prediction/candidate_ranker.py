"""The candidate head of XLGen-RCL as a source: retrieved candidates, ranked by one encoder pass and no decoder.

Also which source a model predicts with.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np

from ..processing_xlgen import XLGenProcessor
from ..ranking.scored_labels import ScoredLabels
from ..ranking.sources import TextBatch
from .encoding import GeneratorModel, ModelSource
from .generator import Generator

__all__ = ["CandidateRanker", "model_source"]


class CandidateRanker(ModelSource):
    """Ranks the candidates in a model's input by what its candidate head says of them."""

    def rank(self, texts: Sequence[str], k: int = 0, allowed: np.ndarray | None = None) -> ScoredLabels:
        """The candidates of each text with the head's probabilities; see [`CandidateSource`].

        Args:
            texts: `B` texts, one batch.
            k: labels for each text at least, or as many as there are; 0 for those in the input. Further ones come
                after those, in the order of retrieval.
            allowed: ids of the labels to choose from; all if None.
        """
        batch = TextBatch.of(texts)
        found = self.encoded(batch).ranked_candidates(allowed)
        retriever = self.processor.retriever
        if allowed is not None:
            k = max(k, 1)  # those in the input may all be others
        if not k or retriever is None or (np.diff(found.start) >= k).all():
            return found
        return found.followed_by(retriever.rank(batch, k, allowed), k)

    def features(
        self, texts: Sequence[str], candidates: ScoredLabels, names: Collection[str] | None = None
    ) -> dict[str, np.ndarray]:
        """The head's probabilities of candidates, `(M,)`; see [`CandidateScorer`]."""
        return {"candidate_head": self.encoded(TextBatch.of(texts)).candidate_head_scores(candidates)}


def model_source(model: GeneratorModel, processor: XLGenProcessor) -> CandidateRanker | Generator:
    """What a model predicts with: its candidate head or its generator.

    Args:
        model: the model, in evaluation mode.
        processor: its processor.
    """
    if model.config.predicts_with == "candidate_head":
        return CandidateRanker(model, processor)
    return Generator(model, processor)
