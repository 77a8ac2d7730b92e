"""Whose document is next: the highest priority that waits, and of its people whoever was served longest ago.

The queries go through the index of what is pending, person by person, so that one person's 100,000 documents
cost no more than one.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Row, Select, and_, bindparam, func, insert, select, text, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection
from sqlalchemy.sql.selectable import CTE

from plugins.collections import tables

CANDIDATES = 16
"""How many people are tried when others take their documents at the same moment."""

_documents, _collections, _turns = tables.documents, tables.collections, tables.turns


async def next_people(connection: AsyncConnection, moment: float) -> Sequence[Row[Any]]:
    """Priority and person of documents that can be worked on now, in the order of their turns."""
    if connection.dialect.name == "postgresql":  # to compile the query takes ten times as long as to run it
        await connection.execute(text("SET LOCAL jit = off"))
    found: Sequence[Row[Any]] = (await connection.execute(_next_people(), {"moment": moment})).all()
    return found


@cache
def _next_people() -> Select[Any]:
    """Made once: idle workers ask it all the time."""
    people = _people()
    theirs = (
        _ready(bindparam("moment"))
        .where(_of(people.c.priority, people.c.user_id))
        .order_by(_documents.c.not_before)
    )
    # not EXISTS, which Postgres would turn into a join with all that is pending
    first = theirs.with_only_columns(_documents.c.id).limit(1).scalar_subquery()
    return (
        select(people.c.priority, people.c.user_id)
        .outerjoin(_turns, _turns.c.user_id == people.c.user_id)
        .where(people.c.user_id.is_not(None), first.is_not(None))
        .order_by(people.c.priority.desc(), func.coalesce(_turns.c.served_at, 0.0), people.c.user_id)
        .limit(CANDIDATES)
    )


def next_document(moment: float, priority: int, user_id: str) -> Select[Any]:
    """The person's document of this priority that waits longest, locked; those that others lock are left."""
    return (
        _ready(moment)
        .where(_of(priority, user_id))
        .order_by(_documents.c.not_before)
        .limit(1)
        .with_for_update(skip_locked=True, of=_documents)
    )


async def served(connection: AsyncConnection, user_id: str, moment: float) -> None:
    """Write down that the person had their turn."""
    again = update(_turns).where(_turns.c.user_id == user_id).values(served_at=moment)
    if (await connection.execute(again)).rowcount:
        return
    try:
        async with connection.begin_nested():
            await connection.execute(insert(_turns).values(user_id=user_id, served_at=moment))
    except IntegrityError:
        return  # another worker served them at the same moment


def _ready(moment: Any) -> Select[Any]:
    return (
        select(_documents.c.collection_id, _documents.c.id)
        .join(_collections, _collections.c.id == _documents.c.collection_id)
        .where(_documents.c.pending.is_(True), _documents.c.not_before <= moment)
        .where(_documents.c.lease_until < moment, _collections.c.state == "ready")
    )


def _of(priority: Any, user_id: Any) -> ColumnElement[bool]:
    return and_(_documents.c.priority == priority, _documents.c.uploaded_by == user_id)


def _people() -> CTE:
    """Each priority with each person that has something pending; the last of each is null."""
    pending = _documents.c.pending.is_(True)
    levels = select(func.max(_documents.c.priority).label("priority")).where(pending)
    level = levels.cte("levels", recursive=True)
    lower = select(func.max(_documents.c.priority)).where(pending, _documents.c.priority < level.c.priority)
    level = level.union_all(select(lower.scalar_subquery()).where(level.c.priority.is_not(None)))
    first = select(func.min(_documents.c.uploaded_by)).where(
        pending, _documents.c.priority == level.c.priority
    )
    people = select(level.c.priority, first.scalar_subquery().label("user_id"))
    person = people.where(level.c.priority.is_not(None)).cte("people", recursive=True)
    following = select(func.min(_documents.c.uploaded_by)).where(
        pending,
        _documents.c.priority == person.c.priority,
        _documents.c.uploaded_by > person.c.user_id,
    )
    return person.union_all(
        select(person.c.priority, following.scalar_subquery()).where(person.c.user_id.is_not(None))
    )
