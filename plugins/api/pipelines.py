"""`GET /v1/pipelines`: how documents can become passages."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends

from plugins.api.route import Route, errors
from plugins.core.identity import Principal
from plugins.core.pipeline_shapes import PipelineList


def router(pipelines: PipelineList, authenticated: Callable[..., Awaitable[Principal]]) -> APIRouter:
    """The route of pipelines."""
    routes = APIRouter(route_class=Route, tags=["collections"])
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type

    @routes.get("/v1/pipelines", summary="List pipelines", responses=errors())
    async def list_pipelines(caller: Caller) -> PipelineList:
        """The pipelines that a collection can be made with, with the metadata that each looks for."""
        return pipelines

    return routes
