"""Documents: who may add, see, change, delete and download them, and what a repetition does."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from plugins.collections import tables
from plugins.collections.placing import revise, superseded
from plugins.collections.records import document_record
from plugins.core.document_shapes import DocumentPatch
from plugins.core.errors import Conflict, Forbidden, InvalidRequest, UnknownCollection, UnknownDocument
from tests.support.collections import World, an_upload, person

BOB = person("bob")
CAROL = person("carol")


async def test_an_added_document_is_processed_and_found(world: World) -> None:
    handbook = await world.collection()
    added = await world.add(handbook.id, "# Leave\n\nThirty days of leave a year.")
    assert (added.status, added.job and added.job.stage) == ("in_progress", "queued")
    assert await world.found(world.alice, "leave", "handbook") == []
    await world.work()
    done = await world.documents.get(world.alice, handbook.id, added.id)
    assert (done.status, done.chunks, done.last_error) == ("completed", 1, None)
    [text] = await world.found(world.alice, "leave", "handbook")
    assert "Thirty days" in text
    view = await world.catalogue.get(world.alice, "handbook")
    assert (view.documents, view.chunks) == (1, 1)


async def test_adding_needs_add_and_a_hidden_collection_is_unknown(world: World) -> None:
    await world.collection(query=["user:kc/bob"])
    with pytest.raises(Forbidden, match="`add`"):
        await world.documents.check_add(BOB, "handbook")
    with pytest.raises(Forbidden, match="`add`"):
        await world.add("handbook", "text", by=BOB)
    with pytest.raises(UnknownCollection) as hidden:
        await world.documents.check_add(CAROL, "handbook")
    with pytest.raises(UnknownCollection) as missing:
        await world.documents.check_add(CAROL, "no-such")
    assert hidden.value.message == missing.value.message


async def test_who_only_adds_sees_and_deletes_own_uploads_and_cannot_search(world: World) -> None:
    await world.collection(add=["user:kc/carol"])
    theirs = await world.add("handbook", "of alice")
    mine = await world.add("handbook", "of carol", by=CAROL)
    await world.work()
    listed = await world.documents.list(CAROL, "handbook")
    assert [document.id for document in listed.data] == [mine.id]
    assert (await world.documents.get(CAROL, "handbook", mine.id)).status == "completed"
    assert mine.job is not None
    assert (await world.jobs.get(CAROL, mine.job.id)).stage == "done"
    with pytest.raises(UnknownDocument):
        await world.documents.get(CAROL, "handbook", theirs.id)
    with pytest.raises(UnknownDocument):
        await world.documents.delete(CAROL, "handbook", theirs.id)
    with pytest.raises(Forbidden, match="`query`"):
        await world.content(CAROL, "handbook", mine.id)
    with pytest.raises(Forbidden, match="`query`"):
        await world.found(CAROL, "carol", "handbook")
    await world.documents.delete(CAROL, "handbook", mine.id)
    assert (await world.documents.list(CAROL, "handbook")).data == []


async def test_the_same_content_again_is_the_same_document_without_a_new_job(world: World) -> None:
    await world.collection(add=["user:kc/carol"], query=["user:kc/bob"])
    first = await world.add("handbook", "the text", metadata={"year": 2024})
    again = await world.add("handbook", "the text", metadata={"year": 2024})
    assert (again.id, again.job) == (first.id, first.job)
    other = [
        await world.add("handbook", "the text", metadata={"year": 2025}),
        await world.add("handbook", "the text", metadata={"year": 2024}, acl=["user:kc/bob"]),
        await world.add("handbook", "the text", metadata={"year": 2024}, by=CAROL),
    ]
    assert len({first.id, *(document.id for document in other)}) == 4
    folder = Path(world.config.storage.data_dir) / "originals" / first.collection_id
    assert sum(1 for path in folder.rglob("*") if path.is_file()) == 4
    await world.work()


async def test_the_same_content_under_the_same_id_is_not_ingested_again(world: World) -> None:
    await world.collection()
    first = await world.add("handbook", "the text", document_id="doc-1", acl=["user:kc/alice"])
    await world.work()
    for acl in (["user:kc/alice"], None):
        again = await world.add("handbook", "the text", document_id="doc-1", acl=acl)
        assert (again.id, again.status) == (first.id, "completed")
        assert again.job == (await world.documents.get(world.alice, "handbook", "doc-1")).job


async def test_an_id_that_exists_replaces_the_document_and_the_old_one_is_found_until_then(
    world: World,
) -> None:
    await world.collection(add=["user:kc/carol"])
    old = await world.add("handbook", "the old words", document_id="doc-1")
    await world.work()
    new = await world.add("handbook", "the new words", document_id="doc-1")
    assert (new.id, new.status, new.created_at) == (old.id, "in_progress", old.created_at)
    assert await world.found(world.alice, "words", "handbook") == ["the old words"]
    await world.work()
    assert await world.found(world.alice, "words", "handbook") == ["the new words"]
    assert await world.stored(new) == 1
    with pytest.raises(Conflict):
        await world.add("handbook", "carol's words", document_id="doc-1", by=CAROL)


async def test_what_replaces_a_document_keeps_the_audience_that_a_manager_gave_it(world: World) -> None:
    await world.collection(add=["user:kc/carol"])
    await world.add("handbook", "words", document_id="doc-1", by=CAROL)
    await world.documents.change(world.alice, "handbook", "doc-1", DocumentPatch(acl=["user:kc/alice"]))
    again = await world.add("handbook", "new words", document_id="doc-1", by=CAROL)
    assert again.acl == ["user:kc/alice"]
    with pytest.raises(Forbidden, match="manage"):
        await world.add("handbook", "newer words", document_id="doc-1", acl=["*"], by=CAROL)
    wider = await world.add("handbook", "newest words", document_id="doc-1", acl=["*"])
    assert wider.acl == ["*"]


async def test_a_batch_with_one_refused_document_adds_none_and_leaves_no_file(world: World) -> None:
    await world.collection(add=["user:kc/carol"])
    await world.add("handbook", "alice's", document_id="taken")
    uploads = [an_upload("fine"), an_upload("not fine", document_id="taken")]
    with pytest.raises(Conflict):
        await world.documents.add(CAROL, "handbook", uploads)
    assert (await world.documents.list(CAROL, "handbook")).data == []
    originals = Path(world.config.storage.data_dir) / "originals"
    assert len([path for path in originals.rglob("*") if path.is_file()]) == 1


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"acl": []}, "acl"),
        ({"acl": ["bob"]}, "acl"),
        ({"acl": ["user:bob"]}, "acl"),
        ({"metadata": {"page": 3}}, "metadata"),
        ({"metadata": {f"k{i}": 1 for i in range(17)}}, "metadata"),
        ({"metadata": {"k": float("nan")}}, "metadata"),
        ({"metadata": {"title": " "}}, "metadata"),
        ({"metadata": {"title": ["x"]}}, "metadata"),
        ({"metadata": {"parties": ["x\x00"]}}, "metadata"),
        ({"metadata": {"notes": ["x" * 70_000]}}, "metadata"),
        ({"metadata": {"title": "A", "filename": "b.pdf"}}, "metadata"),
        ({"markdown": None, "url": "https://example.com", "metadata": {"k": [1]}}, "metadata"),
        ({"markdown": None, "url": "https://example.com", "metadata": {"title": "A"}}, "metadata"),
        ({"expires_at": 1}, "expires_at"),
        ({"expires_at": "tomorrow"}, "expires_at"),
        ({"metadata": {"k": 10**300}}, "metadata"),
        ({"document_id": "a/b"}, "id"),
        ({"document_id": ""}, "id"),
        ({"filename": "a\nb"}, "filename"),
        ({"markdown": None, "url": "file:///etc/passwd"}, "url"),
        ({"markdown": "\ud800"}, "markdown"),
        ({"url": "https://example.com"}, None),
    ],
)
async def test_what_cannot_be_is_refused_with_the_field(
    world: World, fields: dict[str, object], param: str | None
) -> None:
    await world.collection()
    with pytest.raises(InvalidRequest) as refused:
        await world.documents.add(world.alice, "handbook", [an_upload("text", **fields)])
    assert refused.value.param == param


async def test_an_audience_admits_only_its_subjects_everywhere(world: World) -> None:
    await world.collection(query=["user:kc/bob", "user:kc/carol"])
    secret = await world.add("handbook", "the secret plan", acl=["user:kc/bob"])
    await world.add("handbook", "the open plan")
    await world.work()
    assert sorted(await world.found(BOB, "plan", "handbook")) == ["the open plan", "the secret plan"]
    assert await world.found(CAROL, "plan", "handbook") == ["the open plan"]
    assert await world.found(world.alice, "plan", "handbook") == ["the open plan"]  # manage is no key
    assert len((await world.documents.list(world.alice, "handbook")).data) == 2
    assert len((await world.documents.list(CAROL, "handbook")).data) == 1
    with pytest.raises(UnknownDocument):
        await world.documents.get(CAROL, "handbook", secret.id)
    with pytest.raises(UnknownDocument):
        await world.searcher.read(CAROL, secret.id)
    [passage] = await world.searcher.read(BOB, secret.id)
    assert passage.text == "the secret plan"
    with pytest.raises(Forbidden, match="audience"):
        await world.content(world.alice, "handbook", secret.id)
    original = await world.content(BOB, "handbook", secret.id)
    assert original.path.read_text() == "the secret plan"


async def test_who_manages_a_document_without_reading_it_is_not_told_what_is_in_it(world: World) -> None:
    await world.collection(add=["user:kc/carol"], query=["user:kc/carol"])
    added = await world.add("handbook", "# Salaries\n\nOf all.", by=CAROL, acl=["user:kc/carol"])
    await world.work()
    async with world.database.write() as connection:
        warned = update(tables.documents).where(tables.documents.c.id == added.id)
        await connection.execute(warned.values(warnings=["'5000 euros' is not a number"]))
    theirs = await world.documents.get(CAROL, "handbook", added.id)
    assert (theirs.properties["title"], len(theirs.sha256 or ""), len(theirs.warnings)) == ("Salaries", 64, 1)
    alices = await world.documents.get(world.alice, "handbook", added.id)
    assert (alices.properties, alices.sha256, alices.warnings) == ({}, None, [])
    [listed] = (await world.documents.list(world.alice, "handbook")).data
    assert (listed.properties, listed.sha256, listed.warnings) == ({}, None, [])


async def test_a_narrowed_audience_holds_at_once_and_then_in_the_store(world: World) -> None:
    await world.collection(query=["user:kc/bob", "user:kc/carol"])
    document = await world.add("handbook", "the plan")
    await world.work()
    await world.documents.change(world.alice, "handbook", document.id, DocumentPatch(acl=["user:kc/bob"]))
    assert await world.found(CAROL, "plan", "handbook") == []
    assert await world.found(BOB, "plan", "handbook") == ["the plan"]
    with pytest.raises(UnknownDocument):
        await world.content(CAROL, "handbook", document.id)
    await world.work()
    assert await world.found(CAROL, "plan", "handbook") == []
    assert await world.found(BOB, "plan", "handbook") == ["the plan"]
    assert await world.stored(document) == 1
    await world.documents.change(world.alice, "handbook", document.id, DocumentPatch(acl=None))
    await world.work()
    assert await world.found(CAROL, "plan", "handbook") == ["the plan"]


async def test_uploaders_change_attributes_and_only_managers_change_audiences(world: World) -> None:
    await world.collection(add=["user:kc/carol"], query=["user:kc/carol", "user:kc/bob"])
    document = await world.add("handbook", "carol's", by=CAROL)
    changed = await world.documents.change(
        CAROL, "handbook", document.id, DocumentPatch(metadata={"year": 2024})
    )
    assert changed.attributes == {"year": 2024}
    with pytest.raises(Forbidden, match="`manage`"):
        await world.documents.change(CAROL, "handbook", document.id, DocumentPatch(acl=["user:kc/carol"]))
    with pytest.raises(Forbidden, match="`manage`"):
        await world.documents.change(BOB, "handbook", document.id, DocumentPatch(metadata={}))
    with pytest.raises(InvalidRequest):
        await world.documents.change(world.alice, "handbook", document.id, DocumentPatch(acl=[]))


async def test_a_deleted_document_is_gone_at_once_and_then_from_store_and_disk(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the text", document_id="doc-1")
    await world.work()
    assert await world.stored(document) == 1
    assert await world.documents.delete(world.alice, "handbook", document.id) == document.id
    assert await world.found(world.alice, "text", "handbook") == []
    with pytest.raises(UnknownDocument):
        await world.documents.get(world.alice, "handbook", document.id)
    assert document.job is not None
    with pytest.raises(UnknownDocument):
        await world.jobs.get(world.alice, document.job.id)
    with pytest.raises(Conflict, match="being deleted"):
        await world.add("handbook", "again", document_id="doc-1")
    await world.work()
    assert await world.row(document) is None
    assert await world.stored(document) == 0
    originals = Path(world.config.storage.data_dir) / "originals"
    assert [path for path in originals.rglob("*") if path.is_file()] == []


async def test_lists_go_page_by_page_and_by_status(world: World) -> None:
    await world.collection()
    ids = [(await world.add("handbook", f"text {number}")).id for number in range(3)]
    first = await world.documents.list(world.alice, "handbook", limit=2)
    rest = await world.documents.list(world.alice, "handbook", limit=2, after=first.data[-1].id)
    assert [document.id for document in (*first.data, *rest.data)] == ids[::-1]
    assert (first.has_more, rest.has_more) == (True, False)
    assert (await world.documents.list(world.alice, "handbook", status="completed")).data == []
    with pytest.raises(InvalidRequest):
        await world.documents.list(world.alice, "handbook", limit=0)


async def test_waiting_ends_with_the_job_or_with_the_time(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "text")
    [waited] = await world.documents.wait(world.alice, "handbook", [document.id], 0.01)
    assert waited.status == "in_progress"
    async with world.working():
        [waited] = await world.documents.wait(world.alice, "handbook", [document.id], 30.0)
    assert waited.status == "completed"


async def test_an_original_is_moved_in_and_names_of_files_are_ids_only(world: World) -> None:
    await world.collection()
    spooled = world.documents.spool_dir / "upload"
    spooled.write_bytes(b"# Title\n\nThe text of the file.")
    upload = an_upload("x", markdown=None, path=spooled, filename="..\\..\\evil name.md", sha256="0" * 64)
    [document] = await world.documents.add(world.alice, "handbook", [upload])
    assert not spooled.exists()
    original = await world.content(world.alice, "handbook", document.id)
    assert original.filename == "..\\..\\evil name.md"
    relative = original.path.relative_to(world.config.storage.data_dir / "originals")
    assert relative.parts[:2] == (document.collection_id, document.id)
    await world.work()
    [text] = await world.found(world.alice, "file", "handbook")
    assert "The text of the file." in text


async def test_what_is_given_beside_markdown_is_not_looked_for_and_what_is_found_is_not_taken_for_given(
    world: World,
) -> None:
    await world.collection()
    metadata = {"title": "Edited", "parties": ["x"], "year": 2025}
    given = await world.add("handbook", "# Heading\n\nthe text", metadata=metadata)
    found = await world.add("handbook", "# Heading\n\nthe text")
    await world.work()
    row = await world.row(given)
    assert row.given == row.properties == {"title": "Edited", "parties": ["x"]}
    assert (row.title, row.attributes) == ("Edited", {"year": 2025})
    row = await world.row(found)
    assert (row.title, row.properties["title"], row.given) == ("Heading", "Heading", None)


async def test_the_same_markdown_with_an_edited_title_is_another_document(world: World) -> None:
    await world.collection()
    first = await world.add("handbook", "the text", metadata={"title": "A"})
    await world.work()
    again = await world.add("handbook", "the text", metadata={"title": "A"})
    edited = await world.add("handbook", "the text", metadata={"title": "B"})
    assert again.id == first.id != edited.id


async def kept(world: World) -> set[str]:
    """The contents of the originals."""
    folder = world.config.storage.data_dir / "originals"
    return {path.read_text() for path in folder.rglob("*") if path.is_file() and not path.suffix}


async def test_of_what_is_replaced_only_the_searchable_and_the_last_version_are_kept(world: World) -> None:
    await world.collection()
    for number in range(3):
        await world.add("handbook", f"words {number}", document_id="doc-1")
        assert await kept(world) == {f"words {number}"}
    await world.work()
    for number in range(3, 6):
        await world.add("handbook", f"words {number}", document_id="doc-1")
        assert await kept(world) == {"words 2", f"words {number}"}
    assert await world.found(world.alice, "words", "handbook") == ["words 2"]
    await world.documents.add(
        world.alice, "handbook", [an_upload(f"words {number}", document_id="doc-1") for number in (6, 7)]
    )
    assert await kept(world) == {"words 2", "words 7"}
    await world.work()
    assert await kept(world) == {"words 7"}


async def test_changing_a_document_over_and_over_keeps_only_two_of_its_files(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the words")
    await world.work()
    folder = world.config.storage.data_dir / "originals"
    for year in range(2020, 2024):
        patch = DocumentPatch(metadata={"year": year})
        await world.documents.change(world.alice, "handbook", document.id, patch)
        files = [path for path in folder.rglob("*") if path.is_file() and not path.suffix]
        assert len(files) == 2
    await world.work()
    assert await world.found(world.alice, "words", "handbook") == ["the words"]


async def test_the_version_that_becomes_searchable_while_it_is_replaced_is_kept(world: World) -> None:
    await world.collection()
    first = document_record(await world.row(await world.add("handbook", "the words", document_id="doc-1")))
    await world.work()
    async with world.database.write() as connection:
        fresh = await revise(connection, first, revision="0" * 32)
    assert superseded(first, fresh) is None
    assert superseded(replace(first, revision="1" * 32), fresh) == "1" * 32
