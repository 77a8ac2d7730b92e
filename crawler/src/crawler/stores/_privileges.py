"""Milvus's roles as rights to collections: the one table, and how a user's grants are read with it.

https://milvus.io/docs/grant_privileges.md, https://milvus.io/docs/privilege_group.md
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from pymilvus import AsyncMilvusClient  # type: ignore[import-untyped]

from crawler.errors import StoreRefused
from crawler.store import Privileges, StoreRight
from crawler.stores._connection import Connection, denied, unimplemented

RIGHTS: Mapping[StoreRight, frozenset[str]] = {
    "query": frozenset({"Search", "Query"}),
    "add": frozenset({"Insert"}),
    "manage": frozenset({"DropCollection"}),
}
"""The privileges that each right takes, all of them. `discover` is what the user's own listing shows."""
CREATE = "CreateCollection"

_OF_COLLECTIONS = frozenset({"Search", "Query", "Insert"})
_GLOBAL = frozenset({"DropCollection", CREATE})
_ANY = "*"
ADMIN, SUPERUSER, PUBLIC = "admin", "root", "public"
"""The role that may do everything, the user who may, and the role that every user has unsaid."""

_READ = frozenset({"Search", "Query"})
_WRITE = _READ | {"Insert"}
BUILT_IN_GROUPS: Mapping[str, frozenset[str]] = {
    "CollectionReadOnly": _READ,
    "CollectionReadWrite": _WRITE,
    "CollectionAdmin": _WRITE,
    "DatabaseAdmin": _GLOBAL,
}
"""Of Milvus 2.5 and later, as far as `RIGHTS` names their privileges. Groups of databases and of the cluster
hold no privilege of collections: the levels do not cascade."""


async def of_user(service: Connection, user: str, database: str) -> Privileges:
    """What the user's roles allow in the database, asked as the service.

    Raises:
        StoreRefused: The service may not look at users and roles (`SelectUser`, `SelectOwnership`).
    """
    if user == SUPERUSER:
        return _everything()
    described = await service.call(lambda client: client.describe_user(user))
    if not described:
        return Privileges()
    roles = list(described["roles"])
    if ADMIN in roles:
        return _everything()
    grants: list[Mapping[str, Any]] = []
    for role in dict.fromkeys([*roles, PUBLIC]):
        grants += await _grants(service, role, database)
    return read(grants, await _groups(service))


async def _grants(service: Connection, role: str, database: str) -> list[Mapping[str, Any]]:
    async def ask(client: AsyncMilvusClient) -> Any:
        return await client.describe_role(role, db_name=database)

    try:
        described = await service.call(ask)
    except StoreRefused as error:
        if denied(error):
            raise
        return []  # the role was dropped meanwhile
    return [grant for grant in described["privileges"] if grant.get("db_name", database) in (database, _ANY)]


async def _groups(service: Connection) -> dict[str, frozenset[str]]:
    """The privileges of each group; a server before 2.5 has none."""
    try:
        listed = await service.call(lambda client: client.list_privilege_groups())
    except StoreRefused as error:
        if not unimplemented(error):
            raise
        return {}
    own = {group["privilege_group"]: frozenset(group["privileges"]) for group in listed}
    return {**BUILT_IN_GROUPS, **own}


def read(grants: Iterable[Mapping[str, Any]], groups: Mapping[str, frozenset[str]]) -> Privileges:
    """Grants as Milvus lists them (``object_type``, ``object_name``, ``privilege``) as rights.

    ``*`` as a privilege means all of its object's type: whoever may do everything with collections may not
    thereby drop one, which is a privilege of the type `Global`.
    """
    held: dict[str, set[str]] = {}
    for grant in grants:
        privilege = grant["privilege"]
        if privilege == _ANY:
            found = {"Global": _GLOBAL, "Collection": _OF_COLLECTIONS}.get(grant["object_type"], frozenset())
        else:
            found = groups.get(privilege, frozenset({privilege}))
        held.setdefault(grant["object_name"], set()).update(found)
    everywhere = held.get(_ANY, set())
    rights = {
        name: frozenset(right for right, needed in RIGHTS.items() if needed <= (privileges | everywhere))
        for name, privileges in held.items()
    }
    return Privileges(rights=rights, create=CREATE in everywhere)


def _everything() -> Privileges:
    return Privileges(rights={_ANY: frozenset(RIGHTS)}, create=True)
