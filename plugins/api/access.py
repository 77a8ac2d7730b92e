"""`/v1/collections/{collection}/access`: who holds which right, and why."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from plugins.api.collections import CollectionRef
from plugins.api.route import Route, errors, example
from plugins.collections.access import AccessService
from plugins.core.identity import Principal
from plugins.core.shapes import Access, EffectiveAccess

_ACCESS = {
    "discover": ["*"],
    "query": ["group:keycloak/staff"],
    "add": ["role:keycloak/writer"],
    "manage": ["user:keycloak/alice"],
}
User = Annotated[
    str | None,
    Query(
        max_length=512,
        description="A person: `user:<source>/<name>`, or `<source>/<name>`. Left out: yourself",
        examples=["user:keycloak/bob"],
    ),
]


def router(service: AccessService, authenticated: Callable[..., Awaitable[Principal]]) -> APIRouter:
    """The routes of grants."""
    routes = APIRouter(route_class=Route, tags=["access"])
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type

    @routes.get(
        "/v1/collections/{collection}/access",
        summary="Show the grants of a collection",
        responses=errors(403, 404, 409),
    )
    async def get_access(caller: Caller, collection: CollectionRef) -> Access:
        """Needs `manage`. Rights that the server's own policy gives are not among them: see
        `.../access/effective`."""
        return await service.get(caller, collection)

    @routes.put(
        "/v1/collections/{collection}/access",
        summary="Replace the grants of a collection",
        responses=errors(403, 404, 409, 413),
        openapi_extra=example(_ACCESS),
    )
    async def replace_access(caller: Caller, collection: CollectionRef, access: Access) -> Access:
        """Needs `manage`, before and after: 409 when you would shut yourself out. What is left out is granted
        to nobody. The change is in the audit log."""
        return await service.replace(caller, collection, access)

    @routes.get(
        "/v1/collections/{collection}/access/effective",
        summary="Explain somebody's rights to a collection",
        responses=errors(403, 404, 409),
    )
    async def get_effective_access(
        caller: Caller, collection: CollectionRef, user: User = None
    ) -> EffectiveAccess:
        """Each right with the rule that gives it, or that nothing does. Everybody may ask for themselves; for
        others, who has `manage` or may read the audit log. `known_from` says where the person's groups and
        roles are from, and `known_at` from when."""
        return await service.effective(caller, collection, user)

    return routes
