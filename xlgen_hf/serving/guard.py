"""What every request passes first: the API key, sizes and times, and what is counted and logged of it.

Of texts nothing is logged: neither bodies nor queries, nor the messages of unexpected errors, which may quote them,
nor values in what others log meanwhile (`privacy.py`).
"""

from __future__ import annotations

import asyncio
import hmac
import logging
import os
import traceback
from collections.abc import Awaitable, Sequence
from pathlib import Path
from time import monotonic

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.routing import BaseRoute, Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import ConfigurationError
from .metrics import Metrics
from .privacy import answering
from .problems import problem
from .settings import ServingSettings

__all__ = ["API_KEY_VARIABLE", "Guard", "log_error", "read_api_keys"]

logger = logging.getLogger(__name__)

API_KEY_VARIABLE = "XLGEN_API_KEY"
"""Environment variable with the key that requests must carry."""

_SEARCHES = {"/v1/labels"}  # what takes time and is asked for by GET
_OPEN = {"/health", "/docs", "/openapi.json"}  # what says nothing about models and texts
_SHORTEST_KEY = 8
_LEFT = 499  # what is logged and counted where the client left before it had an answer
_FRAMES = 12  # of an error, the last ones, that are logged


def read_api_keys(path: str | Path | None) -> tuple[str, ...]:
    """The keys of a file, one per line, and of the environment; requests need none if there is none.

    Args:
        path: the file, if there is one.

    Raises:
        ConfigurationError: if the file holds no key, or a key is too short or not plain text.
        OSError: if the file cannot be read.
    """
    keys = [] if path is None else Path(path).read_text(encoding="utf-8").split()
    if path is not None and not keys:
        raise ConfigurationError(f"{path} holds no API key; write one per line.")
    if API_KEY_VARIABLE in os.environ:
        keys.append(os.environ[API_KEY_VARIABLE].strip())
    if any(len(key) < _SHORTEST_KEY or not (key.isascii() and key.isprintable()) for key in keys):
        raise ConfigurationError(f"An API key must have at least {_SHORTEST_KEY} characters, all of them ASCII.")
    return tuple(keys)


class Guard:
    """ASGI middleware around all routes.

    Args:
        app: what answers.
        settings: limits.
        metrics: where requests are counted.
        api_keys: the keys, of which a request must carry one; none is needed if there are none.
        routes: those of the application.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        settings: ServingSettings,
        metrics: Metrics,
        api_keys: Sequence[str] = (),
        routes: Sequence[BaseRoute] = (),
    ) -> None:
        self._app = app
        self._routes = routes
        self._settings = settings
        self._metrics = metrics
        self._keys = [key.encode() for key in api_keys]
        self._running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or refuse it."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        begin, sending = monotonic(), _Sending(send)
        try:
            with answering():
                await self._answer(scope, receive, sending)
        except HTTPException as refusal:
            if sending.status:  # the answer had begun: the connection is cut instead
                raise
            await problem(refusal.status_code, refusal.detail, refusal.headers)(scope, receive, sending)
        except Exception as err:
            log_error(err)
            if not sending.status:
                await problem(500, "Something went wrong; the log of the server says where.")(scope, receive, sending)
        finally:
            self._count(scope, sending, monotonic() - begin)

    def _count(self, scope: Scope, sending: _Sending, seconds: float) -> None:
        route, status = _route_of(scope, self._routes), sending.status or _LEFT
        self._metrics.answered(route, status, seconds)
        logger.info("%s %s %d %.0f ms", scope["method"], route, status, 1000 * seconds)

    async def _answer(self, scope: Scope, receive: Receive, send: _Sending) -> None:
        headers = Headers(scope=scope)
        if scope["path"] not in _OPEN:
            self._check_key(headers)
        if scope["method"] != "POST" and scope["path"] not in _SEARCHES:
            await self._app(scope, receive, send)
            return
        if self._running >= self._settings.max_requests:
            raise HTTPException(429, "Too many requests at the same time; try again.", {"Retry-After": "1"})
        self._running += 1
        try:
            await self._in_time(scope, receive, send, headers)
        finally:
            self._running -= 1

    def _check_key(self, headers: Headers) -> None:
        if not self._keys:
            return
        kind, _, token = headers.get("authorization", "").partition(" ")
        given = (token if kind.lower() == "bearer" else headers.get("x-api-key", "")).strip().encode()
        if not any([hmac.compare_digest(given, key) for key in self._keys]):  # all are compared, whichever fits
            raise HTTPException(
                401,
                "Send an API key, as `Authorization: Bearer KEY` or `X-API-Key: KEY`.",
                {"WWW-Authenticate": "Bearer"},
            )

    async def _in_time(self, scope: Scope, receive: Receive, send: _Sending, headers: Headers) -> None:
        """Read the body, within its limit, and have it answered, within the time."""

        async def answer() -> None:
            body = await self._read(receive, headers)
            await _unless_left(self._app(scope, _replay(body), send), receive, send)

        try:
            await asyncio.wait_for(answer(), self._settings.timeout)
        except asyncio.TimeoutError as err:
            if send.whole:  # the time ran out between the last byte and the end of the work
                return
            told = f"No answer within {self._settings.timeout:g} s; send fewer or shorter texts, or try again later."
            raise HTTPException(503, told, {"Retry-After": "1"}) from err

    async def _read(self, receive: Receive, headers: Headers) -> bytes:
        most = self._settings.max_body_mb * 1_000_000
        body = bytearray()
        declared = headers.get("content-length", "0")
        too_large = declared.isdecimal() and int(declared) > most
        more = True
        while more and not too_large:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise HTTPException(400, "The client left before it had sent its request.")
            body += message.get("body", b"")
            more = message.get("more_body", False)
            too_large = len(body) > most
        if too_large:
            told = f"The body is too large; at most {self._settings.max_body_mb} MB. Send several requests."
            raise HTTPException(413, told, {"Connection": "close"})
        return bytes(body)


class _Sending:
    """Sends an answer.

    Attributes:
        status: its status; 0 before it begins.
        whole: whether all of it was sent.
    """

    def __init__(self, send: Send) -> None:
        self._send = send
        self.status = 0
        self.whole = False

    async def __call__(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        await self._send(message)
        self.whole |= message["type"] == "http.response.body" and not message.get("more_body", False)


async def _unless_left(answer: Awaitable[None], receive: Receive, send: _Sending) -> None:
    """Wait for an answer; where the client leaves before, its work is taken out of the queue."""
    working, leaving = asyncio.ensure_future(answer), asyncio.ensure_future(_wait_for_leaving(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if working.done() or send.status:
            await working
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _wait_for_leaving(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


def _replay(body: bytes) -> Receive:
    """Give the body that was read, and nothing after it."""
    waiting = [body]

    async def replayed() -> Message:
        if not waiting:
            await asyncio.Event().wait()
        return {"type": "http.request", "body": waiting.pop(), "more_body": False}

    return replayed


def _route_of(scope: Scope, routes: Sequence[BaseRoute]) -> str:
    """The path as the route declares it, so that nothing that clients write is logged or counted.

    What is refused before it has a route, such as one of too many requests, counts for the one that it would have had.
    """
    found = scope.get("route") or next((one for one in routes if one.matches(scope)[0] is Match.FULL), None)
    return str(getattr(found, "path", "other"))


def log_error(err: Exception) -> None:
    """Log where an unexpected error was raised, without its message, which may quote a text."""
    frames = traceback.extract_tb(err.__traceback__)[-_FRAMES:]
    places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
    logger.error("%s, raised in:\n  %s", type(err).__name__, "\n  ".join(places))
