"""Numbers for the changes of jobs, so that who follows them can go on where they were.

A change gets its number in the transaction that makes it. The counter's row stays locked until that ends:
changes are committed in the order of their numbers, and who has seen one has seen all before it.
"""

from __future__ import annotations

from collections.abc import Iterable

from sqlalchemy import bindparam, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import tables

COUNTER = "changes"
Key = tuple[str, str]
"""The id of a collection and of a document in it."""


async def changed(connection: AsyncConnection, keys: Iterable[Key]) -> None:
    """Number the changes of these documents' jobs.

    It takes a lock: call it after everything that changes documents, and before `audit.record`.
    """
    counters, documents = tables.counters, tables.documents
    wanted = list(dict.fromkeys(keys))
    if not wanted:
        return
    taken = await connection.execute(
        update(counters)
        .where(counters.c.name == COUNTER)
        .values(value=counters.c.value + len(wanted))
        .returning(counters.c.value)
    )
    first = int(taken.scalar_one()) - len(wanted) + 1
    its = update(documents).where(
        documents.c.collection_id == bindparam("of"), documents.c.id == bindparam("document")
    )
    numbered = [
        {"of": collection_id, "document": document_id, "number": number}
        for number, (collection_id, document_id) in enumerate(wanted, first)
    ]
    await connection.execute(its.values(change=bindparam("number")), numbered)  # all in one: others wait


async def last_change(connection: AsyncConnection) -> int:
    """The number of the newest change."""
    counters = tables.counters
    query = select(counters.c.value).where(counters.c.name == COUNTER)
    return int((await connection.execute(query)).scalar_one())
