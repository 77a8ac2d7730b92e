"""Exports of what changes meanwhile, and imports into a store that changes what it takes."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from crawler.store import Row
from plugins.bundle.transfer.exporting import Parts, export
from plugins.bundle.transfer.files import TransferError
from plugins.bundle.transfer.importing import import_collection
from plugins.collections.records import Gate
from plugins.core.document_shapes import DocumentPatch
from plugins.core.identity import Principal
from plugins.core.shapes import CollectionView
from tests.support.collections import World


def parts(world: World, store: Any = None) -> Parts:
    return Parts(
        database=world.database,
        gate=Gate(world.database, world.rights),
        operator=Principal(source="command", subject="root", username="root"),
        store=store or world.store,
        originals=world.originals,
    )


class Relabelling:
    """The world's store; while its rows are first read, a document gets other attributes."""

    def __init__(self, world: World, ref: str) -> None:
        self._world = world
        self._ref = ref
        self._done = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.store, name)

    async def rows(self, name: str, revisions: dict[str, str]) -> AsyncIterator[Row]:
        rows = [row async for row in self._world.store.rows(name, revisions)]
        if not self._done:
            self._done = True
            patch = DocumentPatch(metadata={"year": 2026})
            await self._world.documents.change(self._world.alice, self._ref, "notice", patch)
            await self._world.work()
        for row in rows:
            yield row


class Garbling:
    """A store that keeps another text than it is given."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.store, name)

    async def write_rows(self, name: str, rows: list[Row]) -> None:
        await self._world.store.write_rows(name, [replace(rows[0], text="another"), *rows[1:]])


async def test_a_document_that_gets_other_attributes_meanwhile_has_them_in_its_passages_too(
    world: World, elsewhere: World, handbook: CollectionView, tmp_path: Path
) -> None:
    await export(parts(world, Relabelling(world, handbook.id)), "handbook", tmp_path / "out")
    await import_collection(parts(elsewhere), tmp_path / "out")
    year = {"type": "eq", "key": "year", "value": 2026}
    assert await elsewhere.found(elsewhere.alice, "notice", handbook.id, filters=year) != []


async def test_a_passage_that_is_not_kept_as_it_was_is_noticed(
    world: World, elsewhere: World, handbook: CollectionView, tmp_path: Path
) -> None:
    await export(parts(world), "handbook", tmp_path / "out")
    with pytest.raises(TransferError, match="not what was exported"):
        await import_collection(parts(elsewhere, Garbling(elsewhere)), tmp_path / "out")
    assert (await elsewhere.catalogue.list(elsewhere.alice)).data == []
