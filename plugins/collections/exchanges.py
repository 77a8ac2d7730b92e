"""Requests and answers, where they are kept for audits: written off the request's path, and never lost
silently.

What waits to be written is in memory. While `MAX_WAITING` of them wait, or `MAX_WAITING_BYTES` of them, no
further request is taken: nothing is answered that cannot be kept.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import delete, insert, select, text

from plugins.collections import tables
from plugins.collections.audit import AuditLog, record
from plugins.collections.bounded import Bounded
from plugins.collections.database import Database
from plugins.collections.records import now
from plugins.core.config import ExchangesConfig
from plugins.core.errors import Upstream
from plugins.core.identity import Principal
from plugins.core.shapes import ExchangeEntry, ExchangeList

log = logging.getLogger(__name__)

MAX_WAITING = 500
MAX_WAITING_BYTES = 64 * 2**20
"""As JSON."""
BATCH = 50
"""Written in one transaction, at most; and no more of them than these bytes hold, as JSON."""
BATCH_BYTES = 4 * 2**20
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
        self._waiting: deque[tuple[Exchange, int]] = deque()
        self._bytes = 0
        self._at_once = BATCH
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
        full = len(self._waiting) >= MAX_WAITING or self._bytes >= MAX_WAITING_BYTES
        if self._settings.enabled and full:
            raise Upstream(
                "Requests and answers are kept here, and at the moment they cannot be written down. "
                "Try again in a few seconds.",
                retry_after_s=5,
            )

    def note(self, exchange: Exchange) -> None:
        """Have it written, soon."""
        size = len(json.dumps([exchange.model, exchange.request, exchange.answer], default=str))
        self._waiting.append((exchange, size))
        self._bytes += size
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
            batch = self._batch()
            if not batch:  # another had the turn before
                return
            try:
                await self._insert(await asyncio.to_thread(self._rows, batch))
            except Upstream:
                self._at_once = max(1, len(batch) // 2)  # it may be too much for the time of a transaction
                raise
            except Exception:  # noqa: BLE001 - whatever is wrong with one must not hold up all that come after
                await self._one_by_one(batch)
            else:
                self._written(len(batch))
            self._at_once = min(BATCH, 2 * self._at_once)

    def _batch(self) -> list[Exchange]:
        """The next of them: one at least."""
        batch: list[Exchange] = []
        bytes_ = 0
        for exchange, size in self._waiting:
            bytes_ += size
            if batch and (len(batch) == self._at_once or bytes_ > BATCH_BYTES):
                break
            batch.append(exchange)
        return batch

    async def _insert(self, rows: Sequence[dict[str, Any]]) -> None:
        async with self._database.write() as connection:
            if connection.dialect.name == "postgresql":
                await connection.execute(text("SELECT pg_advisory_xact_lock(:key)"), {"key": ORDER_LOCK})
            await connection.execute(insert(tables.exchanges), list(rows))

    async def _one_by_one(self, batch: Sequence[Exchange]) -> None:
        """They were not taken together: each goes by itself."""
        for exchange in batch:
            try:
                await self._insert(await asyncio.to_thread(self._rows, [exchange]))
            except Upstream:
                raise
            except Exception as error:  # noqa: BLE001 - as above
                await self._without_words(exchange, error)
            self._written(1)

    async def _without_words(self, exchange: Exchange, why: Exception) -> None:
        """Keep that it was, or say that it is lost. Errors' texts may hold what was said."""
        about = {"request_id": exchange.request_id}
        stub = replace(exchange, request={}, answer={"status": exchange.answer.get("status"), "cut": True})
        try:
            await self._insert(self._rows([stub]))
        except Upstream:
            raise
        except Exception as error:  # noqa: BLE001 - as above
            log.error("An exchange is lost (%s)", type(error).__name__, extra=about)
        else:
            log.error("An exchange is kept without its words (%s)", type(why).__name__, extra=about)

    def _written(self, count: int) -> None:
        for _ in range(count):
            self._bytes -= self._waiting.popleft()[1]

    def _rows(self, batch: Sequence[Exchange]) -> list[dict[str, Any]]:
        """With what is not to be kept replaced, and cut; it may take a while."""
        return [
            {
                "at": exchange.at,
                "user_id": _fitting("user_id", exchange.user_id),
                "request_id": _fitting("request_id", exchange.request_id),
                "route": _fitting("route", exchange.route),
                "model": _fitting("model", self._redacted(exchange.model)),
                "request": Bounded(self.max_bytes, self._redacted).copy(exchange.request),
                "answer": self._answer(exchange.answer),
            }
            for exchange in batch
        ]

    def _answer(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Each part is cut by itself: no long one costs another."""
        shown = {}
        for name, part in answer.items():
            bounds = Bounded(self.max_bytes, self._redacted, theirs=False)
            shown[name] = bounds.copy(part)
            if bounds.cut:
                shown["cut"] = True
        return shown

    def _redacted(self, text: str) -> str:
        for pattern in self._patterns:
            text = pattern.sub(REDACTED, text)
        return text


def _fitting(name: str, text: str) -> str:
    """As the column can hold it."""
    length = tables.exchanges.c[name].type.length  # type: ignore[attr-defined]
    return text.replace("\x00", "").encode("utf-8", "replace").decode()[:length]


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
