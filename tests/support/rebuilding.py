"""A collection of some documents that is to be built anew with a second model."""

from __future__ import annotations

from typing import Any

import pytest
from sqlalchemy import select

from plugins.collections import tables
from plugins.core.shapes import CollectionView, Reindex
from tests.support.collections import OtherModel, World

NEW = "local/other"
TEXTS = [f"document number {number} speaks of leave" for number in range(4)]


@pytest.fixture
def other(world: World, monkeypatch: pytest.MonkeyPatch) -> OtherModel:
    """A second model, of another dimension; what there is to build with it is looked for often."""
    monkeypatch.setattr("plugins.worker.reindex.POLL_S", 0.02)
    model = OtherModel(dimension=24)
    world.model.others[NEW] = model
    world.model.names.add(NEW)
    return model


async def start(world: World, **wanted: Any) -> CollectionView:
    return await world.reindexing.start(
        world.alice, "handbook", Reindex(**{"embedding_model": NEW, **wanted})
    )


async def filled(world: World) -> CollectionView:
    """A collection of some documents."""
    made = await world.collection()
    for number, text in enumerate(TEXTS):
        await world.add("handbook", text, document_id=f"doc-{number}")
    await world.work()
    return made


async def view(world: World) -> CollectionView:
    return await world.catalogue.get(world.alice, "handbook")


async def place(world: World) -> str:
    table = tables.collections
    async with world.database.read() as connection:
        return str(await connection.scalar(select(table.c.store_name).where(table.c.name == "handbook")))


async def find_all(world: World) -> list[str]:
    return sorted(await world.found(world.alice, "leave", "handbook", max_num_results=50))


async def swapped(world: World) -> bool:
    return (await view(world)).reindex is None
