"""Streams of jobs, and the end of the process that they are in."""

from __future__ import annotations

import asyncio

from plugins.collections.job_service import JobService
from tests.support.collections import LIMIT_S, World


async def test_streams_end_when_their_process_does_and_go_on_elsewhere(world: World) -> None:
    collection = await world.collection()
    first = await world.add("handbook", "the first")
    stopping = asyncio.Event()
    ending, other = (JobService(world.database, world.rights, event) for event in (stopping, asyncio.Event()))
    stream = await ending.follow_collection(world.alice, collection.id, None)
    events = stream.events()
    async with asyncio.timeout(LIMIT_S):
        seen = await anext(events)
        stopping.set()
        assert [event async for event in events] == []
        second = await world.add("handbook", "the second")
        resumed = await other.follow_collection(world.alice, collection.id, seen.number)
        following = await anext(resumed.events())
    assert [event.job and event.job.document_id for event in (seen, following)] == [first.id, second.id]
