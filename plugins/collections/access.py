"""Who holds which right to a collection: shown, replaced, explained."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

from sqlalchemy import delete, insert, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import audit, tables
from plugins.collections.database import Database
from plugins.collections.people import Known, People
from plugins.collections.records import CollectionRecord, Gate, now
from plugins.collections.rights import Grants, Rights
from plugins.core.errors import Conflict, Forbidden
from plugins.core.identity import RIGHTS, Principal, Right
from plugins.core.metrics import refused
from plugins.core.shapes import Access, EffectiveAccess, RightView

NEEDS_MANAGE = "This needs the right `manage` to the collection, which you do not have."
LAST_MANAGE = (
    "You would no longer manage the collection. Name yourself (`{}`), or a group or role of yours, in "
    "`manage`; to hand it over, let its new manager take you out."
)
NOT_OURS = (
    "Rights to this collection are Milvus's own: grant and revoke them there, to users and roles of Milvus."
)


class AccessService:
    """The grants of collections, for those who manage them; and what anybody may do, explained."""

    def __init__(self, database: Database, rights: Rights, people: People) -> None:
        self._database = database
        self._rights = rights
        self._people = people
        self._gate = Gate(database, rights)

    async def get(self, principal: Principal, ref: str) -> Access:
        """The collection's own grants; those of the policy are not among them.

        Raises:
            UnknownCollection, Forbidden: It needs `manage`.
            Conflict: Its rights are Milvus's own.
        """
        async with self._database.read() as connection:
            record = await self._gate.collection(connection, principal, ref, "manage")
        _check_ours(record)
        return shown(record.grants)

    async def replace(self, principal: Principal, ref: str, access: Access) -> Access:
        """Replace all its grants. Raises as `replace_grants` does, and UnknownCollection."""
        async with self._database.write() as connection:
            record = await self._gate.collection(connection, principal, ref, "manage")
            return shown(await replace_grants(connection, self._rights, principal, record, access))

    async def effective(self, principal: Principal, ref: str, user: str | None) -> EffectiveAccess:
        """What somebody may do with the collection, each right with the rule that decides it.

        Anybody may ask for themselves; for others, who manages the collection or may read the audit log.

        Args:
            principal: Who asks.
            ref: The collection.
            user: A subject or `<source>/<name>`; None = the principal.

        Raises:
            UnknownCollection: There is none, or the principal has no right to it.
            Forbidden: The principal may not ask for others.
            InvalidRequest: `user` is not a person.
            Conflict: Its rights are Milvus's own, which only tells of those who ask it themselves.
        """
        audits = self._rights.decide_audit(principal).allowed
        async with self._database.read() as connection:
            if user is not None and audits:
                record = await self._gate.find(connection, ref)
            else:
                record = await self._gate.collection(connection, principal, ref, *RIGHTS)
        if user is None:
            return self._explained(record, Known(principal, "request", now()))
        if not audits and not self._rights.decide(principal, "manage", record).allowed:
            raise refused("manage", Forbidden(NEEDS_MANAGE))
        _check_ours(record)
        return self._explained(record, await self._people.known(user))

    def _explained(self, record: CollectionRecord, known: Known) -> EffectiveAccess:
        who = known.principal
        decisions = {right: self._rights.decide(who, right, record) for right in RIGHTS}
        return EffectiveAccess(
            collection_id=record.id,
            user=f"user:{who.user_id}",
            known_from=known.source,
            known_at=known.at,
            groups=sorted(who.groups),
            roles=sorted(who.roles),
            rights={right: RightView(allowed=d.allowed, rule=d.rule) for right, d in decisions.items()},
        )


def canonical_access(rights: Rights, access: Access, place: str = "") -> dict[Right, frozenset[str]]:
    """The grants with their subjects in full.

    Args:
        rights: Knows the sources.
        access: As the client sent it.
        place: Where it stood in the body, for errors: `access.`, or nothing.

    Raises:
        InvalidRequest: One of them is not a subject, or there are too many.
    """
    return {right: frozenset(rights.canonical(getattr(access, right), f"{place}{right}")) for right in RIGHTS}


async def replace_grants(
    connection: AsyncConnection,
    rights: Rights,
    principal: Principal,
    record: CollectionRecord,
    access: Access,
    *,
    place: str = "",
) -> Grants:
    """Replace all grants of a collection, in the caller's transaction, and write that into the audit log.

    Whoever does it must still hold `manage` afterwards, by a grant or by the policy: nobody shuts
    themselves out by accident.

    Returns:
        The grants as they are now.

    Raises:
        Forbidden: The principal does not hold `manage` (any more: another manager was faster).
        Conflict: They would not hold it afterwards, or the rights to it are Milvus's own.
        InvalidRequest: A subject is none; `place` is as in `canonical_access`.
    """
    _check_ours(record)
    wanted = canonical_access(rights, access, place)
    table, grants = tables.collections, tables.grants
    await connection.execute(select(table.c.id).where(table.c.id == record.id).with_for_update())
    before: defaultdict[Right, frozenset[str]] = defaultdict(frozenset)
    of_it = select(grants.c.right, grants.c.subject).where(grants.c.collection_id == record.id)
    for right, subject in await connection.execute(of_it):
        before[right] |= {subject}
    if not rights.decide(principal, "manage", replace(record, grants=before)).allowed:
        raise refused("manage", Forbidden(NEEDS_MANAGE))
    if not rights.decide(principal, "manage", replace(record, grants=wanted)).allowed:
        raise Conflict(LAST_MANAGE.format(f"user:{principal.user_id}"), param=f"{place}manage")
    await connection.execute(delete(grants).where(grants.c.collection_id == record.id))
    await insert_grants(connection, record.id, wanted)
    detail = {"before": shown(before).model_dump(), "after": shown(wanted).model_dump()}
    await audit.record(connection, principal, "access.change", collection_id=record.id, detail=detail)
    return wanted


async def insert_grants(connection: AsyncConnection, collection_id: str, grants: Grants) -> None:
    """Give a collection that has none these grants."""
    rows = [
        {"collection_id": collection_id, "right": right, "subject": subject}
        for right, subjects in grants.items()
        for subject in sorted(subjects)
    ]
    if rows:
        await connection.execute(insert(tables.grants), rows)


def shown(grants: Grants) -> Access:
    """Grants as clients see them."""
    return Access.model_validate({right: sorted(grants.get(right, ())) for right in RIGHTS})


def _check_ours(record: CollectionRecord) -> None:
    if record.kind != "bundle":
        raise Conflict(NOT_OURS)
