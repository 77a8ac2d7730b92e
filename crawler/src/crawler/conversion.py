"""Conversion in a child process, since a file from outside may crash, hang or blow up its converter.

The child limits itself before it looks at the file, works in an empty folder, inherits no environment
but what is named here, and dies with its parent. What it answers is not trusted either: it is JSON, capped
in size, and validated. ``python -m crawler.conversion`` is that child:

    stdin   4 bytes: length of the request, big-endian; the request as JSON; the file's bytes
    stdout  4 bytes: length of the answer, big-endian; the answer as JSON: ``{"converted": ..., "attachments":
            [{"filename", "media_type", "size"}], "images": [{"offset", "media_type", "size"}]}`` or
            ``{"error": {"code", "message"}}``; the bytes of the attachments and then of the images
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import resource
import signal
import stat
import struct
import sys
import tempfile
import time
import uuid
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, Any

from pydantic import ByteSize, Field, ValidationError

from crawler import _sandbox
from crawler._sandbox import Confinement, available
from crawler.contracts import Attachment, Converted, Format, Frozen, Image, Source
from crawler.errors import CrawlError, DocumentTooLarge, UnreadableDocument, UnsupportedFormat
from crawler.links import without_active_links
from crawler.registry import settings_type
from crawler.settings import Settings

__all__ = ["Confinement", "Limits", "available", "convert", "sweep"]

FOLDER_PREFIX = "crawler-"
ABANDONED_S = 3600.0

_ANSWER_MAX_BYTES = 128 * 2**20
_PROGRESS_MAX_BYTES = 256
_END_S = 10.0
_ERRORS = {error.code: error for error in (UnreadableDocument, DocumentTooLarge, UnsupportedFormat)}
_FAILED = (
    "The document could not be converted: it exceeded this server's limits of memory or time, or crashed the "
    "converter. Save it again in its own program, or split it, and upload that."
)


class Limits(Settings):
    """What one conversion may use."""

    timeout_s: float = Field(default=300, gt=0)
    """Wall time of the conversion."""
    cpu_s: int = Field(default=240, ge=1)
    """Processor seconds of the conversion, over all its threads."""
    memory_bytes: ByteSize = Field(default=ByteSize(2 * 2**30), ge=256 * 2**20)
    """Address space of the conversion, in bytes or as text (``2GiB``); small files need less than 512 MiB."""
    max_attachments: int = Field(default=1_000, ge=0)
    """Files in one document that are taken: a mail's attachments, an archive's members."""
    max_attachment_bytes: ByteSize = Field(default=ByteSize(256 * 2**20), ge=0)
    """Of these files and the pictures of one document, together."""


Report = Callable[[int, int], Awaitable[None]]
"""Called with how many of how many pages are done."""
_Pages = Annotated[int, Field(ge=0, le=1_000_000)]


class _Request(Frozen):
    module: str
    name: str
    settings: dict[str, Any]
    filename: str
    media_type: str | None
    with_images: bool
    limits: Limits
    parent: int


class _Refusal(Frozen):
    code: str
    message: str = Field(max_length=500)


class _AttachmentHead(Frozen):
    filename: str
    media_type: str | None = None
    size: int = Field(ge=0)


class _ImageHead(Frozen):
    offset: int = Field(ge=0)
    media_type: str
    size: int = Field(ge=0)


class _Answer(Frozen):
    progress: tuple[_Pages, _Pages] | None = None
    """Pages done, and all of them; another answer follows."""
    converted: Converted | None = None
    error: _Refusal | None = None
    attachments: tuple[_AttachmentHead, ...] = ()
    images: tuple[_ImageHead, ...] = ()


async def convert(
    format_: Format[Any], source: Source, limits: Limits, report: Report | None = None
) -> Converted:
    """``format_.convert(source)``, in a child process that is gone when this returns, however it returns.

    ``report`` is called where the format tells how far it is; ``source.report`` is not.

    Raises:
        UnreadableDocument: The file cannot be read, or its conversion exceeded the limits or crashed.
        DocumentTooLarge: The file, or what came out of it, is too large.
    """
    folder = await asyncio.to_thread(tempfile.mkdtemp, prefix=FOLDER_PREFIX)
    try:
        return await _run_child(_request(format_, source, limits), limits, folder, report)
    finally:
        await asyncio.shield(asyncio.to_thread(_remove, folder))


def sweep() -> None:
    """Remove the working folders of conversions whose process was killed an hour ago or earlier."""
    before = time.time() - ABANDONED_S
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            if found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode) and found.st_mtime < before:
                _remove(str(folder))


def _remove(folder: str) -> None:
    """Remove a folder however deep those in it lie (`shutil.rmtree` recurses): what is in one comes up
    first."""
    with contextlib.suppress(OSError):
        while found := list(os.scandir(folder)):
            for entry in found:
                if not entry.is_dir(follow_symlinks=False):
                    os.unlink(entry.path)
                    continue
                os.chmod(entry.path, stat.S_IRWXU)
                for inner in list(os.scandir(entry.path)):
                    if inner.is_dir(follow_symlinks=False):
                        os.chmod(inner.path, stat.S_IRWXU)  # its owner, too, may move it only then
                    os.rename(inner.path, f"{folder}/{uuid.uuid4().hex}")
                os.rmdir(entry.path)
        os.rmdir(folder)


def _request(format_: Format[Any], source: Source, limits: Limits) -> bytes:
    request = _Request(
        module=type(format_).__module__,
        name=type(format_).__name__,
        settings=format_.settings.model_dump(mode="json"),
        filename=source.filename,
        media_type=source.media_type,
        with_images=source.with_images,
        limits=limits,
        parent=os.getpid(),
    )
    header = request.model_dump_json().encode()
    return struct.pack(">I", len(header)) + header + source.content


async def _run_child(request: bytes, limits: Limits, folder: str, report: Report | None) -> Converted:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-m", "crawler.conversion"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=folder,
        env=_environment(folder),
        process_group=0,
    )
    writing = asyncio.create_task(_write(child, request))
    try:
        async with asyncio.timeout(limits.timeout_s) as time_limit:
            converted = await _read(child, limits, report)
            status = await child.wait()
    except TimeoutError as error:
        if not time_limit.expired():  # of the report
            raise
        raise UnreadableDocument(
            f"The conversion took longer than {limits.timeout_s:g} s. "
            "Split the document and upload the parts."
        ) from error
    except asyncio.IncompleteReadError as error:
        raise UnreadableDocument(_FAILED) from error
    finally:
        await asyncio.shield(_end(child, writing))
    if status != 0:
        raise UnreadableDocument(_FAILED)
    return converted


async def _end(child: asyncio.subprocess.Process, writing: asyncio.Task[None]) -> None:
    # The whole group: where nothing forbids it, a converter may have started processes of its own.
    with contextlib.suppress(ProcessLookupError):
        os.killpg(child.pid, signal.SIGKILL)
    with contextlib.suppress(TimeoutError):  # one that left the group may hold the pipe
        async with asyncio.timeout(_END_S):
            # A child counts as gone only when all that it wrote is read.
            await asyncio.gather(child.wait(), writing, _discard(child))


async def _discard(child: asyncio.subprocess.Process) -> None:
    assert child.stdout is not None  # noqa: S101  for the type checker: it is a pipe
    while await child.stdout.read(2**20):
        pass


async def _write(child: asyncio.subprocess.Process, request: bytes) -> None:
    assert child.stdin is not None  # noqa: S101  for the type checker: it is a pipe
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its exit status tells
        child.stdin.write(request)
        await child.stdin.drain()
        child.stdin.close()


async def _read(child: asyncio.subprocess.Process, limits: Limits, report: Report | None) -> Converted:
    stdout = child.stdout
    assert stdout is not None  # noqa: S101  for the type checker: it is a pipe
    while (answer := await _next(stdout, limits)).progress is not None:
        if report is not None:
            await report(*answer.progress)
    if answer.error:
        raise _ERRORS.get(answer.error.code, UnreadableDocument)(answer.error.message)
    if answer.converted is None:
        raise UnreadableDocument(_FAILED)
    attachments = [
        Attachment(
            filename=head.filename, media_type=head.media_type, content=await stdout.readexactly(head.size)
        )
        for head in answer.attachments
    ]
    images = [
        Image(offset=head.offset, media_type=head.media_type, content=await stdout.readexactly(head.size))
        for head in answer.images
    ]
    if await stdout.read(1):
        raise UnreadableDocument(_FAILED)
    return answer.converted.model_copy(
        update={"attachments": tuple(attachments), "images": tuple(images)},
    )


async def _next(stdout: asyncio.StreamReader, limits: Limits) -> _Answer:
    (size,) = struct.unpack(">I", await stdout.readexactly(4))
    if size > _ANSWER_MAX_BYTES:
        raise DocumentTooLarge
    answer = await asyncio.to_thread(_read_answer, await stdout.readexactly(size), limits)
    if answer.progress is not None and size > _PROGRESS_MAX_BYTES:
        raise UnreadableDocument(_FAILED)
    return answer


def _environment(folder: str) -> dict[str, str]:
    """No secrets of the parent's; thread pools and allocator arenas kept small for the memory limit."""
    return {
        "HOME": folder,
        "TMPDIR": folder,
        "PATH": os.defpath,
        "LANG": "C.UTF-8",
        "MALLOC_ARENA_MAX": "2",
        "RAYON_NUM_THREADS": "2",
        "TOKIO_WORKER_THREADS": "2",
        **{name: os.environ[name] for name in _sandbox.FOLDERS_OF_ENVIRONMENT if name in os.environ},
    }


