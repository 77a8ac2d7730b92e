"""Clearing up: what deleted, replaced and failed documents, dropped collections and dead requests left."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from crawler import conversion
from crawler.errors import CrawlError
from crawler.store import Store
from plugins.collections.arrivals import forget_lost
from plugins.collections.exchanges import forget_exchanges
from plugins.collections.expiry import bury_inside, expire
from plugins.collections.jobs import Job, Queue
from plugins.collections.originals import Originals
from plugins.collections.reindex_jobs import Rebuilds, rebuild_of
from plugins.core.errors import BundleError

log = logging.getLogger(__name__)

SWEEP_S = 3600.0


@contextmanager
def told(what: str) -> Iterator[None]:
    """One that cannot be cleared now must not hold up the others; it is tried again."""
    try:
        yield
    except (BundleError, CrawlError) as error:
        log.warning("%s cannot be cleared away yet: %s", what, error.message)


class Tidy:
    """Removes from the store and from the originals what no row needs, and what is kept no longer."""

    def __init__(
        self, queue: Queue, originals: Originals[Any], store: Store[Any], *, exchanges_days: float
    ) -> None:
        self.exchanges_days = exchanges_days
        """How long exchanges are kept."""
        self._queue = queue
        self._rebuilds = Rebuilds(queue.database, queue.lease_s)
        self._originals = originals
        self._store = store

    async def clean(self, job: Job) -> None:
        row = job.document
        await self._store.remove(job.collection.store_name, row.id, keep=row.live_revision)
        await self._clear(row.collection_id, [row.id])
        await self._queue.cleaned(job)

    async def delete(self, job: Job) -> None:
        row, rebuild = job.document, rebuild_of(job.collection)
        await bury_inside(self._queue.database, row.collection_id, row.id)
        await self._store.remove(job.collection.store_name, row.id)
        if rebuild is not None and rebuild.store_name in await self._store.names():
            await self._store.remove(rebuild.store_name, row.id)
        await self._clear(row.collection_id, [row.id])
        await self._queue.deleted(job)

    async def drop(self) -> None:
        """Bury what has expired; clear dropped collections away, and places that collections have left."""
        while await expire(self._queue.database):
            pass
        for collection in await self._queue.dropped():
            with told(f"collection {collection.id}"):
                await self._store.drop(collection.store_name)
                await self._originals.drop(collection.id)
                await self._queue.forget(collection)
                log.info("Collection %s is cleared away", collection.id)
        for place in await self._rebuilds.discarded():
            with told(f"place {place}"):
                await self._store.drop(place)
                await self._rebuilds.dropped(place)

    async def sweep_here(self) -> None:
        """Remove what requests and conversions that died left behind on this machine."""
        await self._originals.sweep_spool()
        await asyncio.to_thread(conversion.sweep)

    async def sweep(self) -> None:
        """Remove exchanges that are too old, and the originals that requests which died left behind."""
        with told("kept requests and answers"):
            await forget_exchanges(self._queue.database, self.exchanges_days)
        old: dict[str, list[str]] = {}
        for collection_id, document_id in await self._originals.documents(SWEEP_S):
            old.setdefault(collection_id, []).append(document_id)
        for collection_id, document_ids in old.items():
            await self._clear(collection_id, document_ids)
        async with self._queue.database.write() as connection:
            await forget_lost(connection)

    async def _clear(self, collection_id: str, document_ids: Sequence[str]) -> None:
        """Remove the files that no row needs, and no upload that is under way."""
        there = {name: await self._originals.revisions(collection_id, name) for name in document_ids}
        only = document_ids[0] if len(document_ids) == 1 else None
        needed = await self._queue.revisions(collection_id, only)
        for name, revisions in there.items():
            for revision in revisions - needed.get(name, set()):
                await self._originals.remove(collection_id, name, revision)
