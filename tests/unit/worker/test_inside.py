"""Files that were in a document become rows, within what their uploader and the collection may hold."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import pytest
from sqlalchemy import event, select, update
from sqlalchemy.engine import Engine

from crawler.contracts import audience_key
from plugins.collections import tables
from plugins.collections.jobs import Job
from plugins.collections.members import Member
from plugins.collections.records import now
from plugins.core.config import CollectionQuota, LimitsConfig, Quota
from plugins.core.document_shapes import DocumentPatch
from plugins.worker.inside import take_members
from tests.support.collections import World

Limited = Callable[..., World]


@pytest.fixture
async def limited(world: World) -> AsyncIterator[Limited]:
    """The same installation with limits."""
    made: list[World] = []

    def make(**limits: Any) -> World:
        made.append(World(world.config.model_copy(update={"limits": LimitsConfig(**limits)}), world.store))
        return made[-1]

    yield make
    for other in made:
        await other.database.close()


def files(*texts: str) -> list[Member]:
    return [
        Member(place, f"{place}.txt", None, len(text), hashlib.sha256(text.encode()).hexdigest())
        for place, text in enumerate(texts)
    ]


async def taken(world: World) -> Job:
    """The job whose turn it is."""
    job = await world.queue.take()
    assert job is not None
    return job


async def states(world: World) -> list[tuple[str, int]]:
    """Status and size of each file inside, in their order."""
    table = tables.documents
    query = select(table.c.status, table.c.size).where(table.c.parent_id.is_not(None)).order_by(table.c.id)
    async with world.database.read() as connection:
        return [(row.status, row.size) for row in await connection.execute(query)]


async def counts(world: World, members: Sequence[Member]) -> int:
    """How often what is held is counted while the files are taken."""
    job, asked = await taken(world), []

    def heard(_connection: Any, _cursor: Any, statement: str, *_rest: Any) -> None:
        asked.extend([statement] if "count(" in statement else [])

    event.listen(Engine, "before_cursor_execute", heard)
    try:
        await take_members(world.queue, job, members, world.quotas)
    finally:
        event.remove(Engine, "before_cursor_execute", heard)
    return len(asked)


async def test_what_is_held_is_counted_as_often_for_many_files_as_for_one(
    world: World, limited: Limited
) -> None:
    strict = limited(
        quotas=[Quota(subjects=["*"], max_documents=5)],
        collections=[CollectionQuota(names="*", max_documents=100)],
    )
    await world.collection()
    await world.add("handbook", "first")
    once = await counts(strict, files("a"))
    await world.add("handbook", "second")
    assert await counts(strict, files(*(f"text {number}" for number in range(50)))) == once > 0
    assert [status for status, _ in await states(world)].count("in_progress") == 3


async def test_a_smaller_file_is_taken_behind_one_that_is_too_large(world: World, limited: Limited) -> None:
    strict = limited(quotas=[Quota(subjects=["*"], max_bytes=20, max_bytes_per_day=8)])
    await world.collection()
    await world.add("handbook", "0123456789")
    job = await taken(strict)
    refused, left_out = await take_members(
        strict.queue, job, files("1234", "x" * 30, "12345", "1234"), strict.quotas
    )
    assert (len(refused), left_out) == (2, [])
    assert await states(world) == [("in_progress", 4), ("failed", 0), ("failed", 0), ("in_progress", 4)]
    again, _ = await take_members(strict.queue, job, [Member(9, "9.txt", None, 1, "0" * 64)], strict.quotas)
    assert len(again) == 1, "the day's bytes were noted"


async def test_files_have_the_expiry_the_audience_and_the_attributes_of_their_document_as_it_is_now(
    world: World,
) -> None:
    await world.collection()
    document = await world.add("handbook", "the archive")
    job = await taken(world)
    end = now() + 3600
    await world.documents.change(world.alice, "handbook", document.id, DocumentPatch(expires_at=end))
    acl, table = ["user:kc/bob"], tables.documents
    async with world.database.write() as connection:  # as a document that it is in gives it another audience
        values = {"acl": acl, "acl_key": audience_key(acl), "attributes": {"year": 2026}}
        await connection.execute(update(table).where(table.c.id == document.id).values(**values))
    await take_members(world.queue, job, files("a"), world.quotas)
    async with world.database.read() as connection:
        [row] = await connection.execute(select(table).where(table.c.parent_id == document.id))
    assert (row.expires_at, row.acl, row.acl_key, row.attributes) == (
        end,
        acl,
        audience_key(acl),
        {"year": 2026},
    )
