"""Conversion in a child process, since a file from outside may crash, hang or blow up its converter.

The child limits itself before it looks at the file, works in an empty folder, inherits no environment
but what is named here, and dies with its parent. What it answers is not trusted either: it is JSON, capped
in size, and validated. ``python -m crawler.conversion`` is that child:

    stdin   4 bytes: length of the request, big-endian; the request as JSON; the file's bytes
    stdout  the answer as JSON: ``{"converted": ...}`` or ``{"error": {"code", "message"}}``
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
import json
import os
import resource
import shutil
import signal
import stat
import struct
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pydantic import ByteSize, Field, ValidationError

from crawler.contracts import Converted, Format, Frozen, Source
from crawler.errors import CrawlError, DocumentTooLarge, UnreadableDocument, UnsupportedFormat
from crawler.registry import settings_type
from crawler.settings import Settings

FOLDER_PREFIX = "crawler-"
ABANDONED_S = 3600.0

_ANSWER_MAX_BYTES = 128 * 2**20
_PR_SET_PDEATHSIG = 1
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


class _Request(Frozen):
    module: str
    name: str
    settings: dict[str, Any]
    filename: str
    media_type: str | None
    limits: Limits
    parent: int


class _Refusal(Frozen):
    code: str
    message: str = Field(max_length=500)


class _Answer(Frozen):
    converted: Converted | None = None
    error: _Refusal | None = None


async def convert(format_: Format[Any], source: Source, limits: Limits) -> Converted:
    """``format_.convert(source)``, in a child process that is gone when this returns, however it returns.

    Raises:
        UnreadableDocument: The file cannot be read, or its conversion exceeded the limits or crashed.
        DocumentTooLarge: The file, or what came out of it, is too large.
    """
    folder = await asyncio.to_thread(tempfile.mkdtemp, prefix=FOLDER_PREFIX)
    try:
        answer = await _run_child(_request(format_, source, limits), limits.timeout_s, folder)
    finally:
        await asyncio.shield(asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True))
    return await asyncio.to_thread(_read_answer, answer)


def sweep() -> None:
    """Remove the working folders of conversions whose process was killed an hour ago or earlier."""
    before = time.time() - ABANDONED_S
    for folder in Path(tempfile.gettempdir()).glob(f"{FOLDER_PREFIX}*"):
        with contextlib.suppress(OSError):
            found = folder.lstat()
            if found.st_uid == os.geteuid() and stat.S_ISDIR(found.st_mode) and found.st_mtime < before:
                shutil.rmtree(folder)


def _request(format_: Format[Any], source: Source, limits: Limits) -> bytes:
    request = _Request(
        module=type(format_).__module__,
        name=type(format_).__name__,
        settings=format_.settings.model_dump(mode="json"),
        filename=source.filename,
        media_type=source.media_type,
        limits=limits,
        parent=os.getpid(),
    )
    header = request.model_dump_json().encode()
    return struct.pack(">I", len(header)) + header + source.content


async def _run_child(request: bytes, timeout_s: float, folder: str) -> bytes:
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-I", "-m", "crawler.conversion"),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
        cwd=folder,
        env=_environment(folder),
        start_new_session=True,
    )
    writing = asyncio.create_task(_write(child, request))
    try:
        async with asyncio.timeout(timeout_s):
            answer = await _read(child)
            status = await child.wait()
    except TimeoutError as error:
        raise UnreadableDocument(
            f"The conversion took longer than {timeout_s:g} s. Split the document and upload the parts."
        ) from error
    finally:
        # The whole group: a converter may have started processes of its own.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(child.pid, signal.SIGKILL)
        await asyncio.shield(asyncio.gather(child.wait(), writing))
    if status != 0:
        raise UnreadableDocument(_FAILED)
    return answer


async def _write(child: asyncio.subprocess.Process, request: bytes) -> None:
    assert child.stdin is not None  # noqa: S101  for the type checker: it is a pipe
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # its exit status tells
        child.stdin.write(request)
        await child.stdin.drain()
        child.stdin.close()


async def _read(child: asyncio.subprocess.Process) -> bytes:
    assert child.stdout is not None  # noqa: S101  for the type checker: it is a pipe
    parts, size = [], 0
    while part := await child.stdout.read(2**20):
        parts.append(part)
        size += len(part)
        if size > _ANSWER_MAX_BYTES:
            raise DocumentTooLarge
    return b"".join(parts)


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
    }


def _read_answer(content: bytes) -> Converted:
    try:
        answer = _Answer.model_validate_json(content)
    except ValidationError as error:
        raise UnreadableDocument(_FAILED) from error
    if answer.error:
        raise _ERRORS.get(answer.error.code, UnreadableDocument)(answer.error.message)
    converted = answer.converted
    if converted is None:
        raise UnreadableDocument(_FAILED)
    starts = [page.start for page in converted.pages]
    if starts != sorted(starts) or (starts and starts[-1] > len(converted.markdown)):
        raise UnreadableDocument(_FAILED)
    return converted


# --- the child ---------------------------------------------------------------------------------------


def main() -> None:
    # What a library prints must not get into the answer.
    output = os.dup(sys.stdout.fileno())
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    (size,) = struct.unpack(">I", sys.stdin.buffer.read(4))
    request = _Request.model_validate_json(sys.stdin.buffer.read(size))
    _die_with(request.parent)
    _limit(request.limits)
    answer = _answer(request, sys.stdin.buffer.read())
    with os.fdopen(output, "wb") as stream:
        stream.write(json.dumps(answer).encode())
    # Thread pools of native libraries may hang in their destructors.
    os._exit(0)


def _die_with(parent: int) -> None:
    """Have the kernel kill this process with its parent (Linux); elsewhere the CPU limit ends it."""
    if sys.platform != "linux":
        return
    import ctypes

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it died before the call
        os._exit(1)
    # When memory runs out, the kernel should take this process, not the service.
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


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


def _answer(request: _Request, content: bytes) -> dict[str, Any]:
    plugin = getattr(importlib.import_module(request.module), request.name)
    format_ = plugin(settings_type(plugin).model_validate(request.settings))
    source = Source(filename=request.filename, content=content, media_type=request.media_type)
    try:
        return {"converted": format_.convert(source).model_dump(mode="json")}
    except CrawlError as error:
        return {"error": {"code": error.code, "message": error.message[:500]}}
    except MemoryError:
        return {"error": {"code": UnreadableDocument.code, "message": _FAILED}}
    except Exception:  # noqa: BLE001  a broken file makes converters raise anything
        return {"error": {"code": UnreadableDocument.code, "message": UnreadableDocument().message}}


if __name__ == "__main__":
    main()
