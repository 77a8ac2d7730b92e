"""Conversion in a child process: what it may use, and that it is gone afterwards."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from crawler.contracts import Source
from crawler.conversion import Limits, convert, sweep
from crawler.errors import DocumentTooLarge, UnreadableDocument
from crawler.formats._ocr import OcrSettings
from crawler.formats.pdf import Pdf
from tests.unit.crawler.samples import REPORT, pdf, slow_pdf

SLOW = Source(filename="slow.pdf", content=slow_pdf())
QUICK = Source(filename="quick.pdf", content=pdf())
PDF = Pdf(OcrSettings())
FakeChild = Callable[[str], None]

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def children(parent: int) -> list[int]:
    """The processes that run the converter for ``parent``."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            status = (folder / "stat").read_text().rpartition(")")[2].split()
            command = (folder / "cmdline").read_bytes()
        except OSError:
            continue
        if int(status[1]) == parent and status[0] != "Z" and b"crawler.conversion" in command:
            found.append(int(folder.name))
    return found


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def surroundings(pid: int) -> tuple[bytes, str, list[str]]:
    """A process's environment, its working folder, and what is in there."""
    folder = os.readlink(f"/proc/{pid}/cwd")
    return Path(f"/proc/{pid}/environ").read_bytes(), folder, os.listdir(folder)


def tied_to_its_parent(pid: int) -> bool:
    """Past the moment at which it asks to die with its parent."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text()) == 1000


def converting(file: Path) -> subprocess.Popen[bytes]:
    file.write_bytes(SLOW.content)
    return subprocess.Popen(
        [sys.executable, "-m", "crawler", "convert", str(file)], stdout=subprocess.DEVNULL
    )


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110  the condition is in another process
            await asyncio.sleep(0.01)


@pytest.fixture
def fake_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeChild:
    """Puts a shell script in the place of the child."""

    def put(script: str) -> None:
        path = tmp_path / "child"
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        monkeypatch.setattr(sys, "executable", str(path))

    return put


async def failed(conversion: Awaitable[object], match: str) -> None:
    with pytest.raises(UnreadableDocument, match=match):
        await conversion


async def test_a_conversion_that_takes_too_long_is_ended() -> None:
    await failed(convert(PDF, SLOW, Limits(timeout_s=1)), "longer than 1 s")
    assert not children(os.getpid())


async def test_a_conversion_that_burns_the_processor_is_ended() -> None:
    await failed(convert(PDF, SLOW, Limits(cpu_s=1, timeout_s=60)), "exceeded this server's limits")


async def test_a_bomb_ends_its_child_and_nothing_else() -> None:
    bomb = Source(filename="bomb.pdf", content=pdf(REPORT[:1], bomb_bytes=300_000_000))
    await failed(convert(PDF, bomb, Limits(memory_bytes=300 * 2**20, timeout_s=60)), "upload")


@linux
async def test_a_cancelled_conversion_leaves_no_process() -> None:
    task = asyncio.create_task(convert(PDF, SLOW, Limits()))
    await until(lambda: bool(children(os.getpid())))
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert not children(os.getpid())


@linux
async def test_the_child_sees_nothing_of_its_parents_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LITELLM_MASTER_KEY", "sk-do-not-tell")
    task = asyncio.create_task(convert(PDF, SLOW, Limits()))
    await until(lambda: bool(children(os.getpid())))
    (child,) = children(os.getpid())
    environment, folder, files = surroundings(child)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert b"sk-do-not-tell" not in environment
    assert b"PATH=" in environment
    assert files == []
    assert not os.path.exists(folder)  # noqa: ASYNC240  a moment


@linux
async def test_the_child_dies_with_its_parent_even_when_that_is_killed(tmp_path: Path) -> None:
    parent = converting(tmp_path / "slow.pdf")
    try:
        await until(lambda: bool(children(parent.pid)))
        (child,) = children(parent.pid)
        await until(lambda: tied_to_its_parent(child))
    finally:
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait(timeout=10)
    await until(lambda: not alive(child))


def answering(answer: str, then: str = "exit 0") -> str:
    """A child's script: it reads all, gives this answer, and ends."""
    length = "".join(f"\\{byte:03o}" for byte in len(answer).to_bytes(4, "big"))
    return f"cat >/dev/null; printf '{length}'; printf %s '{answer}'; {then}"


@pytest.mark.parametrize(
    "script",
    [
        "cat >/dev/null; exit 0",
        answering("no json"),
        answering('{"converted": {"markdown": 3}}'),
        answering('{"converted": {"markdown": "a", "pages": [{"number": 1, "start": 99}]}}'),
        answering('{"converted": {"markdown": "a"}}', "exit 3"),
        answering('{"converted": {"markdown": "a"}}', "printf more"),
        answering("{}"),
        answering('{"converted": {"markdown": "a"}, "attachments": [{"filename": "b", "size": 9}]}'),
        answering('{"converted": {"markdown": "a"}, "attachments": [{"filename": "b", "size": -1}]}'),
        answering('{"converted": {"markdown": "a"}, "attachments": [{"filename": "b", "size": 999999999}]}'),
        answering(
            '{"converted": {"markdown": "a"}, "images": [{"offset": 9, "media_type": "a/b", "size": 0}]}'
        ),
        "exec 0<&-; exit 0",
        "kill -SEGV $$",
    ],
)
async def test_an_answer_that_cannot_be_trusted_is_a_failed_conversion(
    fake_child: FakeChild, script: str
) -> None:
    fake_child(script)
    await failed(convert(PDF, QUICK, Limits(timeout_s=20)), "could not be converted")


async def test_an_endless_answer_is_cut_off(fake_child: FakeChild) -> None:
    fake_child("exec yes")
    with pytest.raises(DocumentTooLarge):
        await convert(PDF, QUICK, Limits(timeout_s=60))


async def test_a_child_that_never_reads_its_file_is_ended(fake_child: FakeChild) -> None:
    fake_child("exec sleep 60")
    await failed(convert(PDF, SLOW, Limits(timeout_s=0.5)), "longer than 0.5 s")


def test_what_killed_conversions_left_is_swept_and_what_is_under_way_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    for name, age_s in (("crawler-old", 7200), ("crawler-new", 60), ("other-old", 7200)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "page").touch()
        then = time.time() - age_s
        os.utime(tmp_path / name, (then, then))
    sweep()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["crawler-new", "other-old"]
