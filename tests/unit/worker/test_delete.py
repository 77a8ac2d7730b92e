"""Whoever deletes a document wins, wherever its processing is, also when it is built anew meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from plugins.collections.jobs import Job, Queue
from plugins.core.document_shapes import DocumentView
from plugins.core.shapes import Reindex
from plugins.worker.ingest import Report
from tests.support.collections import OtherModel, World

NEW = "local/other"


class Held:
    """Whatever is called comes no further than here, until it is cancelled."""

    def __init__(self) -> None:
        self.reached = asyncio.Event()

    async def __call__(self) -> None:
        self.reached.set()
        await asyncio.Event().wait()


async def gone(world: World, document: DocumentView) -> None:
    """Nothing is left: no row, no passage, no file.

    Raises:
        AssertionError: Something is.
    """
    assert await world.row(document) is None
    assert await world.stored(document) == 0
    folder = world.config.storage.data_dir / "originals" / document.collection_id / document.id
    assert not folder.exists()
    assert await world.found(world.alice, "words", "handbook") == []


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lost leases are noticed at once."""
    for name in ("worker.MAX_KEEP_S", "reindex.KEEP_S"):
        monkeypatch.setattr(f"plugins.worker.{name}", 0.01)


@pytest.mark.parametrize("stage", ["extract", "chunk", "embed", "store"])
async def test_a_document_deleted_in_any_stage_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, stage: str
) -> None:
    held, report = Held(), Report.__call__

    async def hold(self: Report, at: Any, done: int, total: int | None) -> None:
        await report(self, at, done, total)
        if at == stage:
            await held()

    monkeypatch.setattr(Report, "__call__", hold)
    await world.collection()
    document = await world.add("handbook", "# Title\n\nthe words")
    async with world.working():
        await asyncio.wait_for(held.reached.wait(), 30)
        await world.documents.delete(world.alice, "handbook", document.id)
        await world.until(world.idle)
    await gone(world, document)


async def test_a_document_deleted_when_its_passages_are_written_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = Held()

    async def hold(self: Queue, job: Job, **values: Any) -> None:
        await held()

    with monkeypatch.context() as patched:
        patched.setattr(Queue, "complete", hold)
        await world.collection()
        document = await world.add("handbook", "the words")
        async with world.working():
            await asyncio.wait_for(held.reached.wait(), 30)
            assert await world.stored(document) == 1
            await world.documents.delete(world.alice, "handbook", document.id)
            await world.until(world.idle)
    await gone(world, document)


async def test_a_document_deleted_in_the_very_moment_of_its_completion_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    complete = Queue.complete
    await world.collection()
    document = await world.add("handbook", "the words")

    async def first_deleted(self: Queue, job: Job, **values: Any) -> None:
        if not job.document.deleting and (await world.row(document)).deleting is False:
            await world.documents.delete(world.alice, "handbook", document.id)
        await complete(self, job, **values)

    monkeypatch.setattr(Queue, "complete", first_deleted)
    await world.work()
    await gone(world, document)


async def test_a_document_deleted_while_it_is_built_anew_leaves_nothing_in_either_place(
    world: World,
) -> None:
    other = OtherModel(dimension=24, waits=asyncio.Event())  # never set: the worker must notice by itself
    world.model.others[NEW] = other
    world.model.names.add(NEW)
    await world.collection()
    document = await world.add("handbook", "the words")
    await world.work()
    await world.reindexing.start(world.alice, "handbook", Reindex(embedding_model=NEW))
    async with world.working():
        await asyncio.wait_for(other.called.wait(), 30)
        await world.documents.delete(world.alice, "handbook", document.id)

        async def swapped() -> bool:
            return (await world.catalogue.get(world.alice, "handbook")).reindex is None

        await world.until(swapped)
        await world.until(world.idle)
    await gone(world, document)
