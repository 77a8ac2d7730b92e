"""What somebody may read, and how it stands: told apart from every other, for caches of answers."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence

from sqlalchemy import func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from crawler.errors import CrawlError
from plugins.collections import tables
from plugins.collections.adoption import Adopter
from plugins.collections.database import Database
from plugins.collections.records import CollectionRecord, Gate, audiences, there
from plugins.collections.rights import Rights
from plugins.core.errors import BundleError
from plugins.core.identity import Principal

log = logging.getLogger(__name__)


class States:
    """The states of collections as principals may read them."""

    def __init__(self, database: Database, rights: Rights, adopter: Adopter) -> None:
        self._database = database
        self._gate = Gate(database, rights)
        self._adopter = adopter

    async def of(self, principal: Principal, collections: frozenset[str] | None = None) -> str | None:
        """Equal texts mean: the same documents may be read, in the same collections, and none of them was
        added, replaced, changed or deleted, or has expired, in between.

        Args:
            principal: Who reads.
            collections: Ids; None = all that the principal may query.

        Returns:
            None where that cannot be told: others write into one of the collections, or the database or
            Milvus cannot be asked.
        """
        try:
            await self._adopter.refresh()
            async with self._database.read() as connection:
                found = [
                    record
                    for record in await self._gate.collections(connection, principal, "query")
                    if collections is None or record.id in collections
                ]
                if any(record.adopted is not None for record in found):
                    return None
                admitted = await audiences(connection, principal, [record.id for record in found])
                contents = await _contents(connection, [record.id for record in found])
        except (BundleError, CrawlError) as error:
            log.warning("the state of the collections cannot be told: %s", type(error).__name__)
            return None
        states = [
            (_made(record), sorted(admitted[record.id]), contents.get(record.id))
            for record in sorted(found, key=lambda record: record.id)
        ]
        return json.dumps(states)


def _made(record: CollectionRecord) -> tuple[object, ...]:
    """What is not in the documents' rows: how it is told to models, and where and as what it is stored."""
    return (
        record.id,
        record.name,
        record.description,
        record.store_name,
        record.embedding_model,
        record.retrieval,
        record.written_at,
    )


async def _contents(connection: AsyncConnection, ids: Sequence[str]) -> dict[str, tuple[int, int]]:
    """Of each collection how many documents searches find, and the number of their last change.

    Every change takes a higher number than all before it. So of those up to some number there are ever fewer,
    and two equal pairs are of the same documents, unchanged; also where the last of them was deleted, and
    where one expired, which has no number.
    """
    table = tables.documents
    query = (
        select(table.c.collection_id, func.count(), func.max(table.c.change))
        .where(table.c.collection_id.in_(ids), table.c.live_revision.is_not(None), there())
        .group_by(table.c.collection_id)
    )
    return {row[0]: (int(row[1]), int(row[2])) for row in await connection.execute(query)}
