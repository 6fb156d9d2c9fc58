"""`model.predict` and `model.score`: texts to label sets, and scores of given labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np

from ..decoding.decoded_sets import DecodingOptions
from ..processing_xlgen import XLGenProcessor
from ..ranking.decisions import DecisionRule
from ..settings import BATCH_SIZE
from .encoding import GeneratorModel
from .generator import Generator
from .predictor import Predictor
from .results import LabelPrediction

__all__ = ["PredictionMixin"]


@contextmanager
def _without_dropout(model: GeneratorModel) -> Iterator[None]:
    """Switch dropout off for a while: a training leaves it on, and labels would be predicted at random."""
    trained = [part for part in model.modules() if part.training] if model.training else []
    if trained:
        model.eval()
    try:
        yield
    finally:
        for part in trained:
            part.training = True


class PredictionMixin:
    """What a model does at the level of labels."""

    def predict(
        self: GeneratorModel,
        texts: Sequence[str],
        processor: XLGenProcessor,
        *,
        decoding: DecodingOptions | None = None,
        rule: DecisionRule | None = None,
        allowed: np.ndarray | None = None,
        given: Sequence[Sequence[str]] | None = None,
        open_vocabulary: bool = False,
        evidence: bool = False,
        abstain_below: float | None = None,
        output_language: str | None = None,
        with_parents: bool = False,
        concepts: bool = False,
        batch_size: int = BATCH_SIZE,
        progress: bool = False,
    ) -> list[LabelPrediction]:
        """Predict the label sets of texts; see [`Predictor.predict`].

        Args:
            texts: the texts, in any order.
            processor: the model's processor; its score model calibrates and fuses scores.
            decoding: how to search; the model's own way if None.
            rule: which of the scored labels are predicted; the model's own rule if None.
            allowed: ids of the labels to choose from; all if None.
            given: names of labels that each text has already; only further ones are predicted.
            open_vocabulary: also look for label names that are not in the label space (`novel_labels`).
            evidence: also say what speaks for each label (`evidence`).
            abstain_below: mark texts whose expected F1 is lower, in [0, 1], for a person (`abstain`); no text if None.
            output_language: language of the labels, one of the vocabulary's; that of the training if None.
            with_parents: also say what is broader than each label (`parents`).
            concepts: also give each label as a concept (`concepts`).
            batch_size: texts in a batch.
            progress: show a progress bar on a terminal.

        Returns:
            A prediction for each text, its labels sorted by score.
        """
        with _without_dropout(self):
            return Predictor.from_model(self, processor).predict(
                texts,
                decoding=decoding,
                rule=rule,
                allowed=allowed,
                given=given,
                open_vocabulary=open_vocabulary,
                evidence=evidence,
                abstain_below=abstain_below,
                output_language=output_language,
                with_parents=with_parents,
                concepts=concepts,
                batch_size=batch_size,
                progress=progress,
            )

    def score(
        self: GeneratorModel,
        texts: Sequence[str],
        candidates: Sequence[Sequence[str]],
        processor: XLGenProcessor,
        *,
        given: Sequence[Sequence[str]] | None = None,
        batch_size: int = BATCH_SIZE,
    ) -> list[list[float]]:
        """Score candidate labels of texts by teacher forcing, without a search; see [`Generator.score_texts`].

        Args:
            texts: the texts.
            candidates: names of labels to score for each text; any number, of the label space.
            processor: the model's processor.
            given: labels that each text is known, or was predicted, to have; none if None.
            batch_size: texts in a batch.

        Returns:
            Probabilities in the order of the candidates, in [0, 1].

        Raises:
            LabelSpaceError: if a name is not in the label space.
        """
        with _without_dropout(self):
            return Generator(self, processor).score_texts(texts, candidates, given, batch_size)
