"""The embedded store's process: killed, half written, not there, and closed to others."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from pathlib import Path
from uuid import uuid4

import pytest

from crawler.errors import StoreRefused, StoreUnavailable
from crawler.stores import LiteSupervisor
from crawler.stores.milvus import Milvus, MilvusSettings
from tests.support.stores import DIMENSION, EVERYONE, document, query, until


async def test_a_killed_store_comes_back_and_loses_no_acknowledged_document(
    supervisor: LiteSupervisor, embedded: Milvus
) -> None:
    name = f"vs_{uuid4().hex}"
    await embedded.create(name, dimension=DIMENSION, metric="COSINE", retrieval="hybrid")
    acknowledged: list[str] = []

    async def writer(label: str) -> None:
        for part in range(10_000):
            document_id = f"{label}-{part}"
            await embedded.write(document(name, ["notice"] * 30, document_id=document_id))
            acknowledged.append(document_id)

    for round_ in range(3):
        before = len(acknowledged)
        writers = [asyncio.create_task(writer(f"r{round_}w{number}")) for number in range(4)]
        await until(lambda enough=before + 3 + 2 * round_: len(acknowledged) >= enough)  # type: ignore[misc]
        assert supervisor.pid
        restarts = supervisor.restarts
        os.kill(supervisor.pid, signal.SIGKILL)
        ended = await asyncio.gather(*writers, return_exceptions=True)
        assert all(isinstance(error, StoreUnavailable) for error in ended), ended
        assert not any(str(supervisor.path) in str(error) for error in ended)
        await until(lambda before=restarts: supervisor.restarts > before and supervisor.alive)  # type: ignore[misc]
        for document_id in acknowledged:
            assert len(await embedded.passages(name, document_id, "r1", EVERYONE)) == 30
    assert len(await embedded.search(name, query(limit=10), EVERYONE)) == 10
    await embedded.drop(name)


async def test_an_index_that_a_kill_left_half_written_is_built_anew(
    supervisor: LiteSupervisor, embedded: Milvus
) -> None:
    name = f"vs_{uuid4().hex}"
    await embedded.create(name, dimension=DIMENSION, metric="COSINE", retrieval="hybrid")
    await embedded.write(document(name, ["notice"] * 30))
    folder = supervisor.path / "milvus" / "collections" / name / "partitions" / "_default" / "indexes"
    await until(lambda: len(list(folder.glob("*"))) == 3)
    assert supervisor.pid
    restarts = supervisor.restarts
    os.kill(supervisor.pid, signal.SIGSTOP)
    for path in folder.iterdir():
        os.truncate(path, path.stat().st_size // 2)
    os.kill(supervisor.pid, signal.SIGKILL)
    await until(lambda: supervisor.restarts > restarts and supervisor.alive)
    assert len(await embedded.search(name, query(limit=50), EVERYONE)) == 30
    await embedded.drop(name)


async def test_a_store_that_is_not_running_is_unavailable_and_the_error_names_no_path(tmp_path: Path) -> None:
    store = Milvus(MilvusSettings(uri=str(tmp_path / "none"), timeout_s=5))
    for _ in range(2):
        with pytest.raises(StoreUnavailable) as refused:
            await store.ping()
        assert str(tmp_path) not in str(refused.value)
    await store.close()


async def test_a_server_that_is_not_there_is_unavailable(tmp_path: Path) -> None:
    store = Milvus(MilvusSettings(uri="http://127.0.0.1:1", timeout_s=5))
    with pytest.raises(StoreUnavailable) as refused:
        await store.search("vs_x", query(), EVERYONE)
    assert "127.0.0.1" not in str(refused.value)
    await store.close()


def test_only_we_may_enter_the_directory_and_the_socket(supervisor: LiteSupervisor) -> None:
    assert stat.S_IMODE(supervisor.path.stat().st_mode) == 0o700
    assert stat.S_IMODE(supervisor.socket.parent.stat().st_mode) == 0o700
    for path in supervisor.path.rglob("*"):
        assert path.lstat().st_mode & 0o077 == 0, path


async def test_a_directory_that_others_may_enter_is_not_connected_to(tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    (tmp_path / "open").chmod(0o755)
    store = Milvus(MilvusSettings(uri=str(tmp_path / "open")))
    with pytest.raises(StoreRefused, match="private"):
        await store.ping()
