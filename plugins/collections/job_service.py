"""The jobs of documents as a principal may see, cancel, retry and follow them."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Any

from sqlalchemy import and_, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import audit, tables
from plugins.collections.catalogue import check_limit
from plugins.collections.changes import changed, last_change
from plugins.collections.database import Database
from plugins.collections.following import PAGE, Look, Stream, Streams
from plugins.collections.records import (
    DOCUMENT_COLUMNS,
    CollectionRecord,
    DocumentRecord,
    Gate,
    document_record,
    now,
    there,
)
from plugins.collections.rights import Rights
from plugins.collections.views import job_view, sees, visible
from plugins.core.document_shapes import JobList, JobView
from plugins.core.errors import Conflict, Forbidden, UnknownCollection, UnknownDocument
from plugins.core.identity import Principal
from plugins.core.metrics import refused

UNKNOWN_JOB = "There is no such job, or you have no right to it."
MANAGE_OR_OWN = "This needs the right `manage`, or `add` for a document that you uploaded yourself."


class JobService:
    """Every method checks the right it needs: a job is seen by those who see its document."""

    def __init__(self, database: Database, rights: Rights, stopping: asyncio.Event) -> None:
        """``stopping``: set when this process ends, and streams with it."""
        self._database = database
        self._rights = rights
        self._stopping = stopping
        self._gate = Gate(database, rights)
        self._streams = Streams()

    async def get(self, principal: Principal, job_id: str) -> JobView:
        """How far the work on a document is.

        Raises:
            UnknownDocument: There is no such job, or the principal may not see it.
        """
        async with self._database.read() as connection:
            _, row = await self._find(connection, principal, job_id)
        return job_view(row)

    async def list(
        self,
        principal: Principal,
        ref: str,
        *,
        status: str | None = None,
        batch: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> JobList:
        """The jobs of a collection, those of the newest documents first.

        Args:
            principal: Who asks.
            ref: The collection's id or name.
            status: Only those of this status.
            batch: Only those of this upload.
            after: The id of the last job of the page before.
            limit: 1 to 1000.
        """
        check_limit(limit)
        table = tables.documents
        async with self._database.read() as connection:
            record = await self._gate.collection(connection, principal, ref, "query", "add", "manage")
            seen = await visible(connection, self._rights, principal, record)
            query = select(*DOCUMENT_COLUMNS).where(there(), seen)
            if status is not None:
                query = query.where(table.c.status == status)
            if batch is not None:
                query = query.where(table.c.batch_id == batch)
            if after is not None:
                _, last = await self._find(connection, principal, after)
                beside = and_(table.c.created_at == last.created_at, table.c.id > last.id)
                query = query.where(or_(table.c.created_at < last.created_at, beside))
            query = query.order_by(table.c.created_at.desc(), table.c.id).limit(limit + 1)
            rows = [document_record(row) for row in await connection.execute(query)]
        return JobList(data=[job_view(row) for row in rows[:limit]], has_more=len(rows) > limit)

    async def cancel(self, principal: Principal, job_id: str) -> JobView:
        """End the work on a document: its uploader with `add`, or `manage`. What was searchable of it stays.

        Raises:
            Conflict: It has ended already.
        """
        async with self._database.write() as connection:
            record, row = await self._mine(connection, principal, job_id)
            if row.status != "in_progress":
                raise Conflict("This job has ended already: there is nothing to cancel.")
            # the lease stays: whoever works on it notices, and only then others clear up behind them
            ended = {"status": "cancelled", "error_code": None, "error_message": None}
            return await self._change(connection, principal, record, row, "job.cancel", ended)

    async def retry(self, principal: Principal, job_id: str) -> JobView:
        """Try a document again that failed or was cancelled: its uploader with `add`, or `manage`.

        Raises:
            Conflict: It is done, is being worked on, or waits, which ends by itself.
        """
        async with self._database.write() as connection:
            record, row = await self._mine(connection, principal, job_id)
            if row.status not in ("failed", "cancelled"):
                raise Conflict(
                    "Only a job that failed or was cancelled can be tried again; "
                    "one that waits goes on by itself."
                )
            begun = {
                "status": "in_progress",
                "stage": "queued",
                "done": 0,
                "total": None,
                "started_at": 0.0,
                "error_code": None,
                "error_message": None,
            }
            return await self._change(connection, principal, record, row, "job.retry", begun)

    async def follow_job(self, principal: Principal, job_id: str, after: int | None) -> Stream | None:
        """The job as it is and each change of it until it ends.

        Args:
            principal: Who asks.
            job_id: The job's id.
            after: The number of the last event that was seen; the job as it is then is left out.

        Returns:
            None where that event was the job's end.

        Raises:
            UnknownDocument: There is no such job, or the principal may not see it.
            LimitReached: The principal follows enough.
        """
        if after is not None:
            async with self._database.read() as connection:
                _, row = await self._find(connection, principal, job_id, deleted=True)
            if row.change <= after and job_view(row).status != "in_progress":
                return None

        async def look(connection: AsyncConnection, number: int) -> Sequence[DocumentRecord]:
            _, row = await self._find(connection, principal, job_id, deleted=True)
            return [row] if row.change > number else []

        return await self._follow(principal, look, after if after is not None else -1, to_the_end=True)

    async def follow_collection(self, principal: Principal, ref: str, after: int | None) -> Stream:
        """The jobs of a collection that are going on, and then each change of one.

        Args:
            principal: Who asks.
            ref: The collection's id or name.
            after: The number of the last event that was seen: only what changed since is told.

        Raises:
            UnknownCollection, Forbidden: The principal may see none of them.
            LimitReached: The principal follows enough.
        """
        table = tables.documents
        async with self._database.read() as connection:
            begin = await last_change(connection) if after is None else 0

        async def look(connection: AsyncConnection, number: int) -> Sequence[DocumentRecord]:
            record = await self._gate.collection(connection, principal, ref, "query", "add", "manage")
            seen = await visible(connection, self._rights, principal, record)
            news = or_(table.c.change > begin, table.c.status == "in_progress")
            query = (
                select(*DOCUMENT_COLUMNS)
                .where(seen, news, table.c.change > number, or_(there(), table.c.deleting))
                .order_by(table.c.change)
                .limit(PAGE)
            )
            return [document_record(row) for row in await connection.execute(query)]

        return await self._follow(principal, look, after if after is not None else -1, to_the_end=False)

    async def _follow(self, principal: Principal, look: Look, after: int, *, to_the_end: bool) -> Stream:
        async with self._database.read() as connection:
            await look(connection, after)
        release = self._streams.take(principal.user_id)
        return Stream(self._database, look, after, release, self._stopping, to_the_end=to_the_end)

    async def _find(
        self, connection: AsyncConnection, principal: Principal, job_id: str, *, deleted: bool = False
    ) -> tuple[CollectionRecord, DocumentRecord]:
        table = tables.documents
        query = select(*DOCUMENT_COLUMNS).where(table.c.job_id == job_id)
        found = (await connection.execute(query)).one_or_none()
        row = document_record(found) if found is not None else None
        if row is not None and (deleted or not row.gone):
            with suppress(UnknownCollection, Forbidden):
                record = await self._gate.collection(
                    connection, principal, row.collection_id, "query", "add", "manage"
                )
                if sees(self._rights, principal, self._rights.permissions(principal, record), row):
                    return record, row
        raise UnknownDocument(UNKNOWN_JOB)

    async def _mine(
        self, connection: AsyncConnection, principal: Principal, job_id: str
    ) -> tuple[CollectionRecord, DocumentRecord]:
        """A job that the principal may change."""
        record, row = await self._find(connection, principal, job_id)
        held = self._rights.permissions(principal, record)
        if "manage" not in held and not ("add" in held and row.uploaded_by == principal.user_id):
            raise refused("manage", Forbidden(MANAGE_OR_OWN))
        return record, row

    async def _change(
        self,
        connection: AsyncConnection,
        principal: Principal,
        record: CollectionRecord,
        row: DocumentRecord,
        action: audit.Action,
        values: Mapping[str, Any],
    ) -> JobView:
        table = tables.documents
        fresh = replace(row, **values, stale=True, pending=True, attempts=0, not_before=now())
        told = [*values, "stale", "pending", "attempts", "not_before"]
        result = await connection.execute(
            update(table)
            .where(table.c.collection_id == record.id, table.c.id == row.id)
            .where(table.c.revision == row.revision, table.c.status == row.status)
            .where(table.c.deleting.is_(False))
            .values({name: getattr(fresh, name) for name in told})
        )
        if result.rowcount != 1:
            raise Conflict("This job changed at the same time; try again.")
        await changed(connection, [(record.id, row.id)])
        await audit.record(connection, principal, action, collection_id=record.id, document_id=row.id)
        return job_view(fresh)
