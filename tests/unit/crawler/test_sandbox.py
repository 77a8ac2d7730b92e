"""What code of an attacker's can do in the child that converts: compute, and nothing else.

Its programs run inside a real conversion, as a hole in a converter would let them.
"""

from __future__ import annotations

import os
import socket
import sys
import tempfile
from pathlib import Path

import pytest
from pydantic import ByteSize

from crawler import _sandbox, conversion
from crawler.contracts import Converted, Format, Source
from crawler.conversion import Limits, convert
from crawler.errors import UnreadableDocument
from crawler.settings import Settings
from tests.support.confined import hostile_format

HERE = Path(__file__).resolve()
CONFINEMENT = _sandbox.available()

seccomp = pytest.mark.skipif(not CONFINEMENT.seccomp, reason="this system has no seccomp")
landlock = pytest.mark.skipif(not CONFINEMENT.landlock, reason="this system has no Landlock")
scoped = pytest.mark.skipif(CONFINEMENT.landlock < 6, reason="this system's Landlock confines no signals")

Hostile = Format[Settings]


@pytest.fixture
def hostile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Hostile:
    return hostile_format(tmp_path / "format", monkeypatch)


async def run(hostile: Hostile, program: str, limits: Limits | None = None) -> Converted:
    source = Source(filename="program", content=program.encode())
    return await convert(hostile, source, limits or Limits(timeout_s=30))


async def answer(hostile: Hostile, program: str) -> str:
    return (await run(hostile, program)).markdown


async def test_it_computes_and_uses_its_own_folder(hostile: Hostile) -> None:
    program = """
import os, pathlib, tempfile, threading
pathlib.Path("note").write_text("kept")
with tempfile.TemporaryDirectory() as folder:
    (pathlib.Path(folder) / "page").write_text("x")
values = []
thread = threading.Thread(target=values.append, args=(6 * 7,))
thread.start()
thread.join()
os.rename("note", "note2")
answer = f"{values[0]} {pathlib.Path('note2').read_text()} {os.listdir()}"
"""
    assert await answer(hostile, program) == "42 kept ['note2']"


async def test_it_tells_how_many_pages_are_done(hostile: Hostile) -> None:
    told: list[tuple[int, int]] = []

    async def hear(done: int, total: int) -> None:
        told.append((done, total))

    source = Source(filename="program", content=b"report(0, 3); report(2, 3); answer = 'read'")
    assert (await convert(hostile, source, Limits(timeout_s=30), hear)).markdown == "read"
    assert told == [(0, 3), (2, 3)]


@pytest.mark.parametrize("pages", ["-1, 3", "0, 10 ** 30", "'one', 3", "None, None"])
async def test_what_it_tells_must_be_pages(hostile: Hostile, pages: str) -> None:
    with pytest.raises(UnreadableDocument):
        await run(hostile, f"report({pages})")


async def test_it_loads_what_converters_need(hostile: Hostile) -> None:
    program = """
import asyncio, ctypes, email, sqlite3, ssl, zoneinfo
import liteparse, xberg
asyncio.run(asyncio.sleep(0))
answer = "loaded"
"""
    assert await answer(hostile, program) == "loaded"


