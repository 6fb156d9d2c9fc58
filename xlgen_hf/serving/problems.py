"""Errors as clients get them: `application/problem+json` (RFC 9457), as Annif's interface has them."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from ..errors import SaveError, XLGenError
from .batching import QueueFullError

__all__ = ["ANNIF_PATHS", "add_error_handlers", "problem"]

ANNIF_PATHS = "/v1/projects"
"""Beginning of the paths of Annif's interface, where 400 stands for every request that is wrong."""


def problem(status: int, detail: object, headers: Mapping[str, str] | None = None) -> JSONResponse:
    """The answer to a request that is refused or failed.

    Args:
        status: HTTP status.
        detail: what was given, what is allowed, what to do.
        headers: further headers.
    """
    content = {"title": HTTPStatus(status).phrase, "status": status, "detail": str(detail)}
    return JSONResponse(content, status, headers, media_type="application/problem+json")


def add_error_handlers(app: FastAPI) -> None:
    """Answer every error that is expected with a problem that says what to do."""

    @app.exception_handler(HTTPException)
    async def refused(request: Request, err: HTTPException) -> JSONResponse:
        detail = _NOT_UTF8 if isinstance(err.__cause__, UnicodeDecodeError) else err.detail
        return problem(err.status_code, detail, err.headers)

    @app.exception_handler(RequestValidationError)
    async def malformed(request: Request, err: RequestValidationError) -> JSONResponse:
        faults = err.errors()
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        as_json = kind == "application/json" or kind.endswith("+json")  # what FastAPI reads as such
        if faults[0]["loc"] == ("body",) and faults[0]["type"] != "missing" and not as_json:
            return problem(_wrong(request), _NOT_AS_JSON)
        return problem(_wrong(request), "; ".join(map(_told, faults[:_SHOWN])))

    @app.exception_handler(XLGenError)
    async def wrong(request: Request, err: XLGenError) -> JSONResponse:
        return problem(503 if isinstance(err, SaveError) else _wrong(request), err)

    @app.exception_handler(QueueFullError)
    async def full(request: Request, err: QueueFullError) -> JSONResponse:
        return problem(429, err, {"Retry-After": str(err.seconds)})


_SHOWN = 5  # faults of a request that are named
_NOT_AS_JSON = "The body was not sent as JSON; send the header `Content-Type: application/json` with it."
_NOT_UTF8 = "The body is JSON in another encoding than UTF-8; send it in UTF-8."


def _wrong(request: Request) -> int:
    return 400 if request.url.path.startswith(ANNIF_PATHS) else 422


def _told(fault: Mapping[str, object]) -> str:
    """A fault without the value, which may be a text."""
    place = fault.get("loc")
    parts = [str(part) for part in place[1:]] if isinstance(place, tuple) else []
    words = [part for part in parts if part.isdecimal() or part.isidentifier()]  # not the types of a union
    message = str(fault.get("msg")).replace("a valid tuple", "a valid list")  # as JSON calls it
    return f"{'.'.join(words) or 'body'}: {message}"
