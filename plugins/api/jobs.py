"""`/v1/jobs` and `/v1/collections/{id}/jobs`: how far the processing of documents is, and steering it."""

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Header, Path, Query
from fastapi.responses import Response, StreamingResponse
from starlette.types import Receive, Scope, Send

from plugins.api.collections import After, CollectionRef, Limit
from plugins.api.route import Route, errors
from plugins.collections.following import Stream
from plugins.collections.job_service import JobService
from plugins.core.document_shapes import JobList, JobView
from plugins.core.errors import InvalidRequest
from plugins.core.identity import Principal

JobId = Annotated[
    str, Path(pattern="^[A-Za-z0-9_-]{1,128}$", description="The id of a document's job (`job_...`)")
]
Status = Literal["in_progress", "completed", "cancelled", "failed"]
LastEventId = Annotated[
    str | None,
    Header(description="The `id` of the last event that was seen: the stream goes on behind it"),
]
RECONNECT_MS = 2000
EVENTS = "text/event-stream"
_STREAM: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "Server-sent events: `id` numbers the change, `event` is `job`, `data` the job",
        "content": {EVENTS: {"schema": {"type": "string"}}},
    }
}
_ENDED: dict[int | str, dict[str, Any]] = {204: {"description": "`Last-Event-ID` was the job's end"}}


class Events(StreamingResponse):
    """A stream of jobs as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

    It gives its place back also when the client went away before the first byte.
    """

    media_type = EVENTS

    def __init__(self, stream: Stream) -> None:
        headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
        super().__init__(_lines(stream), headers=headers)
        self._stream = stream

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._stream.close()


async def _lines(stream: Stream) -> AsyncIterator[str]:
    yield f"retry: {RECONNECT_MS}\n\n"
    async for number, job in stream.events():
        if job is None:
            yield ": ping\n\n"
        else:
            yield f"id: {number}\nevent: job\ndata: {job.model_dump_json()}\n\n"


def _number(last_event_id: str | None) -> int | None:
    """Raises InvalidRequest unless it is the number of an event."""
    if not last_event_id:
        return None
    if not (last_event_id.isascii() and last_event_id.isdigit() and len(last_event_id) <= 18):
        raise InvalidRequest("`Last-Event-ID` is the `id` of an event of this stream.", param="last-event-id")
    return int(last_event_id)


def router(jobs: JobService, authenticated: Callable[..., Awaitable[Principal]]) -> APIRouter:
    """The routes of jobs."""
    routes = APIRouter(route_class=Route, tags=["documents"])
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type

    @routes.get(
        "/v1/collections/{collection}/jobs",
        summary="List the jobs of a collection",
        responses=errors(403, 404),
    )
    async def list_jobs(
        caller: Caller,
        collection: CollectionRef,
        status: Annotated[Status | None, Query(description="Only those of this status")] = None,
        batch: Annotated[str | None, Query(max_length=64, description="Only those of this upload")] = None,
        after: After = None,
        limit: Limit = 100,
    ) -> JobList:
        """Those of the documents that you may see, newest documents first."""
        return await jobs.list(caller, collection, status=status, batch=batch, after=after, limit=limit)

    @routes.get("/v1/jobs/{job}", summary="Show a job", responses=errors(403, 404))
    async def get_job(caller: Caller, job: JobId) -> JobView:
        """The stage of a document's processing, how many pages or chunks are done of how many, and,
        where it failed, why."""
        return await jobs.get(caller, job)

    @routes.post("/v1/jobs/{job}/cancel", summary="Cancel a job", responses=errors(403, 404, 409))
    async def cancel_job(caller: Caller, job: JobId) -> JobView:
        """Its uploader may with `add`, and who may `manage` the collection. The document stays, and may be
        tried again; a version of it that was searchable still is. 409 when the job has ended."""
        return await jobs.cancel(caller, job)

    @routes.post("/v1/jobs/{job}/retry", summary="Try a job again", responses=errors(403, 404, 409))
    async def retry_job(caller: Caller, job: JobId) -> JobView:
        """What failed or was cancelled: its uploader may with `add`, and who may `manage` the collection.
        409 for what is done, is being worked on, or waits, which goes on by itself."""
        return await jobs.retry(caller, job)

    _add_events(routes, jobs, authenticated)
    return routes


def _add_events(
    routes: APIRouter, jobs: JobService, authenticated: Callable[..., Awaitable[Principal]]
) -> None:
    Caller = Annotated[Principal, Depends(authenticated)]  # noqa: N806 - a type

    @routes.get(
        "/v1/jobs/{job}/events",
        summary="Follow a job",
        responses={**errors(403, 404, 429), **_STREAM, **_ENDED},
        response_class=StreamingResponse,
    )
    async def follow_job(caller: Caller, job: JobId, last_event_id: LastEventId = None) -> Response:
        """The job as it is and each change of it, as server-sent events, until it ends. Clients of
        server-sent events ask again then, with the last event's `id`: 204 tells them to stop."""
        stream = await jobs.follow_job(caller, job, _number(last_event_id))
        return Response(status_code=204) if stream is None else Events(stream)

    @routes.get(
        "/v1/collections/{collection}/jobs/events",
        summary="Follow the jobs of a collection",
        responses={**errors(403, 404, 429), **_STREAM},
        response_class=StreamingResponse,
    )
    async def follow_jobs(
        caller: Caller, collection: CollectionRef, last_event_id: LastEventId = None
    ) -> Events:
        """The jobs that are going on, and then each change of one, as server-sent events. With
        `Last-Event-ID` only what changed since. A stream ends after a quarter of an hour; clients of
        server-sent events go on by themselves."""
        return Events(await jobs.follow_collection(caller, collection, _number(last_event_id)))
