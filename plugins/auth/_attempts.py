"""How often a password may be tried."""

from __future__ import annotations

import hashlib
import ipaddress
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from sqlalchemy import case, delete, select, update
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections.database import Database
from plugins.collections.tables import attempts
from plugins.core.errors import IdentityUnavailable, LimitReached, Upstream
from plugins.core.metrics import SIGN_INS_LIMITED

TOO_MANY = "Too many failed sign-ins. Wait as long as `Retry-After` says, or sign in with a browser."
FORGET_S = 900.0
"""What failed longer ago does not count."""


class _Limit(NamedTuple):
    free: int
    """Failures without a delay; each further one doubles it, from one second on."""
    max_delay_s: float


PAIR = _Limit(5, 60)
"""Of one account from one address."""
ADDRESS = _Limit(20, 60)
ACCOUNT = _Limit(20, 15)
"""Of one account from everywhere: short, so that nobody can lock somebody else out for long."""


class Attempts:
    """Delays that grow with the failures of an account, of an address, and of the two together; counted in
    the database, for all processes. Their clocks must agree to within some seconds.

    Source: OWASP Authentication Cheat Sheet, "Account Lockout" (exponential delays instead of a lock).
    """

    # Every transaction takes its rows in the order of their keys: so none waits for one that waits for it.

    def __init__(self, database: Database, clock: Callable[[], float] = time.time) -> None:
        self._database = database
        self._clock = clock

    async def begin(self, account: str, address: str) -> None:
        """Note a try, which counts as failed until `succeeded` or `undo`: so many at once gain nothing.

        Raises:
            LimitReached: It is too early for another; with the seconds to wait.
            IdentityUnavailable: The database cannot be reached, so nobody can tell.
        """
        limits, now = _keys(account, address), self._clock()
        try:
            async with self._database.write() as connection:
                found = await self._lock(connection, list(limits), now)
                wait = max(_wait(*found[key], limit) for key, limit in limits.items()) - now
                if wait > 0:
                    SIGN_INS_LIMITED.inc()
                    raise LimitReached(TOO_MANY, retry_after_s=math.ceil(wait))
                counted = update(attempts).where(attempts.c.key.in_(list(limits)))  # they are held
                await connection.execute(counted.values(failures=attempts.c.failures + 1, last=now))
        except Upstream as error:
            raise IdentityUnavailable from error

    async def succeeded(self, account: str, address: str) -> None:
        """The password was right. Only the failures of the two together are forgotten: with an account of
        their own nobody washes away those of their address, nor somebody's sign-in those of a guesser.

        Raises:
            Upstream: The database cannot be reached; it counts as failed.
        """
        pair, *others = _keys(account, address)
        async with self._database.write() as connection:
            await _take_back(connection, [pair, *others])
            await connection.execute(delete(attempts).where(attempts.c.key == pair))

    async def undo(self, account: str, address: str) -> None:
        """The try told nothing: it does not count. Raises Upstream as `succeeded`."""
        async with self._database.write() as connection:
            await _take_back(connection, _keys(account, address))

    async def _lock(
        self, connection: AsyncConnection, keys: Sequence[str], now: float
    ) -> dict[str, tuple[int, float]]:
        """The failures of each key and when the last was, held until the transaction ends."""
        make = (sqlite if self._database.sqlite else postgresql).insert(attempts)
        counts = case((attempts.c.last <= now - FORGET_S, 0), else_=attempts.c.failures)
        rows = [{"key": key, "failures": 0, "last": now} for key in sorted(keys)]
        held = make.values(rows).on_conflict_do_update(index_elements=["key"], set_={"failures": counts})
        held = held.returning(attempts.c.key, attempts.c.failures, attempts.c.last)
        found = {row.key: (row.failures, row.last) for row in await connection.execute(held)}
        # what others hold is not waited for: they may wait for what is held here
        old = select(attempts.c.key).where(attempts.c.last <= now - FORGET_S, attempts.c.key.not_in(keys))
        old = old.with_for_update(skip_locked=True)
        await connection.execute(delete(attempts).where(attempts.c.key.in_(old)))
        return found


async def _take_back(connection: AsyncConnection, keys: Iterable[str]) -> None:
    one_less = case((attempts.c.failures > 0, attempts.c.failures - 1), else_=0)
    for key in sorted(keys):
        await connection.execute(update(attempts).where(attempts.c.key == key).values(failures=one_less))


def _wait(failures: int, last: float, limit: _Limit) -> float:
    """Until when, in seconds since 1970, another try is too early."""
    over = failures - limit.free
    return last + min(limit.max_delay_s, 2.0 ** min(over, 30)) if over >= 0 else 0.0


def _keys(account: str, address: str) -> dict[str, _Limit]:
    """The pair's, the address's and the account's, of one length, however long the names are."""
    name, address = account.strip().casefold(), _network(address)
    parts = {f"pair {name}\0{address}": PAIR, f"address {address}": ADDRESS, f"account {name}": ACCOUNT}
    return {hashlib.sha256(part.encode()).hexdigest(): limit for part, limit in parts.items()}


def _network(address: str) -> str:
    """Of IPv6 the first 64 bits: whoever has one address there has all (RFC 4291, section 2.5.1)."""
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address
    if found.version == 4:
        return address
    return str(found.ipv4_mapped or ipaddress.ip_network((int(found), 64), strict=False))
