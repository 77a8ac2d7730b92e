"""What somebody may read, and how it stands: when it is told apart, and when it is the same."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from sqlalchemy import update

from crawler.stores.milvus import Milvus
from plugins.collections import tables
from plugins.collections.access import AccessService
from plugins.collections.adoption import Adopter
from plugins.collections.database import Database
from plugins.collections.people import People
from plugins.collections.records import now
from plugins.collections.states import States
from plugins.core.document_shapes import DocumentPatch, DocumentView
from plugins.core.identity import Principal
from plugins.core.shapes import Access, CollectionPatch
from tests.support.collections import OtherModel, World, person
from tests.support.rebuilding import NEW, other, start, swapped
from tests.unit.collections.test_adoption import client, foreign, world_of

__all__ = ["client", "foreign", "other"]
BOB, CAROL = person("bob", "staff"), person("carol")
Event = Callable[[World, DocumentView, DocumentView], Awaitable[object]]


def states(world: World) -> States:
    return States(
        world.database, world.rights, Adopter(world.database, world.store, world.config.collections)
    )


async def state(world: World, principal: Principal, *collections: str) -> str:
    found = await states(world).of(principal, frozenset(collections) if collections else None)
    assert found is not None
    return found


async def filled(world: World) -> tuple[DocumentView, DocumentView]:
    """Two documents that bob and his group may query."""
    await world.collection(query=["user:kc/bob", "group:kc/staff"])
    documents = [await world.add("handbook", f"the words {n}", document_id=f"doc-{n}") for n in (1, 2)]
    await world.work()
    return documents[0], documents[1]


async def add(world: World, *_: DocumentView) -> None:
    await world.add("handbook", "more words")
    await world.work()


async def replace(world: World, first: DocumentView, _: DocumentView) -> None:
    await world.add("handbook", "other words", document_id=first.id)
    await world.work()


async def delete(world: World, first: DocumentView, _: DocumentView) -> None:
    await world.documents.delete(world.alice, "handbook", first.id)


async def delete_the_last(world: World, _: DocumentView, last: DocumentView) -> None:
    await world.documents.delete(world.alice, "handbook", last.id)
    await world.work()


async def let_one_expire(world: World, first: DocumentView, _: DocumentView) -> None:
    table = tables.documents
    async with world.database.write() as connection:
        over = update(table).where(table.c.id == first.id).values(expires_at=now() - 0.001)
        await connection.execute(over)


async def narrow(world: World, first: DocumentView, _: DocumentView) -> None:
    await world.documents.change(world.alice, "handbook", first.id, DocumentPatch(acl=["group:kc/staff"]))


async def describe_a_document(world: World, first: DocumentView, _: DocumentView) -> None:
    await world.documents.change(world.alice, "handbook", first.id, DocumentPatch(metadata={"year": 2025}))


async def rename(world: World, *_: DocumentView) -> None:
    await world.catalogue.change(world.alice, "handbook", CollectionPatch(description="Other."))


async def revoke(world: World, *_: DocumentView) -> None:
    await grant(world, query=[])


async def grant(world: World, **access: list[str]) -> None:
    people = People(world.database, world.rights, {})
    service = AccessService(world.database, world.rights, people)
    await service.replace(world.alice, "handbook", Access(manage=["user:kc/alice"], **access))


async def grant_another(world: World, *_: DocumentView) -> None:
    await world.collection("more", query=["user:kc/bob"])


@pytest.mark.parametrize(
    "event",
    [
        add,
        replace,
        delete,
        delete_the_last,
        let_one_expire,
        narrow,
        describe_a_document,
        rename,
        revoke,
        grant_another,
    ],
)
async def test_it_is_another_after_every_change_of_what_may_be_read(world: World, event: Event) -> None:
    first, last = await filled(world)
    before = await state(world, BOB)
    await event(world, first, last)
    assert await state(world, BOB) != before


async def test_it_is_another_once_the_collection_was_built_anew(world: World, other: OtherModel) -> None:
    await filled(world)
    before = await state(world, BOB)
    async with world.working():
        await start(world, embedding_model=NEW)
        await world.until(lambda: swapped(world))
    assert await state(world, BOB) != before


async def test_which_of_two_documents_was_deleted_is_told_apart(world: World) -> None:
    """Their numbers stand, and so does how many there are: only what was left is counted."""
    first, second = await filled(world)
    newest = await world.add("handbook", "the newest words")
    await world.work()
    seen = {await state(world, BOB)}
    await delete(world, first, second)
    await world.work()
    seen.add(await state(world, BOB))
    await world.add("handbook", "the words 1", document_id=first.id)
    await world.work()
    seen.add(await state(world, BOB))
    await delete(world, second, newest)
    await world.work()
    seen.add(await state(world, BOB))
    assert len(seen) == 4


async def test_it_is_the_same_while_an_upload_is_not_complete_and_nothing_can_be_found_of_it(
    world: World,
) -> None:
    await filled(world)
    before = await state(world, BOB)
    await world.add("handbook", "more words")
    assert await state(world, BOB) == before


async def test_people_who_may_read_the_same_share_it_and_others_do_not(world: World) -> None:
    await filled(world)
    await world.add("handbook", "for staff", acl=["group:kc/staff"])
    await world.work()
    assert await state(world, BOB) == await state(world, person("dan", "staff")), "both are staff"
    await grant(world, query=["user:kc/bob", "user:kc/carol"])
    assert await state(world, BOB) != await state(world, CAROL), "carol is not in the document's audience"
    assert await state(world, CAROL) != await state(world, person("eve")), "eve may query nothing"


async def test_what_happens_in_a_collection_that_is_not_searched_does_not_matter(world: World) -> None:
    await filled(world)
    made = await world.collection("more", query=["user:kc/bob"])
    handbook = (await world.catalogue.get(world.alice, "handbook")).id
    narrowed, whole = await state(world, BOB, handbook), await state(world, BOB)
    await world.add(made.id, "more words")
    await world.work()
    assert await state(world, BOB, handbook) == narrowed
    assert await state(world, BOB) != whole


async def test_a_collection_into_which_others_write_has_none(
    tmp_path: Path, store: Milvus, foreign: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = await world_of(tmp_path, store, monkeypatch)
    made = await world.collection("handbook", query=["user:kc/bob"])
    assert await states(world).of(BOB) is None
    assert await states(world).of(BOB, frozenset({made.id})) is not None
    await world.database.close()


async def test_without_the_database_there_is_none(world: World, tmp_path: Path) -> None:
    gone = Database(f"sqlite+aiosqlite:///{tmp_path}/nowhere/collections.db")
    adopter = Adopter(world.database, world.store, world.config.collections)
    assert await States(gone, world.rights, adopter).of(BOB) is None
