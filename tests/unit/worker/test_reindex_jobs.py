"""When a collection that was built anew is put in force, and as what its documents are read again."""

from __future__ import annotations

import pytest

from plugins.collections.reindex_jobs import Rebuilds
from tests.support.collections import OtherModel, World, an_upload
from tests.support.rebuilding import filled, find_all, other, place, start, swapped

__all__ = ["other"]


async def test_a_document_that_comes_last_keeps_the_new_place_from_being_put_in_force(
    world: World, other: OtherModel
) -> None:
    await filled(world)
    before = await place(world)
    await start(world)
    rebuilds = Rebuilds(world.database, lease_s=60.0)
    [(collection, rebuild)] = await rebuilds.ongoing()
    assert not await rebuilds.complete(collection, rebuild)
    assert not await rebuilds.swap(collection, rebuild)
    assert await place(world) == before


async def test_of_two_rebuildings_only_the_last_is_put_in_force(world: World, other: OtherModel) -> None:
    await world.collection()
    await start(world)
    rebuilds = Rebuilds(world.database, lease_s=60.0)
    [(collection, old)] = await rebuilds.ongoing()
    await world.reindexing.cancel(world.alice, "handbook")
    await start(world)
    [(_, new)] = await rebuilds.ongoing()
    assert not await rebuilds.swap(collection, old)
    assert await rebuilds.swap(collection, new)
    assert await place(world) == new.store_name


@pytest.mark.parametrize("first_is_file", [True, False])
async def test_an_old_version_is_read_again_as_what_it_was_when_its_replacement_failed(
    world: World, other: OtherModel, first_is_file: bool
) -> None:
    world.config.pipelines["small"] = {"chunker": {"use": "headings", "max_tokens": 64}}
    await world.collection()
    spooled = world.documents.spool_dir / "spooled"
    page, words = b"<html><body><p>of leave</p></body></html>", "of leave"
    for kind in ("file", "markdown") if first_is_file else ("markdown", "file"):
        first = kind == ("file" if first_is_file else "markdown")
        if kind == "file":
            spooled.write_bytes(page if first else b"<html>")
            upload = an_upload("", markdown=None, path=spooled, filename="a.html", document_id="doc-0")
        else:
            upload = an_upload(words if first else " ", document_id="doc-0", filename="a.md")
        await world.documents.add(world.alice, "handbook", [upload])
        await world.work()
    assert (await world.documents.get(world.alice, "handbook", "doc-0")).status == "failed"
    await start(world, embedding_model=None, pipeline="small")
    async with world.working():
        await world.until(lambda: swapped(world))
    assert await find_all(world) == [words]
