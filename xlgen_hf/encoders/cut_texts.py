"""Texts that an encoder cuts: those of many batches are counted in the log once."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

__all__ = ["cut_texts_together", "report_cut_texts"]

logger = logging.getLogger(__name__)


@dataclass
class _Cut:
    """Texts of an encoder that reads so many tokens of each; `reported` as [`report_cut_texts`] takes it."""

    cut: int
    texts: int
    limit: int
    reported: set[int] | None

    def log(self) -> None:
        if self.cut and self.limit not in (self.reported or ()):
            message = "%d of %d texts are longer than %d tokens and were cut there."
            logger.warning(message, self.cut, self.texts, self.limit)
            if self.reported is not None:
                self.reported.add(self.limit)


_TOGETHER: ContextVar[dict[tuple[int, int], _Cut] | None] = ContextVar("_TOGETHER", default=None)


@contextmanager
def cut_texts_together() -> Iterator[None]:
    """Count the texts that this thread embeds in the block as one call does; a block in a block is part of it."""
    if _TOGETHER.get() is not None:
        yield
        return
    counted: dict[tuple[int, int], _Cut] = {}
    _TOGETHER.set(counted)
    try:
        yield
    finally:
        _TOGETHER.set(None)
    for one in counted.values():
        one.log()


def report_cut_texts(cut: int, texts: int, limit: int, reported: set[int] | None) -> None:
    """Count texts that were cut in the log, at once or at the end of the block of [`cut_texts_together`].

    Args:
        cut: how many were cut.
        texts: the number of texts.
        limit: tokens of a text that are read.
        reported: limits of which the log has spoken before, which it does not again; the limit joins them.
    """
    together = _TOGETHER.get()
    if together is None:
        _Cut(cut, texts, limit, reported).log()
        return
    one = together.setdefault((id(reported), limit), _Cut(0, 0, limit, reported))
    one.cut, one.texts = one.cut + cut, one.texts + texts
