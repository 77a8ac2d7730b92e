"""`GET /health/collections`: whether the store, the database, the worker and sign-in are well."""

from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Response

from plugins.api.route import Route
from plugins.core.ports import Health, Wellness
from plugins.core.shapes import Shape

_WORST_FIRST: tuple[Wellness, ...] = ("unavailable", "degraded", "ok")


class HealthView(Shape):
    status: Wellness
    """The worst of the others; `unavailable` also while this process ends."""
    store: Wellness
    database: Wellness
    worker: Wellness
    identity: Wellness
    details: dict[str, Any] | None = None
    """Versions, restarts, queue length, messages; for admins only."""


def router(health: Health, is_admin: Callable[..., Awaitable[bool]]) -> APIRouter:
    """The one route that answers without sign-in; ``is_admin`` is False for those who did not sign in."""
    routes = APIRouter(route_class=Route, tags=["health"])

    @routes.get(
        "/health/collections",
        summary="Health of collections",
        response_model_exclude_none=True,
        responses={503: {"model": HealthView, "description": "Something is unavailable"}},
    )
    async def collections_health(response: Response, admin: Annotated[bool, Depends(is_admin)]) -> HealthView:
        """Status words to anyone, details to admins. 503 when something is unavailable."""
        report = await health.check()
        words = {report.store, report.database, report.worker, report.identity}
        status = next(word for word in _WORST_FIRST if word in words)
        if report.stopping:
            status = "unavailable"
        if status == "unavailable":
            response.status_code = 503
        return HealthView(
            status=status,
            store=report.store,
            database=report.database,
            worker=report.worker,
            identity=report.identity,
            details=dict(report.details) if admin else None,
        )

    return routes
