"""Collections that are being built anew in another place of the store, while searches go on in the old one.

The column `collections.reindex` says as what; `documents.built_in` which live revisions are there already.
When all are, one update of the collection's row puts the new place in force.
"""

from __future__ import annotations

import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

from sqlalchemy import ColumnElement, and_, case, delete, func, insert, null, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from crawler.contracts import Document
from crawler.store import Metric, Retrieval
from plugins.collections import audit, tables
from plugins.collections.database import Database
from plugins.collections.jobs import FREE, Job, LeaseLost, leased
from plugins.collections.records import (
    DOCUMENT_COLUMNS,
    CollectionRecord,
    collection_record,
    document_record,
    now,
    there,
)
from plugins.core.shapes import Built, ReindexError, ReindexView

DROP_AFTER_S = 60.0
"""Searches that began in a place which is left may take so long."""


@dataclass(frozen=True)
class Rebuild:
    """As what a collection is being built anew."""

    store_name: str
    embedding_model: str
    dimension: int
    metric: Metric
    retrieval: Retrieval
    pipeline: str
    digest: str
    """Of the pipeline's settings when it was asked for."""
    asked_by: str
    """`<source>/<name>`: whose expense it is."""
    started_at: float
    last_error: dict[str, Any] | None = None

    def of(self, collection: CollectionRecord) -> CollectionRecord:
        """The collection as it will be."""
        return replace(
            collection,
            store_name=self.store_name,
            embedding_model=self.embedding_model,
            dimension=self.dimension,
            metric=self.metric,
            retrieval=self.retrieval,
            pipeline=self.pipeline,
            reindex=None,
        )


def rebuild_of(collection: CollectionRecord) -> Rebuild | None:
    return None if collection.reindex is None else Rebuild(**collection.reindex)


