"""Who signed in, with their groups and roles: what is known of people whose issuer has no directory."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from sqlalchemy import and_, insert, update
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from plugins.collections import tables
from plugins.collections.database import Database
from plugins.collections.records import now
from plugins.core.errors import BundleError
from plugins.core.identity import Principal

log = logging.getLogger(__name__)

RENEW_S = 3600.0
RETRY_S = 60.0
MAX_REMEMBERED = 10_000
MAX_WAITING = 1_000
"""To be written; more are left out, and noted at a later sign-in."""
MAX_NAME, MAX_EMAIL = 255, 320

Key = tuple[str, str]


@dataclass
class _Noted:
    what: tuple[object, ...]
    until: float


class Sightings:
    """Notes who signs in: when they are new or changed, and once an hour.

    A sign-in never waits for it, and never fails because of it: a task of its own writes.
    """

    def __init__(self, database: Database, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._clock = clock
        self._noted: OrderedDict[Key, _Noted] = OrderedDict()
        self._waiting: dict[Key, Principal] = {}
        self._writing: asyncio.Task[None] | None = None

    async def __call__(self, principal: Principal) -> None:
        """A guard of sign-ins (`plugins.proxy.auth.Authenticate`); it refuses nobody."""
        key = (principal.source, principal.username)
        what = (principal.email, principal.groups, principal.roles)
        noted = self._noted.get(key)
        if noted is not None and noted.what == what and self._clock() < noted.until:
            return
        if len(self._waiting) >= MAX_WAITING or len(principal.username) > MAX_NAME:
            return
        self._noted[key] = _Noted(what, self._clock() + RETRY_S)
        if len(self._noted) > MAX_REMEMBERED:
            self._noted.popitem(last=False)
        self._waiting[key] = principal
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write())

    async def written(self) -> None:
        """Wait until everyone who was seen is written down, or failed to be."""
        if self._writing is not None:
            await self._writing

    async def _write(self) -> None:
        while self._waiting:
            batch, self._waiting = self._waiting, {}
            try:
                for principal in batch.values():
                    await self._note(principal)
            except (BundleError, SQLAlchemyError):
                log.exception("who signed in could not be noted; it is tried again at a later sign-in")
                return
            for key in batch:
                if key in self._noted:
                    self._noted[key].until = self._clock() + RENEW_S

    async def _note(self, principal: Principal) -> None:
        table = tables.people
        email = principal.email if principal.email and len(principal.email) <= MAX_EMAIL else None
        values: dict[str, Any] = {
            "email": email,
            "groups": sorted(principal.groups),
            "roles": sorted(principal.roles),
            "seen_at": now(),
        }
        who = {"source": principal.source, "username": principal.username}
        of_them = and_(table.c.source == who["source"], table.c.username == who["username"])
        async with self._database.write() as connection:
            found = await connection.execute(update(table).where(of_them).values(**values))
            if found.rowcount == 0:
                try:
                    async with connection.begin_nested():
                        await connection.execute(insert(table).values(**who, **values))
                except IntegrityError:
                    return  # another process was faster
