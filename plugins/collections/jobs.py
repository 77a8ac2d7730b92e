"""The queue of jobs, which is the table of documents: take one, say that one lives, end it.

A job is leased to whoever took it. Every change names the lease, so that a worker that lost its lease, or
whose document was replaced or deleted meanwhile, changes nothing and is told (:class:`LeaseLost`).
"""

from __future__ import annotations

import random
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import ColumnElement, Select, and_, case, delete, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import tables
from plugins.collections.arrivals import arriving
from plugins.collections.changes import changed
from plugins.collections.database import Database
from plugins.collections.expiry import bury
from plugins.collections.fairness import next_document, next_people, served
from plugins.collections.leaders import TIDY
from plugins.collections.members import other_members
from plugins.collections.quotas import Quotas, person_of
from plugins.collections.records import (
    DOCUMENT_COLUMNS,
    CollectionRecord,
    DocumentRecord,
    collection_record,
    document_record,
    now,
)

MAX_BACKOFF_S = 300.0
MAX_PAUSE_S = 60.0
"""Between two looks for a service that is down."""
CREATING_S = 600.0
"""A collection that is not ready after so long is that of a request that died."""
FORGET_WORKER_S = 3600.0
FREE: dict[str, Any] = {"worker": None, "lease_until": 0.0}
"""What a row has that nobody works on."""

Action = Literal["crawl", "clean", "delete"]


class LeaseLost(Exception):
    """Somebody else has the job now, or the document was replaced or deleted."""


@dataclass(frozen=True)
class Job:
    """A document that needs work, leased to the holder of ``token``."""

    document: DocumentRecord
    collection: CollectionRecord
    token: str

    @property
    def action(self) -> Action:
        """Delete it; or ingest its revision; or only remove what other revisions left in the store."""
        if self.document.deleting:
            return "delete"
        return "crawl" if self.document.status == "in_progress" else "clean"


