"""`/v1/collections/{id}/reindex`: build a collection anew while it goes on answering."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends

from plugins.api.collections import CollectionRef
from plugins.api.route import Route, errors, example
from plugins.collections.reindex_service import ReindexService
from plugins.core.identity import Principal
from plugins.core.shapes import CollectionView, Reindex


def router(reindexing: ReindexService, authenticated: Callable[..., Awaitable[Principal]]) -> APIRouter:
    """The routes of reindexing."""
    routes = APIRouter(route_class=Route, tags=["collections"])
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type
    path = "/v1/collections/{collection}/reindex"

    @routes.post(
        path,
        status_code=202,
        summary="Build a collection anew",
        responses=errors(403, 404, 409, 413),
        openapi_extra=example({"embedding_model": "text-embedding-3-large"}),
    )
    async def start_reindex(caller: Caller, collection: CollectionRef, wanted: Reindex) -> CollectionView:
        """Needs `manage`. With another embedding model, pipeline or retrieval, or with `{}` as the settings
        are now. Searches find the old passages until all new ones are there; then these count at once. The
        collection's `reindex` says how far it is, and why it does not go on."""
        return await reindexing.start(caller, collection, wanted)

    @routes.post(
        path + "/cancel", summary="Cancel building a collection anew", responses=errors(403, 404, 409)
    )
    async def cancel_reindex(caller: Caller, collection: CollectionRef) -> CollectionView:
        """Needs `manage`. The collection stays as it is."""
        return await reindexing.cancel(caller, collection)

    return routes
