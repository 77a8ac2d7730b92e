"""`GET /v1/jobs/{id}`: how far the processing of a document is."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path

from plugins.api.route import Route, errors
from plugins.collections.documents import DocumentService
from plugins.core.document_shapes import JobView
from plugins.core.identity import Principal


def router(documents: DocumentService, authenticated: Callable[..., Awaitable[Principal]]) -> APIRouter:
    """The route of jobs."""
    routes = APIRouter(route_class=Route, tags=["documents"])
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type

    @routes.get("/v1/jobs/{job}", summary="Show a job", responses=errors(403, 404))
    async def get_job(caller: Caller, job: Annotated[str, Path(pattern="^[A-Za-z0-9_-]{1,128}$")]) -> JobView:
        """The stage of a document's processing, how many pages or chunks are done of how many, and,
        where it failed, why."""
        return await documents.job(caller, job)

    return routes