@dataclass(frozen=True)
class Rebuilds:
    """What the worker does in SQL for them."""

    database: Database
    lease_s: float

    async def ongoing(self) -> list[tuple[CollectionRecord, Rebuild]]:
        table = tables.collections
        query = select(table).where(table.c.state == "ready", table.c.reindex.is_not(null()))
        async with self.database.read() as connection:
            records = [collection_record(row, {}) for row in await connection.execute(query)]
        return [(record, rebuild) for record in records if (rebuild := rebuild_of(record)) is not None]

    async def uploads_wait(self) -> bool:
        """Whether there is work that comes before all rebuilding."""
        documents, collections = tables.documents, tables.collections
        query = (
            select(documents.c.id)
            .join(collections, collections.c.id == documents.c.collection_id)
            .where(documents.c.pending.is_(True), documents.c.not_before <= now())
            .where(documents.c.lease_until < now(), collections.c.state == "ready")
            .limit(1)
        )
        async with self.database.read() as connection:
            return await connection.scalar(query) is not None

    async def take(
        self, collection: CollectionRecord, rebuild: Rebuild, leave_out: Collection[str]
    ) -> Job | None:
        """Lease a document that is not in the new place yet; the job's collection is the one to be.

        Args:
            collection: Which.
            rebuild: As what.
            leave_out: Documents to be tried later.
        """
        table, moment = tables.documents, now()
        waiting = (
            select(table.c.id)
            .where(_unbuilt(collection.id, rebuild), table.c.lease_until < moment)
            .where(table.c.id.not_in(leave_out))
            .order_by(table.c.created_at)
            .limit(1)
        )
        async with self.database.read() as connection:
            if (await connection.execute(waiting)).one_or_none() is None:
                return None
        token = uuid.uuid4().hex
        async with self.database.write() as connection:
            free = waiting.with_for_update(skip_locked=True)
            document_id = await connection.scalar(free)
            if document_id is None:
                return None
            taken = await connection.execute(
                update(table)
                .where(table.c.collection_id == collection.id, table.c.id == document_id)
                .values(worker=token, lease_until=moment + self.lease_s)
                .returning(*DOCUMENT_COLUMNS)
            )
            return Job(document_record(taken.one()), rebuild.of(collection), token)

    async def extend(self, job: Job) -> None:
        """Say that the job's worker lives.

        Raises:
            LeaseLost: The document was replaced, deleted or taken over; or the rebuilding is over.
        """
        async with self.database.write() as connection:
            await self._change(connection, job, lease_until=now() + self.lease_s)

    async def built(self, job: Job, document: Document) -> None:
        """The document's live revision is in the new place; what the pipeline says of it is shown at once.

        Raises LeaseLost as `extend` does.
        """
        values: dict[str, Any] = {"built_in": job.collection.store_name, "built_chunks": len(document.chunks)}
        metadata = document.metadata or {}
        if job.document.revision == job.document.live_revision:
            values |= {
                "title": metadata.get("title"),
                "pages": len(document.pages) or None,
                "properties": metadata or None,
                "warnings": list(document.warnings) or None,
            }
        async with self.database.write() as connection:
            await self._change(connection, job, **values, **FREE)

    async def _change(self, connection: AsyncConnection, job: Job, **values: Any) -> None:
        table = tables.documents
        place = await connection.scalar(
            select(tables.collections.c.reindex).where(tables.collections.c.id == job.collection.id)
        )
        changed = await connection.execute(update(table).where(_held(job)).values(**values))
        if changed.rowcount != 1 or not place or place["store_name"] != job.collection.store_name:
            raise LeaseLost

    async def release(self, job: Job) -> None:
        """Give the document back."""
        table, document = tables.documents, job.document
        mine = and_(
            table.c.collection_id == document.collection_id,
            table.c.id == document.id,
            table.c.worker == job.token,
        )
        async with self.database.write() as connection:
            await connection.execute(update(table).where(mine).values(**FREE))

    async def note(
        self, collection: CollectionRecord, rebuild: Rebuild, error: Mapping[str, Any] | None
    ) -> None:
        """Say why it does not go on; None: it does.

        Args:
            collection: Which.
            rebuild: As what.
            error: `code`, `message` and `document_id`.
        """
        async with self.database.write() as connection:
            current = await _locked(connection, collection.id, rebuild)
            told = None if error is None else dict(error)
            if current is not None and current[1].last_error != told:
                table = tables.collections
                values = asdict(replace(current[1], last_error=told))
                await connection.execute(
                    update(table).where(table.c.id == collection.id).values(reindex=values)
                )

    async def expected(self, collection: CollectionRecord, rebuild: Rebuild) -> Mapping[str, tuple[str, int]]:
        """Which revision of each document is in the new place, in how many passages."""
        table = tables.documents
        query = select(table.c.id, table.c.live_revision, table.c.built_chunks).where(
            _live(collection.id), table.c.built_in == rebuild.store_name
        )
        async with self.database.read() as connection:
            rows = (await connection.execute(query)).all()
        return {row.id: (row.live_revision, row.built_chunks) for row in rows}

    async def complete(self, collection: CollectionRecord, rebuild: Rebuild) -> bool:
        """Whether every document is in the new place."""
        async with self.database.read() as connection:
            return not await connection.scalar(
                select(tables.documents.c.id).where(_unbuilt(collection.id, rebuild)).limit(1)
            )

    async def unbuilt(self, collection: CollectionRecord, document_ids: Sequence[str]) -> None:
        """These documents are to be built again."""
        table = tables.documents
        async with self.database.write() as connection:
            await connection.execute(
                update(table)
                .where(table.c.collection_id == collection.id, table.c.id.in_(document_ids))
                .values(built_in=None, built_chunks=None)
            )

    async def swap(self, collection: CollectionRecord, rebuild: Rebuild) -> bool:
        """Put the new place in force, if every document is in it; the old one is dropped later.

        Returns:
            False when a document is not, or the rebuilding is over.
        """
        documents, collections = tables.documents, tables.collections
        async with self.database.write() as connection:
            current = await _locked(connection, collection.id, rebuild)
            if current is None:
                return False
            unbuilt = select(documents.c.id).where(_unbuilt(collection.id, rebuild)).limit(1)
            if await connection.scalar(unbuilt):
                return False
            same = documents.c.revision == documents.c.live_revision
            await connection.execute(
                update(documents)
                .where(documents.c.collection_id == collection.id)
                .where(documents.c.built_in == rebuild.store_name)
                .values(
                    chunks=documents.c.built_chunks,
                    pipeline=case((same, rebuild.digest), else_=documents.c.pipeline),
                )
            )
            await connection.execute(  # work that goes on in the old place begins again in the new one
                update(documents)
                .where(documents.c.collection_id == collection.id, documents.c.worker.is_not(None))
                .values(attempts=case((documents.c.attempts > 0, documents.c.attempts - 1), else_=0), **FREE)
            )
            record = current[0]
            put = rebuild.of(record)
            fields = ("store_name", "embedding_model", "dimension", "metric", "retrieval", "pipeline")
            values = {name: getattr(put, name) for name in fields}
            await connection.execute(
                update(collections)
                .where(collections.c.id == collection.id)
                .values(**values, reindex=null(), written_at=now())
            )
            await discard(connection, record.store_name)
            detail = {name: values[name] for name in fields[1:]}
            await audit.record_own(
                connection, "collection.reindex.done", collection_id=record.id, detail=detail
            )
        return True

    async def discarded(self) -> list[str]:
        """The places that no collection has any more and no search may still be in."""
        table, collections = tables.discarded, tables.collections
        named = select(collections.c.id).where(collections.c.store_name == table.c.store_name).exists()
        query = select(table.c.store_name).where(table.c.since < now() - DROP_AFTER_S, ~named)
        async with self.database.read() as connection:
            return list(await connection.scalars(query))

    async def dropped(self, store_name: str) -> None:
        """The place is not there any more."""
        table = tables.discarded
        async with self.database.write() as connection:
            await connection.execute(delete(table).where(table.c.store_name == store_name))


