"""`/v1/audit`: the audit log, and what is kept of chats, for those who may read it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Query
from fastapi.responses import StreamingResponse

from plugins.api.collections import Limit
from plugins.api.route import Route, errors
from plugins.collections.audit import AuditLog, Result, Wanted
from plugins.collections.exchanges import ExchangeReader
from plugins.core.identity import Principal
from plugins.core.shapes import AuditEntry, AuditList, ExchangeList

JSON_LINES = "application/jsonl"

After = Annotated[
    int,
    Query(ge=0, le=2**63 - 1, description="The id of the last entry that you have; 0 = from the first on"),
]
Text = Annotated[str | None, Query(min_length=1, max_length=512, pattern=r"^[^\x00]*$")]
Moment = Annotated[
    datetime | None, Query(description="ISO 8601 (UTC where it names no zone), or seconds since 1970")
]


def wanted(
    user: Text = None,
    collection: Text = None,
    action: Text = None,
    result: Result | None = None,
    since: Moment = None,
    until: Moment = None,
) -> Wanted:
    """The filters of a request."""
    return Wanted(user, collection, action, result, _seconds(since), _seconds(until))


def _seconds(moment: datetime | None) -> float | None:
    if moment is None:
        return None
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def router(
    audit: AuditLog, exchanges: ExchangeReader, authenticated: Callable[..., Awaitable[Principal]]
) -> APIRouter:
    """The routes of the audit log."""
    routes = APIRouter(route_class=Route, tags=["audit"])
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type
    Filters = Annotated[Wanted, Depends(wanted)]  # noqa: N806 - a type

    @routes.get("/v1/audit", summary="Read the audit log", responses=errors(403))
    async def list_entries(
        caller: Caller, filters: Filters, after: After = 0, limit: Limit = 100
    ) -> AuditList:
        """Needs the grant `audit.readers`. In the order of the changes, the oldest first; `user` is a subject
        or `<source>/<name>`, `collection` an id, or the name of one that is there."""
        return await audit.list(caller, filters, after=after, limit=limit)

    @routes.get(
        "/v1/audit/export",
        summary="Export the audit log",
        response_class=StreamingResponse,
        responses={
            **errors(403),
            200: {"content": {JSON_LINES: {}}, "description": "One entry on each line"},
        },
    )
    async def export_entries(caller: Caller, filters: Filters, after: After = 0) -> StreamingResponse:
        """As the list, but all entries that are there, each a line of JSON. To go on later, give the last id
        as `after`."""
        entries = audit.export(caller, filters, after=after)
        return StreamingResponse(_lines(entries), media_type=JSON_LINES)

    @routes.get("/v1/audit/exchanges", summary="Read requests and answers", responses=errors(403))
    async def list_exchanges(
        caller: Caller, user: Text = None, after: After = 0, limit: Limit = 100
    ) -> ExchangeList:
        """Needs the grant `audit.readers`, and is itself in the audit log. What was asked and answered in
        chats, where `audit.exchanges.enabled` keeps it; the oldest first."""
        return await exchanges.list(caller, user=user, after=after, limit=limit)

    return routes


async def _lines(entries: AsyncIterator[AuditEntry]) -> AsyncIterator[str]:
    async for entry in entries:
        yield entry.model_dump_json() + "\n"
