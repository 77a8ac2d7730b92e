"""While a newer version is not complete, the searchable one keeps its name, attributes and file."""

from __future__ import annotations

import pytest
from sqlalchemy import update

from crawler.contracts import audience_key
from plugins.collections import tables
from plugins.collections.expiry import change_family
from plugins.collections.placing import revise
from plugins.collections.records import document_record, live_as
from plugins.core.identity import Principal
from plugins.core.shapes import SearchRequest
from tests.support.collections import OtherModel, World, an_upload
from tests.support.rebuilding import other, start, swapped

__all__ = ["other"]

BOB = Principal(source="kc", subject="bob", username="bob")
WORDS = SearchRequest(query="words")


async def content(world: World, principal: Principal) -> tuple[str, str]:
    original = await world.content(principal, "handbook", "doc-1")
    return original.filename, original.path.read_text()


async def replaced(world: World, acl: list[str] | None) -> None:
    """A searchable version, and a newer one that nobody has worked on."""
    await world.collection(query=["user:kc/bob"])
    await world.add("handbook", "old words", document_id="doc-1", metadata={"year": 2001}, acl=acl)
    await world.work()
    upload = an_upload("new words", document_id="doc-1", filename="b.md", metadata={"year": 2002}, acl=["*"])
    for _ in range(2):  # replaced once more before anybody came to it
        await world.documents.add(world.alice, "handbook", [upload])
        upload = an_upload("newest words", document_id="doc-1", filename="c.md", metadata={"year": 2003})


async def test_what_is_found_says_and_leads_to_what_it_was_found_in(world: World) -> None:
    await replaced(world, None)
    for passages in (
        await world.searcher.search(world.alice, ["handbook"], WORDS),
        await world.searcher.read(world.alice, "doc-1"),
    ):
        assert [(p.text, p.filename, p.attributes["year"]) for p in passages] == [("old words", "a.md", 2001)]
    assert await content(world, BOB) == ("a.md", "old words")
    assert (await world.documents.get(world.alice, "handbook", "doc-1")).filename == "c.md"
    await world.work()
    [passage] = await world.searcher.search(world.alice, ["handbook"], WORDS)
    assert (passage.text, passage.filename, passage.attributes["year"]) == ("newest words", "c.md", 2003)
    assert await content(world, BOB) == ("c.md", "newest words")


async def test_whom_only_the_newer_version_admits_gets_that_one(world: World) -> None:
    await replaced(world, ["user:kc/alice"])
    assert await world.found(BOB, "words", "handbook") == []
    assert await content(world, BOB) == ("c.md", "newest words")
    assert await content(world, world.alice) == ("a.md", "old words")


async def test_the_version_that_becomes_searchable_at_the_same_moment_keeps_its_name(world: World) -> None:
    await world.collection()
    before = document_record(await world.row(await world.add("handbook", "the words", document_id="doc-1")))
    await world.work()
    async with world.database.write() as connection:
        fresh = await revise(connection, before, revision="0" * 32, filename="b.md")
    assert (fresh.filename, live_as(fresh)["filename"]) == ("b.md", "a.md")


async def test_a_collection_that_is_built_anew_shows_the_searchable_version_to_no_others(
    world: World, other: OtherModel
) -> None:
    await world.collection(query=["user:kc/bob"])
    year = {"year": 2001}
    await world.add("handbook", "old words", document_id="doc-1", acl=["user:kc/alice"], metadata=year)
    await world.work()
    await world.add("handbook", " ", document_id="doc-1", acl=["*"])
    await world.work()
    assert (await world.documents.get(world.alice, "handbook", "doc-1")).status == "failed"
    await start(world)
    async with world.working():
        await world.until(lambda: swapped(world))
    assert await world.found(BOB, "words", "handbook") == []
    filters = {"type": "eq", "key": "year", "value": 2001}
    assert await world.found(world.alice, "words", "handbook", filters=filters) == ["old words"]


async def test_what_is_changed_keeps_the_audience_that_was_narrowed_meanwhile(world: World) -> None:
    """The change was begun with what the row said before."""
    await world.collection()
    before = document_record(await world.row(await world.add("handbook", "the words", document_id="doc-1")))
    await world.work()
    narrow = ["user:kc/alice"]
    async with world.database.write() as connection:
        await change_family(
            connection, before.collection_id, "doc-1", acl=narrow, acl_key=audience_key(narrow)
        )
    async with world.database.write() as connection:
        fresh = await revise(connection, before, revision="0" * 32, attributes={"year": 2001})
    assert (fresh.acl, live_as(fresh)["acl"]) == (narrow, narrow)
    row = document_record(await world.row(await world.documents.get(world.alice, "handbook", "doc-1")))
    assert (row.acl, row.acl_key, row.attributes) == (narrow, audience_key(narrow), {"year": 2001})


@pytest.mark.parametrize(
    ("before", "brought", "meanwhile"),
    [
        (["user:kc/alice"], ["*"], ["user:kc/alice"]),
        (["*"], ["user:kc/alice"], ["user:kc/alice"]),
        (["user:kc/alice"], ["user:kc/bob"], []),
        (["user:kc/alice", "user:kc/bob"], ["user:kc/bob", "user:kc/carol"], ["user:kc/bob"]),
        (None, ["user:kc/alice"], ["user:kc/alice"]),
    ],
)
async def test_until_it_is_replaced_what_was_in_the_old_version_is_for_those_whom_both_admit(
    world: World, before: list[str] | None, brought: list[str], meanwhile: list[str] | None
) -> None:
    await world.collection(query=["*"])
    outer = document_record(
        await world.row(await world.add("handbook", "mail", document_id="doc-1", acl=before))
    )
    inner = await world.add("handbook", "attachment", document_id="doc-2", acl=before)
    async with world.database.write() as connection:
        its = tables.documents.c.id == "doc-2"
        await connection.execute(update(tables.documents).where(its).values(parent_id="doc-1", depth=1))
    await world.work()
    for _ in range(2):  # the second time the mail has that audience already
        await world.add("handbook", " ", document_id=outer.id, acl=brought)
        await world.work()
        assert (await world.documents.get(world.alice, "handbook", "doc-1")).status == "failed"
        assert (await world.row(inner)).acl == meanwhile
