"""Whose document is next: all have their turn, some go first, and many documents of one are no hindrance."""

from __future__ import annotations

import asyncio
from dataclasses import asdict, replace
from typing import Any

from sqlalchemy import Engine, event, insert, text

from plugins.collections import tables
from plugins.collections.jobs import Job
from plugins.collections.placing import find
from plugins.core.config import Priority, WorkerConfig
from tests.support.collections import World, an_upload, person

BOB, CAROL = person("bob"), person("carol", "urgent")
WRITERS = ["user:kc/bob", "user:kc/carol"]


async def upload(world: World, who: Any, count: int) -> None:
    texts = [an_upload(f"{who.username} {number}") for number in range(count)]
    await world.documents.add(who, "handbook", texts)


async def taken(world: World, count: int) -> list[str]:
    """Who uploaded the next documents, each of which is done before the next is taken."""
    found = []
    for _ in range(count):
        job = await world.queue.take()
        assert job is not None
        found.append(job.document.uploaded_by)
        await world.queue.complete(job, chunks=1, pages=None, title=None)
    return found


async def test_one_persons_many_documents_let_everybody_elses_through(world: World) -> None:
    await world.collection(add=WRITERS)
    await upload(world, world.alice, 6)
    assert await taken(world, 2) == ["kc/alice"] * 2
    await upload(world, BOB, 2)
    await upload(world, CAROL, 1)
    assert await taken(world, 3) == ["kc/bob", "kc/carol", "kc/alice"]
    assert await taken(world, 4) == ["kc/bob", "kc/alice", "kc/alice", "kc/alice"]
    assert await world.queue.take() is None


async def test_documents_of_a_dropped_collection_are_nobodys_turn(world: World) -> None:
    await world.collection()
    await upload(world, world.alice, 1)
    await world.catalogue.drop(world.alice, "handbook")
    assert await world.queue.take() is None


async def test_somebodys_documents_are_taken_in_the_order_of_their_upload(world: World) -> None:
    await world.collection()
    added = [await world.add("handbook", f"text {number}") for number in range(3)]
    jobs = [await world.queue.take() for _ in added]
    assert [job and job.document.id for job in jobs] == [document.id for document in added]


async def test_documents_of_a_higher_priority_are_taken_first(world: World) -> None:
    settings: dict[str, Any] = {
        "worker": WorkerConfig(
            priorities=[
                Priority(subjects=["group:kc/urgent"], priority=10),
                Priority(subjects=["user:kc/bob"], priority=-10),
            ]
        )
    }
    ranked = World(world.config.model_copy(update=settings), world.store)
    await world.collection(add=WRITERS)
    for who in (BOB, world.alice, CAROL):
        await upload(ranked, who, 2)
    await ranked.database.close()
    assert await taken(world, 6) == ["kc/carol"] * 2 + ["kc/alice"] * 2 + ["kc/bob"] * 2


async def test_takers_at_the_same_moment_take_different_documents(world: World) -> None:
    await world.collection(add=WRITERS)
    for who in (world.alice, BOB, CAROL):
        await upload(world, who, 4)
    taken_at_once: list[Job | None] = []
    while len(taken_at_once) < 12:
        round_ = await asyncio.gather(*(world.queue.take() for _ in range(4)))
        taken_at_once += [job for job in round_ if job is not None]
    ids = [job.document.id for job in taken_at_once if job is not None]
    assert len(set(ids)) == len(ids) == 12
    assert await world.queue.take() is None


async def test_thousands_of_documents_of_one_person_are_not_read_to_find_the_next(world: World) -> None:
    await world.collection(add=WRITERS)
    first = await world.add("handbook", "the first")
    async with world.database.write() as connection:
        row = await find(connection, first.collection_id, first.id)
        assert row is not None
        for start in range(0, 3000, 500):
            many = [
                asdict(replace(row, id=f"many-{number}", job_id=f"job_{number}"))
                for number in range(start, start + 500)
            ]
            await connection.execute(insert(tables.documents), many)
        if connection.dialect.name == "postgresql":
            await connection.execute(text("ANALYZE documents"))
    await upload(world, BOB, 1)
    statements: list[tuple[str, Any]] = []

    def note(_c: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    assert await world.queue.take() is not None
    event.listen(Engine, "before_cursor_execute", note)
    job = await world.queue.take()
    event.remove(Engine, "before_cursor_execute", note)
    assert job is not None
    looked = [(sql, given) for sql, given in statements if sql.lstrip().startswith(("WITH", "SELECT"))]
    explain = "EXPLAIN QUERY PLAN" if world.database.sqlite else "EXPLAIN"
    async with world.database.read() as connection:
        plans = [
            "\n".join(str(row) for row in await connection.exec_driver_sql(f"{explain} {sql}", given))
            for sql, given in looked
        ]
    assert any("ix_documents_pending" in plan for plan in plans)
    for plan in plans:
        assert "SCAN documents" not in plan
        assert "Seq Scan on documents" not in plan
