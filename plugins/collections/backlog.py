"""How much work waits, for those who watch over it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from sqlalchemy import and_, case, func, select

from crawler.contracts import Stage
from plugins.collections import tables
from plugins.collections.database import Database
from plugins.collections.records import now

State = Literal["waiting", "in_progress", "failed"]
STATES: tuple[State, ...] = get_args(State)
STAGES = (*(stage for stage in get_args(Stage) if stage != "done"), "waiting", "clean", "delete")
"""Of a document: those of its crawl, `waiting` for a service or another try, and what is done after."""


@dataclass(frozen=True)
class Backlog:
    """Documents that are not done."""

    documents: Mapping[tuple[str, State], int]
    """How many, by stage and state; of a failed one the stage in which it failed."""
    pending: int
    """How many wait for a worker, or are with one."""
    age_s: float
    """How long the one that is due longest has been due; 0 = none is."""


async def backlog(database: Database) -> Backlog:
    """The documents that are not done; costs as much as there are of them, not as there are in all."""
    table, moment = tables.documents, now()
    pending = table.c.pending.is_(True)
    leased = table.c.lease_until >= moment
    crawled = and_(table.c.deleting.is_(False), table.c.status == "in_progress")
    stage = case((table.c.deleting.is_(True), "delete"), (crawled, table.c.stage), else_="clean")
    due = and_(crawled, ~leased, table.c.not_before <= moment)
    work: Any = (
        select(stage, leased, func.count(), func.min(case((due, table.c.not_before))))
        .where(pending)
        .group_by(stage, leased)
    )
    failed: Any = select(table.c.stage, func.count()).where(tables.FAILED)
    async with database.read() as connection:
        rows = (await connection.execute(work)).all()
        ended = (await connection.execute(failed.group_by(table.c.stage))).all()
    found: dict[tuple[str, State], int] = {
        (stage, "in_progress" if held else "waiting"): count for stage, held, count, _ in rows
    }
    since = min((first for *_, first in rows if first is not None), default=moment)
    return Backlog(
        {**found, **{(stage, "failed"): count for stage, count in ended}}, sum(found.values()), moment - since
    )
