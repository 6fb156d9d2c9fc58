"""What the systems of a comparison have in common: fitted on rows, they score candidate labels of texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from datasets import Dataset

from ...labels.space import LabelSpace
from ...ranking.scored_labels import ScoredLabels

__all__ = ["System", "SystemData"]


@dataclass(frozen=True)
class SystemData:
    """What a system may learn from; test rows are never part of it.

    Attributes:
        train: training rows with `text` and `labels`, every label in `label_space`.
        validation: rows to choose settings on; labels outside the label space may occur.
        label_space: all labels that may be predicted, with their training counts; the same for all systems.
        folder: where the system may keep models, indexes and logs; what an earlier, interrupted fit on the same data
            left there it may take up.
        seed: of whatever is random.
    """

    train: Dataset
    validation: Dataset
    label_space: LabelSpace
    folder: Path
    seed: int = 0


class System(Protocol):
    """A system that tags texts; XLGen's variants, retrieval and classifiers alike."""

    def fit(self, data: SystemData) -> None:
        """Learn from training rows; settings are chosen on the validation rows.

        Raises:
            MissingExtraError: if the system needs a package that is not installed.
        """

    def score(self, texts: Sequence[str]) -> ScoredLabels:
        """Candidate labels of each text with scores in [0, 1], some 50 where it ranks so many; after [`fit`]."""
