"""Who runs the embedded store, where it listens, and what happens when one of them dies."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crawler.errors import ConfigError
from crawler.stores._embedded import MAX_SOCKET_BYTES, LiteSupervisor, answers, private_directory, socket_path

HOLDER = """
import sys
from pathlib import Path
from crawler.stores._embedded import LiteSupervisor
supervisor = LiteSupervisor(Path(sys.argv[1]))
supervisor.start()
print(supervisor.pid, flush=True)
sys.stdin.read()
"""


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A temporary directory with a short path, which is also where the system's temporary files go."""
    with tempfile.TemporaryDirectory() as folder:
        monkeypatch.setattr("tempfile.tempdir", folder)
        yield Path(folder)


def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true in time"
        time.sleep(0.02)


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


@contextmanager
def holder(directory: Path) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """Another process that runs the store, and the store's own process id."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(directory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout
        yield process, int(process.stdout.readline())
    finally:
        process.kill()
        process.communicate()


def test_a_directory_is_made_for_us_alone(tmp_path: Path) -> None:
    made = private_directory(tmp_path / "a" / "b")
    assert made.stat().st_mode & 0o777 == 0o700
    assert private_directory(made) == made


def test_the_folder_around_it_is_made_for_us_alone_too(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        private_directory(tmp_path / "data" / "store")
    finally:
        os.umask(before)
    assert (tmp_path / "data").stat().st_mode & 0o777 == 0o700


def test_a_directory_that_others_may_enter_is_refused_with_what_to_do(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    with pytest.raises(ConfigError, match="chmod 700"):
        LiteSupervisor(tmp_path)


def test_a_link_or_a_file_in_its_place_is_refused(tmp_path: Path) -> None:
    private_directory(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    (tmp_path / "file").touch()
    for name in ("link", "file"):
        with pytest.raises(ConfigError):
            private_directory(tmp_path / name)


@pytest.mark.parametrize("folder", ["x" * 120, "with space", "ünï", "50%20"])
def test_a_directory_that_no_socket_can_be_in_gets_one_elsewhere(short: Path, folder: str) -> None:
    found = socket_path(short / folder)
    assert found == socket_path(short / folder)
    assert found != socket_path(short / f"{folder}2")
    assert len(os.fsencode(found)) <= MAX_SOCKET_BYTES
    assert found.parent.stat().st_mode & 0o777 == 0o700


def test_a_socket_directory_that_others_may_enter_is_refused(short: Path) -> None:
    socket_path(short / ("x" * 120)).parent.chmod(0o777)
    with pytest.raises(ConfigError):
        socket_path(short / ("x" * 120))


def test_one_supervisor_holds_the_lock_and_gives_it_back(tmp_path: Path) -> None:
    first, second = LiteSupervisor(tmp_path / "s"), LiteSupervisor(tmp_path / "s")
    assert first.acquire()
    assert first.acquire()
    assert not second.acquire()
    first.stop()
    assert second.acquire()
    second.stop()


def test_a_store_that_cannot_start_is_an_error_within_the_time_given(tmp_path: Path) -> None:
    directory = private_directory(tmp_path / "s")
    (directory / "milvus").write_text("not a directory")
    supervisor = LiteSupervisor(directory)
    with pytest.raises(ConfigError, match="did not start"):
        supervisor.start(timeout_s=0.1)
    assert not supervisor.holder


def test_stop_ends_the_store(tmp_path: Path) -> None:
    supervisor = LiteSupervisor(tmp_path / "s")
    try:
        supervisor.start()
        assert supervisor.alive
        assert supervisor.pid
        pid = supervisor.pid
    finally:
        supervisor.stop()
    assert gone(pid)
    assert not supervisor.alive


def test_a_killed_holder_takes_its_store_along_and_another_takes_over(tmp_path: Path) -> None:
    directory = tmp_path / "s"
    with holder(directory) as (process, store):
        other = LiteSupervisor(directory)
        try:
            other.start()
            assert not other.holder
            assert other.alive
            process.kill()
            until(lambda: gone(store))
            until(lambda: other.holder and other.alive)
            assert other.pid != store
        finally:
            other.stop()
    assert not answers(other.socket)