def _read_answer(content: bytes, limits: Limits) -> _Answer:
    """The answer, when all in it can be: its offsets lie in its text and its files within the limits."""
    try:
        answer = _Answer.model_validate_json(content)
    except ValidationError as error:
        raise UnreadableDocument(_FAILED) from error
    if answer.converted is None:
        return answer
    end = len(answer.converted.markdown)
    pages = [page.start for page in answer.converted.pages]
    images = [image.offset for image in answer.images]
    if any(offsets != sorted(offsets) or (offsets and offsets[-1] > end) for offsets in (pages, images)):
        raise UnreadableDocument(_FAILED)
    files: list[_AttachmentHead | _ImageHead] = [*answer.attachments, *answer.images]
    size = sum(file.size for file in files)
    if len(answer.attachments) > limits.max_attachments or size > limits.max_attachment_bytes:
        raise UnreadableDocument(_FAILED)
    return answer


# --- the child ---------------------------------------------------------------------------------------


def main() -> None:
    # What a library prints must not get into the answer.
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    (size,) = struct.unpack(">I", sys.stdin.buffer.read(4))
    request = _Request.model_validate_json(sys.stdin.buffer.read(size))
    _sandbox.die_with(request.parent)
    _limit(request.limits)
    plugin = getattr(importlib.import_module(request.module), request.name)
    format_ = plugin(settings_type(plugin).model_validate(request.settings))
    _sandbox.enter(Path.cwd(), {"crawler", request.module.partition(".")[0]})
    with os.fdopen(output, "wb") as stream:

        def send(answer: dict[str, Any]) -> None:
            content = json.dumps(answer).encode()
            stream.write(struct.pack(">I", len(content)) + content)
            stream.flush()

        def report(done: int, total: int) -> None:
            send({"progress": [done, total]})

        answer, files = _answer(format_, request, sys.stdin.buffer.read(), report)
        send(answer)
        for file in files:
            stream.write(file)
    # Thread pools of native libraries may hang in their destructors.
    os._exit(0)


