"""Documents of a collection: add, list, show, change, delete, download; and their jobs."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import ColumnElement, and_, or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawler.contracts import audience_key
from plugins.collections import audit, tables
from plugins.collections.arrivals import announce, arrived
from plugins.collections.catalogue import check_limit
from plugins.collections.changes import changed
from plugins.collections.database import Database
from plugins.collections.expiry import bury, change_family, family, moment
from plugins.collections.originals import Originals
from plugins.collections.placing import Placed, add_audience, find, place, revise, superseded
from plugins.collections.quotas import Quotas
from plugins.collections.records import (
    DOCUMENT_COLUMNS,
    CollectionRecord,
    DocumentRecord,
    Gate,
    document_record,
    live_as,
    there,
)
from plugins.collections.rights import Rights
from plugins.collections.uploads import (
    MANAGE_AUDIENCE,
    CheckedUpload,
    Upload,
    canonical_acl,
    check_attributes,
    check_upload,
)
from plugins.collections.views import document_view, sees, visible
from plugins.core.document_shapes import DocumentList, DocumentPatch, DocumentView
from plugins.core.errors import (
    Conflict,
    Forbidden,
    LimitReached,
    TooLarge,
    UnknownCollection,
    UnknownDocument,
    Upstream,
)
from plugins.core.identity import Principal
from plugins.core.metrics import UPLOADED_BYTES, UPLOADS, refused

__all__ = ["DocumentService", "Original", "Upload"]

FIRST_POLL_S, MAX_POLL_S = 0.05, 0.5
Views = list[DocumentView]
MANAGE_OR_OWN = "This needs the right `manage`, or `add` for a document that you uploaded yourself."


@dataclass(frozen=True)
class Original:
    """A document as it was uploaded."""

    path: Path
    filename: str
    media_type: str | None


class DocumentService:
    """The documents as a principal may see and change them. Every method checks the right it needs."""

    def __init__(
        self,
        database: Database,
        rights: Rights,
        originals: Originals[Any],
        pipelines: Mapping[str, Mapping[str, Any]],
        quotas: Quotas,
    ) -> None:
        self._database = database
        self._rights = rights
        self._gate = Gate(database, rights)
        self._originals = originals
        self._pipelines = pipelines
        self._quotas = quotas
        self.spool_dir = originals.spool_dir

    async def check_add(self, principal: Principal, ref: str) -> None:
        """Raises UnknownCollection or Forbidden before any byte of an upload is read."""
        async with self._database.read() as connection:
            check_writable(await self._gate.collection(connection, principal, ref, "add"))

    async def add(
        self, principal: Principal, ref: str, uploads: Sequence[Upload], batch_id: str | None = None
    ) -> list[DocumentView]:
        """Take the documents in: all of them, or none when one is refused. Their jobs start by themselves.

        Content that is already there and that the principal uploaded or may read is answered with its
        document. An id that exists replaces that document. `batch_id` is what the others have in common.

        Raises:
            InvalidRequest: An upload says something that cannot be.
            Conflict: An id belongs to somebody else's document, or the collection was made outside.
            LimitReached: The principal may upload no more today.
            TooLarge: The principal, or the collection, may hold no more.
        """
        async with self._database.read() as connection:
            record = await self._gate.collection(connection, principal, ref, "add")
        check_writable(record)
        pipeline = self._pipelines.get(record.pipeline, {})
        checked = [check_upload(upload, self._rights, pipeline, batch_id) for upload in uploads]
        try:
            coming = [(new.document_id, new.revision) for new in checked if new.upload.document_id]
            await self._announce(record.id, coming)
            for new in checked:
                await self._keep(record.id, new)
            await self._gate.prepare(principal)
            async with self._database.write() as connection:
                current = await self._gate.collection(connection, principal, record.id, "add")
                placed = await self._place(connection, principal, current, checked)
        except (Conflict, Forbidden, UnknownCollection, LimitReached, TooLarge):
            await self._forget(record.id, checked)
            raise  # after any other error it is not known whether the rows are there: the sweep looks
        rows = [one.row for one in placed]
        for one in placed:
            await self._discard(one.row, one.replaced)
        sent, kept = ({one.revision for one in them} for them in (checked, rows))
        for row in (row for row in rows if row.revision in sent):  # what was there already does not count
            UPLOADS.labels(row.kind).inc()
            UPLOADED_BYTES.inc(row.size)
        await self._forget(record.id, [new for new in checked if new.revision not in kept])
        return [self._view(principal, record, row) for row in rows]

    async def _place(
        self,
        connection: AsyncConnection,
        principal: Principal,
        collection: CollectionRecord,
        checked: Sequence[CheckedUpload],
    ) -> list[Placed]:
        """Make the uploads rows, within what their uploader and the collection may hold."""
        await self._quotas.lock(connection, collection)
        priority = self._quotas.priority(principal)
        placed = [
            await place(connection, principal, self._rights, collection, new, priority) for new in checked
        ]
        rows = [one.row for one in placed]
        known = {row.revision for row in rows}
        fresh = [new for new in checked if new.revision in known]
        if fresh:
            size = sum(new.size for new in fresh)
            await self._quotas.check(connection, principal, collection, size)
        await arrived(connection, [new.revision for new in checked if new.upload.document_id])
        await changed(connection, [(collection.id, name) for one in placed for name in one.begun])
        await self._record(connection, principal, rows, fresh)
        return placed

    async def _record(
        self,
        connection: AsyncConnection,
        principal: Principal,
        rows: Sequence[DocumentRecord],
        checked: Sequence[CheckedUpload],
    ) -> None:
        """Write into the audit log what came in; not what was there already."""
        fresh = {new.revision for new in checked}
        for row in (row for row in rows if row.revision in fresh):
            action: audit.Action = "document.replace" if row.stale else "document.add"
            told = {"revision": row.revision, "sha256": row.sha256, "acl": row.acl}
            of = {"collection_id": row.collection_id, "document_id": row.id}
            await audit.record(connection, principal, action, **of, detail=told)

    async def _keep(self, collection_id: str, new: CheckedUpload) -> None:
        path = new.upload.path
        if new.upload.markdown is not None:
            path = self.spool_dir / new.revision
            await asyncio.to_thread(path.write_bytes, new.upload.markdown.encode())
        if path is not None:
            await self._originals.put(collection_id, new.document_id, new.revision, path)

    async def _announce(self, collection_id: str, coming: Sequence[tuple[str, str]]) -> None:
        if coming:  # what is new has an id that nobody clears up behind
            async with self._database.write() as connection:
                await announce(connection, collection_id, coming)

    async def _forget(self, collection_id: str, unused: Sequence[CheckedUpload]) -> None:
        for new in unused:
            await self._originals.remove(collection_id, new.document_id, new.revision)

    async def _discard(self, row: DocumentRecord, revision: str | None) -> None:
        """Remove the files of a revision that was replaced: else to replace over and over fills the disk.

        Whoever still works on it is told that it was replaced.
        """
        if revision is not None:
            with suppress(Upstream):  # the row is there; the worker clears up behind it
                await self._originals.remove(row.collection_id, row.id, revision)

    async def list(
        self,
        principal: Principal,
        ref: str,
        *,
        after: str | None = None,
        limit: int = 100,
        status: str | None = None,
    ) -> DocumentList:
        """Documents, newest first: all with `manage`, those one may read with `query`, one's own with `add`.

        Args:
            after: The id of the last document of the page before.
            limit: 1 to 1000.
            status: Only those of this status.
        """
        check_limit(limit)
        table = tables.documents
        async with self._database.read() as connection:
            record = await self._gate.collection(connection, principal, ref, "query", "add", "manage")
            query = select(*DOCUMENT_COLUMNS).where(await self._visible(connection, principal, record))
            if status is not None:
                query = query.where(table.c.status == status)
            if after is not None:
                last = await self._document(connection, principal, record, after)
                older = table.c.created_at < last.created_at
                beside = and_(table.c.created_at == last.created_at, table.c.id > last.id)
                query = query.where(or_(older, beside))
            query = query.order_by(table.c.created_at.desc(), table.c.id).limit(limit + 1)
            rows = [document_record(row) for row in await connection.execute(query)]
        return DocumentList(
            data=[self._view(principal, record, row) for row in rows[:limit]], has_more=len(rows) > limit
        )

    async def get(self, principal: Principal, ref: str, document_id: str) -> DocumentView:
        async with self._database.read() as connection:
            record = await self._gate.collection(connection, principal, ref, "query", "add", "manage")
            row = await self._document(connection, principal, record, document_id)
        return self._view(principal, record, row)

    async def change(
        self, principal: Principal, ref: str, document_id: str, patch: DocumentPatch
    ) -> DocumentView:
        """Change attributes and expiry (its uploader, or `manage`) and audience (`manage`).

        What narrows holds at once; a new revision is ingested from the original so that the passages follow.
        An expiry is also that of what was in the document, and takes no new revision.
        """
        async with self._database.read() as connection:
            record, row = await self._mine(connection, principal, ref, document_id)
        values: dict[str, Any] = {}
        if patch.metadata is not None and patch.metadata != row.attributes:
            check_attributes(patch.metadata)
            values["attributes"] = dict(patch.metadata)
        if "acl" in patch.model_fields_set:
            if not self._rights.decide(principal, "manage", record).allowed:
                raise refused("manage", Forbidden(MANAGE_AUDIENCE, param="acl"))
            acl = canonical_acl(patch.acl, self._rights)
            if acl != row.acl:
                values |= {"acl": acl, "acl_key": audience_key(acl)}
        expires_at = moment(patch.expires_at) if "expires_at" in patch.model_fields_set else row.expires_at
        if not values and expires_at == row.expires_at:
            return self._view(principal, record, row)
        if values:
            values["revision"] = uuid.uuid4().hex
            if row.url is not None and row.size == 0:  # not fetched: equal bytes are not the same any more
                values["sha256"] = ""
            await self._announce(record.id, [(row.id, values["revision"])])
            await self._originals.copy(record.id, row.id, row.revision, values["revision"])
        async with self._database.write() as connection:
            await arrived(connection, [values["revision"]] if values else [])
            if "acl" in values:
                await add_audience(connection, record.id, values["acl"])
            fresh = await revise(connection, row, **values) if values else row
            fields = values.keys() & {"attributes", "acl"}
            if expires_at != row.expires_at:
                fields |= {"expires_at"}
                fresh = await _expire(connection, fresh, expires_at)
            detail: dict[str, Any] = {"fields": sorted(fields)}
            if "acl" in values:
                detail |= {"before": row.acl, "after": fresh.acl}
            await changed(connection, [(record.id, row.id)])
            await audit.record(
                connection,
                principal,
                "document.change",
                collection_id=record.id,
                document_id=row.id,
                detail=detail,
            )
        if values:
            await self._discard(fresh, superseded(row, fresh))
        return self._view(principal, record, fresh)

    async def delete(self, principal: Principal, ref: str, document_id: str) -> str:
        """Delete a document and what was in it: its uploader, or `manage`. Gone at once; the worker clears up
        behind it.

        Returns:
            Its id.
        """
        await self._gate.prepare(principal)
        async with self._database.write() as connection:
            record, row = await self._mine(connection, principal, ref, document_id)
            await bury(connection, record.id, [row.id])  # first: from now on nobody adds what is in it
            ids = await family(connection, record.id, row.id)
            await bury(connection, record.id, ids)
            await changed(connection, [(record.id, name) for name in ids])
            await audit.record(
                connection, principal, "document.delete", collection_id=record.id, document_id=row.id
            )
        return row.id

    @asynccontextmanager
    async def content(self, principal: Principal, ref: str, document_id: str) -> AsyncIterator[Original]:
        """The file of the revision that searches find, so that citations lead to what they quote; where the
        principal finds none, what was uploaded last. Needs `query` and to be in its audience.

        Raises:
            UnknownDocument: There is none, or no file of it (yet).
        """
        async with self._database.read() as connection:
            record = await self._gate.collection(connection, principal, ref, "query", "add", "manage")
            row = await self._document(connection, principal, record, document_id)
        if not self._rights.decide(principal, "query", record).allowed:
            message = "This needs the right `query` to the collection, which you do not have."
            raise refused("query", Forbidden(message))
        if not self._rights.admits(principal, row.acl):
            raise refused("audience", Forbidden("You are not in the audience of this document."))
        live, revision = live_as(row), row.live_revision
        if revision is None or not self._rights.admits(principal, live["acl"]):
            live, revision = asdict(row), row.revision
        async with self._originals.open(record.id, row.id, revision) as path:
            if path is None:
                raise UnknownDocument("There is no file of this document; it may not have been fetched yet.")
            yield Original(path=path, filename=live["filename"], media_type=live["media_type"])

    async def wait(
        self, principal: Principal, ref: str, document_ids: Sequence[str], timeout_s: float
    ) -> Views:
        """The documents when their jobs have ended, or as they are after `timeout_s` seconds."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        pause = FIRST_POLL_S
        while True:
            views = [await self.get(principal, ref, document_id) for document_id in document_ids]
            left = deadline - loop.time()
            if left <= 0 or all(view.status != "in_progress" for view in views):
                return views
            await asyncio.sleep(min(pause, left))
            pause = min(2 * pause, MAX_POLL_S)

    async def _visible(
        self, connection: AsyncConnection, principal: Principal, record: CollectionRecord
    ) -> ColumnElement[bool]:
        """Which rows the principal may see."""
        return and_(there(), await visible(connection, self._rights, principal, record))

    def _view(self, principal: Principal, record: CollectionRecord, row: DocumentRecord) -> DocumentView:
        return document_view(self._rights, principal, record, row)

    async def _document(
        self, connection: AsyncConnection, principal: Principal, record: CollectionRecord, document_id: str
    ) -> DocumentRecord:
        row = await find(connection, record.id, document_id)
        if row is None or row.gone:
            raise UnknownDocument
        if not sees(self._rights, principal, self._rights.permissions(principal, record), row):
            raise UnknownDocument
        return row

    async def _mine(
        self, connection: AsyncConnection, principal: Principal, ref: str, document_id: str
    ) -> tuple[CollectionRecord, DocumentRecord]:
        """A document that the principal may change."""
        record = await self._gate.collection(connection, principal, ref, "manage", "add")
        check_writable(record)
        row = await self._document(connection, principal, record, document_id)
        manages = self._rights.decide(principal, "manage", record).allowed
        if not manages and row.uploaded_by != principal.user_id:
            raise refused("manage", Forbidden(MANAGE_OR_OWN))
        return record, row


async def _expire(
    connection: AsyncConnection, row: DocumentRecord, expires_at: float | None
) -> DocumentRecord:
    await change_family(connection, row.collection_id, row.id, expires_at=expires_at)
    return replace(row, expires_at=expires_at)


def check_writable(record: CollectionRecord) -> None:
    """Raises Conflict where others made the collection."""
    if record.adopted is not None:
        raise Conflict("This collection was made outside of this service: here it can only be searched.")
