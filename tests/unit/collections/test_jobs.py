"""Jobs as people see them: listed, cancelled, tried again and followed, by those who may."""

from __future__ import annotations

import asyncio

import pytest
from sqlalchemy import select

from plugins.collections import tables
from plugins.collections.following import MAX_STREAMS, Event, Stream
from plugins.core.document_shapes import DocumentPatch, DocumentView
from plugins.core.errors import Conflict, Forbidden, LimitReached, UnknownCollection, UnknownDocument
from plugins.core.shapes import Access, CollectionPatch
from tests.support.collections import LIMIT_S, World, an_upload, person

BOB, CAROL, DAVE = person("bob"), person("carol"), person("dave")


def job_of(document: DocumentView) -> str:
    assert document.job is not None
    return document.job.id


async def heard(stream: Stream | None, count: int) -> list[Event]:
    """So many events of jobs, or all until it ends."""
    assert stream is not None
    found: list[Event] = []
    async with asyncio.timeout(LIMIT_S):
        async for event in stream.events():
            found += [event] if event.job is not None else []
            if len(found) == count:
                break
    stream.close()
    return found


async def test_jobs_are_listed_by_state_and_upload_page_by_page(world: World) -> None:
    await world.collection()
    uploads = [an_upload(f"text {number}") for number in range(3)]
    first = await world.documents.add(world.alice, "handbook", uploads, batch_id="batch_1")
    await world.work()
    later = await world.documents.add(world.alice, "handbook", [an_upload(" ")], batch_id="batch_2")
    everything = await world.jobs.list(world.alice, "handbook")
    assert {job.id for job in everything.data} == {job_of(document) for document in (*first, *later)}
    assert everything.data[0].id == job_of(later[0])
    page = await world.jobs.list(world.alice, "handbook", limit=2)
    rest = await world.jobs.list(world.alice, "handbook", after=page.data[-1].id)
    assert (page.has_more, rest.has_more) == (True, False)
    assert [*page.data, *rest.data] == everything.data
    assert len((await world.jobs.list(world.alice, "handbook", batch="batch_1")).data) == 3
    [queued] = (await world.jobs.list(world.alice, "handbook", status="in_progress")).data
    assert (queued.batch_id, queued.stage, queued.percent) == ("batch_2", "queued", 0)
    done = await world.jobs.get(world.alice, job_of(first[0]))
    assert (done.status, done.percent, done.seconds_left, done.waiting_until) == (
        "completed",
        100,
        None,
        None,
    )
    assert done.chunks is not None
    assert (done.chunks.done, done.chunks.total, done.started_at is not None) == (1, 1, True)


async def test_a_job_is_seen_by_those_who_see_its_document(world: World) -> None:
    await world.collection(query=["user:kc/bob"], add=["user:kc/carol"], discover=["user:kc/dave"])
    closed = await world.add("handbook", "closed", acl=["user:kc/alice"])
    opened = await world.add("handbook", "open")
    mine = await world.add("handbook", "of carol", by=CAROL)
    bob = await world.jobs.list(BOB, "handbook")
    assert {job.document_id for job in bob.data} == {opened.id, mine.id}
    carol = await world.jobs.list(CAROL, "handbook")
    assert {job.document_id for job in carol.data} == {mine.id}
    with pytest.raises(UnknownDocument):
        await world.jobs.get(BOB, job_of(closed))
    with pytest.raises(Forbidden):
        await world.jobs.list(DAVE, "handbook")
    with pytest.raises(UnknownCollection):
        await world.jobs.list(person("eve"), "handbook")
    with pytest.raises(UnknownDocument):
        await world.jobs.get(world.alice, "job_none")


