"""`POST /v1/collections/{id}/preview`: what a document would become, before it is added."""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, Request, Response
from starlette.requests import ClientDisconnect

from plugins.api.collections import CollectionRef
from plugins.api.multipart import CheckFormat
from plugins.api.route import Route, errors
from plugins.api.uploads import receive_one
from plugins.collections.preview import Previewer
from plugins.core.config import LimitsConfig
from plugins.core.document_shapes import DocumentInput
from plugins.core.identity import Principal
from plugins.core.pipeline_shapes import PreviewView

T = TypeVar("T")

_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {"file": {"type": "string", "format": "binary"}},
                }
            },
            "application/json": {
                "schema": DocumentInput.model_json_schema(),
                "example": {"markdown": "# Leave\n\nEveryone has 30 days of leave.", "filename": "leave.md"},
            },
        },
    }
}


def router(
    previewer: Previewer,
    authenticated: Callable[..., Awaitable[Principal]],
    *,
    limits: LimitsConfig,
    check_format: CheckFormat,
) -> APIRouter:
    """The route of previews. ``authenticated`` must not read the request's body, which is streamed."""
    routes = APIRouter(route_class=Route, tags=["documents"])
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type

    @routes.post(
        "/v1/collections/{collection}/preview",
        summary="Preview a document",
        response_model=PreviewView,
        responses=errors(403, 404, 409, 413, 415, 429),
        openapi_extra=_BODY,
    )
    async def preview_document(caller: Caller, collection: CollectionRef, request: Request) -> Response:
        """Needs `add`. Converts one document as the collection's pipeline does, finds its metadata and cuts
        it into passages; nothing is stored. Send `markdown` and `metadata` of the answer, edited or not, to
        `/add`: neither is made again then."""
        record = await previewer.check(caller, collection)
        async with receive_one(request, previewer.spool_dir, limits, check_format) as upload:
            view = await _unless_gone(request, previewer.preview(caller, record, upload))
        content = await asyncio.to_thread(lambda: view.model_dump_json().encode())
        return Response(content, media_type="application/json")

    return routes


async def _unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the client closes the connection.

    Raises:
        ClientDisconnect: It did.
    """
    working, leaving = asyncio.create_task(work), asyncio.create_task(_left(request))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, leaving):
            task.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
