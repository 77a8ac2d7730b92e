"""An upload whose file is there before its row, while the worker clears up behind the document of that id."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import update

from plugins.collections import jobs, tables
from plugins.collections.arrivals import announce, arrived, arriving
from plugins.core.document_shapes import DocumentPatch
from tests.support.collections import World

ID = "report"


def between(
    world: World, monkeypatch: pytest.MonkeyPatch, method: str, do: Callable[[], Awaitable[Any]]
) -> None:
    """Do this once, when the next file is there and its row is not."""
    original = getattr(world.originals, method)

    async def then_do(*args: Any) -> Any:
        monkeypatch.setattr(world.originals, method, original)
        result = await original(*args)
        await do()
        return result

    monkeypatch.setattr(world.originals, method, then_do)


async def holds(world: World, text: str) -> None:
    """The document is complete with this text, and nothing else is kept of it.

    Raises:
        AssertionError: It is not.
    """
    await world.work()
    [shown] = (await world.documents.list(world.alice, "handbook")).data
    assert (shown.id, shown.status, shown.last_error) == (ID, "completed", None)
    async with world.documents.content(world.alice, "handbook", ID) as original:
        assert original.path.read_text() == text
    assert len(await world.originals.revisions(shown.collection_id, ID)) == 1
    assert len(await world.found(world.alice, text, "handbook")) == 1


async def test_a_deletion_meanwhile_takes_the_old_file_and_not_the_new_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.collection()
    await world.add("handbook", "the old words", document_id=ID)
    await world.work()

    async def delete() -> None:
        await world.documents.delete(world.alice, "handbook", ID)
        await world.work()
        assert (await world.documents.list(world.alice, "handbook")).data == []

    between(world, monkeypatch, "put", delete)
    await world.add("handbook", "the new words", document_id=ID)
    await holds(world, "the new words")


async def test_another_replacement_meanwhile_takes_the_old_file_and_not_the_new_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.collection()
    await world.add("handbook", "the first words", document_id=ID)
    await world.work()

    async def replace() -> None:
        await world.add("handbook", "the second words", document_id=ID)
        await world.work()

    between(world, monkeypatch, "put", replace)
    await world.add("handbook", "the third words", document_id=ID)
    await holds(world, "the third words")


async def test_changed_attributes_keep_the_file_when_the_worker_clears_up_meanwhile(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.collection()
    await world.add("handbook", "the old words", document_id=ID)
    await world.add("handbook", "the words", document_id=ID)
    between(world, monkeypatch, "copy", world.work)
    await world.documents.change(world.alice, "handbook", ID, DocumentPatch(metadata={"kind": "memo"}))
    await holds(world, "the words")


async def test_an_upload_that_arrives_while_the_needed_files_are_looked_up_is_among_them(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    await world.collection()
    document = await world.add("handbook", "the old words", document_id=ID)
    looked, revision, table = arriving, "0" * 32, tables.documents
    async with world.database.write() as connection:
        await announce(connection, document.collection_id, [(ID, revision)])

    async def then_it_arrives(*args: Any) -> Any:
        monkeypatch.setattr(jobs, "arriving", looked)
        found = await looked(*args)
        async with world.database.write() as connection:
            await arrived(connection, [revision])
            await connection.execute(update(table).where(table.c.id == ID).values(revision=revision))
        return found

    monkeypatch.setattr(jobs, "arriving", then_it_arrives)
    assert revision in (await world.queue.revisions(document.collection_id, ID))[ID]
