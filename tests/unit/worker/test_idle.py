"""What a worker costs that has nothing to do."""

from __future__ import annotations

import pytest

from plugins.collections.jobs import Job, Queue
from tests.support.collections import World


async def test_one_loop_looks_for_all_that_wait(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    take, looking, together, asked = Queue.take, 0, 0, 0

    async def counted(self: Queue) -> Job | None:
        nonlocal looking, together, asked
        looking, asked = looking + 1, asked + 1
        together = max(together, looking)
        try:
            return await take(self)
        finally:
            looking -= 1

    monkeypatch.setattr(Queue, "take", counted)
    world.concurrency = 4
    await world.collection()
    async with world.working():
        document = await world.add("handbook", "the text")

        async def completed() -> bool:
            done = await world.documents.get(world.alice, "handbook", document.id)
            return done.status == "completed" and asked > world.concurrency

        await world.until(completed)
    assert together == 1
