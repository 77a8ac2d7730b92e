"""A collection with documents of several kinds, and another installation to bring it to."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from crawler.stores.milvus import Milvus
from plugins.core.shapes import CollectionView
from tests.support.collections import World, a_config, lite, make_tables, store, world

__all__ = ["lite", "store", "world"]


@pytest.fixture
async def handbook(world: World) -> CollectionView:
    """Alice's: bob may query it; a text for all, one for bob alone, a long one."""
    made = await world.collection("handbook", query=["user:kc/bob"], add=["group:kc/staff"])
    await world.add(made.id, "# Notice\n\nThe notice period is thirty days.", document_id="notice")
    await world.add(made.id, "Bob's salary.", document_id="salary", acl=["user:kc/bob"])
    parts = "\n\n".join(f"## Part {n}\n\nHoliday rule number {n} of the book." for n in range(40))
    await world.add(made.id, parts, document_id="long", metadata={"year": 2024, "department": "hr"})
    await world.work()
    return await world.catalogue.get(world.alice, made.id)


@pytest.fixture
async def elsewhere(tmp_path_factory: pytest.TempPathFactory, store: Milvus) -> AsyncIterator[World]:
    """Another installation, on the same Milvus."""
    config = a_config(tmp_path_factory.mktemp("elsewhere"))
    await make_tables(config)
    made = World(config, store)
    yield made
    await made.database.close()