async def discard(connection: AsyncConnection, store_name: str) -> None:
    """The worker drops the place in a while."""
    await connection.execute(insert(tables.discarded).values(store_name=store_name, since=now()))


async def progress(
    connection: AsyncConnection, records: Sequence[CollectionRecord]
) -> dict[str, ReindexView]:
    """How far those of the collections are that are being built anew."""
    table = tables.documents
    views = {}
    for record in records:
        rebuild = rebuild_of(record)
        if rebuild is None:
            continue
        built = case((table.c.built_in == rebuild.store_name, 1), else_=0)
        counted = select(func.coalesce(func.sum(built), 0), func.count()).where(_live(record.id))
        done, total = (await connection.execute(counted)).one()
        views[record.id] = ReindexView(
            embedding_model=rebuild.embedding_model,
            dimension=rebuild.dimension,
            pipeline=rebuild.pipeline,
            retrieval=rebuild.retrieval,
            documents=Built(done=done, total=total),
            started_at=int(rebuild.started_at),
            last_error=ReindexError(**rebuild.last_error) if rebuild.last_error else None,
        )
    return views


async def _locked(
    connection: AsyncConnection, collection_id: str, rebuild: Rebuild
) -> tuple[CollectionRecord, Rebuild] | None:
    """The collection as it is now, to be changed; None when this rebuilding is over."""
    table = tables.collections
    query = select(table).where(table.c.id == collection_id, table.c.state == "ready").with_for_update()
    row = (await connection.execute(query)).one_or_none()
    record = None if row is None else collection_record(row, {})
    current = None if record is None else rebuild_of(record)
    if record is None or current is None or current.store_name != rebuild.store_name:
        return None
    return record, current


def _live(collection_id: str) -> ColumnElement[bool]:
    table = tables.documents
    return and_(table.c.collection_id == collection_id, table.c.live_revision.is_not(None), there())


def _unbuilt(collection_id: str, rebuild: Rebuild) -> ColumnElement[bool]:
    table = tables.documents
    elsewhere = or_(table.c.built_in.is_(None), table.c.built_in != rebuild.store_name)
    return and_(_live(collection_id), elsewhere)


def _held(job: Job) -> ColumnElement[bool]:
    """The row, if it is still as it was when it was taken."""
    table = tables.documents
    same = table.c.live_revision == job.document.live_revision
    return and_(leased(job), same, table.c.deleting.is_(False))
