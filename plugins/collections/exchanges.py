"""Requests and answers, where they are kept for audits: written off the request's path, and never lost
silently.

What waits to be written is in memory. While `MAX_WAITING` of them wait, or `MAX_WAITING_CHARS` of their
texts, no further request is taken: nothing is answered that cannot be kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import logging
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import delete, insert, select, text

from plugins.collections import tables
from plugins.collections.audit import AuditLog, record
from plugins.collections.database import Database
from plugins.collections.records import now
from plugins.core.config import ExchangesConfig
from plugins.core.errors import Upstream
from plugins.core.identity import Principal
from plugins.core.shapes import ExchangeEntry, ExchangeList

log = logging.getLogger(__name__)

MAX_WAITING = 500
MAX_WAITING_CHARS = 64 * 2**20
BATCH = 50
DELETED_AT_ONCE = 1000
"""In one transaction, which others wait for."""
RETRY_S = 2.0
END_S = 5.0
"""How long the end of the process waits for what is not written yet."""
REDACTED = "[redacted]"
ORDER_LOCK = 0x65786368
"""As of the audit log: the key of Postgres' advisory lock."""


@dataclass(frozen=True, slots=True)
class Exchange:
    """A request and its answer. Times are seconds since 1970 (UTC)."""

    at: float
    user_id: str
    request_id: str
    route: str
    model: str
    request: dict[str, Any]
    answer: dict[str, Any]


class ExchangeLog:
    """Writes exchanges down, those of one configuration."""

    def __init__(self, database: Database, settings: ExchangesConfig) -> None:
        self._database = database
        self._settings = settings
        self._patterns = [re.compile(pattern) for pattern in settings.redact]
        self._waiting: deque[Exchange] = deque()
        self._chars = 0
        self._writer: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()

    @property
    def max_bytes(self) -> int:
        return self._settings.max_bytes

    def keeps(self, route: str) -> bool:
        """Whether exchanges of the route are kept."""
        return self._settings.enabled and route in self._settings.routes

    def check(self) -> None:
        """Whether there is room for one more.

        Raises:
            Upstream: Too many wait for the database.
        """
        full = len(self._waiting) >= MAX_WAITING or self._chars >= MAX_WAITING_CHARS
        if self._settings.enabled and full:
            raise Upstream(
                "Requests and answers are kept here, and at the moment they cannot be written down. "
                "Try again in a few seconds.",
                retry_after_s=5,
            )

    def note(self, exchange: Exchange) -> None:
        """Have it written, soon."""
        self._waiting.append(exchange)
        self._chars += _chars([exchange.request, exchange.answer])
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())

    async def close(self) -> None:
        """The process ends: write what waits. What cannot be written in `END_S` is lost, and said to be."""
        if lost := await self.flush(END_S):
            log.error("%d exchanges could not be written and are lost", lost)

    async def flush(self, timeout_s: float) -> int:
        """Write what waits, now; how many could not be."""
        with contextlib.suppress(Upstream, TimeoutError):
            async with asyncio.timeout(timeout_s):
                while self._waiting:
                    await self._write_some()
        return len(self._waiting)

    async def _write(self) -> None:
        try:
            while self._waiting:
                try:
                    await self._write_some()
                except Upstream:
                    log.warning("%d exchanges wait to be written: no database", len(self._waiting))
                    await asyncio.sleep(RETRY_S)
        except asyncio.CancelledError:  # the process ends
            await self.close()
            raise

    async def _write_some(self) -> None:
        async with self._turn:
            batch = list(itertools.islice(self._waiting, BATCH))
            if not batch:  # another had the turn before
                return
            try:
                await self._insert(await asyncio.to_thread(self._rows, batch))
            except Upstream:
                raise
            except Exception:  # noqa: BLE001 - whatever is wrong with one must not hold up all that come after
                await self._one_by_one(batch)
            else:
                for _ in batch:
                    self._written()

    async def _insert(self, rows: Sequence[dict[str, Any]]) -> None:
        async with self._database.write() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ORDER_LOCK})
            await connection.execute(insert(tables.exchanges), list(rows))

    async def _one_by_one(self, batch: Sequence[Exchange]) -> None:
        """They were not taken together: each goes by itself, or it is said that it is lost."""
        for exchange in batch:
            try:
                await self._insert(await asyncio.to_thread(self._rows, [exchange]))
            except Upstream:
                raise
            except Exception:
                log.exception("An exchange is lost", extra={"request_id": exchange.request_id})
            self._written()

    def _written(self) -> None:
        exchange = self._waiting.popleft()
        self._chars -= _chars([exchange.request, exchange.answer])

    def _rows(self, batch: Sequence[Exchange]) -> list[dict[str, Any]]:
        """With what is not to be kept replaced, and cut; it may take a while."""
        rows = []
        for exchange in batch:
            row = asdict(exchange)
            for name in ("request", "answer"):
                row[name] = cut(self._redacted(row[name], theirs=name == "request"), self.max_bytes)
            for name, column in tables.exchanges.c.items():
                if isinstance(row.get(name), str):
                    row[name] = row[name].replace("\x00", "")[: column.type.length]  # type: ignore[attr-defined]
            rows.append(row)
        return rows

    def _redacted(self, value: Any, *, theirs: bool) -> Any:
        """Of a client, names and numbers are texts, too; those of an answer are ours."""
        if isinstance(value, dict):
            return {
                self._text(key) if theirs else key: self._redacted(part, theirs=theirs)
                for key, part in value.items()
            }
        if isinstance(value, list):
            return [self._redacted(part, theirs=theirs) for part in value]
        if isinstance(value, str):
            return self._text(value)
        if not theirs or value is None or isinstance(value, bool):
            return value
        found = self._text(str(value))
        return value if found == str(value) else found

    def _text(self, value: str) -> str:
        for pattern in self._patterns:
            value = pattern.sub(REDACTED, value)
        return value


