"""The worker: retries, failures with their reason, stopping, and what becomes of a lost lease."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select, update

from crawler.fetch import Fetched
from crawler.stores import LiteSupervisor
from plugins.collections import tables
from plugins.collections.exchanges import Exchange, ExchangeLog
from plugins.collections.jobs import LeaseLost, beat, workers_alive
from plugins.collections.records import CollectionRecord, now
from plugins.core.config import ExchangesConfig
from plugins.core.document_shapes import DocumentPatch
from plugins.core.errors import Conflict, UnknownCollection, Upstream
from plugins.worker import tidy
from plugins.worker.crawlers import Crawlers
from plugins.worker.models import NotConfigured
from plugins.worker.tidy import Tidy
from tests.support.collections import LIMIT_S, World, an_upload


async def test_a_transient_error_is_tried_again_and_forgotten(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the text")
    world.model.fails = 2
    await world.work()
    done = await world.documents.get(world.alice, "handbook", document.id)
    assert (done.status, done.last_error) == ("completed", None)


async def test_an_embedding_model_that_is_down_is_waited_for_and_takes_no_tries(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the text")
    assert document.job is not None
    world.model.fails = 2 * world.queue.max_attempts
    world.queue = replace(world.queue, backoff_s=0.2)

    async def waits() -> bool:
        assert document.job is not None
        job = await world.jobs.get(world.alice, document.job.id)
        return (job.stage, job.status, job.waiting_until is not None) == ("waiting", "in_progress", True)

    async with world.working():
        await world.until(waits)
        job = await world.jobs.get(world.alice, document.job.id)
        assert job.last_error is not None
        assert job.last_error.code == "embedding_failed"
        with pytest.raises(Conflict, match="goes on by itself"):
            await world.jobs.retry(world.alice, document.job.id)
        await world.until(world.idle)
    done = await world.documents.get(world.alice, "handbook", document.id)
    assert (done.status, done.last_error) == ("completed", None)


async def test_a_model_that_never_comes_back_fails_its_documents_after_a_day_of_waiting(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("plugins.worker.worker.PATIENCE_S", 0.0)  # the day is over
    await world.collection()
    document = await world.add("handbook", "the text")
    world.model.fails = 100
    await world.work()
    failed = await world.documents.get(world.alice, "handbook", document.id)
    assert failed.status == "failed"
    assert failed.last_error is not None
    assert failed.last_error.code == "embedding_failed"
    assert 100 - world.model.fails == world.queue.max_attempts
    assert failed.job is not None
    job = await world.jobs.get(world.alice, failed.job.id)
    assert job.last_error == failed.last_error


async def test_a_store_that_is_killed_meanwhile_costs_no_document(world: World, lite: LiteSupervisor) -> None:
    await world.collection()
    documents = [await world.add("handbook", f"words number {number}") for number in range(2)]
    world.model.waits = asyncio.Event()
    world.queue = replace(world.queue, max_attempts=1, backoff_s=0.2)
    async with world.working():
        await asyncio.wait_for(world.model.called.wait(), 30)
        assert lite.pid is not None
        os.kill(lite.pid, signal.SIGKILL)
        world.model.waits.set()
        await world.until(world.idle)
    for document in documents:
        done = await world.documents.get(world.alice, "handbook", document.id)
        assert (done.status, done.last_error) == ("completed", None)
        assert await world.stored(document) == 1


async def test_a_broken_file_fails_once_and_the_same_bytes_may_be_tried_again(world: World) -> None:
    await world.collection()
    for _ in range(2):
        spooled = world.documents.spool_dir / "upload"
        spooled.write_bytes(b"%PDF-1.7 this is none")
        upload = an_upload("x", markdown=None, path=spooled, filename="broken.pdf", sha256="1" * 64)
        [document] = await world.documents.add(world.alice, "handbook", [upload])
        await world.work()
        failed = await world.documents.get(world.alice, "handbook", document.id)
        assert failed.status == "failed"
        assert failed.last_error is not None
        assert failed.last_error.code == "unreadable_document"
    assert len((await world.documents.list(world.alice, "handbook")).data) == 2


async def test_a_failed_replacement_leaves_the_old_version_to_searches(world: World) -> None:
    await world.collection()
    await world.add("handbook", "the old words", document_id="doc-1")
    await world.work()
    await world.add("handbook", " ", document_id="doc-1")
    await world.work()
    failed = await world.documents.get(world.alice, "handbook", "doc-1")
    assert failed.status == "failed"
    assert await world.found(world.alice, "words", "handbook") == ["the old words"]


async def test_a_document_replaced_while_it_is_processed_ends_as_the_new_one(world: World) -> None:
    await world.collection()
    old = await world.add("handbook", "the old words", document_id="doc-1")
    world.model.waits = asyncio.Event()
    async with world.working():
        await asyncio.wait_for(world.model.called.wait(), 30)
        await world.add("handbook", "the new words", document_id="doc-1")
        world.model.waits.set()
        await world.until(world.idle)
    assert await world.found(world.alice, "words", "handbook") == ["the new words"]
    assert await world.stored(old) == 1


async def test_a_document_deleted_while_it_is_processed_leaves_nothing(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the words")
    world.model.waits = asyncio.Event()  # never set: the worker must notice by itself
    async with world.working():
        await asyncio.wait_for(world.model.called.wait(), 30)
        await world.documents.delete(world.alice, "handbook", document.id)
        await world.until(world.idle)
    assert await world.row(document) is None
    assert await world.stored(document) == 0


async def test_an_audience_narrowed_while_it_is_processed_is_the_one_that_is_stored(world: World) -> None:
    await world.collection(query=["user:kc/alice"])
    document = await world.add("handbook", "the words")
    world.model.waits = asyncio.Event()
    async with world.working():
        await asyncio.wait_for(world.model.called.wait(), 30)
        patch = DocumentPatch(acl=["user:kc/bob"])
        await world.documents.change(world.alice, "handbook", document.id, patch)
        world.model.waits.set()
        await world.until(world.idle)
    assert await world.found(world.alice, "words", "handbook") == []
    assert await world.stored(document) == 1


async def test_a_worker_that_stops_gives_its_job_back_untried(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the words")
    world.model.waits = asyncio.Event()
    async with world.working() as stop:
        await asyncio.wait_for(world.model.called.wait(), 30)
        stop.set()
    row = await world.row(document)
    assert (row.attempts, row.worker, row.lease_until, row.status) == (0, None, 0.0, "in_progress")
    world.model.waits = None
    await world.work()
    assert await world.found(world.alice, "words", "handbook") == ["the words"]


async def test_one_job_goes_to_one_worker_until_its_lease_runs_out(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the words")
    first = await world.queue.take()
    assert first is not None
    assert await world.queue.take() is None
    table = tables.documents
    async with world.database.write() as connection:
        await connection.execute(update(table).values(lease_until=1.0))
    second = await world.queue.take()
    assert second is not None
    assert second.document.id == document.id
    with pytest.raises(LeaseLost):
        await world.queue.extend(first)
    with pytest.raises(LeaseLost):
        await world.queue.complete(first, chunks=1, pages=None, title=None)
    await world.queue.release(first)
    await world.queue.extend(second)


async def test_what_failed_is_left_alone_for_a_while_longer_each_time(world: World) -> None:
    queue = replace(world.queue, backoff_s=10.0)
    await world.collection()
    await world.add("handbook", "the words")
    table, pauses = tables.documents, []
    for _ in range(2):
        job = await queue.take()
        assert job is not None
        before = now()
        await queue.retry(job, "embedding_failed", "later")
        assert await queue.take() is None
        async with world.database.write() as connection:
            pauses.append((await connection.execute(select(table.c.not_before))).scalar_one() - before)
            await connection.execute(update(table).values(not_before=0.0))
    assert pauses[0] >= 8
    assert pauses[1] >= 40


async def test_a_document_that_ends_its_worker_again_and_again_fails(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "the words")
    for _ in range(world.queue.max_attempts):
        assert await world.queue.take() is not None
        await world.queue.take_over()  # as after a kill
    await world.work()
    failed = await world.documents.get(world.alice, "handbook", document.id)
    assert failed.last_error is not None
    assert (failed.status, failed.last_error.code) == ("failed", "worker_died")


async def test_two_workers_share_the_work_and_each_document_is_stored_once(world: World) -> None:
    await world.collection()
    documents = [await world.add("handbook", f"words number {number}") for number in range(6)]
    async with world.working(), world.working():
        await world.until(world.idle)
    listed = await world.documents.list(world.alice, "handbook", status="completed")
    assert len(listed.data) == len(documents)
    for document in documents:
        assert await world.stored(document) == 1


async def test_a_dropped_collection_is_unknown_at_once_and_its_name_is_free(world: World) -> None:
    first = await world.collection()
    document = await world.add("handbook", "the words")
    await world.work()
    assert await world.catalogue.drop(world.alice, "handbook") == first.id
    with pytest.raises(UnknownCollection):
        await world.catalogue.get(world.alice, first.id)
    with pytest.raises(UnknownCollection):
        await world.found(world.alice, "words", "handbook")
    second = await world.collection()
    assert second.id != first.id
    await world.work()
    assert await world.row(document) is None
    folder = Path(world.config.storage.data_dir) / "originals" / first.id
    assert not folder.exists()
    assert (await world.catalogue.get(world.alice, "handbook")).documents == 0


async def test_a_collection_that_cannot_be_dropped_yet_does_not_hold_up_the_next(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    stuck, next_one = await world.collection(), await world.collection("second")
    for collection in (stuck, next_one):
        await world.catalogue.drop(world.alice, collection.id)
    drop, failing = world.originals.drop, [True]

    async def fails(collection_id: str) -> None:
        if collection_id == stuck.id and failing:
            raise Upstream
        await drop(collection_id)

    monkeypatch.setattr(world.originals, "drop", fails)
    monkeypatch.setattr(tidy.log, "propagate", True)
    async with world.working():
        await world.until(lambda: left(world, [stuck.id]))
        failing.clear()
        await world.until(world.idle)
    assert f"collection {stuck.id} cannot be cleared away yet" in caplog.text


async def left(world: World, ids: list[str]) -> bool:
    """Whether these are the dropped collections that are still to be cleared away."""
    return [collection.id for collection in await world.queue.dropped()] == ids


async def test_old_exchanges_go_though_originals_cannot_be_listed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fails(older_than_s: float) -> list[tuple[str, str]]:
        raise Upstream

    monkeypatch.setattr(world.originals, "documents", fails)
    old = Exchange(1e9, "kc/alice", "req-1", "/v1/chat/completions", "chat", {}, {})
    log = ExchangeLog(world.database, ExchangesConfig(enabled=True))
    log.note(old)
    assert await log.flush(LIMIT_S) == 0
    sweeping = Tidy(world.queue, world.originals, world.store, exchanges_days=30)
    with pytest.raises(Upstream):
        await sweeping.sweep()
    async with world.database.read() as connection:
        assert (await connection.execute(select(tables.exchanges))).all() == []


async def test_a_live_worker_is_seen(world: World) -> None:
    assert await workers_alive(world.database) == 0
    await beat(world.database, "one")
    await beat(world.database, "one")
    assert await workers_alive(world.database) == 1


async def test_a_document_by_address_is_fetched_once_and_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    async def fetch(url: str, *, max_bytes: int) -> Fetched:
        fetched.append(url)
        content = b"<html><body><h1>Leave</h1><p>Thirty days.</p></body></html>"
        return Fetched(content=content, filename="leave.html", media_type="text/html")

    monkeypatch.setattr("plugins.worker.ingest.fetch", fetch)
    await world.collection()
    upload = an_upload("", markdown=None, url="https://example.com/leave", filename="leave", sha256="")
    [document] = await world.documents.add(world.alice, "handbook", [upload])
    world.model.fails = 1
    await world.work()
    done = await world.documents.get(world.alice, "handbook", document.id)
    assert (done.status, done.filename, done.usage_bytes > 0) == ("completed", "leave.html", True)
    await world.documents.change(world.alice, "handbook", document.id, DocumentPatch(metadata={"year": 1}))
    await world.work()
    assert fetched == ["https://example.com/leave"]
    original = await world.content(world.alice, "handbook", document.id)
    assert b"Thirty days" in original.path.read_bytes()


async def test_an_upload_whose_file_is_gone_says_so(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "text")
    for path in (world.config.storage.data_dir / "originals").rglob("*"):
        if path.is_file():
            path.unlink()
    await world.work()
    failed = await world.documents.get(world.alice, "handbook", document.id)
    assert failed.last_error is not None
    assert "Upload it again" in failed.last_error.message


async def test_files_that_no_row_needs_are_swept_when_they_are_old(world: World) -> None:
    await world.collection()
    document = await world.add("handbook", "text")
    orphan = world.originals.spool_dir / "orphan"
    orphan.write_text("x")
    await world.originals.put(document.collection_id, "no-such", "0" * 32, orphan)
    root = world.config.storage.data_dir / "originals"
    for folder in root.glob("*/*"):
        os.utime(folder, (1, 1))
    await world.work()
    await world.documents.wait(world.alice, "handbook", [document.id], 1)

    async def swept() -> bool:
        return {path.parent.name for path in root.rglob("*") if path.is_file()} == {document.id}

    async with world.working():
        await world.until(swept)


def test_a_collection_whose_settings_are_gone_says_what_to_do(world: World) -> None:
    crawlers = Crawlers(world.config, world.store)
    record = CollectionRecord(
        id="vs_1",
        name="a",
        state="ready",
        kind="bundle",
        description="",
        metadata={},
        pipeline="default",
        embedding_model="ollama/nomic",
        dimension=768,
        metric="COSINE",
        retrieval="hybrid",
        store_name="c_1",
        created_by="kc/alice",
        created_at=0.0,
        written_at=0.0,
    )
    with pytest.raises(NotConfigured, match=r"worker\.proxy_url"):
        crawlers.get(record, "kc/alice")
    with pytest.raises(NotConfigured, match="pipeline `gone`"):
        crawlers.get(replace(record, pipeline="gone"), "kc/alice")
    with pytest.raises(NotConfigured, match="local/os"):
        crawlers.get(replace(record, embedding_model="local/os"), "kc/alice")
