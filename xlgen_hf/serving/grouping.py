"""Which of the texts that wait run together: as many as pays, for all texts of a batch are padded to its longest."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

__all__ = ["FIRST_GUESS", "BatchCost", "Sized", "best_group"]

FIRST_GUESS = 1000.0  # characters, before enough batches ran: MiniLM with a decoder on one core
_LEAST, _MOST = 100.0, 100_000.0
_REMEMBERED, _ENOUGH = 128, 16  # batches that costs are learned from, and from which number on


class Sized(NamedTuple):
    """Texts that run together in any case, those of one request.

    Attributes:
        rows: their number.
        length: characters of the longest.
    """

    rows: int
    length: int


class BatchCost:
    """What a batch costs by itself, whatever it holds, learned from those that ran.

    The time of a batch is taken to be a fixed one, and one for each row and each character, padding included, by least
    squares over the last batches. On a GPU the fixed time is most of it, and unlike texts should run together; on a
    CPU long texts are the work, and their padding too.
    """

    def __init__(self) -> None:
        self._batches: deque[tuple[float, int, int]] = deque(maxlen=_REMEMBERED)
        self.overhead = FIRST_GUESS
        """Characters that take as long as dividing a batch does: half of what a batch by itself does, since others
        arrive, and then join those that were left behind."""

    def learn(self, rows: int, length: int, seconds: float) -> None:
        """Learn from a batch.

        Args:
            rows: its rows.
            length: characters of the longest one.
            seconds: how long it took.
        """
        self._batches.append((seconds, rows, rows * length))
        if len(self._batches) < _ENOUGH:
            return
        values = np.array(self._batches)
        parts = np.column_stack([np.ones(len(values)), values[:, 1:]])
        (fixed, _, of_character), _, rank, _ = np.linalg.lstsq(parts, values[:, 0], rcond=None)
        if rank == parts.shape[1] and of_character > 0:
            self.overhead = float(np.clip(fixed / of_character / 2, _LEAST, _MOST))


def best_group(waiting: Sequence[Sized], first: int, most: int, overhead: float) -> range:
    """The group of one of those that wait, in the division of all of them into groups that takes the least time.

    Args:
        waiting: what waits, by length in ascending order.
        first: place of the one whose group is wanted.
        most: rows of a group; one that has more is a group of its own.
        overhead: characters that take as long as a group by itself does.

    Returns:
        Places of the group, without gaps.
    """
    costs, begins = [0.0], list[int]()  # of the first so many, divided best; where the last of their groups begins
    for last, longest in enumerate(waiting):
        rows, best, begin = 0, float("inf"), last
        for place in range(last, -1, -1):
            rows += waiting[place].rows
            if rows > most and place < last:
                break
            cost = costs[place] + overhead + rows * longest.length
            if cost < best:
                best, begin = cost, place
        costs.append(best)
        begins.append(begin)
    end = len(waiting)
    while begins[end - 1] > first:
        end = begins[end - 1]
    return range(begins[end - 1], end)
