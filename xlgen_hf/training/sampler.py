"""Batches of rows of about one length."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
from torch.utils.data import Sampler

__all__ = ["LengthBucketSampler"]


class LengthBucketSampler(Sampler[int]):
    """Row numbers such that rows of a batch have similar lengths; a new seeded order each epoch.

    Args:
        lengths: length of each row.
        batch_size: rows of a batch, over all devices.
        seed: seed; with the epoch it alone decides the order, so a resumed run continues in the same one.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self.lengths = np.asarray(lengths)
        self.batch_size = batch_size
        self.seed = seed
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        """The number of rows."""
        return len(self.lengths)

    def __iter__(self) -> Iterator[int]:
        """Row numbers of this epoch."""
        random = np.random.default_rng([self.seed, self.epoch])
        rows = random.permutation(len(self.lengths))
        span = self.batch_size * _BUCKET
        sorted_spans = [
            part[np.argsort(-self.lengths[part], kind="stable")]
            for part in (rows[start : start + span] for start in range(0, len(rows), span))
        ]
        ordered = np.concatenate(sorted_spans) if sorted_spans else rows
        full = len(ordered) // self.batch_size * self.batch_size
        batches = ordered[:full].reshape(-1, self.batch_size)
        yield from batches[random.permutation(len(batches))].flatten().tolist()
        yield from ordered[full:].tolist()


_BUCKET = 50  # batches that are sorted by length together
