"""`/v1/collections/{id}/add` and `/v1/collections/{id}/documents`: put documents in, follow, read, remove."""

import asyncio
import os
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Path, Query, Request, Response
from fastapi.responses import FileResponse
from starlette.background import BackgroundTask

from plugins.api.collections import After, CollectionRef, Limit
from plugins.api.content import headers_of
from plugins.api.multipart import CheckFormat
from plugins.api.route import Route, errors, example
from plugins.api.uploads import receive
from plugins.collections.documents import DocumentService
from plugins.collections.records import new_id
from plugins.core.config import LimitsConfig
from plugins.core.document_shapes import DocumentInput, DocumentList, DocumentPatch, DocumentView
from plugins.core.errors import UnknownDocument
from plugins.core.identity import Principal
from plugins.core.shapes import Deleted

DocumentId = Annotated[str, Path(description="The id of a document (`file-...`)")]
Status = Literal["in_progress", "completed", "cancelled", "failed"]

_DOCUMENTS = [
    {
        "markdown": "# Leave\n\nEveryone has 30 days of leave.",
        "filename": "leave.md",
        "metadata": {"department": "people"},
        "acl": ["group:keycloak/staff"],
    }
]
_ADD: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["files"],
                    "properties": {
                        "files": {"type": "array", "items": {"type": "string", "format": "binary"}},
                        "metadata": {
                            "type": "string",
                            "description": "A JSON object: attributes of all files of this request",
                            "examples": ['{"department": "people"}'],
                        },
                        "acl": {
                            "type": "string",
                            "description": "A JSON list of the subjects who may read them; "
                            "left out = everyone who may query the collection",
                            "examples": ['["group:keycloak/staff"]'],
                        },
                        "ids": {
                            "type": "string",
                            "description": "A JSON list of ids, one for each file; an id that exists "
                            "replaces that document",
                            "examples": ['["handbook"]'],
                        },
                        "expires_at": {
                            "type": "string",
                            "description": "From then on they are as if they were deleted: seconds since "
                            "1970, or ISO 8601",
                            "examples": ["2030-01-31T12:00:00Z"],
                        },
                    },
                }
            },
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["documents"],
                    "properties": {
                        "documents": {"type": "array", "items": DocumentInput.model_json_schema()}
                    },
                },
                "example": {"documents": _DOCUMENTS},
            },
        },
    }
}
_CONTENT: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The file as it was uploaded",
        "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
    }
}


def router(
    documents: DocumentService,
    authenticated: Callable[..., Awaitable[Principal]],
    *,
    limits: LimitsConfig,
    check_format: CheckFormat,
    page_route: type[Route] = Route,
) -> APIRouter:
    """The routes of documents. ``authenticated`` must not read the request's body: `/add` streams it.
    ``page_route`` is for what people open in a browser: a document's content, to which citations link."""
    routes = APIRouter(route_class=Route, tags=["documents"])
    _add_upload(routes, documents, authenticated, limits, check_format)
    _add_documents(routes, documents, authenticated)
    _add_content(routes, documents, authenticated, page_route)
    return routes


def _add_upload(
    routes: APIRouter,
    documents: DocumentService,
    authenticated: Callable[..., Awaitable[Principal]],
    limits: LimitsConfig,
    check_format: CheckFormat,
) -> None:
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type
    Wait = Annotated[  # noqa: N806 - a type
        bool, Query(description=f"Answer when all is done, or after {limits.max_wait_s:g} seconds")
    ]

    @routes.post(
        "/v1/collections/{collection}/add",
        status_code=202,
        summary="Add documents",
        responses={
            **errors(403, 404, 409, 413, 415),
            200: {"model": DocumentList, "description": "With `wait`: all documents are done"},
        },
        openapi_extra=_ADD,
    )
    async def add_documents(
        caller: Caller, collection: CollectionRef, request: Request, response: Response, wait: Wait = False
    ) -> DocumentList:
        """Needs `add`. Upload files as a multipart form, or send Markdown, text or addresses as JSON. Each
        document is processed by a job of its own: 202 at once, or with `wait` 200 when all are done."""
        await documents.check_add(caller, collection)
        async with receive(request, documents.spool_dir, limits, check_format) as uploads:
            views = await documents.add(caller, collection, uploads, batch_id := new_id("batch_"))
        if wait and _busy(views):
            ids = [view.id for view in views]
            views = await documents.wait(caller, collection, ids, limits.max_wait_s)
        if wait and not _busy(views):
            response.status_code = 200
        return DocumentList(data=views, batch_id=batch_id)


def _add_documents(
    routes: APIRouter, documents: DocumentService, authenticated: Callable[..., Awaitable[Principal]]
) -> None:
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type
    path = "/v1/collections/{collection}/documents"

    @routes.get(path, summary="List documents", responses=errors(403, 404))
    async def list_documents(
        caller: Caller,
        collection: CollectionRef,
        after: After = None,
        limit: Limit = 100,
        status: Status | None = None,
    ) -> DocumentList:
        """Those that you may read, those that you uploaded, and with `manage` all."""
        return await documents.list(caller, collection, after=after, limit=limit, status=status)

    @routes.get(path + "/{document}", summary="Show a document", responses=errors(403, 404))
    async def get_document(caller: Caller, collection: CollectionRef, document: DocumentId) -> DocumentView:
        """Its state, attributes and audience, and while it is processed its job."""
        return await documents.get(caller, collection, document)

    @routes.patch(
        path + "/{document}",
        summary="Change a document",
        responses=errors(403, 404, 409, 413),
        openapi_extra=example({"acl": ["group:keycloak/staff"]}),
    )
    async def change_document(
        caller: Caller, collection: CollectionRef, document: DocumentId, patch: DocumentPatch
    ) -> DocumentView:
        """Its attributes and its audience. What is left out stays; `"acl": null` is for everyone who may
        query the collection."""
        return await documents.change(caller, collection, document, patch)

    @routes.delete(path + "/{document}", summary="Delete a document", responses=errors(403, 404))
    async def delete_document(caller: Caller, collection: CollectionRef, document: DocumentId) -> Deleted:
        """Its uploader may, and who may `manage` the collection."""
        deleted = await documents.delete(caller, collection, document)
        return Deleted(id=deleted, object="collection.document.deleted")


def _add_content(
    routes: APIRouter,
    documents: DocumentService,
    authenticated: Callable[..., Awaitable[Principal]],
    page_route: type[Route],
) -> None:
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type

    async def document_content(
        caller: Caller, collection: CollectionRef, document: DocumentId
    ) -> FileResponse:
        """The original: PDF and plain text to be shown, everything else to be saved."""
        async with AsyncExitStack() as opened:
            original = await opened.enter_async_context(documents.content(caller, collection, document))
            media_type, headers = headers_of(original.filename, original.media_type)
            try:
                stat = await asyncio.to_thread(os.stat, original.path)
            except FileNotFoundError as error:
                raise UnknownDocument("The original of this document is not kept.") from error
            sent = BackgroundTask(opened.pop_all().aclose)
        return FileResponse(
            original.path, headers=headers, media_type=media_type, stat_result=stat, background=sent
        )

    routes.add_api_route(
        "/v1/collections/{collection}/documents/{document}/content",
        document_content,
        methods=["GET"],
        summary="Download a document",
        response_class=Response,
        responses={**errors(403, 404), **_CONTENT},
        route_class_override=page_route,
    )


def _busy(views: list[DocumentView]) -> bool:
    return any(view.status == "in_progress" for view in views)
