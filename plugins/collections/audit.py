"""The audit log: who changed what, when and from where, and who was refused. Rows are only ever added.

An entry holds ids, grants and the names of what changed; never a token, a text, a file name or an attribute.
"""

from __future__ import annotations

import logging
import time
import unicodedata
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

from sqlalchemy import Row, Select, func, insert, select, text
from sqlalchemy.exc import SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import tables
from plugins.collections.database import Database
from plugins.collections.records import COLLECTION_ID, DOCUMENT_ID, has_controls, now
from plugins.collections.rights import Rights
from plugins.core.errors import BundleError, Forbidden
from plugins.core.identity import Principal
from plugins.core.logs import current
from plugins.core.metrics import refused
from plugins.core.shapes import AuditEntry, AuditList

log = logging.getLogger(__name__)

Action = Literal[
    "access.change",
    "collection.change",
    "collection.create",
    "collection.drop",
    "collection.export",
    "collection.import",
    "collection.reindex",
    "collection.reindex.cancel",
    "collection.reindex.done",
    "configuration.reload",
    "document.add",
    "document.change",
    "document.delete",
    "document.expire",
    "document.replace",
    "exchange.read",
    "job.cancel",
    "job.retry",
    "ollama.delete",
    "ollama.pull",
]
Result = Literal["allowed", "refused"]

ORDER_LOCK = 0x61756469
"""The key of Postgres' advisory lock: ids are given in the order of the commits, or a reader who goes on
after the last id that they saw could miss an entry."""
PAGE = 500
WINDOW_S = 60.0
MAX_PEOPLE = 10_000
"""Whose refusals are counted at once."""
EVERYBODY = ""
ITSELF = "worker"
"""In place of a `<source>/<name>`: no source's user is called so."""


async def record(
    connection: AsyncConnection,
    principal: Principal,
    action: Action,
    *,
    collection_id: str | None = None,
    document_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """Write a change down, in the transaction that makes it: call it last there, since it takes a lock.

    Who asked from where is that of the running request (`plugins.core.logs.about`).

    Args:
        connection: That of the change.
        principal: Who makes it.
        action: What they do.
        collection_id: Of what.
        document_id: Of what.
        detail: JSON; ids, grants and names of fields only.
    """
    await _insert(
        connection,
        user_id=principal.user_id,
        action=action,
        result="allowed",
        collection_id=collection_id,
        document_id=document_id,
        detail=dict(detail or {}),
    )


async def record_own(
    connection: AsyncConnection,
    action: Action,
    *,
    collection_id: str,
    document_id: str | None = None,
    detail: Mapping[str, Any] | None = None,
) -> None:
    """As `record`, of what the worker does by itself."""
    await _insert(
        connection,
        user_id=ITSELF,
        action=action,
        result="allowed",
        collection_id=collection_id,
        document_id=document_id,
        detail=dict(detail or {}),
    )


async def _insert(connection: AsyncConnection, **values: Any) -> None:
    if connection.dialect.name == "postgresql":
        await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ORDER_LOCK})
    about = current()
    row = {
        **values,
        "at": round(now(), 3),  # as it is shown, so that one can filter by what one sees
        "user_id": values["user_id"][:512],
        "action": values["action"][:64],
        "peer": about.get("peer", "")[:64],
        "request_id": about.get("request_id", "")[:64],
    }
    await connection.execute(insert(tables.audit).values(**row))


@dataclass(frozen=True)
class Refused:
    """A request that somebody who signed in had no right to."""

    user_id: str
    action: str
    """The method and the route with its placeholders."""
    status: int
    code: str
    """Of the error body."""
    collection: str | None
    """As the client named it."""
    document: str | None


