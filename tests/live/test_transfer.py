"""A collection from the embedded Milvus to a real server and back, by export and import."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from crawler.stores.milvus import Milvus, MilvusSettings
from plugins.bundle.transfer.exporting import Parts, export
from plugins.bundle.transfer.files import Manifest
from plugins.bundle.transfer.importing import import_collection
from plugins.collections.records import CollectionRecord, Gate
from plugins.core.identity import Principal
from plugins.core.shapes import SearchRequest
from tests.live.milvus import Server, milvus
from tests.support.collections import World, a_config, lite, make_tables, person, store

__all__ = ["lite", "milvus", "store"]

BOB = person("bob")
QUESTIONS = ("notice period", "salary of bob", "holiday rule number 7", "nothing of that")


@dataclass
class Place:
    """An installation that a collection may be in."""

    world: World

    @property
    def parts(self) -> Parts:
        operator = Principal(source="command", subject="root", username="root")
        world = self.world
        return Parts(
            world.database, world.store, world.originals, Gate(world.database, world.rights), operator
        )

    async def answers(self, ref: str) -> list[Any]:
        """What alice and bob find, with its scores: by vectors, which every Milvus can do. Of those that are
        equally the last it depends on the store which are among them: their scores alone."""
        found = []
        for principal in (self.world.alice, BOB):
            for text in QUESTIONS:
                asked = {"query": text, "max_num_results": 50, "ranking_options": {"ranker": "dense"}}
                passages = await self.world.searcher.search(
                    principal, [ref], SearchRequest.model_validate(asked)
                )
                scored = [(round(passage.score, 4), passage.text) for passage in passages]
                last = min(score for score, _ in scored)
                found += sorted((score, text if score > last else "") for score, text in scored)
        return found

    async def listed(self, ref: str) -> Any:
        return (await self.world.documents.list(self.world.alice, ref)).data


@asynccontextmanager
async def place(folder: Path, settings: MilvusSettings) -> AsyncIterator[Place]:
    opened = Milvus(settings)
    config = a_config(folder)
    await make_tables(config)
    world = World(config, opened)
    try:
        yield Place(world)
    finally:
        await world.database.close()
        await opened.close()


async def fill(world: World) -> str:
    made = await world.collection("handbook", query=["user:kc/bob"])
    await world.add(
        made.id, "# Notice\n\nThe notice period is thirty days — “exactly”.", document_id="notice"
    )
    await world.add(made.id, "The salary of Bob.", document_id="salary", acl=["user:kc/bob"])
    parts = "\n\n".join(f"## Part {n}\n\nHoliday rule number {n} of the book." for n in range(30))
    await world.add(made.id, parts, document_id="long", metadata={"year": 2024.5, "department": 'h"r\\'})
    await world.add(made.id, "The notice period is ninety days.", document_id="notice")
    await world.work()
    return made.id


async def moved(here: Place, there: Place, ref: str, folder: Path) -> tuple[CollectionRecord, Manifest]:
    await export(here.parts, ref, folder)
    return await import_collection(there.parts, folder)


async def test_a_collection_moves_from_the_embedded_milvus_to_a_server_and_back(
    milvus: Server, store: Milvus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("TEST_DATABASE_URL", raising=False)
    async with (
        place(tmp_path / "lite", store.settings) as first,
        place(tmp_path / "server", milvus.settings) as second,
        place(tmp_path / "back", store.settings) as third,
    ):
        ref = await fill(first.world)
        answers, documents = await first.answers(ref), await first.listed(ref)
        assert (
            len(answers) > 100
        )  # and few passages: with many equal ones the stores find different ones of them
        hybrid = (await second.world.store.capabilities()).hybrid
        record, out = await moved(first, second, ref, tmp_path / "out")
        try:
            assert (record.id, record.retrieval) == (ref, "hybrid" if hybrid else "dense")
            assert await second.answers(ref) == answers
            assert await second.listed(ref) == documents
            _, back = await moved(second, third, ref, tmp_path / "back-again")
            assert (back.digest, back.documents, back.passages, back.files) == (
                out.digest,
                out.documents,
                out.passages,
                out.files,
            )
            assert await third.answers(ref) == answers
            assert await third.listed(ref) == documents
        finally:
            await second.world.store.drop(record.store_name)
