"""A collection into files and back: all of it, or nothing."""

from __future__ import annotations

import asyncio
import hashlib
import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import select, update

from crawler.store import Row
from plugins.bundle.transfer.exporting import Parts, export
from plugins.bundle.transfer.files import Digest, Reader, TransferError
from plugins.bundle.transfer.importing import import_collection
from plugins.collections import tables
from plugins.collections.records import Gate
from plugins.core.errors import UnknownCollection
from plugins.core.identity import Principal
from plugins.core.shapes import CollectionView, SearchRequest
from tests.support.collections import World, person

BOB = person("bob")
CAROL = person("carol")


def parts(world: World, **others: Any) -> Parts:
    operator = Principal(source="command", subject="root", username="root")
    found = {"store": world.store, "originals": world.originals, **others}
    return Parts(database=world.database, gate=Gate(world.database, world.rights), operator=operator, **found)


async def states(world: World) -> list[str]:
    async with world.database.read() as connection:
        return list(await connection.scalars(select(tables.collections.c.state)))


async def found(world: World, ref: str, principal: Principal) -> list[tuple[str, float, str]]:
    """What searches find: by vectors with its scores, by words without, since those depend on how the
    store's files are cut; and not by `rrf`, where the order of equals counts."""
    hits = []
    for ranker in ("dense", "bm25"):
        for text in ("notice period", "salary", "holiday rule number 7"):
            asked = {"query": text, "max_num_results": 50, "ranking_options": {"ranker": ranker}}
            passages = await world.searcher.search(principal, [ref], SearchRequest.model_validate(asked))
            scored = ((passage.score if ranker == "dense" else 0.0, passage.text) for passage in passages)
            hits += [(ranker, *one) for one in sorted(scored)]
    assert hits
    return hits


async def test_a_collection_comes_back_whole_in_another_installation(
    world: World, elsewhere: World, handbook: CollectionView, tmp_path: Path
) -> None:
    manifest = await export(parts(world), "handbook", tmp_path / "out")
    record, _ = await import_collection(parts(elsewhere), tmp_path / "out")
    assert (record.id, record.name, record.state) == (handbook.id, "handbook", "ready")
    assert (manifest.documents, manifest.passages) == (handbook.documents, handbook.chunks)
    there = await elsewhere.catalogue.get(elsewhere.alice, handbook.id)
    assert there == handbook.model_copy(update={"permissions": there.permissions})
    for somebody in (BOB, world.alice):
        assert await found(elsewhere, handbook.id, somebody) == await found(world, handbook.id, somebody)
    theirs = await elsewhere.documents.list(elsewhere.alice, handbook.id)
    assert theirs == await world.documents.list(world.alice, handbook.id)


async def test_who_may_read_what_is_as_it_was(
    world: World, elsewhere: World, handbook: CollectionView, tmp_path: Path
) -> None:
    await export(parts(world), "handbook", tmp_path / "out")
    await import_collection(parts(elsewhere), tmp_path / "out")
    assert "Bob's salary." in await elsewhere.found(BOB, "salary", handbook.id)
    assert "Bob's salary." not in await elsewhere.found(elsewhere.alice, "salary", handbook.id)
    with pytest.raises(UnknownCollection):
        await elsewhere.found(CAROL, "salary", handbook.id)


async def test_originals_come_along(
    world: World, elsewhere: World, handbook: CollectionView, tmp_path: Path
) -> None:
    await export(parts(world), handbook.id, tmp_path / "out")
    await import_collection(parts(elsewhere), tmp_path / "out")
    kept = await elsewhere.content(BOB, handbook.id, "salary")
    assert kept.path.read_text() == "Bob's salary."


async def test_it_goes_on_living_where_it_came_to(
    world: World, elsewhere: World, handbook: CollectionView, tmp_path: Path
) -> None:
    await export(parts(world), "handbook", tmp_path / "out")
    await import_collection(parts(elsewhere), tmp_path / "out")
    await elsewhere.add(handbook.id, "The notice period is ninety days.", document_id="notice")
    await elsewhere.documents.delete(elsewhere.alice, handbook.id, "long")
    await elsewhere.work()
    assert (await elsewhere.found(elsewhere.alice, "notice", handbook.id))[0].endswith("ninety days.")
    assert len(await elsewhere.found(elsewhere.alice, "holiday", handbook.id)) == 1
    assert "thirty days" in (await world.found(world.alice, "notice", handbook.id))[0]
    assert len(await world.found(world.alice, "holiday rule", handbook.id)) > 1