class Refusals:
    """Writes refusals down; of a flood only the first of each minute, with the number of those left out.

    That number is in `left_out` of the person's next entry, and in the log when the flood begins.
    """

    def __init__(
        self,
        database: Database,
        *,
        per_person: int = 30,
        in_all: int = 600,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """The limits count refusals a minute in this process."""
        self._database = database
        self._limits = (per_person, in_all)
        self._clock = clock
        self._counted: OrderedDict[str, _Minute] = OrderedDict()

    async def note(self, refused: Refused) -> None:
        """Write it down in a transaction of its own. What fails is logged: the answer is already given."""
        left_out = self._admitted(refused.user_id)
        if left_out is None:
            return
        detail = {"status": refused.status, "code": refused.code}
        if left_out:
            detail["left_out"] = left_out
        try:
            async with self._database.write() as connection:
                await _insert(
                    connection,
                    user_id=refused.user_id,
                    action=refused.action,
                    result="refused",
                    collection_id=await _collection_id(connection, refused.collection),
                    document_id=_plain(refused.document),
                    detail=detail,
                )
        except (BundleError, SQLAlchemyError):
            log.exception("a refusal could not be written to the audit log")

    def _admitted(self, user_id: str) -> int | None:
        """How many of this person's were left out before this one; None where this one is."""
        person, everybody = self._minute(user_id), self._minute(EVERYBODY)
        per_person, in_all = self._limits
        if person.count >= per_person or everybody.count >= in_all:
            if not person.left_out:
                log.warning("too many refusals: they are left out of the audit log until the minute is over")
            person.left_out += 1
            return None
        person.count += 1
        everybody.count += 1
        left_out, person.left_out = person.left_out, 0
        return left_out

    def _minute(self, user_id: str) -> _Minute:
        found = self._counted.setdefault(user_id, _Minute(self._clock()))
        self._counted.move_to_end(user_id)
        if len(self._counted) > MAX_PEOPLE:
            self._counted.popitem(last=False)
        if self._clock() - found.began >= WINDOW_S:
            found.began, found.count = self._clock(), 0
        return found


@dataclass
class _Minute:
    began: float
    count: int = 0
    left_out: int = 0


async def _collection_id(connection: AsyncConnection, ref: str | None) -> str | None:
    """The id, where the client named a collection that there is; else an id as it was sent, or nothing."""
    if ref is None or has_controls(ref):
        return None
    if COLLECTION_ID.fullmatch(ref):
        return ref if len(ref) <= 64 else None
    table = tables.collections
    query = select(table.c.id).where(table.c.name == unicodedata.normalize("NFC", ref))
    found: str | None = await connection.scalar(query)
    return found


def _plain(document: str | None) -> str | None:
    return document if document is not None and DOCUMENT_ID.fullmatch(document) else None


@dataclass(frozen=True)
class Wanted:
    """Which entries; what is None does not matter."""

    user: str | None = None
    """`<source>/<name>`, or the subject."""
    collection: str | None = None
    """The id, or the name while the collection is there."""
    action: str | None = None
    result: Result | None = None
    since: float | None = None
    """In seconds since 1970, as `until`; that one itself is not among them."""
    until: float | None = None


class AuditLog:
    """The log for those who may read it (`audit.readers`)."""

    def __init__(self, database: Database, rights: Rights) -> None:
        self._database = database
        self._rights = rights

    def check(self, principal: Principal) -> None:
        """Raises Forbidden unless the principal may read the log."""
        if not self._rights.decide_audit(principal).allowed:
            message = "This needs the right `audit`, which you do not have. Ask who runs this server."
            raise refused("audit", Forbidden(message))

    async def list(
        self, principal: Principal, wanted: Wanted, *, after: int = 0, limit: int = 100
    ) -> AuditList:
        """Entries in their order, from the one behind the id `after` on.

        Raises:
            Forbidden: The principal may not read the log.
        """
        self.check(principal)
        async with self._database.read() as connection:
            query = (await _selected(connection, wanted)).where(tables.audit.c.id > after).limit(limit + 1)
            found = [_entry(row) for row in await connection.execute(query)]
        return AuditList(data=found[:limit], has_more=len(found) > limit)

    def export(self, principal: Principal, wanted: Wanted, *, after: int = 0) -> AsyncIterator[AuditEntry]:
        """All that are there when it begins, in their order; `PAGE` of them at a time are in memory.

        Raises:
            Forbidden: The principal may not read the log.
        """
        self.check(principal)
        return self._export(wanted, after)

    async def _export(self, wanted: Wanted, after: int) -> AsyncIterator[AuditEntry]:
        table = tables.audit
        async with self._database.read() as connection:
            last = await connection.scalar(select(func.max(table.c.id))) or 0
        while True:
            async with self._database.read() as connection:
                query = (await _selected(connection, wanted)).where(table.c.id > after, table.c.id <= last)
                found = [_entry(row) for row in await connection.execute(query.limit(PAGE))]
            for entry in found:
                yield entry
            if len(found) < PAGE:
                return
            after = found[-1].id


async def _selected(connection: AsyncConnection, wanted: Wanted) -> Select[Any]:
    table = tables.audit
    query = select(table).order_by(table.c.id)
    if wanted.user is not None:
        query = query.where(table.c.user_id == wanted.user.removeprefix("user:"))
    if wanted.collection is not None:
        identifier = await _collection_id(connection, wanted.collection)
        query = query.where(table.c.collection_id == (identifier or wanted.collection))
    if wanted.action is not None:
        query = query.where(table.c.action == wanted.action)
    if wanted.result is not None:
        query = query.where(table.c.result == wanted.result)
    if wanted.since is not None:
        query = query.where(table.c.at >= wanted.since)
    if wanted.until is not None:
        query = query.where(table.c.at < wanted.until)
    return query


def _entry(row: Row[Any]) -> AuditEntry:
    return AuditEntry(
        id=row.id,
        at=row.at,
        user=row.user_id,
        peer=row.peer,
        request_id=row.request_id,
        action=row.action,
        result=row.result,
        collection_id=row.collection_id,
        document_id=row.document_id,
        detail=row.detail,
    )
