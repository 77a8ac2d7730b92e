"""`/v1/users` and `/v1/roles`: whom grants can name."""

from collections.abc import Awaitable, Callable
from typing import Annotated

from fastapi import APIRouter, Depends, Query

from plugins.api.collections import Limit
from plugins.api.route import Route, errors
from plugins.collections.people import People
from plugins.core.identity import Principal
from plugins.core.shapes import PersonList, RoleList

Search = Annotated[str, Query(alias="q", max_length=100, description="Part of a name or an e-mail address")]
After = Annotated[
    str | None,
    Query(max_length=512, description="The `subject` of the last item of the page before this one"),
]


def router(people: People, authenticated: Callable[..., Awaitable[Principal]]) -> APIRouter:
    """The routes of people, roles and groups."""
    routes = APIRouter(route_class=Route, tags=["access"])
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type

    @routes.get("/v1/users", summary="List people", responses=errors(403))
    async def list_users(
        caller: Caller, search: Search = "", after: After = None, limit: Limit = 100
    ) -> PersonList:
        """Needs `manage` on a collection, or the grant to create one. From the issuer where it has a
        directory, else those who have signed in here; `subject` is what a grant takes."""
        return await people.users(caller, search=search, after=after, limit=limit)

    @routes.get("/v1/roles", summary="List roles and groups", responses=errors(403))
    async def list_roles(
        caller: Caller, search: Search = "", after: After = None, limit: Limit = 100
    ) -> RoleList:
        """As people are listed. `object` is `role` or `group`."""
        return await people.roles(caller, search=search, after=after, limit=limit)

    return routes
