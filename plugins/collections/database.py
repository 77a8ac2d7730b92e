"""The SQL database: opened at first use, migrated synchronously at start.

SQLite (WAL) by default, Postgres in production; the statements are the same for both.
"""

from __future__ import annotations

import asyncio
import fcntl
import os
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.util import CommandError
from sqlalchemy import Connection, event, make_url, text
from sqlalchemy.exc import DBAPIError, InterfaceError, OperationalError, SQLAlchemyError
from sqlalchemy.exc import TimeoutError as PoolTimeout
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from plugins.core.config import StorageConfig
from plugins.core.errors import ConfigError, Upstream

SQLITE_FILE = "collections.db"
MIGRATION_LOCK = 0x636F6C6C
"""The key of Postgres' advisory lock, the same in every process of the product."""

BUSY_TIMEOUT_S = 30
"""SQLite: how long a transaction waits for the lock."""
CONNECT_S = 5.0
TRANSACTION_S = 20.0
"""Postgres: how long a transaction may take, from waiting for a connection to its end. A server that hangs
sends nothing that would end a statement."""
LOST = ("08", "40", "53", "57")
"""Classes of SQLSTATE that are not a statement's own fault: connection, deadlock, resources, shutting down.
https://www.postgresql.org/docs/current/errcodes-appendix.html"""
UNAVAILABLE = "The database of the collections is not available at the moment. Try again in a few seconds."


def database_url(storage: StorageConfig) -> str:
    """The SQLAlchemy URL that the settings mean, with an asynchronous driver."""
    if storage.database is None:
        path = storage.data_dir.absolute() / SQLITE_FILE
        return f"sqlite+aiosqlite:///{path}"
    url = make_url(storage.database.get_secret_value())
    driver = {"sqlite": "sqlite+aiosqlite", "postgresql": "postgresql+asyncpg"}[url.get_backend_name()]
    return url.set(drivername=driver).render_as_string(hide_password=False)


class Database:
    """Transactions on the database of collections. One object per process and event loop."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._engine: AsyncEngine | None = None
        self._limit_s = None if self.sqlite else TRANSACTION_S

    @property
    def sqlite(self) -> bool:
        return make_url(self._url).get_backend_name() == "sqlite"

    @asynccontextmanager
    async def read(self) -> AsyncIterator[AsyncConnection]:
        """A connection for reading; on SQLite each statement sees what is committed by then.

        Raises:
            Upstream: The database cannot be reached, or gives no answer in time.
        """
        async with self._transaction(write=False) as connection:
            yield connection

    @asynccontextmanager
    async def write(self) -> AsyncIterator[AsyncConnection]:
        """A transaction that may write; committed at the end, rolled back when an error leaves it.

        Raises:
            Upstream: The database cannot be reached, or gives no answer in time.
        """
        async with self._transaction(write=True) as connection:
            yield connection

    @asynccontextmanager
    async def _transaction(self, *, write: bool) -> AsyncIterator[AsyncConnection]:
        if self._engine is None:
            self._engine = open_engine(self._url)
        try:
            # Cancelling, as this does, drops the connection; asyncpg's own timeout of a statement would keep
            # it, and wait without end for the server to say that it has stopped.
            async with asyncio.timeout(self._limit_s), self._engine.connect() as connection:
                await connection.execution_options(write=write)
                async with connection.begin():
                    yield connection
        except Exception as error:
            if not _is_gone(error):
                raise
            raise Upstream(UNAVAILABLE, retry_after_s=2) from error

    async def close(self) -> None:
        if self._engine is not None:
            await self._engine.dispose()
            self._engine = None


def _is_gone(error: Exception) -> bool:
    """Whether it says that the database cannot be had, rather than something about a statement."""
    if isinstance(error, OperationalError | InterfaceError | PoolTimeout | ConnectionError | TimeoutError):
        return True
    if isinstance(error, DBAPIError) and error.connection_invalidated:
        return True
    # while connecting, asyncpg's errors come as they are
    state = getattr(error.orig if isinstance(error, DBAPIError) else error, "sqlstate", None)
    return isinstance(state, str) and state.startswith(LOST)


def open_engine(url: str) -> AsyncEngine:
    """An engine; on SQLite with WAL, foreign keys and write transactions that lock at their beginning."""
    if not url.startswith("sqlite"):
        return create_async_engine(
            url, pool_pre_ping=True, hide_parameters=True, connect_args={"timeout": CONNECT_S}
        )
    engine = create_async_engine(url, hide_parameters=True)

    @event.listens_for(engine.sync_engine, "connect")
    def prepare(connection: Any, _record: object) -> None:
        connection.isolation_level = None  # we say BEGIN ourselves, below
        cursor = connection.cursor()
        for pragma in (
            f"busy_timeout = {BUSY_TIMEOUT_S * 1000}",
            "journal_mode = WAL",
            "synchronous = FULL",  # an acknowledged upload outlives a power cut
            "foreign_keys = ON",
        ):
            cursor.execute(f"PRAGMA {pragma}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def begin(connection: Connection) -> None:
        # Reads are single statements. A deferred transaction that later writes would fail at once when
        # another one wrote meanwhile.
        if connection.get_execution_options().get("write", False):
            connection.exec_driver_sql("BEGIN IMMEDIATE")

    return engine


def migrate(url: str) -> None:
    """Bring the database to this version's tables. Blocks; safe from several processes at once.

    Raises:
        ConfigError: The database cannot be reached, or is of a newer version.
    """
    with ThreadPoolExecutor(1) as pool:  # the caller's thread may have a running loop
        try:
            pool.submit(asyncio.run, _migrate(url)).result()
        except CommandError as error:
            message = "the database was made by a newer version of this product; install that, or restore"
            raise ConfigError([f"storage.database: {message} a backup"]) from error
        except (SQLAlchemyError, OSError, ImportError) as error:
            raise ConfigError(
                [f"storage.database: cannot be opened or migrated ({type(error).__name__})"]
            ) from error


async def _migrate(url: str) -> None:
    path = make_url(url).database if url.startswith("sqlite") else None
    with _file_lock(Path(path)) if path else _no_lock():
        engine = open_engine(url)
        try:
            async with engine.connect() as connection:
                await connection.execution_options(write=True)
                async with connection.begin():
                    if not path:
                        lock = text("SELECT pg_advisory_xact_lock(:key)")
                        await connection.execute(lock, {"key": MIGRATION_LOCK})
                    await connection.run_sync(_upgrade)
        finally:
            await engine.dispose()


def _upgrade(connection: Connection) -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")


@contextmanager
def _file_lock(database: Path) -> Iterator[None]:
    database.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    database.touch(mode=0o600)
    # readable by nobody else: who can open it can lock it
    handle = os.open(database.with_suffix(".lock"), os.O_RDWR | os.O_CREAT, 0o600)
    with os.fdopen(handle, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@contextmanager
def _no_lock() -> Iterator[None]:
    yield