async def test_what_was_still_to_be_done_is_done_where_it_came_to(
    world: World, elsewhere: World, handbook: CollectionView, tmp_path: Path
) -> None:
    await world.add(handbook.id, "The canteen opens at noon.", document_id="canteen")
    await world.add(handbook.id, "The notice period is ninety days.", document_id="notice")
    await export(parts(world), "handbook", tmp_path / "out")
    await import_collection(parts(elsewhere), tmp_path / "out")
    assert "thirty days" in (await elsewhere.found(elsewhere.alice, "notice", handbook.id))[0]
    await elsewhere.work()
    assert "ninety days" in (await elsewhere.found(elsewhere.alice, "notice", handbook.id))[0]
    assert "noon" in (await elsewhere.found(elsewhere.alice, "canteen noon", handbook.id))[0]


async def test_a_copy_beside_the_original_has_another_name_and_id(
    world: World, handbook: CollectionView, tmp_path: Path
) -> None:
    await export(parts(world), "handbook", tmp_path / "out")
    with pytest.raises(TransferError, match="already a collection `handbook`; give another name"):
        await import_collection(parts(world), tmp_path / "out")
    record, _ = await import_collection(parts(world), tmp_path / "out", "copy")
    assert record.id != handbook.id
    await world.catalogue.drop(world.alice, handbook.id)
    await world.work()
    assert await world.found(BOB, "salary", "copy") != []
    assert await states(world) == ["ready"]


async def test_a_document_that_changes_while_it_is_exported_is_exported_as_it_is_then(
    world: World, elsewhere: World, handbook: CollectionView, tmp_path: Path
) -> None:
    store = Meddling(world, handbook.id)
    await export(parts(world, store=store), "handbook", tmp_path / "out")
    assert store.meddled
    await import_collection(parts(elsewhere), tmp_path / "out")
    assert "ninety days" in (await elsewhere.found(elsewhere.alice, "notice", handbook.id))[0]
    listed = await elsewhere.documents.list(elsewhere.alice, handbook.id)
    assert {document.id for document in listed.data} == {"notice", "salary"}


class Meddling:
    """The world's store; while its rows are first read, one document is replaced and another deleted."""

    def __init__(self, world: World, ref: str) -> None:
        self._world = world
        self._ref = ref
        self.meddled = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.store, name)

    async def rows(self, name: str, revisions: dict[str, str]) -> Any:
        rows = [row async for row in self._world.store.rows(name, revisions)]
        if not self.meddled:
            self.meddled = True
            await self._world.add(self._ref, "The notice period is ninety days.", document_id="notice")
            await self._world.documents.delete(self._world.alice, self._ref, "long")
            await self._world.work()
        for row in rows:
            yield row


async def test_passages_that_the_store_has_lost_are_no_backup(
    world: World, handbook: CollectionView, tmp_path: Path
) -> None:
    await world.store.remove(f"c_{handbook.id.removeprefix('vs_')}", "salary")
    with pytest.raises(TransferError, match="has 0 of the 1 passages of the document salary"):
        await export(parts(world), "handbook", tmp_path / "out")
    with pytest.raises(TransferError, match="no complete export"):
        await import_collection(parts(world), tmp_path / "out", "copy")


async def test_a_folder_that_is_not_empty_and_a_collection_that_is_not_there_are_refused(
    world: World, handbook: CollectionView, tmp_path: Path
) -> None:
    with pytest.raises(TransferError, match="no such collection"):
        await export(parts(world), "nothing", tmp_path / "out")
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "mine.txt").touch()
    with pytest.raises(TransferError, match="is not empty"):
        await export(parts(world), "handbook", tmp_path / "out")


