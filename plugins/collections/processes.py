"""The processes that answer or work, the configuration that each runs, and the number of the last reload.

A reload is asked for by raising that number; every process looks at it, and writes down what it made of it.
"""

from __future__ import annotations

import os
import socket
import uuid
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from sqlalchemy import delete, insert, select, update

from plugins.collections import tables
from plugins.collections.audit import record
from plugins.collections.database import Database
from plugins.collections.records import now
from plugins.core.identity import Principal

COUNTER = "reloads"
ALIVE_S = 15.0
"""Who gave no sign of life for so long is not waited for."""
FORGET_S = 3600.0

Kind = Literal["proxy", "worker"]


@dataclass(frozen=True, slots=True)
class ProcessRecord:
    id: str
    kind: Kind
    host: str
    pid: int
    started_at: float
    """In seconds since 1970, as `seen_at`."""
    seen_at: float
    reload: int
    """The number of the last reload that it heard of."""
    digest: str
    """Of the files of the configuration that it runs."""
    mistakes: Sequence[str] | None
    """Why it does not run what that reload asked for."""


class Processes:
    """All of one database, and the row of this one. All raise Upstream where the database does not answer."""

    def __init__(self, database: Database, kind: Kind) -> None:
        self._database = database
        self.id = uuid.uuid4().hex
        self._own = {"kind": kind, "host": socket.gethostname()[:255], "pid": os.getpid()}
        self._started_at = now()

    async def asked(self) -> int:
        """The number of the last reload; 0 = there was none yet."""
        counters = tables.counters
        query = select(counters.c.value).where(counters.c.name == COUNTER)
        async with self._database.read() as connection:
            return int((await connection.execute(query)).scalar_one())

    async def ask(self, principal: Principal | None = None) -> int:
        """Ask all processes to reload; the number of this reload.

        Args:
            principal: Who asks, for the audit log; None where it is a signal or a changed file.
        """
        counters = tables.counters
        raised = update(counters).where(counters.c.name == COUNTER).values(value=counters.c.value + 1)
        async with self._database.write() as connection:
            number = int((await connection.execute(raised.returning(counters.c.value))).scalar_one())
            if principal is not None:
                await record(connection, principal, "configuration.reload", detail={"number": number})
        return number

    async def note(self, reload: int, digest: str, mistakes: Sequence[str] | None) -> None:
        """Write down that this process lives, and what it made of a reload."""
        table = tables.processes
        moment = now()
        values = {
            "reload": reload,
            "digest": digest,
            "mistakes": list(mistakes) if mistakes else None,
            "seen_at": moment,
        }
        async with self._database.write() as connection:
            known = update(table).where(table.c.id == self.id).values(**values)
            if (await connection.execute(known)).rowcount == 0:
                await connection.execute(delete(table).where(table.c.seen_at < moment - FORGET_S))
                new = {**values, **self._own, "id": self.id, "started_at": self._started_at}
                await connection.execute(insert(table).values(**new))

    async def leave(self) -> None:
        """Nobody waits for this process from now on."""
        async with self._database.write() as connection:
            await connection.execute(delete(tables.processes).where(tables.processes.c.id == self.id))

    async def alive(self) -> list[ProcessRecord]:
        """Those that gave a sign of life lately, the oldest first."""
        table = tables.processes
        query = (
            select(table).where(table.c.seen_at > now() - ALIVE_S).order_by(table.c.started_at, table.c.id)
        )
        async with self._database.read() as connection:
            return [ProcessRecord(**row._mapping) for row in await connection.execute(query)]
