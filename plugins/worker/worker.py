"""The loops of the worker: take a job, work while saying that one lives, write down how it ended."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import uuid
from collections.abc import Awaitable, Callable
from typing import Any

from crawler.errors import CrawlError, EmbeddingFailed, ModelFailed, StoreUnavailable
from crawler.store import Store
from plugins.collections.jobs import Job, LeaseLost, Queue, beat
from plugins.collections.leaders import TIDY, Leader
from plugins.collections.records import DocumentRecord, now
from plugins.core.errors import BundleError, LimitReached, TooLarge, Upstream
from plugins.core.logs import about
from plugins.core.metrics import DOCUMENTS, DOCUMENTS_DELAYED
from plugins.core.wire import to_wire
from plugins.worker.ingest import Ingest
from plugins.worker.models import NotConfigured
from plugins.worker.tidy import SWEEP_S, Tidy

log = logging.getLogger(__name__)

POLL_S = 0.25
DOWN_S = 2.0
"""Between two tries while the database does not answer."""
BEAT_S = 5.0
DROP_S = 1.0
END_S = 10.0
"""How long cancelled work may take to end."""
MAX_KEEP_S = 2.0
"""A document that was replaced or deleted is noticed within this time, also in a silent stage."""
PATIENCE_S = 24 * 3600.0
"""How long a document waits for a model that does not answer, before that counts against its tries."""
DIED = (
    "Processing this document ended the worker several times. It may need more memory than there is: "
    "split it and upload the parts."
)


class Worker:
    """Works until it is told to stop. Whatever ends it, the jobs it had are done by the next one."""

    def __init__(
        self,
        queue: Queue,
        store: Store[Any],
        ingest: Ingest,
        tidy: Tidy,
        *,
        concurrency: int,
    ) -> None:
        self._queue = queue
        self._store = store
        self._ingest = ingest
        self._tidy = tidy
        self._concurrency = concurrency
        self._id = uuid.uuid4().hex
        self._leader = Leader(queue.database, TIDY, self._id)
        self._looking = asyncio.Lock()

    def take_up(self, ingest: Ingest) -> None:
        """Do the next jobs with it; those in progress go on as they began."""
        self._ingest = ingest

    async def run(self, stop: asyncio.Event) -> None:
        """Work until `stop`; jobs that are not done by then are given back."""
        loops = [self._serve(stop) for _ in range(self._concurrency)]
        try:
            async with asyncio.TaskGroup() as tasks:
                for loop in (
                    *loops,
                    self._beat(stop),
                    self._often(stop, self._tidy.sweep_here, SWEEP_S),
                    self._often(stop, self._tidy.drop, DROP_S, self._leader),
                    self._often(stop, self._tidy.sweep, SWEEP_S, self._leader),
                ):
                    tasks.create_task(loop)
        finally:
            with contextlib.suppress(BundleError):  # its lease runs out
                await self._leader.resign()

    async def _serve(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            pause = 0.0
            try:
                job = await self._next(stop)
                if job is not None:
                    await self._attend(job, stop)
            except BundleError as error:
                log.warning("The database did not answer: %s", error.message)
                pause = DOWN_S
            except Exception:
                log.exception("A job ended unexpectedly; it is tried again when its lease runs out")
                pause = BEAT_S
            await _wait(stop, pause)

    async def _next(self, stop: asyncio.Event) -> Job | None:
        """The next job, as soon as there is one. One loop looks for all that wait: one query each time."""
        async with self._looking:
            while not stop.is_set():
                job = await self._queue.take()
                if job is not None:
                    return job
                await _wait(stop, POLL_S)
        return None

    async def _attend(self, job: Job, stop: asyncio.Event) -> None:
        """Do the job as long as the lease holds and nobody tells us to stop."""
        work = asyncio.create_task(self._perform(job))
        keeper = asyncio.create_task(self._keep(job))
        stopping = asyncio.create_task(stop.wait())
        tasks = {work, keeper, stopping}
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            ended = work.done()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks, timeout=END_S)
        if not ended:
            await self._queue.release(job)
            if not stop.is_set() and await self._queue.gone(job):
                # Another worker cleared the document away while we may still have written.
                await self._store.remove(job.collection.store_name, job.document.id)
        for task in (work, keeper):
            if task.done() and not task.cancelled():
                task.result()

    async def _keep(self, job: Job) -> None:
        """Extend the lease; ends when it is lost."""
        held_until = time.monotonic() + self._queue.lease_s
        while time.monotonic() < held_until:
            await asyncio.sleep(min(self._queue.lease_s / 4, MAX_KEEP_S))
            try:
                await self._queue.extend(job)
                held_until = time.monotonic() + self._queue.lease_s
            except LeaseLost:
                return
            except BundleError as error:
                log.warning("A lease could not be extended: %s", error.message)

    async def _perform(self, job: Job) -> None:
        document = job.document
        about(user_id=document.uploaded_by)
        try:
            if job.action == "delete":
                await self._tidy.delete(job)
            elif job.action == "clean":
                await self._tidy.clean(job)
            elif document.attempts > self._queue.max_attempts:
                await self._queue.fail(job, "worker_died", DIED)
                DOCUMENTS.labels("worker_died").inc()
            else:
                await self._ingest.crawl(job)
                DOCUMENTS.labels("completed").inc()
                log.info("Document %s of %s is ready", document.id, document.collection_id)
        except LeaseLost:
            log.info("Document %s was replaced, deleted or taken over meanwhile", document.id)
            await self._queue.release(job)
        except (StoreUnavailable, Upstream) as error:  # it waits for as long as it takes
            await self._waits(job, error)
        except NotConfigured as error:
            await self._failed(job, "not_configured", str(error), transient=False, cause=error)
        except (LimitReached, TooLarge) as error:
            await self._failed(job, to_code(error), error.message, transient=False, cause=error)
        except CrawlError as error:
            if isinstance(error, EmbeddingFailed | ModelFailed) and error.transient and _patient(document):
                await self._waits(job, error)
            else:
                await self._failed(job, error.code, error.message, transient=error.transient, cause=error)
        except Exception as error:  # noqa: BLE001 - a surprise is this job's failure, not the worker's end
            message = BundleError().message
            await self._failed(job, "internal_error", message, transient=True, cause=error)

    async def _waits(self, job: Job, error: CrawlError | BundleError) -> None:
        """What is missing is not the document's fault, and takes none of its tries."""
        document, code = job.document, to_code(error)
        log.warning("Document %s of %s waits (%s)", document.id, document.collection_id, code)
        with contextlib.suppress(LeaseLost):
            await self._queue.wait(job, code, error.message)
            DOCUMENTS_DELAYED.labels(code).inc()
            return
        await self._queue.release(job)

    async def _failed(self, job: Job, code: str, message: str, *, transient: bool, cause: Exception) -> None:
        document = job.document
        again = job.action != "crawl" or (transient and document.attempts < self._queue.max_attempts)
        log.warning(
            "Document %s of %s: %s failed (%s), %s",
            document.id,
            document.collection_id,
            job.action,
            code,
            "it is tried again" if again else "for good",
            exc_info=cause if code == "internal_error" else None,
        )
        with contextlib.suppress(LeaseLost):
            if again:
                await self._queue.retry(job, code, message)
                DOCUMENTS_DELAYED.labels(code).inc()
            else:
                await self._queue.fail(job, code, message)
                DOCUMENTS.labels(code).inc()
            return
        await self._queue.release(job)

    async def _beat(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            with contextlib.suppress(BundleError):  # the next one will do
                await beat(self._queue.database, self._id)
            await _wait(stop, BEAT_S)

    async def _often(
        self,
        stop: asyncio.Event,
        task: Callable[[], Awaitable[None]],
        pause_s: float,
        leader: Leader | None = None,
    ) -> None:
        """Do the task again and again; with a ``leader`` only while that is ours."""
        while not stop.is_set():
            pause = pause_s
            try:
                if leader is None or await leader.leads():
                    await task()
                else:
                    pause = min(pause_s, leader.lease_s)
            except (BundleError, CrawlError) as error:
                log.warning("Clearing up is tried again: %s", error.message)
            except Exception:
                log.exception("Clearing up failed; it is tried again")
            await _wait(stop, pause)


def _patient(document: DocumentRecord) -> bool:
    return now() - document.started_at < PATIENCE_S


def to_code(error: CrawlError | BundleError) -> str:
    """The error's code, as clients see it."""
    code: str = to_wire(error).body["error"]["code"]
    return code


async def _wait(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), seconds)
