"""Streams of what changes: looked for in the database, so that any process may have changed it."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import NamedTuple

from sqlalchemy.ext.asyncio import AsyncConnection

from crawler.errors import CrawlError
from plugins.collections.changes import last_change
from plugins.collections.database import Database
from plugins.collections.records import DocumentRecord
from plugins.collections.views import job_view
from plugins.core.document_shapes import JobView
from plugins.core.errors import BundleError, LimitReached

POLL_S = 0.5
CHECK_S = 5.0
"""Who loses a right loses the stream within this time."""
PING_S = 15.0
MAX_STREAM_S = 900.0
"""A stream ends then: who goes on after its last event must be signed in still."""
MAX_STREAMS = 8
"""Of one person at once, in one process."""
PAGE = 200

Look = Callable[[AsyncConnection, int], Awaitable[Sequence[DocumentRecord]]]
"""The documents whose jobs changed after a number, at most `PAGE` in the order of their changes; raises when
the caller may not see them any more."""


class Event(NamedTuple):
    """A change of a job; without one it only says that the stream lives."""

    number: int
    job: JobView | None


class Streams:
    """How many streams each person has open."""

    def __init__(self) -> None:
        self._open: Counter[str] = Counter()

    def take(self, user_id: str) -> Callable[[], None]:
        """Count one more; the answer gives it back, once.

        Raises:
            LimitReached: The person has enough.
        """
        if self._open[user_id] >= MAX_STREAMS:
            raise LimitReached(f"You follow {MAX_STREAMS} streams of events already: close one of them.")
        self._open[user_id] += 1
        held = True

        def release() -> None:
            nonlocal held
            self._open[user_id] -= held
            held = False
            if not self._open[user_id]:
                del self._open[user_id]

        return release


class Stream:
    """One stream; `close` it however it ends."""

    def __init__(
        self,
        database: Database,
        look: Look,
        after: int,
        release: Callable[[], None],
        stopping: asyncio.Event,
        *,
        to_the_end: bool,
    ) -> None:
        """``stopping``: it ends then, and clients go on elsewhere; ``to_the_end``: with the first job that
        has ended, too."""
        self._database = database
        self._look = look
        self._after = after
        self._stopping = stopping
        self._to_the_end = to_the_end
        self.close = release

    async def events(self) -> AsyncIterator[Event]:
        """Changes as they come, and signs of life; ends when the caller may see no more."""
        clock = asyncio.get_running_loop().time
        end, spoke = clock() + MAX_STREAM_S, clock()
        seen, checked = -1, -CHECK_S
        while clock() < end and not self._stopping.is_set():
            rows: Sequence[DocumentRecord] = ()
            try:
                async with self._database.read() as connection:
                    newest = await last_change(connection)
                    if newest != seen or clock() - checked >= CHECK_S:
                        rows = await self._look(connection, self._after)
                        seen, checked = newest if len(rows) < PAGE else -1, clock()
            except (BundleError, CrawlError):
                return  # a client that asks again is told why
            for row in rows:
                self._after, spoke = row.change, clock()
                view = job_view(row)
                yield Event(row.change, view)
                if self._to_the_end and view.status != "in_progress":
                    return
            if clock() - spoke >= PING_S:
                spoke = clock()
                yield Event(self._after, None)
            if len(rows) < PAGE:
                await asyncio.sleep(POLL_S)
