"""Passwords that are tried at once, at several processes on a real Postgres."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Iterator

import pytest
from sqlalchemy import func, select

from plugins.auth._attempts import Attempts
from plugins.collections import tables
from plugins.collections.database import Database, migrate
from plugins.core.errors import LimitReached
from tests.live.litellm_database import postgres, postgres_folder

TIMES = 20
PROCESSES = 6


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    path = f"{os.environ.get('PATH', '')}:{postgres_folder()}"
    if missing := [name for name in ("initdb", "postgres") if shutil.which(name, path=path) is None]:
        pytest.skip(f"{', '.join(missing)} not found (package postgresql)")
    with postgres(path) as found:
        made = found.replace("postgresql://", "postgresql+asyncpg://")
        migrate(made)
        yield made


async def test_sign_ins_of_one_person_at_once_neither_fail_nor_leave_anything(url: str) -> None:
    databases = [Database(url) for _ in range(PROCESSES)]

    async def sign_in_again_and_again(database: Database) -> None:
        attempts = Attempts(database)
        for _ in range(TIMES):
            try:
                await attempts.begin("alice", "10.0.0.1")
            except LimitReached:  # while the others' tries are not known to be right
                continue
            await attempts.succeeded("alice", "10.0.0.1")

    await asyncio.gather(*map(sign_in_again_and_again, databases))
    async with databases[0].read() as connection:
        left = await connection.scalar(select(func.coalesce(func.sum(tables.attempts.c.failures), 0)))
    assert left == 0
    for database in databases:
        await database.close()