def _limit(limits: Limits) -> None:
    for kind, value in (
        (resource.RLIMIT_CPU, limits.cpu_s),
        (resource.RLIMIT_AS, int(limits.memory_bytes)),
        (resource.RLIMIT_FSIZE, 256 * 2**20),
        (resource.RLIMIT_NOFILE, 64),
        (resource.RLIMIT_CORE, 0),
    ):
        with contextlib.suppress(ValueError):  # the hard limit is tighter already
            resource.setrlimit(kind, (value, value))


def _answer(
    format_: Format[Any], request: _Request, content: bytes, report: Callable[[int, int], None]
) -> tuple[dict[str, Any], list[bytes]]:
    """The answer's JSON and the files that follow it."""
    source = Source(
        filename=request.filename,
        content=content,
        media_type=request.media_type,
        with_images=request.with_images,
        report=report,
    )
    try:
        return _frames(format_.convert(source), request.limits)
    except CrawlError as error:
        return {"error": {"code": error.code, "message": error.message[:500]}}, []
    except MemoryError:
        return {"error": {"code": UnreadableDocument.code, "message": _FAILED}}, []
    except Exception:  # noqa: BLE001  a broken file makes converters raise anything
        return {"error": {"code": UnreadableDocument.code, "message": UnreadableDocument().message}}, []


def _frames(converted: Converted, limits: Limits) -> tuple[dict[str, Any], list[bytes]]:
    found: list[Attachment | Image] = [*converted.attachments[: limits.max_attachments], *converted.images]
    taken: list[Attachment | Image] = []
    left = int(limits.max_attachment_bytes)
    for file in found:
        if len(file.content) <= left:
            left -= len(file.content)
            taken.append(file)
    heads: dict[str, list[dict[str, Any]]] = {"attachments": [], "images": []}
    for file in taken:
        kind = "attachments" if isinstance(file, Attachment) else "images"
        heads[kind].append({**file.model_dump(exclude={"content"}), "size": len(file.content)})
    body = converted.model_dump(mode="json", exclude={"attachments", "images"})
    body["markdown"] = without_active_links(converted.markdown)
    missing = len(converted.attachments) - len(heads["attachments"])
    if missing:
        body["warnings"].append(
            f"{missing} of the {len(converted.attachments)} files in it were left out: they are more, or "
            "larger, than this server takes from one document. Upload them by themselves."
        )
    return {"converted": body, **heads}, [file.content for file in taken]


if __name__ == "__main__":
    main()
