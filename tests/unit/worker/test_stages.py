"""What is done of a document is not done again, and the files in it become documents of their own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select, update

from crawler import conversion
from crawler.contracts import Attachment, Converted, Document, Format, Source
from crawler.crawler import Limits
from plugins.collections import tables
from plugins.collections.members import MAX_DEPTH
from plugins.collections.records import document_record
from plugins.core.config import LimitsConfig, Quota
from plugins.core.document_shapes import DocumentPatch, DocumentView
from plugins.core.errors import UnknownDocument
from plugins.worker import inside, prepared
from tests.support.collections import LIMIT_S, World, an_upload


class Conversions:
    """In place of the conversion: a file is its text, or a JSON list of its text and the files in it."""

    def __init__(self) -> None:
        self.converted: list[str] = []

    async def __call__(
        self, _format: Format[Any], source: Source, _limits: Limits, _report: conversion.Report
    ) -> Converted:
        content = source.content.decode()
        text, *inside = json.loads(content) if content.startswith("[") else [content]
        self.converted.append(text)
        attachments = tuple(
            Attachment(filename=f"{number}.txt", media_type="text/plain", content=mail(part).encode())
            for number, part in enumerate(inside)
        )
        return Converted(markdown=text, attachments=attachments)


def mail(text: Any, *inside: Any) -> str:
    """A file with others in it, which may have others in them."""
    return text if isinstance(text, str) and not inside else json.dumps([text, *inside] if inside else text)


@pytest.fixture
def conversions(monkeypatch: pytest.MonkeyPatch) -> Conversions:
    made = Conversions()
    monkeypatch.setattr(conversion, "convert", made)
    return made


async def upload(world: World, text: str, **fields: Any) -> DocumentView:
    """A text file, which is converted."""
    spooled = world.documents.spool_dir / "upload"
    spooled.write_text(text)
    values = {"markdown": None, "path": spooled, "filename": "mail.txt", "media_type": "text/plain", **fields}
    [added] = await world.documents.add(world.alice, "handbook", [an_upload(text, **values)])
    return added


async def listed(world: World) -> dict[str, DocumentView]:
    """All documents by their names."""
    return {
        document.filename: document for document in (await world.documents.list(world.alice, "handbook")).data
    }


async def stopped_while_embedding(world: World, during: Callable[[], Any] | None = None) -> None:
    """A worker stops after the stages before embedding."""
    world.model.waits = asyncio.Event()
    world.model.called.clear()
    async with world.working() as stop:
        await asyncio.wait_for(world.model.called.wait(), LIMIT_S)
        if during is not None:
            during()
        stop.set()
    world.model.waits = None


async def test_stages_that_are_done_are_not_done_again_by_the_next_worker(
    world: World, conversions: Conversions
) -> None:
    await world.collection()
    document = await upload(world, "the words")
    await stopped_while_embedding(world)
    await world.work()
    assert conversions.converted == ["the words"]
    assert await world.found(world.alice, "words", "handbook") == ["the words"]
    assert (await world.documents.get(world.alice, "handbook", document.id)).status == "completed"


async def test_what_was_made_with_other_settings_is_made_again(
    world: World, conversions: Conversions
) -> None:
    await world.collection()
    await upload(world, "the words")
    await stopped_while_embedding(world)
    changed = World(
        world.config.model_copy(update={"pipelines": {"default": {"embedding_batch_size": 7}}}), world.store
    )
    await changed.work()
    await changed.database.close()
    assert conversions.converted == ["the words"] * 2


async def test_what_is_kept_but_broken_is_made_again(world: World, conversions: Conversions) -> None:
    await world.collection()
    await upload(world, "the words")

    def spoil() -> None:
        [kept] = (world.config.storage.data_dir / "originals").rglob("*.prepared")
        kept.write_bytes(kept.read_bytes()[:-20])

    await stopped_while_embedding(world, spoil)
    await world.work()
    assert conversions.converted == ["the words"] * 2
    assert await world.found(world.alice, "words", "handbook") == ["the words"]


async def test_a_kept_document_gets_the_attributes_and_the_audience_of_its_row(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the words")
    await stopped_while_embedding(world)
    patch = DocumentPatch(metadata={"year": 2024}, acl=["user:kc/bob"])
    await world.documents.change(world.alice, "handbook", document.id, patch)
    await world.work()
    assert await world.found(world.alice, "words", "handbook") == []


async def test_what_is_kept_has_the_audience_and_the_attributes_of_the_row_as_it_is_now(world: World) -> None:
    await world.collection()
    row = document_record(await world.row(await world.add("handbook", "the words")))
    was = Document(
        collection="c",
        document_id=row.id,
        revision=row.revision,
        source="a.md",
        markdown="the words",
        security_group=("user:kc/bob",),
    )
    await prepared.keep(world.originals, row, was, "digest")
    for acl, attributes in ((None, {}), (["user:kc/carol"], {"year": 2026})):
        found = await prepared.kept(world.originals, replace(row, acl=acl, attributes=attributes), "digest")
        assert found is not None
        assert found.document.security_group == (None if acl is None else tuple(acl))
        assert found.document.attributes == attributes


async def test_a_kill_after_progress_is_not_counted_against_a_document(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the words")
    async with world.database.write() as connection:
        await connection.execute(update(tables.documents).values(attempts=world.queue.max_attempts - 1))
    await stopped_while_embedding(world)
    assert (await world.row(document)).attempts == 0


async def test_files_in_a_document_become_documents_of_their_own(
    world: World, conversions: Conversions
) -> None:
    await world.collection()
    parent = await upload(
        world, mail("the mail", "first file", " "), metadata={"year": 2024}, acl=["group:kc/staff"]
    )
    await world.work()
    found = await listed(world)
    assert set(found) == {"mail.txt", "0.txt", "1.txt"}
    for name in ("0.txt", "1.txt"):
        inside = found[name]
        assert (inside.parent_id, inside.attributes, inside.acl) == (
            parent.id,
            {"year": 2024},
            ["group:kc/staff"],
        )
        assert (inside.uploaded_by, inside.batch_id) == (parent.uploaded_by, parent.batch_id)
    assert (found["mail.txt"].status, found["0.txt"].status) == ("completed", "completed")
    assert found["1.txt"].status == "failed"  # it has no text; the others do not mind
    assert set(await world.found(world.alice, "file", "handbook")) == {"the mail", "first file"}
    table = tables.audit
    async with world.database.read() as connection:
        query = select(table.c.action).where(table.c.document_id == found["0.txt"].id)
        assert list(await connection.scalars(query)) == ["document.add"]


async def test_a_parent_that_fails_takes_nothing_along(world: World, conversions: Conversions) -> None:
    await world.collection()
    await upload(world, mail(" ", "the file"))
    await world.work()
    found = await listed(world)
    assert {name: document.status for name, document in found.items()} == {
        "mail.txt": "failed",
        "0.txt": "completed",
    }


async def test_a_conversion_that_is_repeated_makes_no_file_twice(
    world: World, conversions: Conversions
) -> None:
    await world.collection()
    await upload(world, mail("the mail", "the file"))

    def lose() -> None:
        for kept in (world.config.storage.data_dir / "originals").rglob("*.prepared"):
            kept.unlink()

    await stopped_while_embedding(world, lose)
    await world.work()
    assert conversions.converted.count("the mail") == 2
    assert len(await listed(world)) == 2
    assert len(await world.found(world.alice, "file", "handbook")) == 2


async def test_files_lie_only_so_deep_in_each_other(world: World, conversions: Conversions) -> None:
    await world.collection()
    nested: Any = "the innermost"
    for level in reversed(range(MAX_DEPTH + 1)):
        nested = [f"level {level}", nested]
    await upload(world, mail(nested))
    await world.work()
    assert sorted((await rows(world)).values()) == list(range(MAX_DEPTH + 1))
    documents = (await world.documents.list(world.alice, "handbook")).data
    [warning] = [warning for document in documents for warning in document.warnings]
    assert "too deep" in warning


async def test_of_one_upload_only_so_many_files_are_taken_however_they_lie_in_each_other(
    world: World, conversions: Conversions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inside, "MAX_INSIDE", 6)
    await world.collection()
    boxes = [[f"box {number}", *(f"file {number} {place}" for place in range(3))] for number in range(3)]
    added = await upload(world, mail("the archive", *boxes))
    await world.work()
    assert sorted((await rows(world)).values()) == [0, 1, 1, 1, 2, 2, 2]
    documents = (await world.documents.list(world.alice, "handbook")).data
    warnings = [warning for document in documents for warning in document.warnings]
    assert [warning.partition(" were left out")[0] for warning in warnings] == ["3 files inside"] * 2
    await upload(world, mail("another one", "its file", *boxes), document_id=added.id)
    await world.work()
    assert sorted((await rows(world)).values()) == [0, 1, 1, 1, 1, 2, 2], "the old ones do not count"
    assert not [name for name in await kept(world) if name not in await rows(world)]


async def kept(world: World) -> list[str]:
    """The documents of which files are kept."""
    found = (world.config.storage.data_dir / "originals").glob("*/*")
    return await asyncio.to_thread(lambda: [path.name for path in found])


async def rows(world: World) -> dict[str, int]:
    table = tables.documents
    async with world.database.read() as connection:
        return {row.id: row.depth for row in await connection.execute(select(table.c.id, table.c.depth))}


async def test_with_a_document_its_files_are_deleted(world: World, conversions: Conversions) -> None:
    await world.collection()
    parent = await upload(world, mail("the mail", "the file"))
    await world.work()
    inside = (await listed(world))["0.txt"]
    await world.documents.delete(world.alice, "handbook", parent.id)
    with pytest.raises(UnknownDocument):
        await world.documents.get(world.alice, "handbook", inside.id)
    await world.work()
    assert await rows(world) == {}
    assert await world.stored(inside) == 0


async def test_who_uploads_a_file_that_is_also_in_a_document_gets_one_of_their_own(
    world: World, conversions: Conversions
) -> None:
    await world.collection()
    parent = await upload(world, mail("the mail", "the file"))
    await world.work()
    inside = (await listed(world))["0.txt"]
    alone = await upload(world, "the file", filename="0.txt", sha256=inside.sha256)
    assert alone.parent_id is None
    await world.documents.delete(world.alice, "handbook", parent.id)
    await world.work()
    assert await world.found(world.alice, "file", "handbook") == ["the file"]


async def test_a_document_deleted_while_it_is_converted_leaves_none_of_its_files(
    world: World, conversions: Conversions
) -> None:
    await world.collection()
    parent = await upload(world, mail("the mail", "the file"))
    world.model.waits = asyncio.Event()
    async with world.working():
        await asyncio.wait_for(world.model.called.wait(), LIMIT_S)
        await world.documents.delete(world.alice, "handbook", parent.id)
        world.model.waits.set()
        await world.until(world.idle)
    assert await rows(world) == {}


async def test_what_replaces_a_document_replaces_its_files_when_it_is_there(
    world: World, conversions: Conversions
) -> None:
    await world.collection()
    await upload(world, mail("the mail", "old file", "kept file"), document_id="mail-1")
    await world.work()
    old = {document.id for document in (await listed(world)).values()} - {"mail-1"}
    await upload(world, mail("the mail", "new file"), document_id="mail-1")
    assert set(await world.found(world.alice, "file", "handbook")) == {"the mail", "old file", "kept file"}
    await world.work()
    assert set(await world.found(world.alice, "file", "handbook")) == {"the mail", "new file"}
    assert not old & set(await rows(world))


async def test_a_narrowed_audience_is_that_of_the_files_inside_at_once(
    world: World, conversions: Conversions
) -> None:
    await world.collection()
    parent = await upload(world, mail("the mail", "the file"))
    await world.work()
    await world.documents.change(world.alice, "handbook", parent.id, DocumentPatch(acl=["user:kc/bob"]))
    assert await world.found(world.alice, "file", "handbook") == []
    await world.work()
    assert await world.found(world.alice, "file", "handbook") == []
    assert {document.acl and tuple(document.acl) for document in (await listed(world)).values()} == {
        ("user:kc/bob",)
    }


async def test_files_for_which_there_is_no_room_say_so(world: World, conversions: Conversions) -> None:
    quota = Quota(subjects=["user:kc/alice"], max_documents=2)
    strict = World(world.config.model_copy(update={"limits": LimitsConfig(quotas=[quota])}), world.store)
    await world.collection()
    await upload(world, mail("the mail", "first file", "second file"))
    await strict.work()
    await strict.database.close()
    found = await listed(world)
    assert [found[name].status for name in ("mail.txt", "0.txt", "1.txt")] == [
        "completed",
        "completed",
        "failed",
    ]
    refused = found["1.txt"].last_error
    assert refused is not None
    assert refused.code == "too_large"
    assert "Delete some" in refused.message


async def test_two_documents_are_worked_on_at_once(world: World) -> None:
    world.concurrency = 2
    await world.collection()
    for number in range(2):
        await world.add("handbook", f"words number {number}")
    world.model.waits = asyncio.Event()
    table = tables.documents

    async def both() -> bool:
        async with world.database.read() as connection:
            held = await connection.scalars(
                select(table.c.id).where(table.c.stage == "embed", table.c.worker.is_not(None))
            )
            return len(list(held)) == 2

    async with world.working():
        await world.until(both)
        world.model.waits.set()
        await world.until(world.idle)


async def test_a_document_whose_worker_dies_counts_from_its_first_try(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the words")
    queue = replace(world.queue, lease_s=0.0)
    first = await queue.take()
    assert first is not None
    second = await world.queue.take()
    assert second is not None
    assert second.document.started_at == first.document.started_at > 0
    assert second.document.attempts == 2
    assert second.document.id == document.id
