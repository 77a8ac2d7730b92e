"""A document's crawl as a job: from its row and its original to passages, with progress in the row."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any

from crawler.contracts import Document, Stage
from crawler.errors import UnreadableDocument
from crawler.fetch import fetch
from crawler.store import Store
from plugins.collections.jobs import Job, Queue
from plugins.collections.originals import Originals
from plugins.worker.crawlers import Crawlers

PROGRESS_S = 0.5


class Ingest:
    """Crawls the documents of jobs."""

    def __init__(
        self, queue: Queue, originals: Originals, store: Store[Any], crawlers: Crawlers, *, max_bytes: int
    ) -> None:
        self._queue = queue
        self._originals = originals
        self._store = store
        self._crawlers = crawlers
        self._max_bytes = max_bytes

    async def crawl(self, job: Job) -> None:
        row, collection = job.document, job.collection
        await self._store.ping()  # before the costly stages
        if row.attempts > 1:  # an attempt under other settings may have left other passages
            await self._store.remove(collection.store_name, row.id, keep=row.live_revision)
        crawler = await asyncio.to_thread(self._crawlers.get, collection, row.uploaded_by)
        document = await self._document(job)
        result = await crawler.crawl_document(document, Report(self._queue, job))
        title = (result.metadata or {}).get("title")
        await self._queue.complete(
            job,
            chunks=len(result.chunks),
            pages=len(result.pages) or None,
            title=title if isinstance(title, str) else None,
        )

    async def _document(self, job: Job) -> Document:
        row = job.document
        filename, media_type = row.filename, row.media_type
        if row.url is not None and row.size == 0:
            await self._queue.progress(job, "convert", 0, None)
            fetched = await fetch(row.url, max_bytes=self._max_bytes)
            filename, media_type, content = fetched.filename, fetched.media_type, fetched.content
            spooled = self._originals.spool_dir / row.revision
            await asyncio.to_thread(spooled.write_bytes, content)
            await self._originals.put(row.collection_id, row.id, row.revision, spooled)
            sha256 = await asyncio.to_thread(lambda: hashlib.sha256(content).hexdigest())
            await self._queue.fetched(job, filename, media_type, len(content), sha256)
        else:
            async with self._originals.open(row.collection_id, row.id, row.revision) as path:
                if path is None:
                    raise UnreadableDocument("The uploaded file is not there any more. Upload it again.")
                content = await asyncio.to_thread(path.read_bytes)
        is_markdown = row.kind == "markdown"
        return Document(
            collection=job.collection.store_name,
            document_id=row.id,
            revision=row.revision,
            source=filename,
            security_group=None if row.acl is None else tuple(row.acl),
            media_type=media_type,
            content=None if is_markdown else content,
            markdown=content.decode() if is_markdown else None,
            attributes=row.attributes,
        )


class Report:
    """Progress into the row: at once for a new stage, else at most twice a second."""

    def __init__(self, queue: Queue, job: Job) -> None:
        self._queue = queue
        self._job = job
        self._stage: Stage | None = None
        self._written = 0.0

    async def __call__(self, stage: Stage, done: int, total: int | None) -> None:
        moment = time.monotonic()
        if stage == "done" or (stage == self._stage and moment - self._written < PROGRESS_S):
            return
        self._stage, self._written = stage, moment
        await self._queue.progress(self._job, stage, done, total)
