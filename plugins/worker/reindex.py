"""Builds collections anew, a document at a time, whenever no upload waits."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Sequence
from typing import Any

from crawler.contracts import Attachment, Document
from crawler.errors import CrawlError, EmbeddingFailed, ModelFailed, StoreError, StoreRefused
from crawler.store import Store
from plugins.collections.jobs import Job, LeaseLost, Queue
from plugins.collections.originals import Originals
from plugins.collections.records import CollectionRecord, DocumentRecord
from plugins.collections.reindex_jobs import Rebuild, Rebuilds
from plugins.core.errors import BundleError
from plugins.core.logs import about
from plugins.core.wire import to_wire
from plugins.worker import prepared, uploaded
from plugins.worker.crawlers import Crawlers
from plugins.worker.models import NotConfigured

log = logging.getLogger(__name__)

POLL_S = 1.0
END_S = 10.0
"""How long cancelled work may take to end."""
KEEP_S = 2.0
"""A document that was replaced or deleted is noticed within this time, and that it was cancelled."""
MAX_PAUSE_S = 300.0
OF_ALL = (EmbeddingFailed, ModelFailed, StoreError, BundleError, NotConfigured)
"""Errors that the next document would have, too."""


class Reindexer:
    """Works until it is told to stop. Whatever ends it, the next one goes on where it was."""

    def __init__(
        self,
        queue: Queue,
        originals: Originals[Any],
        store: Store[Any],
        crawlers: Crawlers,
        *,
        backoff_s: float = 2.0,
    ) -> None:
        """`backoff_s`: after the first failure; each further one waits five times as long, at most 300 s."""
        self._queue = queue
        self._rebuilds = Rebuilds(queue.database, queue.lease_s)
        self._originals = originals
        self._store = store
        self._crawlers = crawlers
        self._backoff_s = backoff_s
        self._made: set[str] = set()
        self._paused: dict[tuple[str, str | None], tuple[int, float]] = {}
        """How often it failed and until when it is left alone: a place, or a document there."""

    def take_up(self, crawlers: Crawlers) -> None:
        """Build the next documents with them; the one in progress goes on as it began."""
        self._crawlers = crawlers

    async def run(self, stop: asyncio.Event) -> None:
        """Build until `stop`."""
        while not stop.is_set():
            went_on = False
            try:
                went_on = await self.step(stop)
            except (BundleError, CrawlError) as error:
                log.warning("Building anew is tried again: %s", error.message)
            except Exception:
                log.exception("Building anew failed; it is tried again")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stop.wait(), 0 if went_on else POLL_S)

    async def step(self, stop: asyncio.Event) -> bool:
        """Build one document of each collection that is being built anew.

        Returns:
            Whether there may be more to do now.
        """
        went_on = False
        ongoing = await self._rebuilds.ongoing()
        places = {rebuild.store_name for _, rebuild in ongoing}
        self._made &= places
        self._paused = {key: value for key, value in self._paused.items() if key[0] in places}
        for collection, rebuild in ongoing:
            if stop.is_set() or await self._rebuilds.uploads_wait():
                return False
            if not self._left_alone(rebuild.store_name, None):
                went_on = await self._advance(collection, rebuild, stop) or went_on
        return went_on

    async def _advance(self, collection: CollectionRecord, rebuild: Rebuild, stop: asyncio.Event) -> bool:
        """Build one of its documents, or put the new place in force when all are built."""
        place, document_id = rebuild.store_name, None
        about(user_id=rebuild.asked_by)
        try:
            if place not in self._made:
                await self._store.create(
                    place, dimension=rebuild.dimension, metric=rebuild.metric, retrieval=rebuild.retrieval
                )
                self._made.add(place)
            leave_out = {key[1] for key in self._paused if key[1] and self._left_alone(*key)}
            job = await self._rebuilds.take(collection, rebuild, leave_out)
            if job is None:
                return await self._finish(collection, rebuild)
            document_id = job.document.id
            await self._attend(job, rebuild, stop)
        except LeaseLost:
            return True
        except Exception as error:  # noqa: BLE001 - a surprise is that document's failure
            await self._failed(collection, rebuild, document_id, error)
            return not isinstance(error, OF_ALL)
        self._paused.pop((place, document_id), None)
        self._paused.pop((place, None), None)
        if rebuild.last_error is not None and not any(key[0] == place for key in self._paused):
            await self._rebuilds.note(collection, rebuild, None)
        return True

    async def _attend(self, job: Job, rebuild: Rebuild, stop: asyncio.Event) -> None:
        """Build the document as long as the lease holds and nobody tells us to stop.

        Raises:
            LeaseLost: It was not built to the end.
        """
        work = asyncio.create_task(self._build(job, rebuild))
        others = {asyncio.create_task(self._keep(job)), asyncio.create_task(stop.wait())}
        try:
            await asyncio.wait({work, *others}, return_when=asyncio.FIRST_COMPLETED)
            ended = work.done()
        finally:
            for task in (work, *others):
                task.cancel()
            await asyncio.wait({work, *others}, timeout=END_S)
        await self._rebuilds.release(job)
        if ended:
            return work.result()
        if not stop.is_set() and await self._queue.gone(job):
            # It was cleared away while we may still have written.
            await self._store.remove(rebuild.store_name, job.document.id)
        raise LeaseLost

    async def _keep(self, job: Job) -> None:
        """Extend the lease; ends when it is lost."""
        held_until = time.monotonic() + self._queue.lease_s
        while time.monotonic() < held_until:
            await asyncio.sleep(min(self._queue.lease_s / 4, KEEP_S))
            try:
                await self._rebuilds.extend(job)
                held_until = time.monotonic() + self._queue.lease_s
            except LeaseLost:
                return
            except BundleError as error:
                log.warning("A lease could not be extended: %s", error.message)

    async def _build(self, job: Job, rebuild: Rebuild) -> None:
        place, revision = rebuild.store_name, job.document.live_revision or ""
        row = await prepared.as_it_was(self._originals, job.document)
        crawler = await asyncio.to_thread(self._crawlers.get, job.collection, rebuild.asked_by)
        digest = prepared.pipeline_digest(crawler.config)

        async def keep(document: Document, attachments: Sequence[Attachment]) -> None:
            """The files inside are documents of their own, which are built by themselves."""
            await prepared.keep(self._originals, row, document, digest)

        built = await crawler.crawl_document(await self._document(row, place, digest), keep=keep)
        passages = len(built.chunks)
        if await self._store.count(place, row.id) != passages:  # what was there before it was replaced
            await self._store.remove(place, row.id, keep=revision)
        if await self._store.count(place, row.id, revision) != passages:
            await self._store.remove(place, row.id)
            raise StoreRefused("The vector store has not kept each passage of a document.")
        await self._rebuilds.built(job, built)

    async def _document(self, row: DocumentRecord, place: str, digest: str) -> Document:
        """The row's revision, as far as its stages need not be repeated."""
        found = await prepared.kept(self._originals, row, digest)
        if found is not None:
            return found.document.model_copy(update={"collection": place})
        return uploaded.document(row, place, await uploaded.read(self._originals, row))

    async def _finish(self, collection: CollectionRecord, rebuild: Rebuild) -> bool:
        """Put the new place in force if it has every passage; what it lacks is built again."""
        if not await self._rebuilds.complete(collection, rebuild):
            return False
        place = rebuild.store_name
        expected = await self._rebuilds.expected(collection, rebuild)
        if await self._store.count(place) != sum(passages for _, passages in expected.values()):
            wrong = [
                document_id
                for document_id, (revision, passages) in expected.items()
                if await self._store.count(place, document_id, revision) != passages
            ]
            if wrong:
                log.warning("Collection %s: %d documents are built again", collection.id, len(wrong))
                await self._rebuilds.unbuilt(collection, wrong)
                return True
        if await self._rebuilds.swap(collection, rebuild):
            log.info("Collection %s is built anew and in force", collection.id)
        return True

    async def _failed(
        self,
        collection: CollectionRecord,
        rebuild: Rebuild,
        document_id: str | None,
        error: Exception,
    ) -> None:
        if isinstance(error, NotConfigured):
            code, message = "not_configured", str(error)
        else:
            public = to_wire(error).body["error"]
            code, message = public["code"], public["message"]
        log.warning(
            "Collection %s is not built anew: document %s (%s)",
            collection.id,
            document_id,
            code,
            exc_info=error if code == "internal_error" else None,
        )
        self._pause(rebuild.store_name, document_id)
        if isinstance(error, OF_ALL):
            self._pause(rebuild.store_name, None)
        told = {"code": code, "message": message, "document_id": document_id}
        await self._rebuilds.note(collection, rebuild, told)

    def _pause(self, place: str, document_id: str | None) -> None:
        tries, _ = self._paused.get((place, document_id), (0, 0.0))
        pause = min(self._backoff_s * 5 ** min(tries, 10), MAX_PAUSE_S)
        if document_id is not None:
            pause *= 2  # when it goes on, then with another document
        self._paused[place, document_id] = (tries + 1, time.monotonic() + pause)

    def _left_alone(self, place: str, document_id: str | None) -> bool:
        return time.monotonic() < self._paused.get((place, document_id), (0, 0.0))[1]
