"""A document ends when its uploader said, or is deleted, and what was in it ends with it."""

from __future__ import annotations

import time
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import tables
from plugins.collections.expiry import expire, family, moment
from plugins.collections.records import now
from plugins.core.document_shapes import DocumentPatch, DocumentView
from plugins.core.errors import Forbidden, InvalidRequest, UnknownDocument
from tests.support.collections import World, person


async def set_columns(world: World, document_id: str, **values: Any) -> None:
    table = tables.documents
    async with world.database.write() as connection:
        await connection.execute(update(table).where(table.c.id == document_id).values(**values))


async def expired(world: World) -> DocumentView:
    """A document that searches found until just now."""
    await world.collection()
    document = await world.add("handbook", "the words")
    await world.work()
    assert await world.found(world.alice, "words", "handbook") == ["the words"]
    await set_columns(world, document.id, expires_at=now() - 0.001)
    return document


async def test_from_its_moment_on_nobody_sees_it(world: World) -> None:
    document = await expired(world)
    assert await world.found(world.alice, "words", "handbook") == []
    assert (await world.documents.list(world.alice, "handbook")).data == []
    assert (await world.catalogue.get(world.alice, "handbook")).documents == 0
    with pytest.raises(UnknownDocument):
        await world.documents.get(world.alice, "handbook", document.id)
    with pytest.raises(UnknownDocument):
        await world.searcher.read(world.alice, document.id)
    with pytest.raises(UnknownDocument):
        await world.content(world.alice, "handbook", document.id)
    with pytest.raises(UnknownDocument):
        await world.documents.change(world.alice, "handbook", document.id, DocumentPatch(expires_at=None))


async def test_the_worker_clears_it_away_and_the_log_says_so(world: World) -> None:
    document = await expired(world)
    async with world.working():

        async def cleared() -> bool:
            return await world.row(document) is None

        await world.until(cleared)
    assert await world.stored(document) == 0
    folder = world.config.storage.data_dir / "originals" / document.collection_id / document.id
    assert not folder.exists()
    table = tables.audit
    query = select(table.c.user_id, table.c.document_id).where(table.c.action == "document.expire")
    async with world.database.read() as connection:
        assert [tuple(row) for row in await connection.execute(query)] == [("worker", document.id)]


async def test_the_same_bytes_are_taken_in_anew_after_it(world: World) -> None:
    document = await expired(world)
    again = await world.add("handbook", "the words")
    assert again.id != document.id


async def test_the_same_bytes_with_another_end_are_another_document(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the words", expires_at=now() + 1000)
    assert document.expires_at is not None
    assert (await world.add("handbook", "the words")).id != document.id


async def test_its_uploader_may_change_the_moment_without_another_revision(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the words")
    await world.work()
    before = await world.row(document)
    later = now() + 1000
    changed = await world.documents.change(
        world.alice, "handbook", document.id, DocumentPatch(expires_at=later)
    )
    assert changed.expires_at == int(later)
    row = await world.row(document)
    assert (row.expires_at, row.revision, row.pending) == (later, before.revision, False)
    never = await world.documents.change(world.alice, "handbook", document.id, DocumentPatch(expires_at=None))
    assert never.expires_at is None
    kept = await world.documents.change(
        world.alice, "handbook", document.id, DocumentPatch(metadata={"year": 2026})
    )
    assert kept.expires_at is None
    table = tables.audit
    query = select(table.c.detail).where(table.c.action == "document.change").order_by(table.c.id)
    async with world.database.read() as connection:
        fields = [detail["fields"] for detail in await connection.scalars(query)]
    assert fields == [["expires_at"], ["expires_at"], ["attributes"]]


async def test_others_may_not_change_it(world: World) -> None:
    await world.collection(query=["user:kc/bob"], add=["user:kc/bob"])
    document = await world.add("handbook", "the words")
    with pytest.raises(Forbidden):
        await world.documents.change(
            person("bob"), "handbook", document.id, DocumentPatch(expires_at=now() + 1000)
        )


async def family_of(world: World) -> list[DocumentView]:
    """A document, one that was in it, and one that was in that."""
    await world.collection()
    found = [await world.add("handbook", f"words number {number}") for number in range(4)]
    await set_columns(world, found[1].id, parent_id=found[0].id, depth=1)
    await set_columns(world, found[2].id, parent_id=found[1].id, depth=2)
    await world.work()
    return found


async def test_what_ends_later_stays(world: World) -> None:
    await world.collection()
    await world.add("handbook", "the words", expires_at=now() + 60)
    assert await expire(world.database) == 0
    await world.work()
    assert await world.found(world.alice, "words", "handbook") == ["the words"]


async def test_what_was_in_a_document_goes_with_it(world: World) -> None:
    *family, other = await family_of(world)
    await world.documents.delete(world.alice, "handbook", family[0].id)
    assert await world.found(world.alice, "words", "handbook") == ["words number 3"]
    await world.work()
    assert [await world.row(document) is None for document in (*family, other)] == [True, True, True, False]
    assert [await world.stored(document) for document in (*family, other)] == [0, 0, 0, 1]


async def test_what_was_in_a_document_expires_with_it(world: World) -> None:
    *family, other = await family_of(world)
    soon = now() + 1000
    await world.documents.change(world.alice, "handbook", family[0].id, DocumentPatch(expires_at=soon))
    assert [(await world.row(document)).expires_at for document in family] == [soon] * 3
    await set_columns(world, family[0].id, expires_at=1.0)

    async def cleared() -> bool:
        return [await world.row(document) for document in family] == [None] * 3

    async with world.working():
        await world.until(cleared)
    assert await world.found(world.alice, "words", "handbook") == ["words number 3"]
    assert await world.row(other) is not None


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        (None, None),
        (4102444800, datetime(2100, 1, 1, tzinfo=UTC)),
        ("2100-01-01", datetime(2100, 1, 1, tzinfo=UTC)),
        ("2100-01-01T12:00:00Z", datetime(2100, 1, 1, 12, tzinfo=UTC)),
        ("2100-01-01T12:00:00+02:00", datetime(2100, 1, 1, 10, tzinfo=UTC)),
    ],
)
def test_a_moment_is_seconds_or_iso_8601(given: float | str | None, meant: datetime | None) -> None:
    assert moment(given) == (None if meant is None else meant.timestamp())


def test_a_moment_without_an_offset_is_utc_wherever_the_server_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "Pacific/Kiritimati")
    time.tzset()
    try:
        assert moment("2100-01-01") == 4102444800
    finally:
        monkeypatch.undo()
        time.tzset()


@pytest.mark.parametrize(
    "given", ["", "soon", "2001-01-01", 0, -1, 1e300, "0001-01-01T00:00:00+14:00", float("nan")]
)
def test_what_is_no_moment_or_is_over_is_refused(given: float | str) -> None:
    with pytest.raises(InvalidRequest) as wrong:
        moment(given)
    assert wrong.value.param == "expires_at"


async def test_what_comes_into_a_document_while_it_changes_is_changed_too(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    *documents, late = await family_of(world)

    async def meanwhile(connection: AsyncConnection, collection_id: str, document_id: str) -> list[str]:
        found = await family(connection, collection_id, document_id)
        inside = update(tables.documents).where(tables.documents.c.id == late.id)
        await connection.execute(inside.values(parent_id=documents[2].id, depth=3))
        return found

    monkeypatch.setattr("plugins.collections.expiry.family", meanwhile)
    only = DocumentPatch(acl=["user:kc/bob"])
    await world.documents.change(world.alice, "handbook", documents[0].id, only)
    assert (await world.row(late)).acl == ["user:kc/bob"]
