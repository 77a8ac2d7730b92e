"""A collection is built anew beside what searches find, and swapped when every passage is there."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from sqlalchemy import select, update

from plugins.collections import tables
from plugins.collections.records import collection_record, now
from plugins.collections.reindex_jobs import DROP_AFTER_S
from plugins.collections.reindex_service import check_movable
from plugins.core.errors import Conflict, Forbidden, InvalidRequest, UnknownCollection
from plugins.core.shapes import Reindex
from tests.support.collections import OtherModel, World, person
from tests.support.rebuilding import NEW, TEXTS, filled, find_all, other, place, start, swapped, view

__all__ = ["other"]


async def new_place(world: World) -> str:
    table = tables.collections
    async with world.database.read() as connection:
        found = await connection.scalar(select(table.c.reindex).where(table.c.name == "handbook"))
    return str(found["store_name"]) if found else ""


async def discarded(world: World) -> set[str]:
    async with world.database.read() as connection:
        return set(await connection.scalars(select(tables.discarded.c.store_name)))


async def test_a_collection_gets_another_model_and_dimension(world: World, other: OtherModel) -> None:
    made = await filled(world)
    old = await place(world)
    begun = await start(world)
    assert begun.reindex is not None
    assert (begun.embedding_model, begun.dimension) == (made.embedding_model, made.dimension)
    assert (begun.reindex.embedding_model, begun.reindex.dimension) == (NEW, 24)
    assert begun.reindex.documents.model_dump() == {"done": 0, "total": 4}
    async with world.working():
        await world.until(lambda: swapped(world))
    done = await view(world)
    assert (done.embedding_model, done.dimension, done.chunks) == (NEW, 24, made.chunks + 4)
    assert await find_all(world) == TEXTS
    assert await world.store.count(await place(world)) == 4
    assert await discarded(world) == {old}
    assert other.users == {world.alice.user_id}


async def test_the_old_place_is_dropped_when_no_search_can_be_in_it(world: World, other: OtherModel) -> None:
    await filled(world)
    old = await place(world)
    await start(world)
    async with world.working():
        await world.until(lambda: swapped(world))
        assert old in await world.store.names()
        async with world.database.write() as connection:
            await connection.execute(update(tables.discarded).values(since=now() - DROP_AFTER_S - 1))

        async def dropped() -> bool:
            return not await discarded(world)

        await world.until(dropped)
    assert old not in await world.store.names()
    assert await find_all(world) == TEXTS


async def test_searches_see_every_document_throughout(world: World, other: OtherModel) -> None:
    await filled(world)
    seen: list[list[str]] = []
    after = 0

    async def search() -> None:
        nonlocal after
        while after < 5:
            over = await swapped(world)
            seen.append(await find_all(world))
            after += int(over)

    await start(world)
    async with world.working():
        await asyncio.wait_for(search(), 60)
    assert len(seen) > after
    assert all(texts == TEXTS for texts in seen)


async def test_a_worker_that_ends_in_the_middle_leaves_the_old_place_and_the_next_goes_on(
    world: World, other: OtherModel
) -> None:
    await filled(world)
    old = await place(world)
    await start(world)
    rebuilder, stop = world.reindexer(), asyncio.Event()
    for _ in range(2):
        assert await rebuilder.step(stop)
    other.called.clear()
    other.waits = asyncio.Event()  # never set: it ends in the third document
    going = asyncio.create_task(world.reindexer().run(stop))
    await asyncio.wait_for(other.called.wait(), 30)
    stop.set()
    await asyncio.wait_for(going, 30)
    halfway = await view(world)
    assert halfway.reindex is not None
    assert (halfway.reindex.documents.done, await place(world)) == (2, old)
    assert await find_all(world) == TEXTS
    other.waits = None
    async with world.working():
        await world.until(lambda: swapped(world))
    assert sorted(text.split("\n")[-1] for text in other.embedded) == TEXTS
    assert await find_all(world) == TEXTS


async def test_what_changes_meanwhile_is_in_the_new_place_too(world: World, other: OtherModel) -> None:
    await filled(world)
    await start(world)
    rebuilder, stop = world.reindexer(), asyncio.Event()
    for _ in range(3):
        assert await rebuilder.step(stop)
    await world.add("handbook", "a new document on leave")
    await world.add("handbook", "a replaced document on leave", document_id="doc-0")
    await world.documents.delete(world.alice, "handbook", "doc-1")
    async with world.working():
        await world.until(lambda: swapped(world))
        await world.until(world.idle)
    expected = ["a new document on leave", "a replaced document on leave", *TEXTS[2:]]
    assert await find_all(world) == expected
    assert await world.store.count(await place(world)) == len(expected)


async def test_an_upload_in_progress_at_the_swap_ends_in_the_new_place(
    world: World, other: OtherModel
) -> None:
    await filled(world)
    world.model.called.clear()
    world.model.waits = asyncio.Event()  # never set: only the new model answers
    late = await world.add("handbook", "a late document on leave")
    async with world.working():
        await asyncio.wait_for(world.model.called.wait(), 30)
        await start(world)
        await world.until(lambda: swapped(world))
        await world.until(world.idle)
    assert await find_all(world) == sorted(["a late document on leave", *TEXTS])
    assert (await world.documents.get(world.alice, "handbook", late.id)).status == "completed"


async def test_uploads_come_first(world: World, other: OtherModel) -> None:
    await filled(world)
    await start(world)
    await world.add("handbook", "an upload that waits for a worker")
    rebuilder = world.reindexer()
    assert not await rebuilder.step(asyncio.Event())
    assert other.embedded == []
    async with world.working():
        await world.until(lambda: swapped(world))


async def test_cancelled_it_leaves_everything_as_it_was(world: World, other: OtherModel) -> None:
    made = await filled(world)
    old = await place(world)
    await start(world)
    await world.reindexer().step(asyncio.Event())
    planned = await new_place(world)
    assert planned in await world.store.names()
    with pytest.raises(Conflict, match="already"):
        await start(world)
    cancelled = await world.reindexing.cancel(world.alice, "handbook")
    assert (cancelled.reindex, cancelled.embedding_model) == (None, made.embedding_model)
    with pytest.raises(Conflict, match="not being built"):
        await world.reindexing.cancel(world.alice, "handbook")
    await world.work()
    assert (await place(world), await discarded(world)) == (old, {planned})
    assert await find_all(world) == TEXTS


async def test_cancelled_while_a_document_is_built_nothing_is_swapped(
    world: World, other: OtherModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.worker.reindex.KEEP_S", 0.01)
    await filled(world)
    old = await place(world)
    await start(world)
    other.waits = asyncio.Event()  # never set: the worker must notice by itself
    async with world.working():
        await asyncio.wait_for(other.called.wait(), 30)
        await world.reindexing.cancel(world.alice, "handbook")
        await world.add("handbook", "a replaced document on leave", document_id="doc-0")
        await world.until(world.idle)
    assert await place(world) == old
    assert "a replaced document on leave" in await find_all(world)


async def test_a_document_that_fails_is_named_and_nothing_is_swapped_without_it(
    world: World, other: OtherModel
) -> None:
    await filled(world)
    old = await place(world)
    other.fails_on = "number 2"
    await start(world)

    async def all_others() -> bool:
        found = (await view(world)).reindex
        return found is not None and found.documents.done == 3 and found.last_error is not None

    async with world.working():
        await world.until(all_others)
        stuck = (await view(world)).reindex
        assert stuck is not None
        assert stuck.last_error is not None
        assert (stuck.last_error.code, stuck.last_error.document_id) == ("embedding_failed", "doc-2")
        assert (await place(world), await find_all(world)) == (old, TEXTS)
        other.fails_on = None
        await world.until(lambda: swapped(world))
    assert await find_all(world) == TEXTS


async def test_a_model_that_does_not_answer_for_a_while_only_delays_it(
    world: World, other: OtherModel
) -> None:
    await filled(world)
    other.fails = 3
    await start(world)
    async with world.working():
        await world.until(lambda: swapped(world))
    assert await find_all(world) == TEXTS


async def test_what_the_new_place_has_lost_is_built_again_before_it_counts(
    world: World, other: OtherModel
) -> None:
    await filled(world)
    await start(world)
    rebuilder, stop = world.reindexer(), asyncio.Event()
    for _ in TEXTS:
        assert await rebuilder.step(stop)
    await world.store.remove(await new_place(world), "doc-3")
    async with world.working():
        await world.until(lambda: swapped(world))
    assert await find_all(world) == TEXTS
    assert len(other.embedded) == len(TEXTS) + 1


async def test_another_pipeline_cuts_the_documents_anew(world: World, other: OtherModel) -> None:
    world.config.pipelines["small"] = {"chunker": {"use": "headings", "max_tokens": 64}}
    await world.collection()
    document = await world.add("handbook", " ".join(f"word{number}" for number in range(60)))
    await world.work()
    assert await world.stored(document) == 1
    await start(world, embedding_model=None, pipeline="small")
    async with world.working():
        await world.until(lambda: swapped(world))
    row = await world.row(document)
    assert row.chunks == await world.stored(document) > 1
    assert (await view(world)).pipeline == "small"
    again = await world.add("handbook", " ".join(f"word{number}" for number in range(60)))
    assert again.id == document.id


async def test_with_the_same_pipeline_the_files_are_not_read_again(world: World, other: OtherModel) -> None:
    await filled(world)
    for path in (world.config.storage.data_dir / "originals").rglob("*"):
        if path.is_file() and not path.suffix:
            path.unlink()
    await start(world)
    async with world.working():
        await world.until(lambda: swapped(world))
    assert await find_all(world) == TEXTS


async def test_audiences_and_attributes_are_those_of_before(world: World, other: OtherModel) -> None:
    await world.collection(query=["user:kc/bob"])
    await world.add("handbook", "leave for bob", acl=["user:kc/bob"], metadata={"year": 2025})
    await world.add("handbook", "leave for alice", acl=["user:kc/alice"], metadata={"year": 2026})
    await world.work()
    await start(world)
    async with world.working():
        await world.until(lambda: swapped(world))
    bob = person("bob")
    year = {"type": "gte", "key": "year", "value": 2025}
    assert await world.found(bob, "leave", "handbook", filters=year) == ["leave for bob"]
    assert await world.found(world.alice, "leave", "handbook", filters={**year, "value": 2026}) == [
        "leave for alice"
    ]
    assert await world.found(world.alice, "leave", "handbook", filters={**year, "value": 2027}) == []


async def test_a_replacement_that_failed_leaves_its_old_version_to_the_new_place(
    world: World, other: OtherModel
) -> None:
    await filled(world)
    await world.add("handbook", " ", document_id="doc-0")
    await world.work()
    await start(world)
    async with world.working():
        await world.until(lambda: swapped(world))
    assert await find_all(world) == TEXTS


async def test_a_dropped_collection_takes_what_was_built_with_it(world: World, other: OtherModel) -> None:
    await filled(world)
    await start(world)
    await world.reindexer().step(asyncio.Event())
    places = {await place(world), await new_place(world)}
    await world.catalogue.drop(world.alice, "handbook")
    async with world.database.write() as connection:
        await connection.execute(update(tables.discarded).values(since=1.0))
    await world.work()

    async def gone() -> bool:
        return not places & await world.store.names()

    async with world.working():
        await world.until(gone)


async def test_only_who_manages_may_and_what_is_not_there_is_named(world: World, other: OtherModel) -> None:
    await world.collection(query=["user:kc/bob"])
    bob, eve = person("bob"), person("eve")
    with pytest.raises(Forbidden, match="manage"):
        await world.reindexing.start(bob, "handbook", Reindex())
    with pytest.raises(UnknownCollection):
        await world.reindexing.cancel(eve, "handbook")
    with pytest.raises(InvalidRequest) as wrong:
        await start(world, embedding_model="local/none")
    assert wrong.value.param == "embedding_model"
    with pytest.raises(InvalidRequest) as wrong:
        await start(world, pipeline="none")
    assert wrong.value.param == "pipeline"


async def test_a_collection_whose_place_others_name_is_not_moved(world: World, other: OtherModel) -> None:
    await world.collection()
    async with world.database.read() as connection:
        found = await connection.execute(select(tables.collections))
        record = collection_record(found.one(), {})
    check_movable(record)
    with pytest.raises(Conflict, match="Milvus's roles"):
        check_movable(replace(record, kind="milvus"))
    with pytest.raises(Conflict, match="made outside"):
        check_movable(replace(record, adopted={"text": "t", "vector": "v"}))


async def test_others_do_not_see_how_far_it_is(world: World, other: OtherModel) -> None:
    await world.collection(discover=["user:kc/bob"])
    await start(world)
    seen = await world.catalogue.get(person("bob"), "handbook")
    assert seen.reindex is None
