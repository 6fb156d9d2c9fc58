"""Micro-batches: what waits for a model at the same time is answered together, in a thread of the model's own.

Nothing waits for company: a request that finds the model idle runs at once, and those that arrive while it runs are
the next batch. Texts of a batch are of about one length, as all are padded to the longest.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections import deque
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol, TypeVar, cast

from ..prediction.predictor import Predictor

__all__ = ["Batcher", "QueueFullError", "Work"]

logger = logging.getLogger(__name__)

_Row = TypeVar("_Row", contravariant=True)
_Answer = TypeVar("_Answer", covariant=True)
_SMOOTHING = 0.3  # weight of the last batch in the time that a text takes
_LONGEST_RETRY = 60  # seconds
_SHORT = 128  # characters of a text up to which its length hardly matters
_SPREAD = 2.0  # times the length of one text that another of its batch may have


class Work(Hashable, Protocol[_Row, _Answer]):
    """What is done with rows, such as texts. Rows of equal work are done together."""

    @property
    def is_shared(self) -> bool:
        """Whether rows of several requests may run together: not where one row's answer depends on the others."""

    def length(self, row: _Row) -> int:
        """Length of a row's text."""

    def run(self, predictor: Predictor, rows: Sequence[_Row], batch_size: int) -> Sequence[_Answer]:
        """An answer for each row.

        Args:
            predictor: the model.
            rows: the rows of one request or of several.
            batch_size: rows that the model computes at once.
        """


class QueueFullError(Exception):
    """Too much waits for a model.

    Args:
        seconds: after which trying again makes sense.
    """

    def __init__(self, seconds: int) -> None:
        self.seconds = seconds
        super().__init__(f"The queue is full; try again in {seconds} s.")


@dataclass(eq=False)
class _Job:
    work: Work[object, object]
    rows: Sequence[object]
    length: int
    answer: asyncio.Future[Sequence[object]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Batcher:
    """Answers the requests for one model, in the order in which they come, equal ones together.

    Args:
        predictor: gives the model; called for each batch, so that another one can take its place at any time.
        batch_size: rows of a batch; a request with more is a batch of its own.
        queue_size: rows that may wait.
        observe: called after each batch with its number of rows.
    """

    def __init__(
        self,
        predictor: Callable[[], Predictor],
        *,
        batch_size: int,
        queue_size: int,
        observe: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._predictor = predictor
        self._batch_size = batch_size
        self._queue_size = queue_size
        self._observe = observe
        self._waiting: deque[_Job] = deque()
        self._arrived = asyncio.Event()
        self._seconds_per_row = 0.0

    @property
    def waiting(self) -> int:
        """The number of rows that wait."""
        return sum(len(job.rows) for job in self._waiting)

    async def submit(self, work: Work[_Row, _Answer], rows: Sequence[_Row]) -> list[_Answer]:
        """Wait for the answers to rows; who stops waiting takes them out of the queue.

        Raises:
            QueueFullError: if too many rows wait.
        """
        waiting = self.waiting
        if waiting + len(rows) > self._queue_size:
            raise QueueFullError(min(max(math.ceil(waiting * self._seconds_per_row), 1), _LONGEST_RETRY))
        longest = max((work.length(row) for row in rows), default=0)
        job = _Job(cast("Work[object, object]", work), rows, max(longest, _SHORT))
        self._waiting.append(job)
        self._arrived.set()
        try:
            return list(cast("Sequence[_Answer]", await job.answer))
        finally:
            if job in self._waiting:
                self._waiting.remove(job)

    async def run(self) -> None:
        """Answer what arrives, until this is cancelled."""
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1, thread_name_prefix="xlgen-model") as thread:
            while True:
                await self._arrived.wait()
                while jobs := self._take():
                    begin, rows = monotonic(), sum(len(job.rows) for job in jobs)
                    outcomes = await loop.run_in_executor(thread, self._answers, jobs)
                    for job, outcome in zip(jobs, outcomes, strict=True):
                        _settle(job, outcome)
                    taken = (monotonic() - begin) / max(rows, 1)
                    self._seconds_per_row += _SMOOTHING * (taken - self._seconds_per_row)
                    self._observe(rows)
                self._arrived.clear()

    def _take(self) -> list[_Job]:
        """The job that waits longest, and those with equal work and like lengths that fit into one batch with it."""
        if not self._waiting:
            return []
        first = self._waiting.popleft()
        jobs, room = [first], self._batch_size - len(first.rows)
        for job in sorted(self._waiting, key=lambda job: _spread(job, first)):
            if _spread(job, first) > _SPREAD or room <= 0 or not first.work.is_shared:
                break
            if job.work == first.work and len(job.rows) <= room:
                jobs.append(job)
                room -= len(job.rows)
        taken = set(map(id, jobs))
        self._waiting = deque(job for job in self._waiting if id(job) not in taken)
        return jobs

    def _answers(self, jobs: Sequence[_Job]) -> list[Sequence[object] | Exception]:
        """What each job gets. One that fails does not take the others with it: each is then tried alone."""
        rows = [row for job in jobs for row in job.rows]
        try:
            answers = iter(jobs[0].work.run(self._predictor(), rows, self._batch_size))
            return [[next(answers) for _ in job.rows] for job in jobs]
        except Exception as err:
            if len(jobs) == 1:
                return [err]
            return [outcome for job in jobs for outcome in self._answers([job])]


def _spread(one: _Job, other: _Job) -> float:
    """How many times as long the one's longest text is as the other's, or the other way round."""
    return max(one.length, other.length) / min(one.length, other.length)


def _settle(job: _Job, outcome: Sequence[object] | Exception) -> None:
    if job.answer.done():  # nobody waits any more
        return
    if isinstance(outcome, Exception):
        job.answer.set_exception(outcome)
    else:
        job.answer.set_result(outcome)
