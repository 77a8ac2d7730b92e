"""Collections that others made in Milvus, as rows: listed and searched here by the layout of the YAML."""

from __future__ import annotations

import asyncio
import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fnmatch import fnmatchcase
from typing import Any

from sqlalchemy import insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from crawler.errors import StoreError, StoreMismatch, StoreRefused
from crawler.store import Outline, Store
from plugins.collections import tables
from plugins.collections.database import Database
from plugins.collections.records import CollectionRecord, collection_record, now
from plugins.core.config import Adoption, CollectionsConfig

log = logging.getLogger(__name__)

EVERY_S = 10.0
"""So often it is looked which collections there are, when somebody asks for any."""
TIMEOUT_S = 10.0
AT_ONCE = 8
GONE = "gone"
"""The state of a row whose collection is not there (any more), or is not as the YAML says."""
MADE_BY = "milvus"


@dataclass(frozen=True, slots=True)
class _Found:
    name: str
    entry: Adoption
    outline: Outline


class Adopter:
    """Keeps the rows of adopted collections as Milvus and the YAML say.

    A collection keeps its id, and the grants that it was given, for as long as it keeps its name.
    """

    def __init__(self, database: Database, store: Store[Any], config: CollectionsConfig) -> None:
        self._database = database
        self._store = store
        self._entries = config.adopt
        self._problems: dict[str, str] = {}
        self._taken: set[str] = set()
        self._until = 0.0
        self._looking = asyncio.Lock()

    @property
    def problems(self) -> Mapping[str, str]:
        """What keeps a collection from being adopted, by its name; for the log and for admins."""
        return self._problems

    async def refresh(self) -> None:
        """Look again, if that is due. What goes wrong is logged: the rows stay as they are."""
        async with self._looking:
            if time.monotonic() < self._until:
                return
            # Without entries only those go that an earlier configuration adopted: once is enough.
            self._until = time.monotonic() + EVERY_S if self._entries else float("inf")
            try:
                async with asyncio.timeout(TIMEOUT_S):
                    found = await self._look() if self._entries else []
                await self._write(found)
            except (StoreError, TimeoutError) as error:
                log.warning("Collections to adopt could not be looked for: %s", error or "no answer in time")

    async def _look(self) -> list[_Found]:
        wanted = {
            name: entry
            for name in await self._store.names()
            for entry in reversed(self._entries)
            if fnmatchcase(name, entry.names)
        }
        slots, problems = asyncio.Semaphore(AT_ONCE), dict[str, str]()

        async def outlined(name: str, entry: Adoption) -> _Found | None:
            try:
                async with slots:
                    outline = await self._store.outline(name, entry.fields)
                if entry.metric not in (None, outline.metric):
                    raise StoreMismatch(f"Its vectors are compared by {outline.metric}, not {entry.metric}.")
            except (StoreMismatch, StoreRefused) as error:
                problems[name] = error.message
                return None
            return _Found(name, entry, outline)

        found = await asyncio.gather(*(outlined(name, entry) for name, entry in wanted.items()))
        for name in problems.keys() - self._problems.keys():
            log.error("The collection %s of Milvus cannot be adopted: %s", name, problems[name])
        self._problems = problems
        return [one for one in found if one is not None]

    async def _write(self, found: Sequence[_Found]) -> None:
        wanted = {record.id: record for record in map(_record, found)}
        table = tables.collections
        async with self._database.read() as connection:
            query = select(table).where(table.c.adopted.is_not(None))
            there = {row.id: collection_record(row, {}) for row in await connection.execute(query)}
        changed = [record for record in wanted.values() if not _same(there.get(record.id), record)]
        gone = [row.id for row in there.values() if row.state != GONE and row.id not in wanted]
        if not changed and not gone:
            return
        async with self._database.write() as connection:
            for record in changed:
                await self._put(connection, record)
            await connection.execute(update(table).where(table.c.id.in_(gone)).values(state=GONE))

    async def _put(self, connection: AsyncConnection, record: CollectionRecord) -> None:
        table = tables.collections
        values = {column.name: getattr(record, column.name) for column in table.columns}
        kept = {"id", "created_at", "description", "metadata"}
        seen = {key: value for key, value in values.items() if key not in kept}
        changed = await connection.execute(update(table).where(table.c.id == record.id).values(**seen))
        if changed.rowcount:
            return
        try:
            async with connection.begin_nested():
                await connection.execute(insert(table).values(**values))
        except IntegrityError:
            # Another process was faster, or a collection of ours has the name.
            if record.id not in self._taken:
                log.warning("The collection %s of Milvus is not adopted: its name is taken", record.name)
            self._taken.add(record.id)


def _record(found: _Found) -> CollectionRecord:
    entry, moment = found.entry, now()
    digest = hashlib.sha256(f"adopted:{found.name}".encode()).hexdigest()
    return CollectionRecord(
        id=f"vs_{digest[:32]}",
        name=found.name,
        state="ready",
        kind=entry.rights,
        description="",
        metadata={},
        pipeline="",
        embedding_model=entry.embedding_model,
        dimension=found.outline.dimension,
        metric=found.outline.metric,
        retrieval="dense",
        store_name=found.name,
        created_by=MADE_BY,
        created_at=moment,
        written_at=0.0,
        adopted=entry.fields.model_dump(),
    )


def _same(there: CollectionRecord | None, wanted: CollectionRecord) -> bool:
    """Whether the row is as it should be, apart from what people may change."""
    if there is None:
        return False
    kept = {name: getattr(there, name) for name in ("created_at", "description", "metadata")}
    return asdict(there) == asdict(replace(wanted, **kept))
