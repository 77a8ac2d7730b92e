"""The database, the data directory and Redis, looked at without writing anything."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import aiosqlite
from alembic.config import Config as AlembicConfig
from alembic.script import ScriptDirectory
from sqlalchemy import make_url, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection, create_async_engine
from sqlalchemy.pool import NullPool

from crawler.conversion import Confinement
from plugins.bundle.doctor.findings import Notes, counted, reason
from plugins.collections import database, tables
from plugins.collections.database import database_url
from plugins.collections.storage import find_originals
from plugins.core.config import StorageConfig
from plugins.core.errors import Upstream
from plugins.proxy.probe import ping_redis

MIGRATIONS = Path(database.__file__).parent / "migrations"
MAX_CHECK_BYTES = 256 * 2**20
"""A larger SQLite file is not read through."""
LOW_BYTES, FULL_BYTES = 2 * 2**30, 100 * 2**20
REDIS_S = 5.0

Rows = Sequence[Mapping[str, Any]]
"""Of the collections' table."""


def examine_conversion(notes: Notes, confinement: Confinement) -> None:
    """What holds the process that reads uploaded files, beside its limits."""
    if confinement.seccomp and confinement.landlock:
        notes.ok(f"{confinement}; memory, time and open files: limits")
    else:
        notes.warn(
            f"conversions of uploaded files are confined in part only ({confinement})",
            "Run the worker on Linux with Landlock and seccomp, or in a container of its own without a route "
            "outside and with little on its disk: docs/security.md, *A hostile file*.",
        )


@asynccontextmanager
async def reading(url: str, file: Path | None) -> AsyncIterator[AsyncConnection]:
    """A connection that cannot write, nor leave a file beside SQLite's ``file``."""
    if file is None:
        engine = create_async_engine(url, hide_parameters=True)
    else:
        uri = read_only(file)
        engine = create_async_engine(
            "sqlite+aiosqlite://", async_creator=lambda: aiosqlite.connect(uri, uri=True), poolclass=NullPool
        )
    try:
        async with engine.connect() as connection:
            if file is None:
                await connection.execute(text("SET TRANSACTION READ ONLY"))
            yield connection
    finally:
        await engine.dispose()


def read_only(file: Path) -> str:
    """SQLite's URI; without a journal nobody has the file open, and none need be made to read it."""
    journal = file.with_name(f"{file.name}-wal").exists()
    return f"{file.absolute().as_uri()}?mode=ro{'' if journal else '&immutable=1'}"


async def examine_originals(notes: Notes, storage: StorageConfig) -> None:
    """Where uploaded files are kept answers; nothing is written there."""
    plugin, settings = find_originals(storage)
    with TemporaryDirectory() as spool:
        originals = plugin(settings, Path(spool))
        try:
            await originals.ping()
        except Upstream as error:
            notes.fail(
                f"`{storage.originals.use}` does not answer ({reason(error)})",
                "See that storage.originals names what is there, and a key that may read and write it.",
            )
        else:
            notes.ok(f"`{storage.originals.use}` answers")
        finally:
            await originals.close()


async def examine_database(notes: Notes, storage: StorageConfig, rows: list[Mapping[str, Any]]) -> None:
    """Reachable, of this version, whole; the rows of the collections are added to ``rows``."""
    url = make_url(database_url(storage))
    kind = url.get_backend_name()
    file = Path(str(url.database)) if kind == "sqlite" else None
    where = file or f"{url.host}/{url.database}"
    if file and size_of(file) is None:
        notes.warn(f"there is none yet at {file}", "The first start makes it; nothing to do.")
        return
    try:
        async with reading(url.render_as_string(hide_password=False), file) as connection:
            notes.ok(f"{kind} at {where} can be read")
            if await check_revision(notes, connection):
                found = (await connection.execute(select(tables.collections))).mappings()
                rows.extend(dict(row) for row in found)
                notes.ok(f"it has {counted(len(rows), 'collection')}")
            if file and (size_of(file) or 0) <= MAX_CHECK_BYTES:
                await check_integrity(notes, connection)
    except (SQLAlchemyError, sqlite3.Error, OSError) as error:
        notes.fail(
            f"{kind} at {where} cannot be read: {reason(error)}",
            "Check storage.database: address, user, password, and that the file or the server is there.",
        )


def size_of(file: Path) -> int | None:
    """In bytes; None where there is no such file."""
    return file.stat().st_size if file.is_file() else None


async def check_revision(notes: Notes, connection: AsyncConnection) -> bool:
    """Whether the tables are those of this version."""
    config = AlembicConfig()
    config.set_main_option("script_location", str(MIGRATIONS))
    known = [script.revision for script in ScriptDirectory.from_config(config).walk_revisions()]
    try:
        found = (await connection.execute(text("SELECT version_num FROM alembic_version"))).scalar()
    except SQLAlchemyError:
        await connection.rollback()
        notes.warn("it has no tables of ours yet", "The first start makes them; nothing to do.")
        return False
    if found == known[0]:
        notes.ok(f"its tables are of this version (revision {found})")
        return True
    if found in known:
        notes.warn(
            f"its tables are of revision {found}, and this version's is {known[0]}",
            "The next start migrates them: make a backup before.",
        )
    else:
        notes.fail(
            f"its tables are of an unknown revision ({found}): a newer version made them",
            "Install that version, or restore a backup.",
        )
    return False


async def check_integrity(notes: Notes, connection: AsyncConnection) -> None:
    answer = (await connection.execute(text("PRAGMA quick_check(1)"))).scalar()
    if answer == "ok":
        notes.ok("SQLite finds it whole (quick_check)")
    else:
        notes.fail("SQLite finds it damaged (quick_check)", "Stop the proxy and restore a backup.")


def examine_data_dir(notes: Notes, path: Path) -> None:
    """Mode, owner, whether it can be written, and how much room is left there."""
    if not path.exists():
        parent = next(found for found in path.absolute().parents if found.exists())
        if os.access(parent, os.W_OK | os.X_OK):
            notes.warn(
                f"there is no {path} yet", "The first start makes it; check DATA_DIR if it should be there."
            )
        else:
            notes.fail(
                f"there is no {path}, and {parent} cannot be written to make it",
                "Make it and give it to the user who runs the proxy, or set DATA_DIR.",
            )
        check_space(notes, parent)
        return
    found = path.stat()
    if not stat.S_ISDIR(found.st_mode):
        notes.fail(f"{path} is no directory", "Set DATA_DIR (storage.data_dir) to a directory.")
        return
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        notes.fail(f"{path} cannot be written by this user", "Give it to the user who runs the proxy.")
    elif found.st_mode & 0o077:
        mode = stat.S_IMODE(found.st_mode)
        notes.warn(f"{path} has mode {mode:o}: others can enter it", f"Run `chmod 700 {path}`.")
    else:
        notes.ok(f"{path} can be written, and is for its owner only")
    check_space(notes, path)


def check_space(notes: Notes, path: Path) -> None:
    usage = shutil.disk_usage(path)
    found = f"{usage.free / 2**30:.1f} GiB are free of {usage.total / 2**30:.1f}"
    if usage.free < FULL_BYTES:
        notes.fail(found, "Make room: uploads and the database need it.")
    elif usage.free < LOW_BYTES:
        notes.warn(found, "Make room soon.")
    else:
        notes.ok(found)


async def examine_redis(notes: Notes, settings: Mapping[str, Any]) -> None:
    try:
        await ping_redis(settings, REDIS_S)
        notes.ok("answers")
    except Upstream as error:
        notes.fail(f"does not answer: {error.message}", "Check its address and password in LiteLLM's YAML.")