@pytest.mark.parametrize("values", [{"kind": "milvus"}, {"adopted": {"text": "t"}}])
async def test_what_is_milvuss_own_is_refused_in_words(
    world: World, handbook: CollectionView, tmp_path: Path, values: dict[str, Any]
) -> None:
    async with world.database.write() as connection:
        await connection.execute(update(tables.collections).values(**values))
    with pytest.raises(TransferError, match="Milvus's own"):
        await export(parts(world), "handbook", tmp_path / "out")


async def test_its_files_are_its_owners_alone_and_any_sha256sum_checks_them(
    world: World, handbook: CollectionView, tmp_path: Path
) -> None:
    await export(parts(world), "handbook", tmp_path / "out")
    modes = {path.stat().st_mode & 0o777 for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert modes == {0o600}
    assert (tmp_path / "out").stat().st_mode & 0o777 == 0o700
    command = ["sha256sum", "--check", "--quiet", "--strict", "SHA256SUMS"]
    checked = await asyncio.to_thread(subprocess.run, command, cwd=tmp_path / "out", check=False)
    assert checked.returncode == 0


async def test_both_are_in_the_audit_log(
    world: World, elsewhere: World, handbook: CollectionView, tmp_path: Path
) -> None:
    await export(parts(world), "handbook", tmp_path / "out")
    await import_collection(parts(elsewhere), tmp_path / "out")
    for place, action in ((world, "collection.export"), (elsewhere, "collection.import")):
        async with place.database.read() as connection:
            query = select(tables.audit).where(tables.audit.c.action == action)
            [entry] = (await connection.execute(query)).all()
        assert (entry.user_id, entry.collection_id) == ("command/root", handbook.id)
        assert entry.detail == {"name": "handbook", "documents": 3}


def cut(folder: Path, name: str) -> None:
    path = folder / name
    path.write_bytes(path.read_bytes()[:-2])


def flip(folder: Path, name: str) -> None:
    content = bytearray((folder / name).read_bytes())
    content[len(content) // 2] ^= 1
    (folder / name).write_bytes(content)


def remove(folder: Path, name: str) -> None:
    (folder / name).unlink()


WHOLE = ("documents.jsonl", "collection.json", "passages-00000.jsonl", "vectors-00000.f32", "SHA256SUMS")
DAMAGE = [(how, name) for how in (cut, flip, remove) for name in (*WHOLE, "manifest.json", "an original")]


@pytest.fixture
async def exported(world: World, handbook: CollectionView, tmp_path: Path) -> Path:
    await export(parts(world), "handbook", tmp_path / "out")
    return tmp_path / "out"


@pytest.mark.parametrize(("how", "name"), DAMAGE, ids=lambda part: getattr(part, "__name__", part))
async def test_what_is_damaged_or_incomplete_is_refused_before_anything_is_written(
    elsewhere: World, exported: Path, how: Any, name: str
) -> None:
    [one, *_] = sorted(path for path in (exported / "files" / "salary").iterdir())
    how(exported, str(one.relative_to(exported)) if name == "an original" else name)
    before = await elsewhere.store.names()
    with pytest.raises(TransferError, match=r"damaged|incomplete|no complete export|another version"):
        await import_collection(parts(elsewhere), exported)
    assert await states(elsewhere) == []
    assert await elsewhere.store.names() == before


def reseal(folder: Path) -> None:
    """Make the sums right again, as whoever tampers with an export would."""
    lines = []
    for line in (folder / "SHA256SUMS").read_text().splitlines():
        name = line.split("  ")[1]
        lines.append(f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n")
    (folder / "SHA256SUMS").write_text("".join(lines))
    digest = Digest()
    for row in Reader(folder).rows():
        digest.add(row)
    change_manifest(
        folder,
        digest=str(digest),
        sums_sha256=hashlib.sha256((folder / "SHA256SUMS").read_bytes()).hexdigest(),
    )


def change_manifest(folder: Path, **fields: Any) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**manifest, **fields}))


