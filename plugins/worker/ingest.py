"""A document's crawl as a job: from its row and its original to passages, with progress in the row."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from opentelemetry.trace import Span

from crawler.contracts import Attachment, Document, Stage
from crawler.fetch import Fetched, fetch
from crawler.store import Store
from plugins.collections.jobs import Job, Queue
from plugins.collections.members import MAX_DEPTH, MAX_INSIDE, Member, lacking, member_id, member_revision
from plugins.collections.originals import Originals
from plugins.collections.quotas import Quotas
from plugins.collections.records import DocumentRecord
from plugins.core.errors import LimitReached, TooLarge
from plugins.core.telemetry import begin, continued, end, span
from plugins.worker import prepared, uploaded
from plugins.worker.crawlers import Crawlers
from plugins.worker.inside import take_members
from plugins.worker.metrics import StageTimes

PROGRESS_S = 0.5


@dataclass
class Ingest:
    """Crawls the documents of jobs."""

    queue: Queue
    originals: Originals[Any]
    store: Store[Any]
    crawlers: Crawlers
    quotas: Quotas
    max_bytes: int
    """Of what an address leads to."""

    async def crawl(self, job: Job) -> None:
        """Do what is left to do of the job.

        Raises:
            CrawlError, LimitReached, TooLarge: It cannot be done, or not now.
            LeaseLost: It is somebody else's.
        """
        with continued(job.document.traceparent), span("job", attempt=job.document.attempts):
            await self._crawl(job)

    async def _crawl(self, job: Job) -> None:
        row, collection = job.document, job.collection
        await self.store.ping()  # before the costly stages
        if row.attempts > 1 or row.stale:  # other settings may have left other passages of this revision
            await self.store.remove(collection.store_name, row.id, keep=row.live_revision)
        crawler = await asyncio.to_thread(self.crawlers.get, collection, row.uploaded_by)
        digest = prepared.pipeline_digest(crawler.config)
        found = await self._document(job, digest)
        if found is None:
            return
        document, notes = found
        keeper = Keeper(self, job, digest, notes)
        with Report(self.queue, job) as report:
            result = await crawler.crawl_document(document, report, keeper)
        metadata = result.metadata or {}
        title = metadata.get("title")
        await self.queue.complete(
            job,
            chunks=len(result.chunks),
            pages=len(result.pages) or None,
            title=title if isinstance(title, str) else None,
            properties=metadata,
            warnings=[*result.warnings, *keeper.notes],
        )

    async def _document(self, job: Job, digest: str) -> tuple[Document, list[str]] | None:
        """The document as far as it is done, and the worker's warnings by then; None when it is done."""
        row = job.document
        found = await prepared.kept(self.originals, row, digest)
        if found is not None and not await self._lacks_files(row):
            here = found.document.model_copy(update={"collection": job.collection.store_name})
            return here, list(found.notes)
        if row.url is not None and row.size == 0:
            fetched = await self._fetch(job, row.url)
            if fetched is None:
                return None
            content = fetched.content
            row = replace(row, filename=fetched.filename, media_type=fetched.media_type)
        else:
            content = await uploaded.read(self.originals, row)
        return uploaded.document(row, job.collection.store_name, content), []

    async def _lacks_files(self, row: DocumentRecord) -> bool:
        """Whether this is done only to take the files for which there was no room."""
        if row.revision != row.live_revision:
            return False
        async with self.queue.database.read() as connection:
            return bool(await lacking(connection, row.collection_id, [row.id]))

    async def _fetch(self, job: Job, url: str) -> Fetched | None:
        """What the address leads to, kept as the document's original; None when that is live already."""
        row = job.document
        await self.queue.progress(job, "convert", 0, None)
        with span("fetch"):
            fetched = await fetch(url, max_bytes=self.max_bytes)
        content = fetched.content
        sha256 = await asyncio.to_thread(_sha256, content)
        same = (row.sha256, row.filename, row.media_type) == (sha256, fetched.filename, fetched.media_type)
        if row.live_revision is not None and same:
            await self.queue.unchanged(job, len(content))
            return None
        spooled = self.originals.spool_dir / row.revision
        await asyncio.to_thread(spooled.write_bytes, content)
        await self.originals.put(row.collection_id, row.id, row.revision, spooled)
        values = {"filename": fetched.filename, "media_type": fetched.media_type, "sha256": sha256}
        try:
            await self.queue.fetched(job, self.quotas, size=len(content), **values)
        except (LimitReached, TooLarge):
            await self.originals.remove(row.collection_id, row.id, row.revision)
            raise
        return fetched


@dataclass
class Keeper:
    """Keeps each stage that is done, so that it is not repeated, and makes documents of the files inside."""

    ingest: Ingest
    job: Job
    digest: str
    notes: list[str] = field(default_factory=list)

    async def __call__(self, document: Document, attachments: Sequence[Attachment]) -> None:
        row, ingest = self.job.document, self.ingest
        if attachments and row.depth >= MAX_DEPTH:
            self.notes.append(
                f"{len(attachments)} files inside were left out: they lie too deep in other files. "
                "Unpack them and upload them by themselves."
            )
        elif attachments:  # before the stage is kept: a conversion that is not repeated finds no files
            await self._take(attachments)
        await prepared.keep(ingest.originals, row, document, self.digest, self.notes)
        await ingest.queue.kept(self.job, pages=len(document.pages) or None)

    async def _take(self, attachments: Sequence[Attachment]) -> None:
        """Each file's bytes first, then all rows at once."""
        row, members = self.job.document, []
        for position, attachment in enumerate(attachments):
            sha256 = await asyncio.to_thread(_sha256, attachment.content)
            name = member_id(row, position)
            originals = self.ingest.originals
            spooled = originals.spool_dir / f"{name}-{sha256[:8]}"
            await asyncio.to_thread(spooled.write_bytes, attachment.content)
            await originals.put(row.collection_id, name, member_revision(name, sha256), spooled)
            size = len(attachment.content)
            members.append(Member(position, attachment.filename, attachment.media_type, size, sha256))
        refused, left_out = await take_members(self.ingest.queue, self.job, members, self.ingest.quotas)
        if left_out:
            self.notes.append(
                f"{len(left_out)} files inside were left out: of one upload at most {MAX_INSIDE} files are "
                "taken, those in archives in it included. Upload them by themselves."
            )
        digests = {member_id(row, member.position): member.sha256 for member in members}
        for name in (*refused, *left_out):
            revision = member_revision(name, digests[name])
            await self.ingest.originals.remove(row.collection_id, name, revision)


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Report:
    """Progress into the row: a new stage and its total at once, else at most twice a second; and a span for
    each stage."""

    def __init__(self, queue: Queue, job: Job) -> None:
        self._queue = queue
        self._job = job
        self._last: tuple[Stage, bool] | None = None
        self._written = 0.0
        self._times = StageTimes(job.document.filename)
        self._span: Span | None = None

    def __enter__(self) -> Report:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if self._span is not None:
            end(self._span, error)

    async def __call__(self, stage: Stage, done: int, total: int | None) -> None:
        moment = time.monotonic()
        self._times.at(stage)
        at = (stage, total is not None)
        if stage == "done" or (at == self._last and moment - self._written < PROGRESS_S):
            return
        if self._last is None or stage != self._last[0]:
            if self._span is not None:
                end(self._span)
            self._span = begin(stage)
        self._last, self._written = at, moment
        await self._queue.progress(self._job, stage, done, total)
