"""Uploads whose file comes before their row, under the id of a document that may be there already.

Whoever clears up behind that document would take the file for one that nothing needs. So its revision is
written down before the file is put, and is no arrival any more in the transaction that makes it the row's.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import tables
from plugins.collections.records import now

ARRIVING_S = 3600.0
"""After that the request died."""


async def announce(
    connection: AsyncConnection, collection_id: str, coming: Iterable[tuple[str, str]]
) -> None:
    """Write down what is going to be put: document ids and revisions."""
    rows = [
        {"revision": revision, "collection_id": collection_id, "document_id": document_id, "since": now()}
        for document_id, revision in coming
    ]
    if rows:
        await connection.execute(insert(tables.arrivals), rows)


async def arrived(connection: AsyncConnection, revisions: Collection[str]) -> None:
    """They are rows now, or never will be."""
    if revisions:
        await connection.execute(delete(tables.arrivals).where(tables.arrivals.c.revision.in_(revisions)))


async def arriving(
    connection: AsyncConnection, collection_id: str, document_id: str | None = None
) -> list[tuple[str, str]]:
    """Document ids and revisions on their way, of one document or of all."""
    table = tables.arrivals
    query = select(table.c.document_id, table.c.revision).where(
        table.c.collection_id == collection_id, table.c.since > now() - ARRIVING_S
    )
    if document_id is not None:
        query = query.where(table.c.document_id == document_id)
    return [(row.document_id, row.revision) for row in await connection.execute(query)]


async def forget_lost(connection: AsyncConnection) -> None:
    """Those whose request died."""
    await connection.execute(delete(tables.arrivals).where(tables.arrivals.c.since <= now() - ARRIVING_S))
