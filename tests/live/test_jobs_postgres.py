"""The queue of jobs on a real Postgres: what SQLite cannot show, and the tests that run on SQLite, again."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import asdict, replace
from pathlib import Path

import pytest
from pydantic import SecretStr
from sqlalchemy import insert, select

from crawler.stores.milvus import Milvus
from plugins.collections import tables
from plugins.collections.changes import changed
from plugins.collections.placing import find
from plugins.core.document_shapes import DocumentView
from tests.live.litellm_database import postgres, postgres_folder
from tests.support.collections import LIMIT_S, World, a_config, lite, make_tables, store
from tests.support.proxy import ROOT

__all__ = ["lite", "store"]

RERUN_S = 1800
SAME = (
    "tests/unit/collections/test_fairness.py",
    "tests/unit/collections/test_jobs.py",
    "tests/unit/collections/test_live_revision.py",
    "tests/unit/collections/test_quotas.py",
    "tests/unit/worker/test_worker.py",
    "tests/unit/worker/test_stages.py",
    "tests/unit/worker/test_reindex.py",
    "tests/unit/worker/test_delete.py",
    "tests/unit/collections/test_expiry.py",
)


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    path = f"{os.environ.get('PATH', '')}:{postgres_folder()}"
    if missing := [name for name in ("initdb", "postgres") if shutil.which(name, path=path) is None]:
        pytest.skip(f"{', '.join(missing)} not found (package postgresql)")
    with postgres(path) as found:
        yield found.replace("postgresql://", "postgresql+asyncpg://")


@pytest.fixture
async def world(tmp_path: Path, store: Milvus, url: str) -> AsyncIterator[World]:
    config = a_config(tmp_path)
    storage = config.storage.model_copy(update={"database": SecretStr(url)})
    config = config.model_copy(update={"storage": storage})
    await make_tables(config)
    made = World(config, store)
    yield made
    await made.database.close()


async def copies(world: World, document: DocumentView, count: int, uploaded_by: str) -> None:
    """More rows like the document's."""
    async with world.database.write() as connection:
        row = await find(connection, document.collection_id, document.id)
        assert row is not None
        for start in range(0, count, 1000):
            rows = [
                asdict(replace(row, id=f"copy-{number}", job_id=f"job_{number}", uploaded_by=uploaded_by))
                for number in range(start, min(count, start + 1000))
            ]
            await connection.execute(insert(tables.documents), rows)


@pytest.mark.parametrize("file", SAME)
def test_what_holds_on_sqlite_holds_on_postgres(url: str, file: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-p", "no:cacheprovider", file],
        cwd=ROOT,
        env=os.environ | {"TEST_DATABASE_URL": url},
        capture_output=True,
        text=True,
        timeout=RERUN_S,
        check=False,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert "passed" in done.stdout


async def test_many_takers_at_once_take_each_document_once(world: World) -> None:
    await world.collection()
    await copies(world, await world.add("handbook", "the words"), 60, "kc/bob")
    others = [World(world.config, world.store) for _ in range(4)]

    async def take_all(taker: World) -> list[str]:
        found = []
        while (job := await taker.queue.take()) is not None:
            found.append(job.document.id)
        return found

    taken = Counter(name for names in await asyncio.gather(*map(take_all, others)) for name in names)
    for other in others:
        await other.database.close()
    while (job := await world.queue.take()) is not None:  # whom all passed by at the same moment
        taken[job.document.id] += 1
    assert len(taken) == 61
    assert set(taken.values()) == {1}


async def test_a_document_that_another_transaction_holds_is_passed_by(world: World) -> None:
    await world.collection()
    first = await world.add("handbook", "the first")
    second = await world.add("handbook", "the second")
    table = tables.documents
    async with world.database.write() as connection:
        await connection.execute(select(table.c.id).where(table.c.id == first.id).with_for_update())
        job = await asyncio.wait_for(world.queue.take(), LIMIT_S)
        assert job is not None
        assert job.document.id == second.id


async def test_changes_are_seen_in_the_order_of_their_numbers(world: World) -> None:
    """Who has seen a number has seen all before it, however the transactions overlap."""
    await world.collection()
    await copies(world, await world.add("handbook", "the words"), 20, "kc/alice")
    collection = (await world.catalogue.get(world.alice, "handbook")).id
    ended = asyncio.Event()
    table = tables.documents

    async def change(number: int) -> None:
        for _ in range(10):
            async with world.database.write() as connection:
                await changed(connection, [(collection, f"copy-{number}")])

    async def watch() -> None:
        newest, seen = 0, dict[str, int]()
        while not ended.is_set():
            async with world.database.read() as connection:
                query = select(table.c.id, table.c.change).order_by(table.c.change)
                rows = (await connection.execute(query)).all()
            for row in rows:
                if row.change != seen.get(row.id):
                    assert row.change > newest
            newest = max(row.change for row in rows)
            seen = {row.id: row.change for row in rows}

    watching = asyncio.create_task(watch())
    await asyncio.gather(*(change(number) for number in range(20)))
    ended.set()
    await watching
