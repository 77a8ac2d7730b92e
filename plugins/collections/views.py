"""Documents and jobs as clients see them, and who sees which."""

from __future__ import annotations

import math
from collections.abc import Collection

from sqlalchemy import ColumnElement, and_, false, or_
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import tables
from plugins.collections.records import CollectionRecord, DocumentRecord, audiences, now
from plugins.collections.rights import Rights
from plugins.core.document_shapes import DocumentJob, DocumentView, JobView, LastError, Progress
from plugins.core.identity import Principal, Right

SHARES = {
    "queued": (0, 0),
    "convert": (0, 40),
    "extract": (40, 45),
    "chunk": (45, 50),
    "embed": (50, 95),
    "store": (95, 99),
}
"""From which to which percentage of the whole work each stage goes, by what it usually takes."""
MIN_PERCENT = 5
"""What is done of the work before the rest is estimated."""


async def visible(
    connection: AsyncConnection, rights: Rights, principal: Principal, record: CollectionRecord
) -> ColumnElement[bool]:
    """Which rows of documents the principal may see; those that are being deleted are among them."""
    table = tables.documents
    there = table.c.collection_id == record.id
    held = rights.permissions(principal, record)
    if "manage" in held:
        return there
    either: list[ColumnElement[bool]] = [false()]
    if "query" in held:
        keys = (await audiences(connection, principal, [record.id]))[record.id]
        either.append(table.c.acl_key.in_(keys))
    if "add" in held:
        either.append(table.c.uploaded_by == principal.user_id)
    return and_(there, or_(*either))


def sees(rights: Rights, principal: Principal, held: Collection[Right], row: DocumentRecord) -> bool:
    """Whether who holds these rights may see the document."""
    own = "add" in held and row.uploaded_by == principal.user_id
    return own or "manage" in held or ("query" in held and rights.admits(principal, row.acl))


def document_view(
    rights: Rights, principal: Principal, record: CollectionRecord, row: DocumentRecord
) -> DocumentView:
    """A row as the principal, who may see it, sees it."""
    queries = rights.decide(principal, "query", record).allowed
    reads = queries and rights.admits(principal, row.acl)
    inside = reads or row.uploaded_by == principal.user_id
    return DocumentView(
        id=row.id,
        collection_id=row.collection_id,
        filename=row.filename,
        media_type=row.media_type,
        status=row.status,
        last_error=_last_error(row),
        warnings=(row.warnings or []) if inside else [],  # they may quote it
        attributes=row.attributes,
        properties=(row.properties or {}) if inside else {},
        usage_bytes=row.size,
        sha256=(row.sha256 or None) if inside else None,
        chunks=row.chunks,
        pages=row.pages,
        acl=row.acl,
        created_at=int(row.created_at),
        expires_at=None if row.expires_at is None else int(row.expires_at),
        uploaded_by=row.uploaded_by,
        parent_id=row.parent_id,
        batch_id=row.batch_id,
        job=DocumentJob(id=row.job_id, stage=row.stage, done=row.done, total=row.total),
    )


def job_view(row: DocumentRecord) -> JobView:
    """The job of a row; that of a document which is being deleted is cancelled."""
    percent = _percent(row)
    return JobView(
        id=row.job_id,
        document_id=row.id,
        collection_id=row.collection_id,
        filename=row.filename,
        batch_id=row.batch_id,
        status="cancelled" if row.deleting else row.status,
        stage="deleted" if row.deleting else row.stage,
        done=row.done,
        total=row.total,
        pages=_pages(row),
        chunks=_chunks(row),
        percent=percent,
        seconds_left=_seconds_left(row, percent),
        waiting_until=math.ceil(row.not_before) if _waits(row) else None,
        attempts=row.attempts,
        last_error=_last_error(row),
        created_at=int(row.created_at),
        started_at=int(row.started_at) or None,
    )


def _last_error(row: DocumentRecord) -> LastError | None:
    if row.error_code is None:
        return None
    return LastError(code=row.error_code, message=row.error_message or "")


def _waits(row: DocumentRecord) -> bool:
    return row.stage == "waiting" and row.status == "in_progress" and not row.deleting


def _percent(row: DocumentRecord) -> int:
    if row.status == "completed":
        return 100
    first, last = SHARES.get(row.stage, (0, 0))
    return first + (last - first) * min(row.done, row.total) // row.total if row.total else first


def _pages(row: DocumentRecord) -> Progress | None:
    if row.stage == "convert" and row.total:
        return Progress(done=row.done, total=row.total)
    if row.pages is None:
        return None
    return Progress(done=row.pages, total=row.pages)


def _chunks(row: DocumentRecord) -> Progress | None:
    if row.stage not in ("chunk", "embed", "store", "done") or not row.total:
        return None
    done = {"chunk": 0, "store": row.total}.get(row.stage, row.done)
    return Progress(done=done, total=row.total)


def _seconds_left(row: DocumentRecord, percent: int) -> int | None:
    """As fast as so far; nothing is told of what has waited for something in between."""
    if row.status != "in_progress" or row.attempts != 1 or row.stage == "waiting" or percent < MIN_PERCENT:
        return None
    return round((now() - row.started_at) * (100 - percent) / percent)
