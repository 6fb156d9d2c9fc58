"""Log records that are made while a request is answered: they count, and quote nothing that somebody wrote."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from numbers import Number

__all__ = ["answering", "hide_values"]

_HIDDEN = "(hidden)"
_answering: ContextVar[bool] = ContextVar("xlgen_answering", default=False)


@contextmanager
def answering() -> Iterator[None]:
    """Whatever is logged within, by whichever library, is about a request, so that its values are hidden."""
    token = _answering.set(True)
    try:
        yield
    finally:
        _answering.reset(token)


def hide_values() -> None:
    """Let every log record that is made within [`answering`] hold the numbers among its arguments alone.

    What is not a number becomes `(hidden)`, and an exception, whose message may quote a text, is left out: of 'Given
    labels that the model does not have: 1, e.g. ...' the server's log has the 1. Other records stay as they are.
    """
    if not isinstance(make := logging.getLogRecordFactory(), _Factory):
        logging.setLogRecordFactory(_Factory(make))


class _Factory:
    """Makes log records as another factory does."""

    def __init__(self, make: Callable[..., logging.LogRecord]) -> None:
        self._make = make

    def __call__(
        self,
        name: str,
        level: int,
        path: str,
        line: int,
        message: object,
        values: tuple[object, ...],
        exc_info: object,
        func: str | None = None,
        sinfo: str | None = None,
        **further: object,
    ) -> logging.LogRecord:
        """A record; see `logging.LogRecord`."""
        if _answering.get():
            values, exc_info = tuple(map(_hidden, values or ())), None
        return self._make(name, level, path, line, message, values, exc_info, func, sinfo, **further)


def _hidden(value: object) -> object:
    if isinstance(value, Mapping):  # `%(name)s` in the message
        return {key: _hidden(one) for key, one in value.items()}
    return value if value is None or isinstance(value, Number) else _HIDDEN
