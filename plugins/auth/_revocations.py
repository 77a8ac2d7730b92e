"""Sessions and people that an issuer signed out: their tokens are refused before they end."""

from __future__ import annotations

import asyncio
import hashlib
import time
from typing import Any, NamedTuple

from sqlalchemy import case, delete, select
from sqlalchemy.dialects import postgresql, sqlite

from plugins.collections.database import Database
from plugins.collections.tables import revocations, sessions
from plugins.core.errors import IdentityUnavailable, Unauthenticated, Upstream
from plugins.core.identity import Principal
from plugins.core.ports import Ended

FRESH_S = 1.0
"""What another process revoked is known here after this time."""
OVERLAP_S = 300.0
"""How far the clocks of processes may be apart: the largest leeway that tokens are given."""
ENDED = "You were signed out. Sign in again."


class _Revocation(NamedTuple):
    before: float
    expires_at: float


class Revocations:
    """What was ended, shared by all processes through the database.

    Calling it is the guard of every sign-in: it refuses a principal whose session was ended, or whose
    credential was issued before all of the person's sessions were. Only what is new is read, at most once
    every ``FRESH_S``, by one read at a time; while the database cannot be read, nobody is let in. A row is
    kept for ``keep_s`` seconds, which must not be less than what an access token lives.
    """

    def __init__(self, database: Database, keep_s: float) -> None:
        self._database = database
        self._keep_s = keep_s
        self._known: dict[str, _Revocation] = {}
        self._newest = 0.0
        self._read_at = -float("inf")
        self._reading: asyncio.Task[None] | None = None

    async def __call__(self, principal: Principal) -> None:
        """Let the principal pass.

        Raises:
            Unauthenticated: They were signed out.
            IdentityUnavailable: That cannot be told now.
        """
        if time.monotonic() - self._read_at > FRESH_S:
            await self._read()
        if principal.session and _key(principal.source, "session", principal.session) in self._known:
            raise Unauthenticated(ENDED, why="revoked")
        found = self._known.get(_key(principal.source, "subject", principal.subject))
        if found and (principal.issued_at is None or principal.issued_at <= found.before):
            raise Unauthenticated(ENDED, why="revoked")

    async def revoke(self, ended: Ended) -> None:
        """Refuse the session, or where none is named all that the subject has; known here at once.

        Raises:
            Upstream: The database cannot be reached; nothing was revoked.
        """
        now = time.time()
        if ended.session is not None:
            key = _key(ended.source, "session", ended.session)
            theirs = sessions.c.issuer_session == ended.session
        else:
            key = _key(ended.source, "subject", ended.subject or "")
            theirs = sessions.c.subject == ended.subject
        row = _Revocation(ended.issued_at, now + self._keep_s)
        async with self._database.write() as connection:
            await connection.execute(delete(revocations).where(revocations.c.expires_at < now))
            await connection.execute(self._upsert(key, row))
            await connection.execute(delete(sessions).where(sessions.c.source == ended.source, theirs))
        self._learn(key, row)

    async def close(self) -> None:
        """Stop reading."""
        if self._reading is not None:
            self._reading.cancel()
            await asyncio.gather(self._reading, return_exceptions=True)

    async def _read(self) -> None:
        if self._reading is None or self._reading.done():
            self._reading = asyncio.create_task(self._read_new())
        try:
            # shielded: the request that waits may be cancelled, others wait for the same read
            await asyncio.shield(self._reading)
        except Upstream as error:
            raise IdentityUnavailable from error

    async def _read_new(self) -> None:
        began, now = time.monotonic(), time.time()
        new = revocations.c.expires_at > max(self._newest - OVERLAP_S, now)
        async with self._database.read() as connection:
            found: list[Any] = list(await connection.execute(select(revocations).where(new)))
        self._known = {key: row for key, row in self._known.items() if row.expires_at > now}
        for row in found:
            self._learn(row.key, _Revocation(row.before, row.expires_at))
            # one that was kept longer, by an earlier setting, must not hide those that are made now
            self._newest = max(self._newest, min(row.expires_at, now + self._keep_s))
        self._read_at = began

    def _learn(self, key: str, row: _Revocation) -> None:
        old = self._known.get(key, row)
        # a logout token that comes late, or again, must not let in what a later one shut out
        self._known[key] = _Revocation(max(row.before, old.before), max(row.expires_at, old.expires_at))

    def _upsert(self, key: str, row: _Revocation) -> Any:
        dialect = sqlite if self._database.sqlite else postgresql
        inserted = dialect.insert(revocations).values(key=key, **row._asdict())
        before = case((revocations.c.before > row.before, revocations.c.before), else_=row.before)
        return inserted.on_conflict_do_update(
            index_elements=["key"], set_={"before": before, "expires_at": row.expires_at}
        )


def _key(source: str, kind: str, name: str) -> str:
    return hashlib.sha256("\0".join((source, kind, name)).encode()).hexdigest()
