"""How much work waits."""

from __future__ import annotations

from plugins.collections.backlog import STAGES, backlog
from plugins.collections.jobs import Queue
from tests.support.collections import World, an_upload


async def test_what_is_uploaded_waits_until_a_worker_takes_it_and_is_gone_when_it_is_done(
    world: World,
) -> None:
    await world.collection()
    await world.documents.add(world.alice, "handbook", [an_upload("one"), an_upload("two")])
    waiting = await backlog(world.database)
    assert (waiting.documents, waiting.pending) == ({("queued", "waiting"): 2}, 2)
    assert waiting.age_s > 0
    assert await Queue(world.database, lease_s=60, max_attempts=5).take() is not None
    assert (await backlog(world.database)).documents == {
        ("queued", "waiting"): 1,
        ("queued", "in_progress"): 1,
    }


async def test_a_failed_document_is_counted_in_the_stage_in_which_it_failed(world: World) -> None:
    await world.collection()
    await world.documents.add(world.alice, "handbook", [an_upload(" ")])
    await world.work()
    found = await backlog(world.database)
    assert sum(count for (_, state), count in found.documents.items() if state == "failed") == 1
    assert {stage for stage, _ in found.documents} <= set(STAGES)
    assert found.age_s == 0


async def test_nothing_waits_where_nothing_was_uploaded(world: World) -> None:
    found = await backlog(world.database)
    assert (found.documents, found.pending, found.age_s) == ({}, 0, 0.0)
