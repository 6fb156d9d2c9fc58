"""XLGen-RCL: candidate labels that retrieval finds for a text become a part of the model's input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, get_args

import numpy as np

from ..configuration_xlgen import NUM_LEVELS, Conditioning
from ..errors import ConfigurationError, ModelFolderError
from .retriever import DenseRetriever

if TYPE_CHECKING:
    from ..labels.tokens import TruncationReport
    from ..labels.trie import LabelTrie
    from ..ranking.scored_labels import ScoredLabels

__all__ = ["CandidateInputs"]

_MOST_CANDIDATES = 1000


@dataclass
class CandidateInputs:
    """Turns retrieved candidates into input ids that are put behind those of the text.

    With the conditioning `tokens` a candidate is a token for the level of its score, and the pieces of its name; with
    `memory` it is the one id `-1 - label`, in whose place the model joins the vector of the label to its memory.

    Attributes:
        retriever: finds the candidates.
        num_candidates: candidates of a text, at least 1; best first.
        conditioning: see above.
        levels: scores that part the levels, not falling, `(NUM_LEVELS - 1,)`; as many candidates of the training texts
            have each level.
    """

    retriever: DenseRetriever
    num_candidates: int
    conditioning: Conditioning
    levels: np.ndarray

    def __post_init__(self) -> None:
        """Check the values."""
        self.levels = np.asarray(self.levels, dtype=np.float64)
        if type(self.num_candidates) is not int or not 1 <= self.num_candidates <= _MOST_CANDIDATES:
            raise ConfigurationError(
                f"num_candidates={self.num_candidates!r}; a whole number from 1 to {_MOST_CANDIDATES} is needed."
            )
        if self.conditioning not in get_args(Conditioning):
            raise ConfigurationError(f"conditioning={self.conditioning!r}; choose one of {get_args(Conditioning)}.")
        rising = self.levels.shape == (NUM_LEVELS - 1,) and bool((np.diff(self.levels) >= 0).all())
        if not rising or not np.isfinite(self.levels).all():
            raise ConfigurationError(f"levels={self.levels.tolist()}; {NUM_LEVELS - 1} scores that rise are needed.")

    @classmethod
    def fit(
        cls,
        retriever: DenseRetriever,
        texts: Sequence[str],
        *,
        num_candidates: int = 16,
        conditioning: Conditioning = "tokens",
        progress: bool = True,
    ) -> CandidateInputs:
        """Part the levels by the candidates of training texts.

        Args:
            retriever: finds the candidates; made from the training texts.
            texts: some training texts.
            num_candidates: candidates of a text.
            conditioning: see the class.
            progress: show a progress bar on a terminal.
        """
        found = retriever.retrieve(texts, num_candidates, leave_out=True, progress=progress)
        shares = np.arange(1, NUM_LEVELS) / NUM_LEVELS
        return cls(retriever, num_candidates, conditioning, np.quantile(found.scores, shares))

    def find(self, texts: Sequence[str], *, training: bool = False) -> ScoredLabels:
        """The candidates of each text; in training a text does not find itself."""
        return self.retriever.retrieve(texts, self.num_candidates, leave_out=training)

    def ids(
        self,
        texts: Sequence[str],
        label_token_ids: Sequence[Sequence[int]],
        first_level_token_id: int,
        room: int,
        report: TruncationReport | None = None,
        *,
        training: bool = False,
    ) -> list[list[int]]:
        """Ids of the candidates of each text, best first; those that do not fit whole are left out and counted.

        Args:
            texts: the texts.
            label_token_ids: token ids of each label, the separator last.
            first_level_token_id: token of the lowest level.
            room: most ids of a text.
            report: counts what does not fit.
            training: leave the text itself out of what is found.
        """
        found = self.find(texts, training=training)
        level = first_level_token_id + np.searchsorted(self.levels, found.scores, side="right")
        rows: list[list[int]] = []
        lost = 0
        for first, last in zip(found.start[:-1], found.start[1:], strict=True):
            row: list[int] = []
            for place in range(first, last):
                label = int(found.labels[place])
                more = (
                    [-1 - label]
                    if self.conditioning == "memory"
                    else [int(level[place]), *label_token_ids[label][:-1]]
                )
                if len(row) + len(more) > room:
                    lost += last - place
                    break
                row += more
            rows.append(row)
        if report is not None:
            report.candidates += len(found.labels)
            report.candidates_lost += lost
        return rows

    def read(
        self, text_ids: Sequence[Sequence[int]], trie: LabelTrie, separator: int, first_level_token_id: int
    ) -> list[list[int]]:
        """Read back which labels [`ids`] put behind each text, best first.

        Args:
            text_ids: ids of texts and their candidates.
            trie: how labels are spelled.
            separator: token that ends a label there.
            first_level_token_id: token of the lowest level; texts themselves never hold such tokens.
        """
        if self.conditioning == "memory":
            return [[-1 - one for one in ids if one < 0] for ids in text_ids]
        after = first_level_token_id + NUM_LEVELS
        found = []
        for ids in text_ids:
            places = [place for place, one in enumerate(ids) if first_level_token_id <= one < after]
            names = [[*ids[begin + 1 : end], separator] for begin, end in pairwise([*places, len(ids)])]
            found.append([label for label in map(trie.label_of, names) if label is not None])
        return found

    def settings(self) -> dict[str, Any]:
        """What a model folder's settings hold beside the retriever."""
        return {
            "num_candidates": self.num_candidates,
            "conditioning": self.conditioning,
            "levels": self.levels.tolist(),
        }

    @classmethod
    def from_settings(cls, settings: Any, retriever: DenseRetriever, source: str) -> CandidateInputs:
        """Make it from what [`settings`] gave.

        Raises:
            ModelFolderError: if the settings make no sense; the message names their source.
        """
        wanted = {"num_candidates", "conditioning", "levels"}
        if not isinstance(settings, dict) or set(settings) != wanted or not _are_numbers(settings["levels"]):
            raise ModelFolderError(f"{source}: 'candidates' must be an object with {sorted(wanted)}.")
        try:
            return cls(retriever, **settings)
        except ConfigurationError as err:
            raise ModelFolderError(f"{source}: {err}") from err


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(type(value) in (int, float) for value in values)
