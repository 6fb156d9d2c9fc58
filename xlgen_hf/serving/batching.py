"""Micro-batches: what waits for a model at the same time is answered together, in threads of the model's own.

A request that finds the model idle runs at once, and of those that arrive while it runs the next batch is made. The
one that waits longest is always in it, and others of like length, as far as that pays. Between two batches the model
waits for a moment: clients that were answered often ask again at once, and a fuller batch takes less time for each.

On a CPU some batches run at the same time, each with its share of the cores: a search is many small steps, between
which further threads of one batch have nothing to do. A batch that is alone has all cores.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Protocol, TypeVar, cast

import torch

from ..prediction.encoding import one_report_of_cuts
from ..prediction.predictor import Predictor
from .grouping import BatchCost, Sized, best_group
from .privacy import answering

__all__ = ["Batcher", "QueueFullError", "Work"]

logger = logging.getLogger(__name__)

_Row = TypeVar("_Row", contravariant=True)
_Answer = TypeVar("_Answer", covariant=True)
_SMOOTHING = 0.3  # weight of the last batch in the time that a text takes
_LONGEST_RETRY = 60  # seconds
_SHORT = 32  # characters of a text up to which its length hardly matters
_OF_TOKEN = 4  # characters of a token, about
PATIENCE, _LEAST_PATIENCE = 0.05, 0.005  # of the time of a batch, that the model may wait after it


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
    size: Sized
    answer: asyncio.Future[Sequence[object]] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )


class Batcher:
    """Answers the requests for one model, in the order in which they come, equal ones together.

    Args:
        predictor: gives the model; called for each batch, so that another one can take its place at any time.
        batch_size: rows of a batch; a request with more is a batch of its own.
        queue_size: rows that may wait.
        parallel: batches that run at the same time, at most one for each CPU thread, and one on a GPU, whose memory
            may have no room for more.
        observe: called after each batch with its number of rows.

    Attributes:
        cpu_threads: threads that torch computed with when this was made, which all batches share.
    """

    def __init__(
        self,
        predictor: Callable[[], Predictor],
        *,
        batch_size: int,
        queue_size: int,
        parallel: int = 1,
        observe: Callable[[int], None] = lambda rows: None,
    ) -> None:
        self._predictor = predictor
        self._batch_size = batch_size
        self._queue_size = queue_size
        self.cpu_threads = torch.get_num_threads()
        self._parallel = 1 if torch.cuda.is_initialized() else min(parallel, self.cpu_threads)
        self._running = 0
        self._observe = observe
        self._waiting: list[_Job] = []
        self._submitted = 0  # rows so far
        self._arrived = asyncio.Event()
        self._seconds_per_row = 0.0
        self._cost = BatchCost()
        self._patience = PATIENCE

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
            seconds = math.ceil(waiting * self._seconds_per_row / self._parallel)
            raise QueueFullError(min(max(seconds, 1), _LONGEST_RETRY))
        longest = max((work.length(row) for row in rows), default=0)
        read = _OF_TOKEN * self._predictor().tokens_read  # longer texts are truncated, and so of one length
        job = _Job(cast("Work[object, object]", work), rows, Sized(len(rows), max(min(longest, read), _SHORT)))
        self._waiting.append(job)
        self._submitted += len(rows)
        self._arrived.set()
        try:
            return list(cast("Sequence[_Answer]", await job.answer))
        finally:
            if job in self._waiting:
                self._waiting.remove(job)

    async def run(self) -> None:
        """Answer what arrives, until this is cancelled."""
        with ThreadPoolExecutor(self._parallel, thread_name_prefix="xlgen-model") as pool:
            await asyncio.gather(*(self._run_batches(pool) for _ in range(self._parallel)))

    async def _run_batches(self, pool: ThreadPoolExecutor) -> None:
        """Answer what arrives, batch by batch."""
        while True:
            await self._arrived.wait()
            while jobs := self._take():
                begin, rows = monotonic(), sum(len(job.rows) for job in jobs)
                outcomes = await self._answered(pool, jobs)
                for job, outcome in zip(jobs, outcomes, strict=True):
                    _settle(job, outcome)
                seconds = monotonic() - begin
                self._seconds_per_row += _SMOOTHING * (seconds / max(rows, 1) - self._seconds_per_row)
                self._cost.learn(rows, max(job.size.length for job in jobs), seconds)
                self._observe(rows)
                await self._wait_for_next(rows, seconds)
            self._arrived.clear()

    async def _answered(self, pool: ThreadPoolExecutor, jobs: Sequence[_Job]) -> list[Sequence[object] | Exception]:
        """What each job gets, by a thread of the pool, with all CPU threads if no other batch runs or could run."""
        is_alone = not self._running and not self._waiting
        threads = self.cpu_threads if is_alone else self.cpu_threads // self._parallel
        self._running += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(pool, self._answers_by, threads, jobs)
        finally:
            self._running -= 1

    def _answers_by(self, threads: int, jobs: Sequence[_Job]) -> list[Sequence[object] | Exception]:
        # Of this thread and of those that begin; for MKL, of all. So each batch says it.
        torch.set_num_threads(threads)
        return self._answers(jobs)

    async def _wait_for_next(self, answered: int, seconds: float) -> None:
        """Wait until as many rows arrived as were answered, or for a moment.

        Where fewer than half of them come, the next moment is shorter: clients may not be of that kind.

        Args:
            answered: rows of the last batch.
            seconds: how long it took.
        """
        before, end = self._submitted, monotonic() + self._patience * seconds
        while self._submitted < before + answered and (left := end - monotonic()) > 0:
            self._arrived.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._arrived.wait(), left)
        came = self._submitted - before
        self._patience = PATIENCE if 2 * came >= answered else max(self._patience / 2, _LEAST_PATIENCE)

    def _take(self) -> list[_Job]:
        """The job that waits longest, and those with equal work that are best done with it."""
        if not self._waiting:
            return []
        first = self._waiting[0]
        equal = [job for job in self._waiting if job.work == first.work] if first.work.is_shared else [first]
        equal.sort(key=lambda job: job.size.length)
        sizes = [job.size for job in equal]
        group = best_group(sizes, equal.index(first), self._batch_size, self._cost.overhead)
        jobs = [equal[place] for place in group]
        taken = set(map(id, jobs))
        self._waiting = [job for job in self._waiting if id(job) not in taken]
        return jobs

    def _answers(self, jobs: Sequence[_Job]) -> list[Sequence[object] | Exception]:
        """What each job gets. One that fails does not take the others with it: each is then tried alone."""
        rows = [row for job in jobs for row in job.rows]
        try:
            with answering(), one_report_of_cuts(once=True):  # the thread is not one of the requests' own
                answers = iter(jobs[0].work.run(self._predictor(), rows, self._batch_size))
            return [[next(answers) for _ in job.rows] for job in jobs]
        except Exception as err:
            if len(jobs) == 1:
                return [err]
            return [outcome for job in jobs for outcome in self._answers([job])]


def _settle(job: _Job, outcome: Sequence[object] | Exception) -> None:
    if job.answer.done():  # nobody waits any more
        return
    if isinstance(outcome, Exception):
        job.answer.set_exception(outcome)
    else:
        job.answer.set_result(outcome)
