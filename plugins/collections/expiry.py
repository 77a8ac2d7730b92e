"""The end of a document's life: the moment that its uploader gave it, and what goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import audit, tables
from plugins.collections.changes import changed
from plugins.collections.database import Database
from plugins.collections.records import now
from plugins.core.errors import InvalidRequest

AT_ONCE = 100
"""Documents that one transaction marks."""
LATEST = 253402300800.0
"""The end of the year 9999, the last that ISO 8601 writes with four digits."""


def moment(value: float | str | None) -> float | None:
    """When a document is to expire, in seconds since 1970 (UTC); None = never.

    Args:
        value: The same, or ISO 8601; without an offset it is UTC.

    Raises:
        InvalidRequest: It is neither, or not in the future.
    """
    if value is None:
        return None
    try:
        seconds = _iso(value) if isinstance(value, str) else float(value)
    except (ValueError, OverflowError) as error:
        raise InvalidRequest(
            "`expires_at` is a number of seconds since 1970, or a time like `2030-01-31T12:00:00Z`.",
            param="expires_at",
        ) from error
    if not now() < seconds < LATEST:
        raise InvalidRequest(
            "`expires_at` must be in the future. To remove a document now, delete it.", param="expires_at"
        )
    return seconds


def _iso(text: str) -> float:
    found = datetime.fromisoformat(text)
    return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()


async def family(connection: AsyncConnection, collection_id: str, document_id: str) -> list[str]:
    """The document's id and those of all that was in it: attachments, members, and what was in those."""
    table = tables.documents
    found = [document_id]
    parents = found
    while parents:
        inside = select(table.c.id).where(
            table.c.collection_id == collection_id, table.c.parent_id.in_(parents), table.c.id.not_in(found)
        )
        parents = list(await connection.scalars(inside))
        found = found + parents
    return found


async def change_family(
    connection: AsyncConnection, collection_id: str, document_id: str, **values: Any
) -> None:
    """Change the rows of the document and of all that was in it, also of what is put there meanwhile.

    An UPDATE waits for whoever holds the row to put files of the document in (Postgres): then there are more.
    """
    table, changed = tables.documents, set[str]()
    while new := set(await family(connection, collection_id, document_id)) - changed:
        its = update(table).where(table.c.collection_id == collection_id, table.c.id.in_(new))
        await connection.execute(its.values(**values))
        changed |= new


async def bury(connection: AsyncConnection, collection_id: str, document_ids: Sequence[str]) -> None:
    """Nobody sees the documents from now on, and the worker clears them away."""
    table = tables.documents
    await connection.execute(
        update(table)
        .where(table.c.collection_id == collection_id, table.c.id.in_(document_ids))
        .where(table.c.deleting.is_(False))
        .values(deleting=True, pending=True, not_before=0.0, attempts=0)
    )


async def bury_inside(database: Database, collection_id: str, document_id: str) -> None:
    """Bury what was in a document that is being cleared away."""
    table = tables.documents
    inside = select(table.c.id).where(
        table.c.collection_id == collection_id,
        table.c.parent_id == document_id,
        table.c.deleting.is_(False),
    )
    async with database.read() as connection:
        if not (await connection.execute(inside)).all():
            return
    async with database.write() as connection:
        ids = list(await connection.scalars(inside))
        await bury(connection, collection_id, ids)
        await changed(connection, [(collection_id, name) for name in ids])


async def expire(database: Database) -> int:
    """Bury the documents whose time is over, with what was in them; at most `AT_ONCE`.

    Returns:
        How many.
    """
    table = tables.documents
    over = (
        select(table.c.collection_id, table.c.id)
        .where(table.c.expires_at <= now(), table.c.deleting.is_(False))
        .limit(AT_ONCE)
    )
    async with database.read() as connection:  # nothing to do must not lock anybody out
        if not (await connection.execute(over)).all():
            return 0
    async with database.write() as connection:
        keys = [(row[0], row[1]) for row in await connection.execute(over.with_for_update(skip_locked=True))]
        gone = []
        for collection_id, document_id in keys:
            ids = await family(connection, collection_id, document_id)
            await bury(connection, collection_id, ids)
            gone += [(collection_id, name) for name in ids]
        await changed(connection, gone)
        for collection_id, document_id in keys:
            await audit.record_own(
                connection, "document.expire", collection_id=collection_id, document_id=document_id
            )
    return len(keys)