@dataclass(frozen=True)
class Queue:
    """Jobs of all collections, each to one worker at a time."""

    database: Database
    lease_s: float
    max_attempts: int
    backoff_s: float = 2.0
    """After the first failed attempt; each further one waits five times as long, at most 300 s."""

    async def take(self) -> Job | None:
        """Lease the job whose turn it is (`fairness`); None when there is nothing to do now."""
        moment = now()
        async with self.database.read() as connection:  # idle workers must not lock anybody out
            people = await next_people(connection, moment)
        if not people:
            return None
        async with self.database.write() as connection:
            for turn in people:
                free = await connection.execute(next_document(moment, turn.priority, turn.user_id))
                key = free.one_or_none()
                if key is not None:
                    await served(connection, turn.user_id, moment)
                    return await self._lease(connection, key.collection_id, key.id, moment)
        return None

    async def _lease(
        self, connection: AsyncConnection, collection_id: str, document_id: str, moment: float
    ) -> Job:
        documents, collections = tables.documents, tables.collections
        token = uuid.uuid4().hex
        begun = case((documents.c.started_at == 0, moment), else_=documents.c.started_at)
        taken = await connection.execute(
            update(documents)
            .where(documents.c.collection_id == collection_id, documents.c.id == document_id)
            .values(
                worker=token,
                lease_until=moment + self.lease_s,
                attempts=documents.c.attempts + 1,
                started_at=begun,
            )
            .returning(*DOCUMENT_COLUMNS)
        )
        document = document_record(taken.one())
        its = select(collections).where(collections.c.id == collection_id)
        collection = collection_record((await connection.execute(its)).one(), {})
        return Job(document, collection, token)

    async def extend(self, job: Job) -> None:
        """Say that the job's worker lives. Raises LeaseLost."""
        async with self.database.write() as connection:
            await self.hold(connection, job, lease_until=now() + self.lease_s)

    async def progress(self, job: Job, stage: str, done: int, total: int | None) -> None:
        """Raises LeaseLost."""
        await self._change(job, stage=stage, done=done, total=total, lease_until=now() + self.lease_s)

    async def fetched(self, job: Job, quotas: Quotas, *, size: int, **values: Any) -> None:
        """The document behind an address is here, so large and with these columns.

        Raises:
            LeaseLost: The job is somebody else's.
            LimitReached, TooLarge: There is no room for so much.
        """
        row = job.document
        async with self.database.write() as connection:
            await quotas.lock(connection, job.collection)
            await self.hold(connection, job, size=size, **values)
            person = await person_of(connection, row.uploaded_by)
            await quotas.check(connection, person, job.collection, size)
            await changed(connection, [(row.collection_id, row.id)])

    async def unchanged(self, job: Job, size: int) -> None:
        """What the address leads to, so large, is the live revision still: that stays as it is.

        Raises LeaseLost.
        """
        row = job.document
        await self._change(
            job,
            revision=row.live_revision,
            live_as=None,
            size=size,
            status="completed",
            stage="done",
            done=row.chunks,
            total=row.chunks,
            error_code=None,
            error_message=None,
            pending=row.stale,
            attempts=0,
            **FREE,
        )

    async def kept(self, job: Job, *, pages: int | None) -> None:
        """A stage is done and will not be repeated: what ends the worker from now on is counted anew.

        Raises LeaseLost.
        """
        await self._change(job, attempts=1, pages=pages, lease_until=now() + self.lease_s)

    async def complete(
        self,
        job: Job,
        *,
        chunks: int,
        pages: int | None,
        title: str | None,
        properties: Mapping[str, Any] | None = None,
        warnings: Sequence[str] = (),
    ) -> None:
        """The job's revision is the one that searches find from now on, and so are the files in it.

        Raises:
            LeaseLost: Also when the collection has moved to another place in the store meanwhile.
        """
        collections, row = tables.collections, job.document
        its = select(collections.c.store_name).where(collections.c.id == job.collection.id)
        values = {
            "live_revision": row.revision,
            "status": "completed",
            "stage": "done",
            "done": chunks,
            "total": chunks,
            "chunks": chunks,
            "pages": pages,
            "title": title,
            "properties": dict(properties) if properties else None,
            "warnings": list(warnings) or None,
            "error_code": None,
            "error_message": None,
            "pending": row.stale,
            "attempts": 0,
            "built_in": None,
            "live_as": None,
        }
        async with self.database.write() as connection:
            # With a key that may be shared: uploads, which hold documents, refer to the collection.
            place = (await connection.execute(its.with_for_update(key_share=True))).scalar_one_or_none()
            if place != job.collection.store_name:
                raise LeaseLost
            await self.hold(connection, job, **values, **FREE)
            old = await other_members(connection, row) if row.stale else []
            await bury(connection, row.collection_id, old)
            await connection.execute(
                update(collections).where(collections.c.id == job.collection.id).values(written_at=now())
            )
            await changed(connection, [(row.collection_id, name) for name in (row.id, *old)])

    async def fail(self, job: Job, code: str, message: str) -> None:
        """The revision cannot be ingested; what it left in the store is cleaned up. Raises LeaseLost."""
        await self._change(
            job,
            status="failed",
            error_code=code,
            error_message=message,
            stale=True,
            pending=True,
            attempts=0,
            **FREE,
        )

    async def retry(self, job: Job, code: str, message: str) -> None:
        """Try again later, each time after a longer pause; ``last_error`` says why meanwhile.

        Raises LeaseLost.
        """
        exponent = min(job.document.attempts - 1, 10)
        await self._wait(job, min(self.backoff_s * 5**exponent, MAX_BACKOFF_S), code, message)

    async def wait(self, job: Job, code: str, message: str) -> None:
        """Try again later, as often as it takes: what is missing is no fault of the document.

        Raises LeaseLost.
        """
        since = job.document.started_at if job.action == "crawl" else now()
        pause = min(max(self.backoff_s, (now() - since) / 4), MAX_PAUSE_S)
        attempts = tables.documents.c.attempts - 1
        await self._wait(job, pause, code, message, attempts=attempts)

    async def _wait(self, job: Job, pause: float, code: str, message: str, **values: Any) -> None:
        pause *= random.uniform(0.8, 1.2)  # noqa: S311 - jitter
        told = {"error_code": code, "error_message": message, "stage": "waiting"}
        values |= told if job.action == "crawl" else {}
        await self._change(job, not_before=now() + pause, **values, **FREE)

    async def cleaned(self, job: Job) -> None:
        """The store holds nothing of other revisions any more. Raises LeaseLost."""
        await self._change(job, stale=False, pending=False, attempts=0, **FREE)

    async def deleted(self, job: Job) -> None:
        """Nothing of the document is left but its row, which goes now. Raises LeaseLost."""
        async with self.database.write() as connection:
            result = await connection.execute(delete(tables.documents).where(_held(job)))
        if result.rowcount != 1:
            raise LeaseLost

    async def release(self, job: Job) -> None:
        """Give the job back untried: to another worker, or to be looked at anew after a LeaseLost."""
        table = tables.documents
        mine = and_(
            table.c.collection_id == job.document.collection_id,
            table.c.id == job.document.id,
            table.c.worker == job.token,
        )
        same = and_(mine, table.c.revision == job.document.revision, table.c.attempts > 0)
        async with self.database.write() as connection:
            untried = update(table).where(same).values(attempts=table.c.attempts - 1)
            await connection.execute(untried)
            await connection.execute(update(table).where(mine).values(**FREE))

    async def gone(self, job: Job) -> bool:
        """Whether the document's row is not there any more."""
        table = tables.documents
        query = select(table.c.id).where(
            table.c.collection_id == job.document.collection_id, table.c.id == job.document.id
        )
        async with self.database.read() as connection:
            return (await connection.execute(query)).one_or_none() is None

    async def take_over(self) -> None:
        """Free all leases: only for the one worker of a data directory, whose predecessors are dead."""
        async with self.database.write() as connection:
            table, leaders = tables.documents, tables.leaders
            await connection.execute(update(table).where(table.c.worker.is_not(None)).values(**FREE))
            await connection.execute(delete(leaders).where(leaders.c.duty == TIDY))

    async def revisions(self, collection_id: str, document_id: str | None = None) -> dict[str, set[str]]:
        """The revisions whose originals are needed, by document: of one document or of all.

        Ask after looking what is there: what comes later is among neither. What is on its way is looked for
        before the rows that it becomes.
        """
        table = tables.documents
        query = select(table.c.id, table.c.revision, table.c.live_revision).where(
            table.c.collection_id == collection_id, table.c.deleting.is_(False)
        )
        if document_id is not None:
            query = query.where(table.c.id == document_id)
        async with self.database.read() as connection:
            coming = await arriving(connection, collection_id, document_id)
            needed = {
                row.id: {row.revision, row.live_revision} - {None} for row in await connection.execute(query)
            }
        for name, revision in coming:
            needed.setdefault(name, set()).add(revision)
        return needed

    async def dropped(self) -> Sequence[CollectionRecord]:
        """Collections to be cleared away, on none of whose documents anybody works."""
        collections, documents = tables.collections, tables.documents
        moment = now()
        busy = (
            select(documents.c.id)
            .where(documents.c.collection_id == collections.c.id, documents.c.lease_until >= moment)
            .exists()
        )
        died = and_(collections.c.state == "creating", collections.c.created_at < moment - CREATING_S)
        query = select(collections).where(or_(collections.c.state == "deleting", died), ~busy)
        async with self.database.read() as connection:
            return [collection_record(row, {}) for row in await connection.execute(query)]

    async def forget(self, collection: CollectionRecord) -> None:
        """Nothing of the collection is left but its rows, which go now."""
        async with self.database.write() as connection:
            table = tables.collections
            await connection.execute(
                delete(table).where(table.c.id == collection.id, table.c.state != "ready")
            )

    async def hold(self, connection: AsyncConnection, job: Job, **values: Any) -> None:
        """Change the job's row within a transaction, if the job is still its holder's. Raises LeaseLost."""
        result = await connection.execute(update(tables.documents).where(_held(job)).values(**values))
        if result.rowcount != 1:
            raise LeaseLost

    async def _change(self, job: Job, **values: Any) -> None:
        async with self.database.write() as connection:
            await self.hold(connection, job, **values)
            await changed(connection, [(job.document.collection_id, job.document.id)])


