"""`/v1/ollama/models`: the models of an Ollama server, for those who may manage them."""

import asyncio
import json
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import aclosing
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Path, Query, Request
from fastapi.responses import JSONResponse, Response, StreamingResponse
from pydantic import Field
from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope, Send

from plugins.api.ollama_models import OllamaModels
from plugins.api.route import Route, errors, example, explain
from plugins.core.errors import DeadlineExceeded
from plugins.core.identity import Principal
from plugins.core.shapes import Shape

Progress = AsyncGenerator[dict[str, Any], None]
T = TypeVar("T")

EVENTS = "text/event-stream"
KEEP_ALIVE = ": \n\n"
"""A comment, which bridges a silence (https://html.spec.whatwg.org/multipage/server-sent-events.html)."""
PERCENT = 100

Name = Annotated[
    str,
    Path(max_length=512, description="`model`, `model:tag`, or with its registry", examples=["llama3.2:1b"]),
]
Loaded = Annotated[bool, Query(description="Only those that are in memory, as Ollama's `/api/ps` tells them")]


class Pull(Shape):
    """What is to be pulled."""

    model: str = Field(max_length=512)
    """`model`, `model:tag`, `namespace/model` or `host/namespace/model`."""
    stream: bool = True
    """Whether the progress is told; else the answer comes when the model is there."""


def router(
    models: OllamaModels,
    authenticated: Callable[..., Awaitable[Principal]],
    *,
    pull_timeout_s: float,
    keep_alive_s: float = 15.0,
) -> APIRouter:
    """The routes of Ollama's models.

    Args:
        models: The service.
        authenticated: The dependency that says who asks.
        pull_timeout_s: Of one pull, in seconds.
        keep_alive_s: After so much silence a streamed pull says that it is still there.
    """
    routes = APIRouter(route_class=Route, tags=["ollama"])
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type

    @routes.get("/v1/ollama/models", summary="List Ollama's models", responses=errors(403))
    async def list_models(caller: Caller, loaded: Loaded = False) -> dict[str, Any]:
        """Needs the grant `ollama.managers`, as all of these. The answer is Ollama's own: of `/api/tags`, or
        with `loaded=true` of `/api/ps`."""
        return await models.list(caller, loaded=loaded)

    @routes.post(
        "/v1/ollama/models",
        summary="Pull a model",
        responses={
            **errors(403, 404),
            200: {"content": {EVENTS: {}}, "description": "Ollama's progress, or its last word"},
        },
        openapi_extra=example({"model": "llama3.2:1b"}),
    )
    async def pull_model(caller: Caller, request: Request, pull: Pull) -> Response:
        """Each event is an object of Ollama's; repeated ones are left out, and `data: [DONE]` is the last,
        when the model is there. What goes wrong later is one event `{"error": {...}}`, and the end. Who goes
        away ends the pull; asked again, Ollama goes on where it was. It is in the audit log."""
        progress = _in_time(await models.pull(caller, pull.model), pull_timeout_s)
        if not pull.stream:
            return JSONResponse(await _unless_gone(request, _last(progress)))
        first = await _unless_gone(request, _begun(progress))
        return Events(request, first, progress, keep_alive_s)

    @routes.get("/v1/ollama/models/{name:path}", summary="Show a model", responses=errors(403, 404))
    async def show_model(caller: Caller, name: Name) -> dict[str, Any]:
        """What Ollama's `/api/show` says of it."""
        return await models.show(caller, name)

    @routes.delete(
        "/v1/ollama/models/{name:path}", status_code=204, summary="Delete a model", responses=errors(403, 404)
    )
    async def delete_model(caller: Caller, name: Name) -> None:
        """From Ollama's disk. It is in the audit log."""
        await models.delete(caller, name)

    return routes


async def _in_time(progress: Progress, timeout_s: float) -> Progress:
    """The same; raises DeadlineExceeded with the first object after so many seconds."""
    deadline = time.monotonic() + timeout_s
    async with aclosing(progress):
        async for found in progress:
            if time.monotonic() > deadline:
                raise DeadlineExceeded("The pull took too long. Ask again: Ollama goes on where it was.")
            yield found


async def _last(progress: Progress) -> dict[str, Any]:
    found: dict[str, Any] = {}
    async with aclosing(progress):
        async for one in progress:
            found = one
    return found


async def _begun(progress: Progress) -> list[dict[str, Any]]:
    """The first objects, until the registry has said that there is such a model: till then a failure can have
    its status."""
    found: list[dict[str, Any]] = []
    async for one in progress:
        found.append(one)
        if one.get("status") != "pulling manifest":
            break
    return found


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """What `work` answers; cancelled when the client goes away.

    Raises:
        ClientDisconnect: It did.
    """
    task, gone = asyncio.create_task(work), asyncio.create_task(_gone(request))
    try:
        await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        if not task.done():
            raise ClientDisconnect
        return task.result()
    finally:
        await _ended(task, gone)


async def _gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def _ended(*tasks: asyncio.Task[Any]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


class Events(StreamingResponse):
    """A pull as server-sent events. However the client goes, the pull ends: Starlette itself leaves a
    generator where it was."""

    def __init__(
        self, request: Request, first: list[dict[str, Any]], progress: Progress, keep_alive_s: float
    ) -> None:
        super().__init__(self._events(request, first, keep_alive_s), media_type=EVENTS)
        self._progress = progress
        self._waiting: list[asyncio.Task[dict[str, Any] | None]] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            await _ended(*self._waiting)
            await self._progress.aclose()

    async def _events(
        self, request: Request, first: list[dict[str, Any]], keep_alive_s: float
    ) -> AsyncIterator[str]:
        told = Told()
        for found in first:
            if told.is_new(found):
                yield _event(found)
        try:
            while True:
                self._waiting = [asyncio.create_task(_next(self._progress))]
                while not (await asyncio.wait(self._waiting, timeout=keep_alive_s))[0]:
                    yield KEEP_ALIVE
                if (following := self._waiting[0].result()) is None:
                    break
                if told.is_new(following):
                    yield _event(following)
            yield "data: [DONE]\n\n"
        except Exception as error:  # noqa: BLE001 - the status is sent: what fails now must be told here
            yield f"data: {bytes(explain(request, error).body).decode()}\n\n"


async def _next(progress: Progress) -> dict[str, Any] | None:
    return await anext(progress, None)


def _event(found: dict[str, Any]) -> str:
    return f"data: {json.dumps(found, ensure_ascii=False)}\n\n"


class Told:
    """Which of Ollama's objects are worth telling: it repeats them every 60 ms, with or without news."""

    def __init__(self) -> None:
        self._last: tuple[Any, ...] = ()

    def is_new(self, found: dict[str, Any]) -> bool:
        """Another step or another file, or one more percent of it."""
        total, completed = found.get("total"), found.get("completed")
        percent = PERCENT * completed // total if isinstance(completed, int) and total else 0
        now = (found.get("status"), found.get("digest"), percent)
        is_new, self._last = now != self._last, now
        return is_new
