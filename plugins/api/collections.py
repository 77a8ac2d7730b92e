"""`/v1/collections`: see, make, change and drop collections."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Query

from plugins.api.route import Route, errors, example
from plugins.collections.catalogue import CollectionCatalogue
from plugins.core.identity import Principal
from plugins.core.shapes import CollectionList, CollectionPatch, CollectionView, Deleted, NewCollection

CollectionRef = Annotated[
    str,
    Path(
        description="The id (`vs_...`) or the name of a collection. A name with a `/` in it cannot stand in "
        "a path, also not as `%2F`: use the id",
        examples=["handbook"],
    ),
]
After = Annotated[
    str | None, Query(max_length=300, description="The id of the last item of the page before this one")
]
Limit = Annotated[int, Query(ge=1, le=1000, description="Items on one page")]

_NEW = {
    "name": "handbook",
    "description": "Leave, notice and working hours",
    "metadata": {"department": "people"},
    "access": {"discover": ["*"], "query": ["group:keycloak/staff"], "add": [], "manage": []},
}


def router(catalogue: CollectionCatalogue, authenticated: Callable[..., Awaitable[Principal]]) -> APIRouter:
    """The routes of collections themselves."""
    routes = APIRouter(route_class=Route, tags=["collections"])
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type

    @routes.get("/v1/collections", summary="List collections", responses=errors())
    async def list_collections(caller: Caller, after: After = None, limit: Limit = 100) -> CollectionList:
        """All collections that you may discover, each with your own rights to it."""
        return await catalogue.list(caller, after=after, limit=limit)

    @routes.post(
        "/v1/collections/new",
        status_code=201,
        summary="Create a collection",
        responses=errors(403, 409, 413),
        openapi_extra=example(_NEW),
    )
    async def create_collection(caller: Caller, new: NewCollection) -> CollectionView:
        """Needs the grant to create collections of this name. You get `manage` on it."""
        return await catalogue.create(caller, new)

    @routes.get("/v1/collections/{collection}", summary="Show a collection", responses=errors(403, 404))
    async def get_collection(caller: Caller, collection: CollectionRef) -> CollectionView:
        """Needs `discover`. Its grants are shown to those who may manage it."""
        return await catalogue.get(caller, collection)

    @routes.patch(
        "/v1/collections/{collection}",
        summary="Change a collection",
        responses=errors(403, 404, 413),
        openapi_extra=example({"access": {"discover": ["*"], "query": ["group:keycloak/staff"]}}),
    )
    async def change_collection(
        caller: Caller, collection: CollectionRef, patch: CollectionPatch
    ) -> CollectionView:
        """Needs `manage`. Fields that are left out stay as they are; `access` replaces all grants."""
        return await catalogue.change(caller, collection, patch)

    @routes.delete("/v1/collections/{collection}", summary="Drop a collection", responses=errors(403, 404))
    async def drop_collection(caller: Caller, collection: CollectionRef) -> Deleted:
        """Needs `manage`. Its documents, passages and originals go with it."""
        return Deleted(id=await catalogue.drop(caller, collection), object="collection.deleted")

    return routes
