"""The ASGI application of a service, and the server that runs it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
from collections.abc import AsyncIterator, Callable, Sequence

import uvicorn
from fastapi import FastAPI
from starlette.datastructures import MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..errors import ConfigurationError
from ..version import __version__
from . import annif, native
from .guard import Guard
from .privacy import hide_values
from .problems import add_error_handlers
from .service import Service

__all__ = ["create_app", "open_socket", "run_server"]

_ABOUT = "Extreme multi-label classification: a text gets its labels. Errors are `application/problem+json`."


def create_app(service: Service, *, api_keys: Sequence[str] = (), allow_origins: Sequence[str] = ()) -> FastAPI:
    """The application of a service.

    Args:
        service: models and limits.
        api_keys: keys of which each request must carry one; none is needed if there are none.
        allow_origins: web pages whose scripts may call (CORS), such as `https://example.org`; none by default.
    """
    hide_values()
    app = FastAPI(title="xlgen-hf", version=__version__, description=_ABOUT, lifespan=_lifespan, redoc_url=None)
    app.state.service = service
    app.include_router(native.router)
    app.include_router(annif.router)
    add_error_handlers(app)
    routes = [*native.router.routes, *annif.router.routes]
    app.add_middleware(Guard, settings=service.settings, metrics=service.metrics, api_keys=api_keys, routes=routes)
    if allow_origins:  # around the guard, so that scripts may read what it refuses
        app.add_middleware(
            CORSMiddleware,
            allow_origins=list(allow_origins),
            allow_methods=["GET", "POST"],
            allow_headers=["Authorization", "Content-Type", "X-API-Key"],
        )
    return app


@contextlib.asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    """Answer, and watch the folders of the models, as long as the server runs."""
    service: Service = app.state.service
    tasks = [asyncio.create_task(model.batcher.run()) for model in service.models.values()]
    if seconds := service.settings.reload_seconds:
        tasks += [asyncio.create_task(model.watch(seconds)) for model in service.models.values()]
    app.state.tasks = tasks
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def open_socket(host: str, port: int) -> socket.socket:
    """A socket that is bound, before models are loaded, and not yet listening.

    Args:
        host: address or name.
        port: port; 0 for a free one.

    Raises:
        ConfigurationError: if the address cannot be used.
    """
    try:
        (family, kind, protocol, _, address), *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        found = socket.socket(family, kind, protocol)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind(address)
    except (OSError, UnicodeError) as err:  # the latter of names that cannot be looked up
        raise _unusable(host, port, err) from err
    return found


def _unusable(host: str, port: int, err: Exception) -> ConfigurationError:
    return ConfigurationError(f"{host}, port {port}, cannot be used: {getattr(err, 'strerror', None) or err}.")


def run_server(
    app: FastAPI,
    listener: socket.socket,
    *,
    timeout: float,
    started: Callable[[], None],
    ending: Callable[[], None] = lambda: None,
) -> None:
    """Serve until SIGTERM or Ctrl-C; what runs then is finished first.

    Args:
        app: the application.
        listener: the socket.
        timeout: seconds after which a request is no longer waited for.
        started: called when requests are answered.
        ending: called before what runs is waited for; it ends answers that would have no end.

    Raises:
        ConfigurationError: if another server listens at the address by now.
    """
    config = uvicorn.Config(
        _announcing_the_end(app, lambda: server.should_exit),
        log_config=None,
        access_log=False,  # which would log paths with their queries
        server_header=False,
        timeout_graceful_shutdown=math.ceil(timeout) + 1,
    )
    logging.getLogger("uvicorn").setLevel(logging.WARNING)
    server = _Server(config, started, ending)
    with contextlib.suppress(KeyboardInterrupt):  # the signal again, after the server has ended in order
        server.run(sockets=[listener])


def _announcing_the_end(app: ASGIApp, ends: Callable[[], bool]) -> ASGIApp:
    """An application whose last answers say that their connections close.

    uvicorn closes them in any case, and where h11 reads requests it does not say so: a client that keeps its
    connection would send the next request there, and have it reset, where another server may be ready to answer it.
    """

    async def announcing(scope: Scope, receive: Receive, send: Send) -> None:
        async def closing(message: Message) -> None:
            if message["type"] == "http.response.start" and ends():
                MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        await app(scope, receive, closing)

    return announcing


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config, started: Callable[[], None], ending: Callable[[], None]) -> None:
        super().__init__(config)
        self._on_start, self._on_end = started, ending

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so.

        Raises:
            ConfigurationError: if another server began to listen there while this one loaded its models.
        """
        try:
            await super().startup(sockets)
        except OSError as err:
            await self.lifespan.shutdown()
            host, port = (sockets or [])[0].getsockname()[:2]
            raise _unusable(host, port, err) from err
        if not self.should_exit:
            self._on_start()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """End, and say so before."""
        self._on_end()
        await super().shutdown(sockets)