def leased(job: Job) -> ColumnElement[bool]:
    """The row, if the job is still its holder's and for the same revision."""
    table, document = tables.documents, job.document
    return and_(
        table.c.collection_id == document.collection_id,
        table.c.id == document.id,
        table.c.worker == job.token,
        table.c.revision == document.revision,
    )


def _held(job: Job) -> ColumnElement[bool]:
    """The row, if it is still as it was when the job was taken."""
    table, document = tables.documents, job.document
    same = and_(table.c.deleting.is_(document.deleting), table.c.status == document.status)
    return and_(leased(job), same)


async def beat(database: Database, worker_id: str) -> None:
    """Write down that this worker lives."""
    table = tables.workers
    moment = now()
    async with database.write() as connection:
        seen = update(table).where(table.c.id == worker_id).values(seen_at=moment)
        if (await connection.execute(seen)).rowcount == 0:
            await connection.execute(delete(table).where(table.c.seen_at < moment - FORGET_WORKER_S))
            await connection.execute(insert(table).values(id=worker_id, seen_at=moment))


async def workers_alive(database: Database, within_s: float = 15.0) -> int:
    """How many workers gave a sign of life in the last seconds."""
    table = tables.workers
    query: Select[Any] = select(table.c.id).where(table.c.seen_at > now() - within_s)
    async with database.read() as connection:
        return len((await connection.execute(query)).all())
