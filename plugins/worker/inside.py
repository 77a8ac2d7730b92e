"""Files that were in a document become documents of their own, within their uploader's quotas."""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy import select
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import audit, tables
from plugins.collections.changes import changed
from plugins.collections.jobs import Job, Queue
from plugins.collections.members import (
    MAX_INSIDE,
    Member,
    forget_refused,
    insert_members,
    inside,
    known_members,
    member_row,
    refused,
)
from plugins.collections.quotas import Quotas, person_of
from plugins.collections.records import DOCUMENT_COLUMNS, DocumentRecord, document_record
from plugins.core.errors import LimitReached, TooLarge


async def take_members(
    queue: Queue, job: Job, members: Sequence[Member], quotas: Quotas
) -> tuple[list[str], list[str]]:
    """Make the files rows, which are also their jobs; those that are there already stay as they are.

    Those for which there was no room before are looked at anew.

    Returns:
        The ids of those for which there is no room: they are rows, too, which say so. And of those that are
        left out, since too much was in the upload that they come from.

    Raises:
        LeaseLost: The document is somebody else's, or was replaced or deleted.
    """
    async with queue.database.write() as connection:
        await quotas.lock(connection, job.collection)
        await queue.hold(connection, job, stage="convert")  # from here on nobody deletes it without these
        parent = await _as_it_is(connection, job)
        rows = [member_row(parent, member) for member in members]
        await forget_refused(connection, parent, [row.id for row in rows])
        known = await known_members(connection, parent)
        rows = [row for row in rows if row.id not in known]
        room = max(MAX_INSIDE - await inside(connection, parent), 0)
        rows, left_out = rows[:room], [row.id for row in rows[room:]]
        if not rows:
            return [], left_out
        person = await person_of(connection, parent.uploaded_by)
        answers = await quotas.fit(connection, person, job.collection, [row.size for row in rows])
        rows = [
            row if error is None else refused(row, _code(error), error.message)
            for row, error in zip(rows, answers, strict=True)
        ]
        await insert_members(connection, rows)
        await changed(connection, [(row.collection_id, row.id) for row in rows])
        for row in rows:
            await audit.record_own(
                connection,
                "document.add",
                collection_id=row.collection_id,
                document_id=row.id,
                detail={"revision": row.revision, "sha256": row.sha256, "acl": row.acl, "in": parent.id},
            )
    without = [row.id for row, error in zip(rows, answers, strict=True) if error is not None]
    return without, left_out


async def _as_it_is(connection: AsyncConnection, job: Job) -> DocumentRecord:
    """The job's document; expiry and what is given to it by what it is in may be newer than the job."""
    table = tables.documents
    query = select(*DOCUMENT_COLUMNS).where(
        table.c.collection_id == job.document.collection_id, table.c.id == job.document.id
    )
    return document_record((await connection.execute(query)).one())


def _code(error: LimitReached | TooLarge) -> str:
    return "rate_limit_exceeded" if isinstance(error, LimitReached) else "too_large"
