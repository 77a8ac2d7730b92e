"""Which process does what only one need do: a lease in SQL, taken over when its holder is gone."""

from __future__ import annotations

from sqlalchemy import delete, insert, or_, select, update
from sqlalchemy.exc import IntegrityError

from plugins.collections import tables
from plugins.collections.database import Database
from plugins.collections.records import now

LEASE_S = 15.0
TIDY = "tidy"
"""Clearing away, by one of the workers."""


class Leader:
    """Whether this process leads a duty. While nothing changes, the database is asked twice per lease.

    Two may lead for a moment, when one was held up for longer than its lease: a duty must be harmless when
    it is done twice. Clocks of all processes must agree to within some seconds, as for jobs.
    """

    def __init__(self, database: Database, duty: str, process_id: str, lease_s: float = LEASE_S) -> None:
        self.lease_s = lease_s
        self._database = database
        self._duty = duty
        self._process_id = process_id
        self._ours = False
        self._ask_at = 0.0

    async def leads(self) -> bool:
        """Take the duty where nobody has it, or go on having it; ask before each piece of work.

        Raises:
            Upstream: The database cannot be reached; then nobody can say who leads.
        """
        moment = now()
        if moment < self._ask_at:
            return self._ours
        self._ours = False  # also when the database does not answer
        free_at = await self._held_until(moment)
        if free_at > moment:
            self._ask_at = min(free_at, moment + self.lease_s)  # whatever the clock of the other is
            return False
        self._ours = await self._take(moment)
        self._ask_at = moment + self.lease_s / 2 if self._ours else moment
        return self._ours

    async def resign(self) -> None:
        """Let another one have it now. Raises Upstream as `leads`."""
        self._ours, self._ask_at = False, 0.0
        async with self._database.write() as connection:
            table = tables.leaders
            mine = delete(table).where(table.c.duty == self._duty, table.c.process_id == self._process_id)
            await connection.execute(mine)

    async def _held_until(self, moment: float) -> float:
        """Until when another one has it; in the past where nobody has."""
        table = tables.leaders
        others = select(table.c.until).where(
            table.c.duty == self._duty, table.c.process_id != self._process_id, table.c.until > moment
        )
        async with self._database.read() as connection:  # who does not lead must not lock anybody out
            return await connection.scalar(others) or 0.0

    async def _take(self, moment: float) -> bool:
        table = tables.leaders
        values = {"process_id": self._process_id, "until": moment + self.lease_s}
        free = or_(table.c.process_id == self._process_id, table.c.until <= moment)
        async with self._database.write() as connection:
            taken = await connection.execute(
                update(table).where(table.c.duty == self._duty, free).values(**values)
            )
            if taken.rowcount == 1:
                return True
            try:
                async with connection.begin_nested():
                    await connection.execute(insert(table).values(duty=self._duty, **values))
            except IntegrityError:
                return False  # another process was faster
        return True
