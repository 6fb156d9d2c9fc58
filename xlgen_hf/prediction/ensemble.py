"""Ensembles: the predictions of several models, trained from other seeds or in other label orders, fused into one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from ..decoding.decoded_sets import DecodingOptions
from ..errors import ConfigurationError
from ..labels.space import LabelSpace
from ..ranking.decisions import DecisionRule
from ..ranking.scored_labels import Combination, combine
from ..settings import BATCH_SIZE
from .predictor import Predictor
from .ranked_texts import Ranking
from .results import LabelPrediction

__all__ = ["Ensemble"]


class Ensemble:
    """Predicts with several models of the same labels.

    Args:
        members: predictors; the first one's clusters are reported, and label ids are its.
        how: see [`combine`].

    Raises:
        ConfigurationError: if there is no model, or they have different labels.

    Source: Jung et al., EACL 2023, find ensembles of decodings critical.
    """

    def __init__(self, members: Sequence[Predictor], how: Combination = "average") -> None:
        self.members = list(members)
        if not self.members:
            raise ConfigurationError("An ensemble needs at least one model; none was given.")
        self.how = how
        self.label_space = self.members[0].label_space
        self._to_first = [_ids_in(self.label_space, member.label_space) for member in self.members]

    def predict(
        self,
        texts: Sequence[str],
        *,
        decoding: DecodingOptions | None = None,
        rule: DecisionRule | None = None,
        allowed: np.ndarray | None = None,
        given: Sequence[Sequence[str]] | None = None,
        batch_size: int = BATCH_SIZE,
        progress: bool = False,
    ) -> list[LabelPrediction]:
        """Predict the label sets of texts; see [`Predictor.predict`].

        Args:
            texts: the texts.
            decoding: how generators search; each one's own way if None.
            rule: which of the scored labels are predicted; what `how` chooses if None.
            allowed: ids of the labels to choose from, those of the first member; all if None.
            given: names of labels that each text has already; only further ones are predicted.
            batch_size: texts in a batch.
            progress: show a progress bar for each member on a terminal.
        """
        rule = rule or DecisionRule()
        ranking = Ranking(decoding, allowed, given, batch_size=batch_size, progress=progress).for_rule(rule)
        held = ranking.num_given(len(texts), self.label_space, self.members[0].vocabulary)
        scored, first = [], None
        for member, to_first in zip(self.members, self._to_first, strict=True):
            own = None if allowed is None else np.flatnonzero(np.isin(to_first, allowed))
            asked = member.ranking_for(member.score_model.rule if rule.kind == "own" else rule)
            found = asked.rank_texts(texts, rule.num_labels, replace(ranking, allowed=own))
            decided = member.score_model.rule.apply(found.scored, held, in_all=True)
            scored.append(replace(decided, labels=to_first[decided.labels]))
            first = first or found
        assert first is not None
        return self.members[0].to_predictions(rule.apply(combine(scored, self.how), held), first)


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
