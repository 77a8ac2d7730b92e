"""How much people and collections may hold, and whose documents go first.

Of several entries of the settings the first that names the person, or the collection, counts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase

from sqlalchemy import ColumnElement, and_, delete, func, insert, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import tables
from plugins.collections.members import never_taken
from plugins.collections.records import CollectionRecord, now
from plugins.core.config import CollectionQuota, Config, Quota
from plugins.core.errors import ConfigError, InvalidRequest, LimitReached, TooLarge
from plugins.core.identity import Principal, canonical_subject

DAY_S = 86_400


class Quotas:
    """What the settings `limits.quotas`, `limits.collections` and `worker.priorities` say."""

    def __init__(self, config: Config) -> None:
        """Read the settings.

        Raises:
            ConfigError: A subject is none; `python -m plugins check` says which.
        """
        sources = {source.name or source.use.rpartition(".")[2] for source in config.identity.sources}
        self._people = [(_subjects(entry.subjects, sources), entry) for entry in config.limits.quotas]
        self._collections = config.limits.collections
        self._priorities = [
            (_subjects(entry.subjects, sources), entry.priority) for entry in config.worker.priorities
        ]

    def priority(self, principal: Principal) -> int:
        """How early the principal's documents are processed: higher is earlier, 0 for most."""
        for subjects, priority in self._priorities:
            if not principal.subjects.isdisjoint(subjects):
                return priority
        return 0

    async def lock(self, connection: AsyncConnection, collection: CollectionRecord) -> None:
        """Let only one transaction at a time add to a collection that has limits: call it first there."""
        if self._of_collection(collection) is not None:
            table = tables.collections
            await connection.execute(select(table.c.id).where(table.c.id == collection.id).with_for_update())

    async def check(
        self, connection: AsyncConnection, principal: Principal, collection: CollectionRecord, size: int
    ) -> None:
        """Whether what this transaction added is within the limits: call it when the rows are there.

        Args:
            connection: That of the transaction, which is to be rolled back after an error.
            principal: Who adds.
            collection: Where.
            size: How many bytes are new.

        Raises:
            LimitReached: The day's bytes are used up; says when to come again.
            TooLarge: There are too many documents, or too many bytes.
        """
        quota, moment = self._of_person(principal), now()
        if quota is not None:
            used = await _use(connection, principal.user_id, int(moment // DAY_S), size)
            _refuse_over_day(quota, used, moment)
        for limit in self._limits(principal, collection):
            limit.refuse_over(*(await limit.held(connection)))

    async def fit(
        self,
        connection: AsyncConnection,
        principal: Principal,
        collection: CollectionRecord,
        sizes: Sequence[int],
    ) -> list[LimitReached | TooLarge | None]:
        """For which new documents there is room, each beside those before it that fit; what they lack else.

        What is held is counted once: call it before the rows are there. The bytes of those that fit are
        noted as the day's.

        Args:
            connection: That of the transaction that adds them.
            principal: Who adds.
            collection: Where.
            sizes: Of each document, in bytes.
        """
        quota, moment = self._of_person(principal), now()
        day = int(moment // DAY_S)
        used = 0 if quota is None else await _use(connection, principal.user_id, day, 0)
        limits = [(limit, *(await limit.held(connection))) for limit in self._limits(principal, collection)]
        answers: list[LimitReached | TooLarge | None] = []
        count = total = 0
        for size in sizes:
            try:
                if quota is not None:
                    _refuse_over_day(quota, used + total + size, moment)
                for limit, documents, held in limits:
                    limit.refuse_over(documents + count + 1, held + total + size)
            except (LimitReached, TooLarge) as error:
                answers.append(error)
            else:
                answers.append(None)
                count, total = count + 1, total + size
        if quota is not None:
            await _use(connection, principal.user_id, day, total)
        return answers

    def _of_person(self, principal: Principal) -> Quota | None:
        return next(
            (quota for subjects, quota in self._people if not principal.subjects.isdisjoint(subjects)), None
        )

    def _limits(self, principal: Principal, collection: CollectionRecord) -> list[_Limit]:
        """What limits how much there is of the person's and in the collection."""
        table, found = tables.documents, []
        quota, limit = self._of_person(principal), self._of_collection(collection)
        if quota is not None and (quota.max_documents is not None or quota.max_bytes is not None):
            found.append(_Limit(quota, "You have", table.c.uploaded_by == principal.user_id))
        if limit is not None:
            found.append(_Limit(limit, "This collection has", table.c.collection_id == collection.id))
        return found

    def _of_collection(self, collection: CollectionRecord) -> CollectionQuota | None:
        name = collection.name or ""
        return next((limit for limit in self._collections if fnmatchcase(name, limit.names)), None)


@dataclass(frozen=True)
class _Limit:
    """How much there may be of some documents."""

    most: Quota | CollectionQuota
    who: str
    """Begins the sentence that says how much room there is."""
    condition: ColumnElement[bool]
    """Which documents."""

    async def held(self, connection: AsyncConnection) -> tuple[int, int]:
        """How many there are, and of how many bytes."""
        table = tables.documents
        there = and_(self.condition, table.c.deleting.is_(False))
        query = select(func.count(), func.coalesce(func.sum(table.c.size), 0)).where(there)
        documents, size = (await connection.execute(query)).one()
        refused = select(func.count()).where(
            there, never_taken()
        )  # apart, so that an index answers the first
        return int(documents) - int((await connection.execute(refused)).scalar_one()), int(size)

    def refuse_over(self, documents: int, size: int) -> None:
        """Raises TooLarge where that is more than there may be."""
        most = self.most
        if most.max_documents is not None and documents > most.max_documents:
            raise TooLarge(
                f"{self.who} room for {most.max_documents} documents, and with this it would be {documents}. "
                "Delete some, or ask the operator for more."
            )
        if most.max_bytes is not None and size > most.max_bytes:
            raise TooLarge(
                f"{self.who} room for {_human(most.max_bytes)}, and with this it would be {_human(size)}. "
                "Delete some documents, or ask the operator for more."
            )


async def person_of(connection: AsyncConnection, user_id: str) -> Principal:
    """Who uploaded something, with the groups and roles of their last sign-in that was noted."""
    source, _, username = user_id.partition("/")
    table = tables.people
    query = select(table.c.groups, table.c.roles).where(
        table.c.source == source, table.c.username == username
    )
    row = (await connection.execute(query)).one_or_none()
    person = Principal(source=source, subject=username, username=username)
    if row is None:
        return person
    return person.model_copy(update={"groups": frozenset(row.groups), "roles": frozenset(row.roles)})


def _subjects(texts: Iterable[str], sources: Collection[str]) -> frozenset[str]:
    try:
        return frozenset(canonical_subject(text, sources) for text in texts)
    except InvalidRequest as error:
        raise ConfigError([f"limits.quotas or worker.priorities: {error.message}"]) from error


def _refuse_over_day(quota: Quota, used: int, moment: float) -> None:
    """Raises LimitReached where so many bytes are more than the day's."""
    most = quota.max_bytes_per_day
    if most is not None and used > most:
        raise LimitReached(
            f"You may upload {_human(most)} a day, and with this it would be {_human(used)}. "
            "Go on tomorrow (UTC), or ask the operator for more.",
            retry_after_s=int(DAY_S - moment % DAY_S) + 1,
        )


async def _use(connection: AsyncConnection, user_id: str, day: int, size: int) -> int:
    """Add to what the person uploaded today; until the transaction ends nobody else does.

    Returns:
        The bytes of the day.
    """
    table = tables.usage
    add = (
        update(table)
        .where(table.c.user_id == user_id, table.c.day == day)
        .values(bytes=table.c.bytes + size)
        .returning(table.c.bytes)
    )
    used = (await connection.execute(add)).scalar_one_or_none()
    if used is not None:
        return int(used)
    await connection.execute(delete(table).where(table.c.user_id == user_id, table.c.day < day))
    try:
        async with connection.begin_nested():
            await connection.execute(insert(table).values(user_id=user_id, day=day, bytes=size))
    except IntegrityError:  # another request of theirs was the day's first
        return int((await connection.execute(add)).scalar_one())
    return size


def _human(size: int) -> str:
    for unit, scale in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if size >= scale:
            return f"{size / scale:.1f} {unit}"
    return f"{size} bytes"
