"""The route class of all our routers: every error leaves as OpenAI's error body, and says nothing of itself.

Handlers for the whole app are not possible here, since they would change LiteLLM's own errors.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

from fastapi import HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.background import BackgroundTask
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException as StarletteHTTPException
from starlette.requests import ClientDisconnect

from crawler.errors import CrawlError
from plugins.collections.audit import Refusals, Refused
from plugins.core.errors import BundleError, InvalidRequest, TooLarge
from plugins.core.logs import GONE, about, current, log_request, status_of
from plugins.core.request_id import HEADER as REQUEST_ID_HEADER
from plugins.core.request_id import request_id
from plugins.core.resource import resource_metadata
from plugins.core.telemetry import REQUEST_SPAN, end_request
from plugins.core.validation import invalid, read_json
from plugins.core.wire import INVALID, SERVER, to_wire

log = logging.getLogger(__name__)

MAX_BODY_BYTES = 2**20
"""Of a JSON body; uploads have their own limits."""
STALLED_S = 60
"""A client that sends nothing of its body for so long is given up."""
BODY_S = 60
"""A client whose JSON body is not there by then is given up: the parts of a configuration are soon gone."""

REFUSALS = "refusals"
"""The name in the application's ``state`` of the `Refusals` that are told of each one; none = nobody is."""

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}


class ErrorDetail(BaseModel):
    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(BaseModel):
    """OpenAI's error body: https://platform.openai.com/docs/guides/error-codes"""

    error: ErrorDetail


_DESCRIPTIONS = {
    400: "The request is not valid; `param` names the field",
    401: "Not signed in, or the token is not good; the message says why",
    403: "Signed in, but without the right that this needs; the message names it",
    404: "There is none, or you have no right to it",
    409: "It conflicts with what is there",
    413: "Larger than this server accepts",
    415: "This type of file is not supported",
    429: "As much as you may at once, or in a day; see `Retry-After`",
    503: "A service behind this one is not available; see `Retry-After`",
}


def errors(*statuses: int) -> dict[int | str, dict[str, Any]]:
    """The error responses of a route for its OpenAPI description: 400, 401, 503 and ``statuses``."""
    described: dict[int | str, dict[str, Any]] = {
        status: {"model": ErrorBody, "description": _DESCRIPTIONS[status]}
        for status in sorted({400, 401, 503, *statuses})
    }
    # With a default, FastAPI does not add its 422, which these routes never answer.
    return {**described, "default": {"model": ErrorBody, "description": "Any other error"}}


def example(value: Any) -> dict[str, Any]:
    """``openapi_extra`` that shows ``value`` as the example of the JSON body."""
    return {"requestBody": {"content": {"application/json": {"example": value}}}}


class CappedRequest(Request):
    """A request whose body, when it is read as a whole, is at most ``MAX_BODY_BYTES`` long, and whose JSON is
    Unicode."""

    async def body(self) -> bytes:
        if not hasattr(self, "_body"):
            try:
                async with asyncio.timeout(BODY_S):
                    self._body = await read_body(self, MAX_BODY_BYTES)
            except TimeoutError as error:
                raise InvalidRequest(f"The body was not there within {BODY_S} seconds.") from error
        return self._body

    async def form(self, **limits: Any) -> FormData:  # type: ignore[override]
        await self.body()  # Starlette has no limit of its own on a form that is not multipart
        return await super().form(**limits)

    async def json(self) -> Any:
        if not hasattr(self, "_json"):
            try:
                self._json = read_json(await self.body())
            except ValueError as error:
                raise InvalidRequest("The body is not valid JSON.") from error
        return self._json


async def chunks(request: Request) -> AsyncIterator[bytes]:
    """The body as it comes in.

    Raises:
        InvalidRequest: Nothing came for ``STALLED_S``.
        ClientDisconnect: The client is gone.
    """
    stream = request.stream()
    while True:
        try:
            async with asyncio.timeout(STALLED_S):
                data = await anext(stream, None)
        except TimeoutError as error:
            raise InvalidRequest(f"The body did not go on for {STALLED_S} seconds.") from error
        if data is None:
            return
        yield data


async def read_body(request: Request, max_bytes: int) -> bytes:
    """The whole body.

    Raises:
        TooLarge: It is longer; reading stops there.
    """
    body = bytearray()
    async for data in chunks(request):
        body += data
        if len(body) > max_bytes:
            raise TooLarge(f"The request's body is larger than {max_bytes} bytes.")
    return bytes(body)