def _chars(value: Any) -> int:
    """Of all texts in it."""
    if isinstance(value, dict):
        return sum(map(_chars, value.values()))
    if isinstance(value, list):
        return sum(map(_chars, value))
    return len(value) if isinstance(value, str) else 0


def cut(value: dict[str, Any], max_bytes: int) -> dict[str, Any]:
    """The texts in it, together of at most so many bytes; what came last stays longest, and notes are in the
    place of what is left out."""
    left = max_bytes

    def shortened(part: Any) -> Any:
        nonlocal left
        if isinstance(part, dict):
            return dict(reversed([(key, shortened(inner)) for key, inner in reversed(part.items())]))
        if isinstance(part, list):
            return list(reversed([shortened(inner) for inner in reversed(part)]))
        if not isinstance(part, str):
            return part
        encoded = part.encode("utf-8", "replace")
        kept = encoded[: max(0, left)].decode("utf-8", "ignore")
        left -= len(encoded)
        return part if left >= 0 else f"{kept}(cut: {len(encoded)} bytes)"

    shown: dict[str, Any] = shortened(value)
    return shown


class ExchangeReader:
    """What is kept, for those who may read it (`audit.readers`); each look is in the audit log."""

    def __init__(self, database: Database, audit: AuditLog) -> None:
        self._database = database
        self._audit = audit

    async def list(
        self, principal: Principal, *, user: str | None = None, after: int = 0, limit: int = 100
    ) -> ExchangeList:
        """In their order, from the one behind the id `after` on.

        Args:
            principal: Who reads.
            user: `<source>/<name>` or the subject of whose they are; None = of all.
            after: The id of the last that is known.
            limit: How many at most.

        Raises:
            Forbidden: The principal may not read the log.
        """
        self._audit.check(principal)
        table = tables.exchanges
        query = select(table).where(table.c.id > after).order_by(table.c.id).limit(limit + 1)
        if user is not None:
            user = user.removeprefix("user:")
            query = query.where(table.c.user_id == user)
        async with self._database.read() as connection:
            found = [_entry(row._mapping) for row in await connection.execute(query)]
        async with self._database.write() as connection:  # before they are shown
            detail = {"user": user, "after": after, "entries": len(found[:limit])}
            await record(connection, principal, "exchange.read", detail=detail)
        return ExchangeList(data=found[:limit], has_more=len(found) > limit)


def _entry(row: Any) -> ExchangeEntry:
    return ExchangeEntry(
        id=row["id"],
        at=row["at"],
        user=row["user_id"],
        request_id=row["request_id"],
        route=row["route"],
        model=row["model"],
        request=row["request"],
        answer=row["answer"],
    )


async def forget_exchanges(database: Database, retention_days: float) -> None:
    """Delete those that are older."""
    table = tables.exchanges
    old = select(table.c.id).where(table.c.at < now() - retention_days * 86400).limit(DELETED_AT_ONCE)
    while True:
        async with database.write() as connection:
            if (await connection.execute(delete(table).where(table.c.id.in_(old)))).rowcount == 0:
                return