async def test_a_cancelled_job_leaves_nothing_and_may_be_tried_again(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the words")
    world.model.waits = asyncio.Event()  # never set: the worker must notice by itself
    async with world.working():
        await asyncio.wait_for(world.model.called.wait(), LIMIT_S)
        assert (await world.jobs.cancel(world.alice, job_of(document))).status == "cancelled"
        await world.until(world.idle)
    assert await world.stored(document) == 0
    assert (await world.documents.get(world.alice, "handbook", document.id)).status == "cancelled"
    with pytest.raises(Conflict):
        await world.jobs.cancel(world.alice, job_of(document))
    world.model.waits = None
    again = await world.jobs.retry(world.alice, job_of(document))
    assert (again.status, again.stage) == ("in_progress", "queued")
    await world.work()
    assert await world.found(world.alice, "words", "handbook") == ["the words"]
    with pytest.raises(Conflict):
        await world.jobs.retry(world.alice, job_of(document))


async def test_the_same_content_is_taken_anew_after_it_was_cancelled(world: World) -> None:
    await world.collection()
    cancelled = await world.add("handbook", "the words")
    await world.jobs.cancel(world.alice, job_of(cancelled))
    again = await world.add("handbook", "the words")
    assert (again.id != cancelled.id, again.status) == (True, "in_progress")


async def test_a_cancelled_replacement_leaves_the_version_that_is_searchable(world: World) -> None:
    await world.collection()
    await world.add("handbook", "the old words", document_id="doc-1")
    await world.work()
    new = await world.add("handbook", "the new words", document_id="doc-1")
    await world.jobs.cancel(world.alice, job_of(new))
    await world.work()
    assert await world.found(world.alice, "words", "handbook") == ["the old words"]


async def test_a_failed_document_is_tried_again_when_asked(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", " ")
    await world.work()
    for _ in range(2):
        failed = await world.jobs.get(world.alice, job_of(document))
        assert (failed.status, failed.last_error and failed.last_error.code) == (
            "failed",
            "unreadable_document",
        )
        assert (await world.jobs.retry(world.alice, job_of(document))).last_error is None
        await world.work()


async def test_only_its_uploader_and_who_manages_cancel_and_retry(world: World) -> None:
    await world.collection(query=["*"], add=["user:kc/bob", "user:kc/carol"])
    document = await world.add("handbook", "of carol", by=CAROL)
    for change in (world.jobs.cancel, world.jobs.retry):
        with pytest.raises(Forbidden, match="`manage`"):
            await change(BOB, job_of(document))
    await world.jobs.cancel(CAROL, job_of(document))
    await world.jobs.retry(world.alice, job_of(document))
    table = tables.audit
    async with world.database.read() as connection:
        actions = list(await connection.scalars(select(table.c.action).order_by(table.c.id)))
    assert actions[-2:] == ["job.cancel", "job.retry"]


async def test_a_job_is_followed_from_its_state_to_its_end(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "# One\n\nwords\n\n# Two\n\nmore")
    stream = await world.jobs.follow_job(world.alice, job_of(document), None)
    listening = asyncio.create_task(heard(stream, 100))
    await world.work()
    events = await listening
    assert [event.number for event in events] == sorted({event.number for event in events})
    stages = [event.job.stage for event in events if event.job is not None]
    assert stages[-1] == "done"
    last = events[-1].job
    assert last is not None
    assert (last.status, last.percent) == ("completed", 100)
    again = await world.jobs.follow_job(world.alice, job_of(document), None)
    assert [event.job for event in await heard(again, 100)] == [last]


async def test_a_stream_goes_on_behind_the_last_event_that_was_seen(world: World) -> None:
    await world.collection()
    stream = await world.jobs.follow_collection(world.alice, "handbook", None)
    documents = [await world.add("handbook", f"text {number}") for number in range(3)]
    [first] = await heard(stream, 1)
    await world.work()
    on = await world.jobs.follow_collection(world.alice, "handbook", first.number)
    events = await heard(on, 3)
    assert all(event.number > first.number for event in events)
    states = {event.job.document_id: event.job.status for event in events if event.job is not None}
    assert states == {document.id: "completed" for document in documents}


async def test_without_a_last_event_a_stream_begins_with_what_is_going_on(world: World) -> None:
    await world.collection()
    await world.add("handbook", "done before")
    await world.work()
    waiting = await world.add("handbook", "still to do")
    stream = await world.jobs.follow_collection(world.alice, "handbook", None)
    [event] = await heard(stream, 1)
    assert event.job is not None
    assert event.job.document_id == waiting.id


async def test_who_loses_the_right_loses_the_stream(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.collections.following.CHECK_S", 0.0)
    await world.collection(query=["user:kc/bob"])
    document = await world.add("handbook", "the words")
    streams = [
        await world.jobs.follow_collection(BOB, "handbook", None),
        await world.jobs.follow_job(BOB, job_of(document), None),
    ]
    listening = [asyncio.create_task(heard(stream, 100)) for stream in streams]
    nobody_else = CollectionPatch(access=Access(manage=["user:kc/alice"]))
    await world.catalogue.change(world.alice, "handbook", nobody_else)
    for task in listening:
        assert len(await task) <= 1


async def test_a_narrowed_audience_ends_what_others_hear_of_the_document(world: World) -> None:
    await world.collection(query=["user:kc/bob"])
    document = await world.add("handbook", "the words")
    stream = await world.jobs.follow_collection(BOB, "handbook", None)
    await heard(stream, 1)
    await world.documents.change(world.alice, "handbook", document.id, DocumentPatch(acl=["user:kc/alice"]))
    other = await world.add("handbook", "other words")
    on = await world.jobs.follow_collection(BOB, "handbook", 0)
    [event] = await heard(on, 1)
    assert event.job is not None
    assert event.job.document_id == other.id


async def test_a_deleted_document_ends_the_stream_of_its_job(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the words")
    stream = await world.jobs.follow_job(world.alice, job_of(document), None)
    await world.documents.delete(world.alice, "handbook", document.id)
    [event] = await heard(stream, 100)
    assert event.job is not None
    assert (event.job.status, event.job.stage) == ("cancelled", "deleted")


async def test_a_person_follows_only_so_many_streams_at_once(world: World) -> None:
    await world.collection()
    streams = [await world.jobs.follow_collection(world.alice, "handbook", None) for _ in range(MAX_STREAMS)]
    with pytest.raises(LimitReached):
        await world.jobs.follow_collection(world.alice, "handbook", None)
    for _ in range(2):  # to close one twice frees one place
        streams[0].close()
    await world.jobs.follow_collection(world.alice, "handbook", None)
    with pytest.raises(LimitReached):
        await world.jobs.follow_collection(world.alice, "handbook", None)
