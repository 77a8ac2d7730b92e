"""A collection into files, while the service goes on.

Document by document: its row is read again after its passages and files, and if it changed meanwhile, all of
that is done again. So what is exported of a document belongs together, though two documents may be of
different moments.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sqlalchemy import select

from crawler.store import Row, Store
from plugins.bundle.transfer.files import Manifest, TransferError, Writer, name_of
from plugins.collections import audit, tables
from plugins.collections.database import Database
from plugins.collections.originals import PARTS, Originals
from plugins.collections.records import (
    DOCUMENT_COLUMNS,
    CollectionRecord,
    DocumentRecord,
    Gate,
    document_record,
    now,
    there,
)
from plugins.core.errors import UnknownCollection
from plugins.core.identity import Principal

PAGE = 200
GROUP_PASSAGES = 2000
"""So many are in memory at once, or those of one document."""
TRIES = 20
OF_HERE = {
    "document": {"collection_id", "worker", "lease_until", "change", "built_in", "built_chunks"},
    "collection": {"state", "store_name", "reindex", "adopted", "grants", "held"},
}
"""What rows say of this installation, or is said elsewhere."""


@dataclass(frozen=True)
class Parts:
    """Where a collection is."""

    database: Database
    store: Store[Any]
    originals: Originals[Any]
    gate: Gate
    operator: Principal
    """Who runs the command, for the audit log."""


async def export(parts: Parts, ref: str, folder: Path) -> Manifest:
    """Write the collection with this id or name into a new folder.

    Raises:
        TransferError: It cannot be exported; what is in the folder by then is no export.
        OSError: The folder cannot be written.
        CrawlError, BundleError: The store or the database cannot be reached.
    """
    record = await _find(parts, ref)
    writer = await asyncio.to_thread(Writer, folder)
    async for page in _pages(parts, record):
        for group in _groups(page):
            await _write(parts, record, writer, group)
    current = await _find(parts, record.id)
    if current.store_name != record.store_name:
        raise TransferError("the collection was rebuilt meanwhile; export it again into a new folder")
    manifest = await asyncio.to_thread(
        writer.finish,
        await _whole(parts, current),
        exported_at=now(),
        **{
            name: getattr(current, name)
            for name in ("id", "name", "embedding_model", "dimension", "metric", "retrieval")
        },
    )
    async with parts.database.write() as connection:
        detail = {"name": current.name, "documents": manifest.documents}
        await audit.record(
            connection, parts.operator, "collection.export", collection_id=current.id, detail=detail
        )
    return manifest


async def _find(parts: Parts, ref: str) -> CollectionRecord:
    try:
        async with parts.database.read() as connection:
            record = await parts.gate.find(connection, ref)
    except UnknownCollection as error:
        raise TransferError("there is no such collection") from error
    if record.adopted is not None or record.kind != "bundle":
        raise TransferError(
            "the collection is Milvus's own: its rights are there, and it may have been made by others; use "
            "Milvus's backup tool (milvus-backup)"
        )
    return record


async def _whole(parts: Parts, record: CollectionRecord) -> dict[str, Any]:
    table = tables.audiences
    query = select(table.c.key, table.c.subjects).where(table.c.collection_id == record.id)
    async with parts.database.read() as connection:
        audiences = {row.key: row.subjects for row in await connection.execute(query)}
    fields = asdict(replace(record, held=frozenset()))
    return {
        "collection": {key: value for key, value in fields.items() if key not in OF_HERE["collection"]},
        "grants": {right: sorted(subjects) for right, subjects in record.grants.items()},
        "audiences": audiences,
    }


async def _pages(parts: Parts, record: CollectionRecord) -> AsyncIterator[list[DocumentRecord]]:
    table, last = tables.documents, ""
    while True:
        query = (
            select(*DOCUMENT_COLUMNS)
            .where(table.c.collection_id == record.id, table.c.id > last, there())
            .order_by(table.c.id)
            .limit(PAGE)
        )
        async with parts.database.read() as connection:
            page = [document_record(row) for row in await connection.execute(query)]
        if not page:
            return
        yield page
        last = page[-1].id


def _groups(page: list[DocumentRecord]) -> list[list[DocumentRecord]]:
    groups: list[list[DocumentRecord]] = []
    passages = 0
    for row in page:
        if not groups or passages + row.chunks > GROUP_PASSAGES:
            groups.append([])
            passages = 0
        groups[-1].append(row)
        passages += row.chunks
    return groups


async def _write(parts: Parts, record: CollectionRecord, writer: Writer, group: list[DocumentRecord]) -> None:
    for _ in range(TRIES):
        found = await _passages(parts, record, group)
        copied = {row.id: await _copied(parts, row, writer) for row in group}
        current = await _again(parts, group)
        changed = []
        for row in group:
            same = row.id in current and _state(current[row.id]) == _state(row)
            if same:
                _check_complete(row, found[row.id])
                fields = _fields(current[row.id])
                await asyncio.to_thread(writer.add, fields, found[row.id], copied[row.id])
                continue
            for name in copied[row.id]:
                await asyncio.to_thread(writer.forget, name)
            if row.id in current:
                changed.append(current[row.id])
        if not changed:
            return
        group = changed
    raise TransferError("a document changes all the time; wait until its uploads are done, and try again")


async def _passages(
    parts: Parts, record: CollectionRecord, group: list[DocumentRecord]
) -> dict[str, list[Row]]:
    found: dict[str, list[Row]] = {row.id: [] for row in group}
    live = {row.id: row.live_revision for row in group if row.live_revision is not None}
    async for passage in parts.store.rows(record.store_name, live):
        found[passage.document_id].append(passage)
    return found


async def _copied(parts: Parts, row: DocumentRecord, writer: Writer) -> dict[str, str]:
    """The sums of the document's files, which are now in the export, by their names there."""
    copied = {}
    for revision in sorted({row.revision, row.live_revision or row.revision}):
        for part in PARTS:
            name = name_of(row.id, revision, part)
            async with parts.originals.open(row.collection_id, row.id, revision, part) as path:
                if path is not None:
                    try:
                        copied[name] = await asyncio.to_thread(writer.copy, path, name)
                    except FileNotFoundError:
                        continue  # it was replaced just now, which its row will say
    return copied


async def _again(parts: Parts, group: list[DocumentRecord]) -> Mapping[str, DocumentRecord]:
    """The documents as they are now; those that are gone are not among them."""
    table = tables.documents
    query = select(*DOCUMENT_COLUMNS).where(
        table.c.collection_id == group[0].collection_id, table.c.id.in_([row.id for row in group]), there()
    )
    async with parts.database.read() as connection:
        return {row.id: document_record(row) for row in await connection.execute(query)}


def _state(row: DocumentRecord) -> tuple[object, ...]:
    """What passages and files depend on."""
    return row.revision, row.live_revision, row.sha256, row.chunks


def _check_complete(row: DocumentRecord, found: list[Row]) -> None:
    expected = row.chunks if row.live_revision is not None else 0
    if len(found) != expected:
        raise TransferError(
            f"the vector store has {len(found)} of the {expected} passages of the document {row.id} "
            f"({row.filename}); upload it again or reindex the collection, and export then"
        )


def _fields(row: DocumentRecord) -> dict[str, Any]:
    return {key: value for key, value in asdict(row).items() if key not in OF_HERE["document"]}
