"""A worker that takes up another configuration: jobs in progress keep theirs, the next ones follow it."""

from __future__ import annotations

import asyncio

from plugins.worker.ingest import Ingest
from tests.support.collections import LIMIT_S, ModelCrawlers, World

TEXT = "\n\n".join(f"# Part {number}\n\n{'word ' * 120}" for number in range(4))
"""Of several passages."""


async def test_a_job_in_progress_keeps_its_pipeline_and_the_next_one_has_the_new(world: World) -> None:
    await world.collection()
    first = await world.add("handbook", TEXT)
    world.model.waits = asyncio.Event()
    worker, stop = world.worker(), asyncio.Event()
    running = asyncio.create_task(worker.run(stop))
    try:
        async with asyncio.timeout(LIMIT_S):
            await world.model.called.wait()
        narrow = {"default": {"limits": {"max_chunks": 1}}}
        config = world.config.model_copy(update={"pipelines": narrow})
        crawlers = ModelCrawlers(config, world.store, world.model)
        worker.take_up(
            Ingest(world.queue, world.originals, world.store, crawlers, world.quotas, max_bytes=10**6)
        )
        second = await world.add("handbook", f"{TEXT}\n\nAnother.")
        world.model.waits.set()
        await world.until(world.idle)
    finally:
        stop.set()
        await running
    done = await world.documents.get(world.alice, "handbook", first.id)
    failed = await world.documents.get(world.alice, "handbook", second.id)
    assert (done.status, failed.status) == ("completed", "failed")
    assert failed.last_error is not None
    assert failed.last_error.code == "document_too_large"
