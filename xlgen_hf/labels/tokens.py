"""The way between labels and token ids, and a count of what truncation loses."""

from __future__ import annotations

import logging
from dataclasses import dataclass

__all__ = ["TruncationReport"]

logger = logging.getLogger(__name__)


@dataclass
class TruncationReport:
    """What cutting inputs and targets to their longest length has lost so far."""

    texts: int = 0
    texts_cut: int = 0
    labels: int = 0
    labels_lost: int = 0
    candidates: int = 0
    candidates_lost: int = 0

    def log(self, what: str) -> None:
        """Warn about losses in `what`; says nothing where nothing was lost."""
        if self.texts_cut:
            share = self.texts_cut / max(self.texts, 1)
            logger.warning("%s: %d of %d texts (%.2f %%) were cut.", what, self.texts_cut, self.texts, 100 * share)
        if self.labels_lost:
            share = self.labels_lost / max(self.labels, 1)
            logger.warning(
                "%s: %d of %d labels (%.2f %%) did not fit into the target; raise max_target_length to keep them.",
                what,
                self.labels_lost,
                self.labels,
                100 * share,
            )
        if self.candidates_lost:
            share = self.candidates_lost / max(self.candidates, 1)
            logger.warning(
                "%s: %d of %d retrieved candidates (%.2f %%) did not fit behind their texts; raise max_source_length "
                "or lower num_candidates.",
                what,
                self.candidates_lost,
                self.candidates,
                100 * share,
            )