class Route(APIRoute):
    """Answers every error as ``{"error": {"message", "type", "param", "code"}}``.

    What is wrong with a request is 400, never 422. Exceptions that the app has a handler of its own
    for (LiteLLM's ``ProxyException``) go to it. Anything unforeseen is 500 and logged with the request id.
    Each request is one line of the log, with its ids.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handle = super().get_route_handler()

        async def handle_or_explain(request: Request) -> Response:
            began = time.monotonic()
            about(
                request_id=request_id(request), user_id="", peer=request.client.host if request.client else ""
            )
            try:
                response = await handle(CappedRequest(request.scope, request.receive))
            except ClientDisconnect:
                self._ended(request, GONE, began)
                return Response(status_code=400)
            except Exception as error:  # the last line of defence: no text of an exception may leave
                if _has_own_handler(request, error):
                    self._ended(request, status_of(error), began)
                    raise
                response = explain(request, error)
                response.background = noted(request, error)
            response.headers[REQUEST_ID_HEADER] = request_id(request)
            # what is answered to one person is for no cache: a session's cookie does not keep it out of them
            response.headers.setdefault("Cache-Control", "no-store")
            self._ended(request, response.status_code, began)
            end_request(getattr(request.state, REQUEST_SPAN, None), response.status_code)
            return response

        return handle_or_explain

    def _ended(self, request: Request, status: int, began: float) -> None:
        """Write the request's line."""
        level = logging.DEBUG if self.path.startswith("/health") else logging.INFO
        # the route with its placeholders: names are the users' own words
        log_request(
            log, request.method, self.path, status, began, level=level, request_id=request_id(request)
        )


def explain(request: Request, error: Exception) -> JSONResponse:
    """The response for ``error``; logged where the fault is ours."""
    if isinstance(error, StarletteHTTPException) and isinstance(error.__cause__, BundleError):
        error = error.__cause__  # FastAPI hides what is raised while it reads a body
    if isinstance(error, RequestValidationError):
        error = _invalid(error)
    if isinstance(error, StarletteHTTPException):
        return _http_error(error)
    wire = to_wire(error, resource_metadata(request))
    if not isinstance(error, BundleError | CrawlError):
        log.error(
            "unforeseen error: %s %s",
            request.method,
            _pattern(request),
            exc_info=error,
            extra={"request_id": request_id(request)},
        )
    elif wire.status >= 500:
        cause = error.__cause__
        log.warning(
            "%s: %s %s cause=%s",
            type(error).__name__,
            request.method,
            _pattern(request),
            type(cause).__name__ if cause else None,
            extra={"request_id": request_id(request)},
        )
    return JSONResponse(wire.body, wire.status, wire.headers)


def noted(request: Request, error: Exception) -> BackgroundTask | None:
    """What writes the refusal of somebody who signed in to the audit log, once the answer is sent."""
    refusals: Refusals | None = getattr(request.app.state, REFUSALS, None)
    user_id = current().get("user_id")
    if refusals is None or not user_id or not isinstance(error, BundleError | CrawlError):
        return None
    wire = to_wire(error)
    if wire.status not in (403, 404):
        return None
    refused = Refused(
        user_id=user_id,
        action=f"{request.method} {_pattern(request)}",
        status=wire.status,
        code=wire.body["error"]["code"],
        collection=request.path_params.get("collection"),
        document=request.path_params.get("document"),
    )
    return BackgroundTask(refusals.note, refused)


def _pattern(request: Request) -> str:
    """The route's path with its placeholders: what the client wrote there is not for the log."""
    return str(getattr(request.scope.get("route"), "path", ""))


def _has_own_handler(request: Request, error: Exception) -> bool:
    ours = (StarletteHTTPException, HTTPException, RequestValidationError, Exception)
    handlers = request.app.exception_handlers
    return any(isinstance(kind, type) and kind not in ours and isinstance(error, kind) for kind in handlers)


def _invalid(error: RequestValidationError) -> InvalidRequest:
    mistakes = error.errors()
    first = mistakes[0]
    if all(mistake["loc"] == ("body",) for mistake in mistakes):
        return InvalidRequest("Send a JSON object as the body, with `Content-Type: application/json`.")
    where = first["loc"][0]
    there = [{**mistake, "loc": mistake["loc"][1:]} for mistake in mistakes if mistake["loc"][0] == where]
    return invalid(there, error.body if where == "body" else {mistake["loc"][0]: None for mistake in there})


def _http_error(error: StarletteHTTPException) -> JSONResponse:
    detail: Any = error.detail
    if isinstance(detail, dict):
        detail = detail.get("error", detail.get("message"))
    if isinstance(detail, dict):
        detail = detail.get("message")
    message = detail if isinstance(detail, str) else "The request was refused."
    kind = _TYPES.get(error.status_code, SERVER if error.status_code >= 500 else INVALID)
    body = {"message": message, "type": kind, "param": None, "code": str(error.status_code)}
    return JSONResponse({"error": body}, error.status_code, error.headers)