def change_lines(path: Path, **fields: Any) -> None:
    lines = [{**json.loads(line), **fields} for line in path.read_text().splitlines()]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize(
    ("file", "fields"),
    [
        ("collection.json", {"audiences": {"everyone": ["user:kc/bob"]}}),
        ("collection.json", {"grants": {"own": ["*"]}}),
        ("documents.jsonl", {"acl": None}),
        ("documents.jsonl", {"id": "../../etc"}),
        ("documents.jsonl", {"chunks": 1}),
        ("documents.jsonl", {"colour": "red"}),
        ("documents.jsonl", {"live_as": {"id": "another"}}),
        ("passages-00000.jsonl", {"acl_key": "of nobody"}),
        ("passages-00000.jsonl", {"revision": "r1"}),
    ],
)
async def test_what_does_not_fit_together_is_refused_though_its_sums_are_right(
    elsewhere: World, exported: Path, file: str, fields: dict[str, Any]
) -> None:
    change_lines(exported / file, **fields)
    reseal(exported)
    with pytest.raises(TransferError, match=r"damaged|newer version"):
        await import_collection(parts(elsewhere), exported)
    assert await states(elsewhere) == []


async def test_a_file_of_no_documents_revision_is_refused(elsewhere: World, exported: Path) -> None:
    name = "files/salary/another"
    (exported / name).write_text("text")
    with (exported / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  {name}\n")
    reseal(exported)
    change_manifest(exported, files=json.loads((exported / "manifest.json").read_text())["files"] + 1)
    with pytest.raises(TransferError, match=r"documents\.jsonl is not as it was written"):
        await import_collection(parts(elsewhere), exported)


async def test_a_link_in_it_is_no_file_of_it(elsewhere: World, exported: Path, tmp_path: Path) -> None:
    [one, *_] = sorted((exported / "files" / "salary").iterdir())
    one.symlink_to(one.rename(tmp_path / "elsewhere"))
    with pytest.raises(TransferError, match="is missing"):
        await import_collection(parts(elsewhere), exported)


async def test_no_name_in_it_leads_out_of_it(elsewhere: World, exported: Path) -> None:
    with (exported / "SHA256SUMS").open("a") as sums:
        sums.write(f"{'0' * 64}  ../secret\n")
    change_manifest(exported, sums_sha256=hashlib.sha256((exported / "SHA256SUMS").read_bytes()).hexdigest())
    with pytest.raises(TransferError, match="SHA256SUMS is not as it was written"):
        await import_collection(parts(elsewhere), exported)


class Forgetful:
    """A store that loses a passage of those that it takes."""

    def __init__(self, world: World) -> None:
        self._world = world

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.store, name)

    async def write_rows(self, name: str, rows: list[Row]) -> None:
        await self._world.store.write_rows(name, rows[1:])


async def test_what_was_not_written_as_it_was_exported_is_never_seen_and_cleared_away(
    elsewhere: World, exported: Path
) -> None:
    before = await elsewhere.store.names()
    with pytest.raises(TransferError, match="3 of 3 documents"):
        await import_collection(parts(elsewhere, store=Forgetful(elsewhere)), exported)
    assert (await elsewhere.catalogue.list(elsewhere.alice)).data == []
    await elsewhere.work()
    assert await states(elsewhere) == []
    assert await elsewhere.store.names() == before
    await import_collection(parts(elsewhere), exported)
    assert await states(elsewhere) == ["ready"]


class Slow:
    """A store for which every write takes an hour."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.cleared: list[str] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._world.store, name)

    async def write_rows(self, name: str, rows: list[Row]) -> None:
        await self._world.store.write_rows(name, rows)
        table = tables.collections
        async with self._world.database.write() as connection:
            await connection.execute(update(table).values(created_at=table.c.created_at - 3600))

    def rows(self, name: str, revisions: dict[str, str]) -> Any:
        return self._after_looking(self._world.store.rows(name, revisions))

    async def _after_looking(self, rows: Any) -> Any:
        self.cleared += [collection.id for collection in await self._world.queue.dropped()]
        async for row in rows:
            yield row


@pytest.mark.parametrize(("beat_s", "cleared"), [(0.0, 0), (3600.0, 1)])
async def test_an_import_that_takes_long_is_not_taken_for_one_that_died(
    elsewhere: World, exported: Path, monkeypatch: pytest.MonkeyPatch, beat_s: float, cleared: int
) -> None:
    monkeypatch.setattr("plugins.bundle.transfer.importing.BEAT_S", beat_s)
    store = Slow(elsewhere)
    await import_collection(parts(elsewhere, store=store), exported)
    assert len(store.cleared) == cleared
