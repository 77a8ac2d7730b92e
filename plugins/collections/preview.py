"""What a document would become in a collection, without storing anything: in a child process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

from pydantic import ValidationError

from crawler.errors import CrawlError, DocumentTooLarge
from plugins.collections.database import Database
from plugins.collections.documents import check_writable
from plugins.collections.records import CollectionRecord, Gate
from plugins.collections.rights import Rights
from plugins.collections.uploads import Upload, split_metadata
from plugins.core.config import Config
from plugins.core.errors import BundleError, DeadlineExceeded, LimitReached, ModelUnavailable, Upstream
from plugins.core.identity import Principal
from plugins.core.pipeline_shapes import PreviewView
from plugins.core.preview_task import END_S, NOT_CONFIGURED, Answer, Refusal, Task

AT_ONCE = 2
WAITING = 8
"""Beyond those that are at work; more are told to come again."""
OF_ONE = 1
"""At work or waiting for one person, so that nobody keeps the others from theirs."""
TIMEOUT_S = 120.0
"""From the upload to the answer."""
RETRY_S = 15
MAX_ANSWER_BYTES = 64 * 2**20
FIGURES = "PROMETHEUS_MULTIPROC_DIR"


class Previewer:
    """Previews for those who may add to a collection; a few at once."""

    def __init__(
        self,
        database: Database,
        rights: Rights,
        spool_dir: Path,
        command: Sequence[str],
        config: Config,
        *,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        """`command` starts the child, which reads no configuration of its own."""
        self.spool_dir = spool_dir
        self._database = database
        self._gate = Gate(database, rights)
        self._command = command
        self._config = config
        self.timeout_s = timeout_s
        self._slots = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._theirs: Counter[str] = Counter()

    async def check(self, principal: Principal, ref: str) -> CollectionRecord:
        """Raises UnknownCollection or Forbidden before any byte of an upload is read."""
        async with self._database.read() as connection:
            record = await self._gate.collection(connection, principal, ref, "add")
        check_writable(record)
        return record

    async def preview(self, principal: Principal, record: CollectionRecord, upload: Upload) -> PreviewView:
        """Convert, extract and chunk as the collection's pipeline does. Cancelling it ends the work.

        Raises:
            CrawlError: As the document's job would fail.
            LimitReached: Too many wait already, or one of the principal's is being made.
            DeadlineExceeded: It took too long.
        """
        attributes, properties = split_metadata(upload)
        given = {**attributes, **properties} if upload.markdown is not None else {}
        worker = self._config.worker
        task = Task(
            pipeline=record.pipeline,
            settings=self._config.pipelines.get(record.pipeline),
            proxy_url=worker.proxy_url,
            api_key=worker.api_key.get_secret_value() if worker.api_key else None,
            embedding_model=record.embedding_model,
            dimension=record.dimension,
            user=principal.user_id,
            filename=upload.filename,
            media_type=upload.media_type,
            path=upload.path,
            url=upload.url,
            markdown=upload.markdown,
            metadata=given or None,
            max_bytes=self._config.limits.max_upload_bytes,
        )
        line = await asyncio.to_thread(lambda: task.model_dump_json().encode() + b"\n")
        try:
            async with asyncio.timeout(self.timeout_s), self._slot(principal.user_id):
                content = await self._run(line)
        except TimeoutError as error:
            raise DeadlineExceeded(
                f"The preview took longer than {self.timeout_s:g} s. Add the document without one: that may "
                "take as long as it needs."
            ) from error
        return await asyncio.to_thread(_read, content)

    @asynccontextmanager
    async def _slot(self, user_id: str) -> AsyncIterator[None]:
        if self._theirs[user_id] >= OF_ONE:
            raise LimitReached(
                "A preview of yours is being made already. Wait for it, or close it.", retry_after_s=RETRY_S
            )
        self._theirs[user_id] += 1
        try:
            async with self._free_slot():
                yield
        finally:
            self._theirs[user_id] -= 1
            if not self._theirs[user_id]:
                del self._theirs[user_id]

    @asynccontextmanager
    async def _free_slot(self) -> AsyncIterator[None]:
        if self._waiting >= WAITING:
            raise LimitReached(
                "Many previews are being made at the moment. Try again in a few seconds.",
                retry_after_s=RETRY_S,
            )
        self._waiting += 1
        try:
            await self._slots.acquire()
        finally:
            self._waiting -= 1
        try:
            yield
        finally:
            self._slots.release()

    async def _run(self, line: bytes) -> bytes:
        # it has no figures: files of its own in that folder would stay there
        environment = {name: value for name, value in os.environ.items() if name.upper() != FIGURES}
        child = await asyncio.create_subprocess_exec(
            *self._command,
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            env=environment,
        )
        try:
            return await _exchange(child, line)
        finally:
            await asyncio.shield(_end(child))


async def _exchange(child: asyncio.subprocess.Process, line: bytes) -> bytes:
    assert child.stdin is not None  # noqa: S101  for the type checker: they are pipes
    assert child.stdout is not None  # noqa: S101
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # that it ended is seen by its answer
        child.stdin.write(line)
        await child.stdin.drain()
    content = bytearray()
    while part := await child.stdout.read(2**20):
        content += part
        if len(content) > MAX_ANSWER_BYTES:
            raise DocumentTooLarge("The document is too large for a preview. Add it without one.")
    return bytes(content)


async def _end(child: asyncio.subprocess.Process) -> None:
    """The child is gone when this returns; a conversion that it started ends with it."""
    assert child.stdin is not None  # noqa: S101  for the type checker: it is a pipe
    child.stdin.close()
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(child.wait(), END_S)
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    await child.wait()


def _read(content: bytes) -> PreviewView:
    """The child's answer. Blocks."""
    try:
        answer = Answer.model_validate_json(content)
    except ValidationError as error:
        raise Upstream(
            "The preview ended unexpectedly. Try again, or add the document without one."
        ) from error
    if answer.error is not None:
        raise _error(answer.error)
    if answer.preview is None:
        raise Upstream
    return answer.preview


def _error(refusal: Refusal) -> Exception:
    if refusal.code == NOT_CONFIGURED:
        return ModelUnavailable(refusal.message)
    for kind in _kinds(CrawlError):
        if kind.code == refusal.code:
            return kind(refusal.message)
    return BundleError()


def _kinds(kind: type[CrawlError]) -> Iterator[type[CrawlError]]:
    yield kind
    for narrower in kind.__subclasses__():
        yield from _kinds(narrower)
