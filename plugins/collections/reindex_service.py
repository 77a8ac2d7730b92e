"""Building a collection anew, with another embedding model, pipeline or retrieval, while it answers."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

from sqlalchemy import null, update

from crawler.store import Store
from plugins.collections import audit, tables
from plugins.collections.catalogue import CollectionCatalogue
from plugins.collections.database import Database
from plugins.collections.documents import check_writable
from plugins.collections.records import CollectionRecord, Gate, now
from plugins.collections.reindex_jobs import Rebuild, discard, rebuild_of
from plugins.collections.rights import Rights
from plugins.collections.storage import choose_retrieval
from plugins.collections.uploads import digest
from plugins.core.config import CollectionsConfig
from plugins.core.errors import Conflict, InvalidRequest
from plugins.core.identity import Principal
from plugins.core.ports import Embed
from plugins.core.shapes import CollectionView, Reindex


class ReindexService:
    """Begins and ends it; the worker does it."""

    def __init__(
        self,
        database: Database,
        rights: Rights,
        store: Store[Any],
        embed: Embed,
        config: CollectionsConfig,
        pipelines: Mapping[str, Mapping[str, Any]],
        has_model: Callable[[str], bool],
        catalogue: CollectionCatalogue,
    ) -> None:
        self._database = database
        self._gate = Gate(database, rights)
        self._store = store
        self._embed = embed
        self._config = config
        self._pipelines = pipelines
        self._has_model = has_model
        self._catalogue = catalogue

    async def start(self, principal: Principal, ref: str, wanted: Reindex) -> CollectionView:
        """Have every document of the collection built anew beside the old passages, which searches find until
        all are there. Needs `manage`; the embeddings are at the principal's expense.

        Raises:
            Conflict: It is already going on; or the collection is not ours to move.
            InvalidRequest: There is no such model or pipeline.
            StoreCapability: `hybrid` on a store that cannot do it.
        """
        async with self._database.read() as connection:
            record = await self._gate.collection(connection, principal, ref, "manage")
        check_movable(record)
        rebuild = await self._planned(principal, record, wanted)
        await self._gate.prepare(principal)
        async with self._database.write() as connection:
            current = await self._gate.collection(connection, principal, record.id, "manage")
            check_movable(current)
            table = tables.collections
            free = update(table).where(table.c.id == record.id, table.c.reindex.is_(null()))
            if (await connection.execute(free.values(reindex=asdict(rebuild)))).rowcount != 1:
                raise Conflict("This collection is already being built anew; wait, or cancel that.")
            detail = {
                name: getattr(rebuild, name)
                for name in ("embedding_model", "dimension", "retrieval", "pipeline")
            }
            await audit.record(
                connection, principal, "collection.reindex", collection_id=record.id, detail=detail
            )
        return await self._catalogue.get(principal, record.id)

    async def _planned(self, principal: Principal, record: CollectionRecord, wanted: Reindex) -> Rebuild:
        model = wanted.embedding_model or record.embedding_model
        if not self._has_model(model):
            raise InvalidRequest(f"There is no model `{model[:100]}` on this proxy.", param="embedding_model")
        pipeline = wanted.pipeline or record.pipeline
        if pipeline not in self._pipelines:
            raise InvalidRequest(
                f"There is no such pipeline; there are: {', '.join(self._pipelines)}", param="pipeline"
            )
        retrieval = await choose_retrieval(self._store, wanted.retrieval or record.retrieval)
        [probe] = await self._embed(model, ["dimension"], principal)
        return Rebuild(
            store_name=f"c_{record.id.removeprefix('vs_')}_{uuid.uuid4().hex[:12]}",
            embedding_model=model,
            dimension=len(probe),
            metric=self._config.metric,
            retrieval=retrieval,
            pipeline=pipeline,
            digest=digest(self._pipelines[pipeline]),
            asked_by=principal.user_id,
            started_at=now(),
        )

    async def cancel(self, principal: Principal, ref: str) -> CollectionView:
        """Leave the collection as it is; what was built is dropped. Needs `manage`.

        Raises:
            Conflict: It is not being built anew.
        """
        await self._gate.prepare(principal)
        async with self._database.write() as connection:
            record = await self._gate.collection(connection, principal, ref, "manage")
            rebuild = rebuild_of(record)
            table = tables.collections
            mine = update(table).where(table.c.id == record.id, table.c.reindex.is_not(null()))
            changed = await connection.execute(mine.values(reindex=null()))
            if rebuild is None or changed.rowcount != 1:
                raise Conflict("This collection is not being built anew.")
            await discard(connection, rebuild.store_name)
            await audit.record(connection, principal, "collection.reindex.cancel", collection_id=record.id)
        return await self._catalogue.get(principal, record.id)


def check_movable(record: CollectionRecord) -> None:
    """Raises Conflict where the collection's place in the store is not ours to choose."""
    check_writable(record)
    if record.kind != "bundle":
        raise Conflict(
            "Milvus's roles name this collection's place, so it cannot be moved. Make a new collection, and "
            "upload the documents there."
        )
