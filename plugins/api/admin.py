"""`/api/admin`: the configuration in force, and taking up a new one, for LiteLLM's admins."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any, Protocol

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from crawler.errors import ConfigError
from plugins.api.route import Route, errors
from plugins.core.admin_shapes import Configuration, Reload
from plugins.core.errors import Forbidden
from plugins.core.identity import Principal
from plugins.core.shapes import Standing
from plugins.core.wire import INVALID

ADMIN = "proxy_admin"
NOT_ADMIN = "This needs LiteLLM's role `proxy_admin`, which you do not have. Ask who runs this server."


class Administration(Protocol):
    """What the routes do."""

    async def reload(self, principal: Principal) -> Reload:
        """Have all processes take up the configuration of their folder.

        Raises:
            ConfigError: It has mistakes; nothing was changed.
            Upstream: The database cannot be reached; nothing was changed.
        """

    def configuration(self) -> Configuration:
        """The one in force in this process."""


def router(
    administration: Administration,
    authenticated: Callable[..., Awaitable[Principal]],
    standing_of: Callable[[Request], Standing],
) -> APIRouter:
    """``standing_of`` answers what LiteLLM lets the caller do, once ``authenticated`` let them in."""
    routes = APIRouter(route_class=Route, tags=["admin"])

    async def admin(caller: Annotated[Principal, Depends(authenticated)], request: Request) -> Principal:
        if standing_of(request).user_role != ADMIN:
            raise Forbidden(NOT_ADMIN)
        return caller

    @routes.post(
        "/api/admin/reload",
        summary="Take up the configuration",
        response_model=Reload,
        responses=errors(403),
    )
    async def reload(caller: Annotated[Principal, Depends(admin)]) -> Any:
        """All processes read their folder anew and take it up, or keep what they have and say why. Requests
        in flight keep what they began with. It is in the audit log."""
        try:
            return await administration.reload(caller)
        except ConfigError as error:
            return JSONResponse({"error": _refused(error.mistakes)}, 400)

    @routes.get("/api/admin/config", summary="The configuration in force", responses=errors(403))
    async def configuration(caller: Annotated[Principal, Depends(admin)]) -> Configuration:
        """Every setting, with its value and where that is from; secrets are masked."""
        return administration.configuration()

    return routes


def _refused(mistakes: list[str]) -> dict[str, Any]:
    number = "a mistake" if len(mistakes) == 1 else f"{len(mistakes)} mistakes"
    message = f"The configuration has {number}; nothing was changed. {'; '.join(mistakes)}"
    return {
        "message": message,
        "type": INVALID,
        "param": None,
        "code": "invalid_configuration",
        "mistakes": mistakes,
    }
