"""An export into a collection. It can be seen and searched when all of it was read back and found equal;
until then it is being created, and what is left of an import that died is cleared away by the worker."""

from __future__ import annotations

import asyncio
import shutil
import time
import uuid
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from typing import Any

from sqlalchemy import func, insert, select, update
from sqlalchemy.exc import IntegrityError

from plugins.bundle.transfer.contents import Contents, checked, documents
from plugins.bundle.transfer.exporting import GROUP_PASSAGES, Parts
from plugins.bundle.transfer.files import Digest, Manifest, Reader, TransferError, name_of, sha256_of
from plugins.collections import audit, tables
from plugins.collections.access import insert_grants
from plugins.collections.catalogue import checked_name
from plugins.collections.records import COLLECTION_ID, CollectionRecord, new_id, now

ROWS = 1000
"""Written at once."""
BEAT_S = 30.0
"""How often the row says that somebody is still at it."""


async def import_collection(
    parts: Parts, folder: Path, name: str | None = None
) -> tuple[CollectionRecord, Manifest]:
    """Make a collection of an export; its id is kept where it is free.

    Args:
        parts: Where to.
        folder: The export.
        name: What it is called here; None = as it was.

    Raises:
        TransferError: The export is damaged or incomplete, or its name is taken; nothing was written. Or
            what was written is not what was exported: then it is cleared away.
        OSError: A file cannot be read or written.
        CrawlError, BundleError: The store or the database cannot be reached, or the name is none.
    """
    reader = await asyncio.to_thread(Reader, folder)
    contents = await asyncio.to_thread(checked, reader)
    making = _Import(parts, reader, contents, checked_name(name or reader.manifest.name))
    await making.claim()
    finished = False
    try:
        await making.fill()
        await making.verify()
        await making.finish()
        finished = True
    finally:
        if not finished:
            await making.give_up()
    return making.record, reader.manifest


class _Import:
    def __init__(self, parts: Parts, reader: Reader, contents: Contents, name: str) -> None:
        self._parts = parts
        self._reader = reader
        self._contents = contents
        self._beaten = time.monotonic()
        self.record = replace(
            contents.collection, name=name, store_name=new_id("c_"), created_at=now(), written_at=now()
        )

    async def claim(self) -> None:
        """Take the name, and the id where it is free."""
        table = tables.collections
        hybrid = (await self._parts.store.capabilities()).hybrid
        retrieval = self.record.retrieval if hybrid else "dense"
        async with self._parts.database.read() as connection:
            taken = await connection.scalar(select(table.c.id).where(table.c.id == self.record.id))
        free = taken is None and COLLECTION_ID.fullmatch(self.record.id)
        kept = self.record.id if free else new_id("vs_")
        self.record = replace(self.record, id=kept, retrieval=retrieval)
        values = {column.name: getattr(self.record, column.name) for column in table.columns}
        try:
            async with self._parts.database.write() as connection:
                await connection.execute(insert(table).values(**values))
                await insert_grants(connection, self.record.id, self.record.grants)
                audiences = [
                    {"collection_id": self.record.id, "key": key, "subjects": subjects}
                    for key, subjects in self._contents.audiences.items()
                ]
                if audiences:
                    await connection.execute(insert(tables.audiences), audiences)
        except IntegrityError as error:
            raise TransferError(
                f"there is already a collection `{self.record.name}`; give another name with --collection"
            ) from error

    async def fill(self) -> None:
        """Rows, files, passages."""
        record, store = self.record, self._parts.store
        await store.create(
            record.store_name,
            dimension=record.dimension,
            metric=record.metric,
            retrieval="hybrid" if record.retrieval == "hybrid" else "dense",
        )
        same_id = record.id == self._reader.manifest.id
        rows = documents(self._reader, record.id)
        while batch := await asyncio.to_thread(lambda: list(islice(rows, ROWS))):
            values = [
                asdict(row) if same_id else asdict(replace(row, job_id=new_id("job_"))) for row in batch
            ]
            async with self._parts.database.write() as connection:
                await connection.execute(insert(tables.documents), values)
            await self._beat()
        await self._put_files()
        passages = self._reader.rows()
        while some := await asyncio.to_thread(lambda: list(islice(passages, ROWS))):
            await store.write_rows(record.store_name, some)
            await self._beat()

    async def _put_files(self) -> None:
        originals, record = self._parts.originals, self.record
        for document_id, revision, part, digest in self._reader.originals():
            source = self._reader.folder / name_of(document_id, revision, part)
            spooled = originals.spool_dir / f"import-{uuid.uuid4().hex}"
            await asyncio.to_thread(shutil.copyfile, source, spooled)
            await originals.put(record.id, document_id, revision, spooled, part)
            async with originals.open(record.id, document_id, revision, part) as path:
                if path is None or await asyncio.to_thread(sha256_of, path) != digest:
                    raise TransferError(f"the file of the document {document_id} was not kept as it was")
            await self._beat()

    async def verify(self) -> None:
        """Read everything back: is it as the export says?

        Raises:
            TransferError: It is not.
        """
        table, manifest, digest = tables.documents, self._reader.manifest, Digest()
        count = select(func.count()).select_from(table).where(table.c.collection_id == self.record.id)
        async with self._parts.database.read() as connection:
            there = await connection.scalar(count)
        for group in _groups(self._contents.live):
            async for row in self._parts.store.rows(self.record.store_name, group):
                digest.add(row)
            await self._beat()
        stored = await self._parts.store.count(self.record.store_name)
        found = (there, stored, digest.rows, str(digest))
        if found != (manifest.documents, manifest.passages, manifest.passages, manifest.digest):
            raise TransferError(
                f"what was written is not what was exported ({there} of {manifest.documents} documents, "
                f"{stored} of {manifest.passages} passages); try again"
            )

    async def finish(self) -> None:
        """From now on it is there."""
        table = tables.collections
        values: dict[str, Any] = {
            "state": "ready",
            "created_at": self._contents.collection.created_at,
            "written_at": now(),
        }
        async with self._parts.database.write() as connection:
            done = await connection.execute(self._mine(table).values(**values))
            if done.rowcount != 1:
                raise TransferError("the collection was cleared away meanwhile; try again")
            detail = {"name": self.record.name, "documents": self._reader.manifest.documents}
            await audit.record(
                connection,
                self._parts.operator,
                "collection.import",
                collection_id=self.record.id,
                detail=detail,
            )
        self.record = replace(self.record, **values)

    async def give_up(self) -> None:
        """Leave what was written to the worker, which clears it away; the name is free at once."""
        async with self._parts.database.write() as connection:
            values = {"state": "deleting", "name": None}
            await connection.execute(self._mine(tables.collections).values(**values))

    async def _beat(self) -> None:
        """Say that this import is alive: what is being created for ten minutes counts as dead."""
        if time.monotonic() - self._beaten < BEAT_S:
            return
        async with self._parts.database.write() as connection:
            await connection.execute(self._mine(tables.collections).values(created_at=now()))
        self._beaten = time.monotonic()

    def _mine(self, table: Any) -> Any:
        return update(table).where(table.c.id == self.record.id, table.c.state == "creating")


def _groups(live: Mapping[str, tuple[str, int]]) -> Iterator[dict[str, str]]:
    group: dict[str, str] = {}
    passages = 0
    for document_id, (revision, chunks) in live.items():
        if group and passages + chunks > GROUP_PASSAGES:
            yield group
            group, passages = {}, 0
        group[document_id] = revision
        passages += chunks
    if group:
        yield group