@seccomp
@pytest.mark.parametrize(
    "program",
    [
        "import socket; socket.socket()",
        "import socket; socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
        "import socket; socket.socket(socket.AF_UNIX)",
        "import socket; socket.socket(socket.AF_NETLINK, socket.SOCK_RAW)",
        "import socket; socket.create_connection(('127.0.0.1', {port}))",
        "import os; os.fork()",
        "import os; os.execv('/bin/sh', ['sh'])",
        "import subprocess; subprocess.run(['/bin/true'])",
        "import multiprocessing as m; p = m.get_context('fork').Process(target=print); p.start()",
        "import os; os.kill({parent}, 0)",
        "import os; os.kill(-1, 9)",
        "import os; os.setpriority(os.PRIO_PROCESS, {parent}, 19)",
        "import os; os.sched_setaffinity({parent}, [0])",
        "import resource; resource.prlimit({parent}, resource.RLIMIT_NOFILE, (3, 3))",
        "import os; os.chmod({secret!r}, 0o777)",
        "import os; os.utime({secret!r})",
        "import os; os.truncate({secret!r}, 0)",
        "import os; os.setxattr({secret!r}, 'user.a', b'b')",
        "import os; os.unshare(0) if hasattr(os, 'unshare') else os.fork()",
        "import os; os.memfd_create('beyond the limit of memory')",
        "import socket as s; s.socketpair(s.AF_UNIX, s.SOCK_DGRAM)[0].sendto(b'x', {secret!r})",
        "import socket as s; s.socketpair(s.AF_UNIX, s.SOCK_RAW)[0].sendto(b'x', {secret!r})",
        "import fcntl; fcntl.fcntl(0, fcntl.F_SETOWN, {parent})",
        "import fcntl; fcntl.fcntl(0, 10, 9)",  # F_SETSIG
        "import fcntl, struct; fcntl.fcntl(0, 15, struct.pack('ii', 1, {parent}))",  # F_SETOWN_EX
        "import fcntl, socket, struct as s; "
        "fcntl.ioctl(socket.socketpair()[0], 0x8901, s.pack('i', {parent}))",  # FIOSETOWN
    ],
)
async def test_it_reaches_no_network_and_no_other_process(
    hostile: Hostile, tmp_path: Path, program: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        text = program.format(port=port, parent=os.getpid(), secret=str(secret))
        assert await answer(hostile, text) == "PermissionError"


@seccomp
@pytest.mark.parametrize(
    ("name", "number"),
    [
        ("ptrace", "ptrace"),
        ("bpf", "bpf"),
        ("io_uring", "io_uring_setup"),
        ("userfaultfd", "userfaultfd"),
        ("attributes of files", "file_setattr"),
    ],
)
async def test_it_cannot_ask_the_kernel_for_more(hostile: Hostile, name: str, number: str) -> None:
    program = f"""
import ctypes, os, platform
from crawler._syscalls import DENIED
libc = ctypes.CDLL(None, use_errno=True)
number = DENIED[{number!r}][0 if platform.machine() == "x86_64" else 1]
if libc.syscall(number, 0, 0, 0, 0, 0) < 0:
    raise OSError(ctypes.get_errno(), "refused")
"""
    assert await answer(hostile, program) == "PermissionError"


@seccomp
async def test_it_cannot_outlive_the_service(hostile: Hostile) -> None:
    program = """
import ctypes
libc = ctypes.CDLL(None, use_errno=True)
if libc.prctl(1, 0) < 0:
    raise OSError(ctypes.get_errno(), "refused")
"""
    assert await answer(hostile, program) == "PermissionError"


@seccomp
async def test_it_cannot_raise_its_limits(hostile: Hostile) -> None:
    program = """
import resource
try:
    resource.setrlimit(resource.RLIMIT_CPU, (9999, 9999))
except ValueError as error:
    answer = error
"""
    assert "not allowed" in await answer(hostile, program)


@seccomp
async def test_it_may_still_end_itself(hostile: Hostile) -> None:
    with pytest.raises(UnreadableDocument, match="could not be converted"):
        await run(hostile, "import os; os.abort()")


@landlock
@pytest.mark.parametrize(
    "program",
    [
        "open({secret!r})",
        "open({secret!r}, 'w')",
        "open('/proc/{parent}/environ')",
        "open('/proc/{parent}/maps')",
        "open('/proc/{parent}/mem', 'rb')",
        "import os; os.listdir('/proc/{parent}/fd')",
        "open('/proc/1/environ')",
        "open('/proc/self/root{secret}')",
        "open('/etc/shadow')",
        "open('/etc/passwd')",
        "import os; os.listdir('/')",
        "import os; os.listdir('/root')",
        "import os; os.listdir({folder!r})",
        "import tempfile; tempfile.mkstemp(dir='/tmp')",
        "import os; os.link({secret!r}, 'mine'); open('mine')",
        "import os; os.symlink({secret!r}, 'mine')",
        "import os; os.mkfifo('pipe')",
        "import os; os.mknod('disk', 0o60600, os.makedev(8, 0))",
        "import os; os.remove({secret!r})",
        "import os; os.rename({secret!r}, 'mine')",
        "open('/dev/shm/x', 'w')",
    ],
)
async def test_it_opens_no_file_of_anybodys(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, program: str
) -> None:
    secret = tmp_path / "data" / "originals"
    secret.parent.mkdir()
    secret.write_text("s")
    text = program.format(secret=str(secret), folder=str(secret.parent), parent=os.getpid())
    assert await answer(hostile, text) in {"PermissionError", "OSError"}  # the latter of links across folders
    assert secret.read_text() == "s"


async def test_folders_deeper_than_python_recurses_are_removed_as_well(
    hostile: Hostile, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    program = """
import os
for answer in range(1, 3001):
    os.mkdir("d")
    os.chdir("d")
"""
    assert await answer(hostile, program) == "3000"
    left = os.listdir(tmp_path)
    assert [name for name in left if name.startswith(conversion.FOLDER_PREFIX)] == []


@landlock
async def test_it_reads_no_repository_that_it_was_installed_from(hostile: Hostile) -> None:
    assert await answer(hostile, f"open({str(HERE)!r})") == "PermissionError"
    assert await answer(hostile, f"open({str(HERE.parents[3] / 'pyproject.toml')!r})") == "PermissionError"


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
async def test_it_has_no_capabilities_and_gets_none(hostile: Hostile) -> None:
    status = await answer(hostile, "answer = open('/proc/self/status').read()")
    found = dict(line.split(":\t") for line in status.splitlines() if ":\t" in line)
    assert {found[name] for name in ("CapEff", "CapPrm", "CapInh")} == {"0" * 16}
    assert found["NoNewPrivs"] == "1"


async def test_its_environment_holds_nothing_of_the_services(
    hostile: Hostile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LITELLM_MASTER_KEY", "sk-do-not-tell")
    assert "sk-do-not-tell" not in await answer(hostile, "import os; answer = dict(os.environ)")


async def test_it_has_no_open_files_but_its_pipes(hostile: Hostile, tmp_path: Path) -> None:
    with (tmp_path / "open").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        program = "import os; answer = sorted(os.readlink(f'/proc/self/fd/{n}')[:5] for n in (0, 1, 2))"
        assert await answer(hostile, program) == "['/dev/', '/dev/', 'pipe:']"


async def test_it_writes_no_more_than_it_may(hostile: Hostile) -> None:
    program = """
import os, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
with open("large", "wb") as file:
    file.truncate(300 * 2**20)
"""
    assert await answer(hostile, program) == "OSError"


async def test_its_folder_is_empty_and_its_limits_are_those_of_the_pipeline(hostile: Hostile) -> None:
    program = """
import os, resource
names = ("CPU", "AS", "FSIZE", "NOFILE", "CORE")
limits = [resource.getrlimit(getattr(resource, f"RLIMIT_{name}")) for name in names]
answer = [os.listdir(), *limits]
"""
    mib = 2**20
    found = await run(hostile, program, Limits(timeout_s=30, cpu_s=7, memory_bytes=ByteSize(600 * mib)))
    values = (7, 600 * mib, 256 * mib, 64, 0)
    assert found.markdown == str([[], *((value, value) for value in values)])


@pytest.mark.parametrize(
    "program",
    [
        "import os; files = [os.open('/dev/zero', os.O_RDONLY) for _ in range(64)]",
        "import mmap; mmap.mmap(-1, 3 * 2**30)",
    ],
    ids=["files", "memory"],
)
async def test_it_gets_no_more_of_the_machine(hostile: Hostile, program: str) -> None:
    assert await answer(hostile, program) == "OSError"


@seccomp
@landlock
@pytest.mark.parametrize(
    ("layer", "program"),
    [
        ("_sandbox._close_files", "open({secret!r})"),
        ("_sandbox._close_calls", "import socket; socket.socket(socket.AF_UNIX)"),
        ("_sandbox._close_calls", "import os; os.fork() or os._exit(0)"),
        ("conversion._limit", "import mmap; mmap.mmap(-1, 3 * 2**30)"),
        ("conversion._limit", "import os; files = [os.open('/dev/zero', os.O_RDONLY) for _ in range(64)]"),
    ],
)
async def test_each_layer_holds_what_no_other_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layer: str, program: str
) -> None:
    secret = tmp_path / "secret"
    secret.write_text("s")
    text = program.format(secret=str(secret), parent=os.getpid())
    without = f"{layer} = lambda *_: None"
    with monkeypatch.context() as patched:
        assert await answer(hostile_format(tmp_path / "all", patched), text) != "nothing"
    with monkeypatch.context() as patched:
        assert await answer(hostile_format(tmp_path / "less", patched, without), text) == "nothing"


async def test_what_it_answers_with_arrives_beside_the_text(hostile: Hostile) -> None:
    program = """
more = {
    "attachments": (Attachment(filename="a.bin", content=bytes(range(256)) * 9000),
                    Attachment(filename="b.txt", media_type="text/plain", content=b"")),
    "images": (Image(offset=2, media_type="image/png", content=b"\\x89PNG"),),
}
"""
    converted = await run(hostile, program)
    assert [(file.filename, file.media_type, len(file.content)) for file in converted.attachments] == [
        ("a.bin", None, 256 * 9000),
        ("b.txt", "text/plain", 0),
    ]
    assert converted.attachments[0].content == bytes(range(256)) * 9000
    assert [(image.offset, image.content) for image in converted.images] == [(2, b"\x89PNG")]
    assert converted.warnings == ()


@pytest.mark.parametrize(
    "limits", [Limits(max_attachments=1), Limits(max_attachment_bytes=15)], ids=["number", "bytes"]
)
async def test_files_over_the_limit_are_left_out_and_it_says_so(hostile: Hostile, limits: Limits) -> None:
    program = """
more = {"attachments": tuple(Attachment(filename=f"{n}.bin", content=bytes(10)) for n in range(3))}
"""
    converted = await run(hostile, program, limits)
    assert [file.filename for file in converted.attachments] == ["0.bin"]
    assert converted.warnings[0].startswith("2 of the 3 files in it were left out")
