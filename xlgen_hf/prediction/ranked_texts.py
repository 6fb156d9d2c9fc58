"""What is asked of a predictor before it decides, and what it finds: candidates of texts, and what guided them."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np

from ..decoding.decoded_sets import DecodingOptions
from ..errors import ConfigurationError
from ..labels.space import LabelSpace
from ..labels.vocabulary import Vocabulary
from ..ranking.decisions import DecisionRule
from ..ranking.scored_labels import ScoredLabels
from ..settings import BATCH_SIZE
from .evidence import LabelEvidence
from .results import NovelLabel

__all__ = ["Choose", "RankedTexts", "Ranking"]

logger = logging.getLogger(__name__)

Choose: TypeAlias = Callable[[ScoredLabels, np.ndarray], ScoredLabels]
"""Chooses among the candidates of texts, given with the numbers of these texts."""


@dataclass(frozen=True)
class RankedTexts:
    """Candidates of texts, and what guided the generator.

    Attributes:
        scored: the candidates; those of the model's own set are chosen.
        clusters: ids of the clusters that guided each text, most probable first.
        novel: names that are not labels, of each text, most probable first; empty in closed vocabulary.
        evidence: what speaks for each predicted label of each text, best first; None where it was not asked for.
        inputs: ids of the candidates that the model read with each text, in this order; None where evidence was not
            asked for, and of a model that reads none.
    """

    scored: ScoredLabels
    clusters: list[list[int]]
    novel: list[list[NovelLabel]]
    evidence: list[list[LabelEvidence]] | None = None
    inputs: list[list[int]] | None = None


@dataclass(frozen=True)
class Ranking:
    """How candidates of texts are looked for; [`Predictor.predict`] says what the fields mean."""

    decoding: DecodingOptions | None = None
    allowed: np.ndarray | None = None
    given: Sequence[Sequence[str]] | None = None
    open_vocabulary: bool = False
    batch_size: int = BATCH_SIZE
    progress: bool = False

    def given_ids(
        self, texts: int, space: LabelSpace, vocabulary: Vocabulary | None, *, report: bool = False
    ) -> list[list[int]]:
        """Ids of the labels that each text has already, each once.

        Args:
            texts: the number of texts.
            space: the labels.
            vocabulary: the concepts that they stand for, if any.
            report: count what is no label, or may be several, in the log.

        Raises:
            ConfigurationError: if there are other numbers of texts, or a text has no list.
        """
        given = self.given or ()
        if len(given) != texts:
            raise ConfigurationError(f"{texts} texts come with given labels for {len(given)}; one list for each.")
        name = next((one for one in given if isinstance(one, str)), None)
        if name is not None:
            raise ConfigurationError(f"given holds {name!r}; a list of labels is needed for each text: [{name!r}].")
        named = given if vocabulary is None else [vocabulary.labels_of(names, space) for names in given]
        found = [space.encode_known(names) for names in named]
        unknown = [name for _, names in found for name in names]
        if unknown and report:
            logger.warning(
                "Given labels that the model does not have, or that may mean several of its labels, and that say"
                " nothing to it: %d, e.g. %r.",
                *(len(unknown), unknown[0]),
            )
        return [list(dict.fromkeys(ids)) for ids, _ in found]

    def num_given(self, texts: int, space: LabelSpace, vocabulary: Vocabulary | None) -> np.ndarray | None:
        """The number of labels that each text has already, `(N,)`; None where nothing was given. See [`given_ids`]."""
        if self.given is None:
            return None
        return np.array([len(ids) for ids in self.given_ids(texts, space, vocabulary)], dtype=np.int64)

    def for_rule(self, rule: DecisionRule) -> Ranking:
        """The same with as many candidates as a rule wants to choose from."""
        wanted = self.decoding or DecodingOptions()
        if rule.min_candidates <= wanted.min_candidates:
            return self
        return replace(self, decoding=replace(wanted, min_candidates=rule.min_candidates))
