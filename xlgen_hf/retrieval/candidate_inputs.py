"""XLGen-RCL: candidate labels that retrieval finds for a text become a part of the model's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TypedDict, get_args

import numpy as np

from ..configuration_xlgen import NUM_LEVELS, Conditioning
from ..errors import ConfigurationError
from ..files.schema import Fields, choice, integer, list_of, named_after, number
from ..labels.tokens import TruncationReport
from ..ranking.fusion import MAX_CANDIDATES
from ..ranking.scored_labels import ScoredLabels
from ..ranking.sources import SCORES
from .retriever import LabelRetriever

__all__ = ["CandidateInputs", "InputCandidates"]


class _InputsContent(TypedDict):
    num_input_candidates: int
    conditioning: Conditioning
    levels: list[float]


_INPUTS_FORM = Fields[_InputsContent](
    {
        "num_input_candidates": integer(minimum=1, maximum=MAX_CANDIDATES),
        "conditioning": choice(*get_args(Conditioning)),
        "levels": list_of(number(), min_length=NUM_LEVELS - 1, max_length=NUM_LEVELS - 1, ascending=True),
    }
)


@dataclass(frozen=True)
class InputCandidates:
    """Candidates of one text that a model reads, best first.

    Attributes:
        labels: their label ids.
        levels: level of each one's score, from 0 to `NUM_LEVELS - 1`.
        scores: each one's scores by the retriever, named in `SCORES`, in [0, 1].
    """

    labels: list[int] = field(default_factory=list)
    levels: list[int] = field(default_factory=list)
    scores: list[list[float]] = field(default_factory=list)

    def score_rows(self, size: int) -> list[list[float]]:
        """The scores of each candidate, padded with 0 to a number of candidates.

        Args:
            size: the number.
        """
        return [*self.scores, *([0.0] * len(SCORES) for _ in range(size - len(self.scores)))]


@dataclass(frozen=True)
class CandidateInputs:
    """Finds the candidate labels that a model reads with a text.

    With the conditioning `tokens` a candidate is a token for the level of its score, and the tokens of its name, after
    those of the text; with `memory` the model joins the vector of the label to the encoder's hidden states.

    Attributes:
        retriever: finds the candidates.
        num_input_candidates: candidates of a text, from 1 to 1000; best first.
        conditioning: see above.
        levels: scores that part the levels, in ascending order, `(NUM_LEVELS - 1,)`; equally many candidates of the
            training texts have each level.

    Raises:
        ConfigurationError: if a value is out of range.
    """

    retriever: LabelRetriever
    num_input_candidates: int
    conditioning: Conditioning
    levels: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the values."""
        number = self.num_input_candidates
        if type(number) is not int or not 1 <= number <= MAX_CANDIDATES:
            raise ConfigurationError(
                f"num_input_candidates={number!r}; it must be an integer from 1 to {MAX_CANDIDATES}."
            )
        if self.conditioning not in get_args(Conditioning):
            raise ConfigurationError(f"conditioning={self.conditioning!r}; choose one of {get_args(Conditioning)}.")
        levels = np.asarray(self.levels, dtype=np.float64)
        if levels.shape != (NUM_LEVELS - 1,) or not np.isfinite(levels).all() or (np.diff(levels) < 0).any():
            raise ConfigurationError(f"levels={list(self.levels)}; {NUM_LEVELS - 1} ascending scores are needed.")

    @classmethod
    def fit(
        cls,
        retriever: LabelRetriever,
        texts: Sequence[str],
        *,
        num_input_candidates: int = 16,
        conditioning: Conditioning = "tokens",
        progress: bool = True,
    ) -> CandidateInputs:
        """Part the levels by the candidates of training texts.

        Args:
            retriever: finds the candidates; made from the training texts.
            texts: some training texts.
            num_input_candidates: candidates of a text.
            conditioning: see the class.
            progress: show a progress bar on a terminal.
        """
        found = retriever.rank_training_texts(texts, num_input_candidates, progress=progress)
        quantiles = np.quantile(found.scores, np.arange(1, NUM_LEVELS) / NUM_LEVELS)
        return cls(retriever, num_input_candidates, conditioning, tuple(quantiles.tolist()))

    def with_retriever(self, retriever: LabelRetriever) -> CandidateInputs:
        """The same with another retriever, such as one of a changed label space."""
        return replace(self, retriever=retriever)

    def find(self, texts: Sequence[str], *, training: bool = False) -> ScoredLabels:
        """The candidates of each text; in training a text does not find itself."""
        if training:
            return self.retriever.rank_training_texts(texts, self.num_input_candidates)
        return self.retriever.rank(texts, self.num_input_candidates)

    def select(
        self,
        texts: Sequence[str],
        label_lengths: Sequence[int],
        rooms: Sequence[int],
        report: TruncationReport | None = None,
        *,
        training: bool = False,
    ) -> list[InputCandidates]:
        """The candidates of each text that its input has room for, best first; the others are counted.

        Args:
            texts: the texts.
            label_lengths: tokens of each label's name, `(L,)`; as tokens, a candidate takes one more for its level.
            rooms: maximum number of tokens of each text's candidates.
            report: counts what does not fit.
            training: leave the text itself out of what is found.
        """
        found = self.find(texts, training=training)
        levels = np.searchsorted(self.levels, found.scores, side="right").tolist()
        labels = found.labels.tolist()
        parts = np.stack([found.scores, *(found.parts[name] for name in SCORES[1:])], axis=1)
        scores = parts.astype(np.float32).tolist()  # as encoded rows keep them, so that both ways give the same
        selected = []
        for first, last, room in zip(found.start[:-1].tolist(), found.start[1:].tolist(), rooms, strict=True):
            kept = list(range(first, last))
            if self.conditioning == "tokens":
                kept = _fitting(kept, labels, label_lengths, room)
            columns = ([values[place] for place in kept] for values in (labels, levels, scores))
            selected.append(InputCandidates(*columns))
        if report is not None:
            report.candidates += len(labels)
            report.candidates_lost += len(labels) - sum(len(one.labels) for one in selected)
        return selected

    def to_dict(self) -> _InputsContent:
        """As JSON holds it, without the retriever; [`from_dict`] makes it again."""
        return {
            "num_input_candidates": self.num_input_candidates,
            "conditioning": self.conditioning,
            "levels": list(self.levels),
        }

    @classmethod
    def from_dict(cls, content: object, retriever: LabelRetriever, source: str) -> CandidateInputs:
        """Make it from what [`to_dict`] gave.

        Raises:
            ModelFolderError: if the content makes no sense; the message names its source.
        """
        known = _INPUTS_FORM.check(content, f"{source}, candidates")
        with named_after(source):
            return cls(retriever, known["num_input_candidates"], known["conditioning"], tuple(known["levels"]))


def _fitting(places: list[int], labels: list[int], lengths: Sequence[int], room: int) -> list[int]:
    """Places of the candidates that fit, each with its level token, into the room of their text.

    One that does not fit is left out alone: a name longer than the room takes none of those after it along.
    """
    kept = []
    for place in places:
        size = 1 + lengths[labels[place]]
        if size <= room:
            room -= size
            kept.append(place)
    return kept
