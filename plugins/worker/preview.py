"""`python -m plugins.worker.preview`: the child of a preview; see `plugins.collections.preview`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import sys
import threading
from collections.abc import Sequence

from pydantic import SecretStr

from crawler.contracts import Attachment, Document, Embedder, Services
from crawler.crawler import Preparer
from crawler.errors import CrawlError
from crawler.fetch import fetch
from crawler.properties import PLACES
from plugins.core import logs
from plugins.core.errors import BundleError
from plugins.core.pipeline_shapes import PreviewChunk, PreviewView
from plugins.core.preview_task import END_S, INTERNAL, NOT_CONFIGURED, Answer, Refusal, Task
from plugins.worker.models import Models, NotConfigured
from plugins.worker.priority import yield_to_chats

log = logging.getLogger("plugins.worker.preview")


def main() -> int:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the proxy, which ends this
    # What a library prints must not get into the answer.
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    logs.configure()
    yield_to_chats(beside_proxy=True)
    line = sys.stdin.buffer.readline()
    if not line:
        return 1
    try:
        answer = asyncio.run(_while_wanted(Task.model_validate_json(line)))
    except asyncio.CancelledError:
        return 1
    with os.fdopen(output, "wb") as stream, contextlib.suppress(BrokenPipeError):
        stream.write(answer.model_dump_json().encode())
    return 0


async def _while_wanted(task: Task) -> Answer:
    """The answer; given up when standard input closes."""
    working = asyncio.create_task(answer(task))
    loop = asyncio.get_running_loop()
    threading.Thread(target=_watch, args=(loop, working), daemon=True).start()
    return await working


def _watch(loop: asyncio.AbstractEventLoop, working: asyncio.Task[Answer]) -> None:
    while os.read(sys.stdin.fileno(), 4096):
        pass
    with contextlib.suppress(RuntimeError):  # the loop is closed: we are ending anyway
        loop.call_soon_threadsafe(working.cancel)
    timer = threading.Timer(END_S, os._exit, (1,))
    timer.daemon = True
    timer.start()


async def answer(task: Task) -> Answer:
    """What the task asks for, or why it cannot be."""
    logs.about(user_id=task.user)
    try:
        return Answer(preview=await preview(task))
    except CrawlError as error:
        return _refused(error.code, error.message)
    except NotConfigured as error:
        return _refused(NOT_CONFIGURED, str(error))
    except Exception:
        log.exception("A preview failed unexpectedly")
        return _refused(INTERNAL, BundleError().message)


def _refused(code: str, message: str) -> Answer:
    return Answer(error=Refusal(code=code, message=message))


async def preview(task: Task) -> PreviewView:
    """The document converted, its metadata and its chunks.

    Raises:
        CrawlError: It cannot be processed.
        NotConfigured: Its pipeline is not in the settings any more.
    """
    names: list[str] = []

    async def keep(document: Document, attachments: Sequence[Attachment]) -> None:
        names.extend(attachment.filename for attachment in attachments)

    models = models_of(task)
    try:
        services = Services(complete=models.complete(task.user), embedder=OnDemand(models, task))
        preparer = Preparer(models.pipeline(task.pipeline), services)
        document = await preparer.prepare(await _document(task), keep=keep)
    finally:
        await models.close()
    found = (document.metadata or {}).items()
    return PreviewView(
        filename=document.source,
        markdown=document.markdown or "",
        metadata={key: value for key, value in found if key not in PLACES},
        warnings=list(document.warnings),
        pages=len(document.pages) or None,
        chunks=[
            PreviewChunk(
                start=chunk.start,
                end=chunk.end,
                headings=list(chunk.headings),
                page_first=chunk.page_first,
                page_last=chunk.page_last,
            )
            for chunk in document.chunks
        ],
        attachments=names,
    )


def models_of(task: Task) -> Models:
    """Those of the configuration that is in force where the preview is asked for."""
    pipelines = {} if task.settings is None else {task.pipeline: task.settings}
    return Models(pipelines, task.proxy_url, SecretStr(task.api_key) if task.api_key else None)


async def _document(task: Task) -> Document:
    filename, media_type, content = task.filename, task.media_type, None
    if task.url is not None:
        fetched = await fetch(task.url, max_bytes=task.max_bytes)
        filename, media_type, content = fetched.filename, fetched.media_type, fetched.content
    elif task.path is not None:
        content = await asyncio.to_thread(task.path.read_bytes)
    return Document(
        collection="preview",
        document_id="preview",
        revision="preview",
        source=filename,
        media_type=media_type,
        content=content,
        markdown=task.markdown,
        metadata=task.metadata,
    )


class OnDemand:
    """The collection's embedder, loaded when a chunker asks for it: most do not."""

    def __init__(self, models: Models, task: Task) -> None:
        self._models = models
        self._task = task
        self._embedder: Embedder | None = None

    async def embed(self, texts: Sequence[str]) -> list[list[float]]:
        task = self._task
        if self._embedder is None:
            self._embedder = await asyncio.to_thread(
                self._models.embedder, task.embedding_model, task.dimension, task.user
            )
        return await self._embedder.embed(texts)


if __name__ == "__main__":
    sys.exit(main())
