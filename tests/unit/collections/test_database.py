"""The database: made by its migrations, by several processes at once, and unreachable."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from pydantic import SecretStr
from sqlalchemy import Connection, insert, select, text

from plugins.collections.database import UNAVAILABLE, Database, database_url, migrate
from plugins.collections.tables import collections, metadata, workers
from plugins.core.config import StorageConfig
from plugins.core.errors import ConfigError, Upstream


def differences(connection: Connection) -> list[object]:
    return list(compare_metadata(MigrationContext.configure(connection), metadata))


async def test_the_migrations_make_the_tables_that_the_code_expects(tmp_path: Path) -> None:
    url = database_url(StorageConfig(data_dir=tmp_path / "data"))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(migrate, [url] * 4))
    database = Database(url)
    async with database.read() as connection:
        assert await connection.run_sync(differences) == []
    await database.close()


async def test_a_database_of_a_newer_version_is_refused(tmp_path: Path) -> None:
    url = database_url(StorageConfig(data_dir=tmp_path))
    migrate(url)
    database = Database(url)
    async with database.write() as connection:
        await connection.execute(text("UPDATE alembic_version SET version_num = '9999'"))
    await database.close()
    with pytest.raises(ConfigError, match="newer version"):
        migrate(url)


def test_a_database_that_cannot_be_opened_is_told_without_its_address(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError) as refused:
        migrate(f"sqlite+aiosqlite:///{tmp_path}/file/x.db")
    assert str(tmp_path) not in str(refused.value)


async def test_a_database_that_is_gone_is_an_upstream_error(tmp_path: Path) -> None:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/no/such.db")
    with pytest.raises(Upstream) as refused:
        async with database.read() as connection:
            await connection.execute(select(collections))
    assert str(tmp_path) not in refused.value.message
    await database.close()


async def test_requests_cancelled_at_any_moment_leave_no_lock_and_no_half_write(
    tmp_path: Path,
) -> None:
    url = database_url(StorageConfig(data_dir=tmp_path))
    migrate(url)
    database = Database(url)
    threads = threading.active_count()

    async def write(name: str) -> None:
        async with database.write() as connection:
            for part in ("a", "b"):
                await connection.execute(insert(workers).values(id=f"{name}-{part}", seen_at=0.0))

    await write("warm")
    for steps in range(120):
        task = asyncio.create_task(write(str(steps)))
        for _ in range(steps * 5):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task], timeout=30)
    async with asyncio.timeout(30):
        await write("last")
        async with database.read() as connection:
            found = [row.id for row in await connection.execute(select(workers.c.id))]
    names = {identifier.partition("-")[0] for identifier in found}
    assert {"warm", "last"} <= names
    assert len(found) == 2 * len(names)
    await database.close()
    async with asyncio.timeout(30):
        while threading.active_count() > threads:  # noqa: ASYNC110 - no leak of threads
            await asyncio.sleep(0.01)


def test_urls_get_an_asynchronous_driver() -> None:
    storage = StorageConfig(database=SecretStr("postgresql://u:p@host/db"))
    assert database_url(storage) == "postgresql+asyncpg://u:p@host/db"


def test_only_the_owner_can_hold_up_the_migrations(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        migrate(database_url(StorageConfig(data_dir=tmp_path)))
    finally:
        os.umask(before)
    assert {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()} == {
        "collections.db": 0o600,
        "collections.lock": 0o600,
    }


class Fake:
    """A Postgres as far as an error: to whoever connects it says that, or nothing at all."""

    def __init__(self, says: bytes = b"") -> None:
        self._says = says
        self.writers: list[asyncio.StreamWriter] = []

    async def connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        if self._says:
            await reader.read(8)  # whether TLS is spoken
            writer.write(b"N")
            await reader.read(1024)
            writer.write(self._says)
            await writer.drain()


@asynccontextmanager
async def postgres(fake: Fake) -> AsyncIterator[Database]:
    server = await asyncio.start_server(fake.connected, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    database = Database(f"postgresql+asyncpg://user@127.0.0.1:{port}/none")
    try:
        yield database
    finally:
        await database.close()
        server.close()
        for writer in fake.writers:
            writer.close()


async def refusal(database: Database) -> Upstream:
    with pytest.raises(Upstream) as refused:
        async with asyncio.timeout(30), database.read():
            pass
    return refused.value


async def test_a_postgres_that_gives_no_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.collections.database.CONNECT_S", 0.1)
    async with postgres(Fake()) as database:
        assert (await refusal(database)).message == UNAVAILABLE


@pytest.mark.parametrize("state", ["57P03", "53300"], ids=["starting", "too many connections"])
async def test_a_postgres_that_takes_nobody_now_is_an_upstream_error(state: str) -> None:
    fields = f"SFATAL\0VFATAL\0C{state}\0Mnot now\0\0".encode()
    async with postgres(Fake(b"E" + (len(fields) + 4).to_bytes(4) + fields)) as database:
        assert (await refusal(database)).message == UNAVAILABLE


async def test_a_transaction_that_hangs_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.collections.database.TRANSACTION_S", 0.1)
    async with postgres(Fake()) as database:
        with pytest.raises(Upstream) as refused:
            async with asyncio.timeout(4), database.read():  # sooner than the connection is given up
                pass
    assert refused.value.message == UNAVAILABLE
