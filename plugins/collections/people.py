"""Whom grants can name: people, roles and groups, from the issuers' directories or from who was seen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal, NamedTuple

from sqlalchemy import or_, select
from sqlalchemy.ext.asyncio import AsyncConnection

from plugins.collections import tables
from plugins.collections.database import Database
from plugins.collections.records import Gate, has_controls, now
from plugins.collections.rights import Rights
from plugins.core.errors import Forbidden, InvalidRequest
from plugins.core.identity import Principal, canonical_subject
from plugins.core.metrics import refused
from plugins.core.ports import Directory
from plugins.core.shapes import PersonList, PersonView, RoleList, RoleView

MAX_SEEN = 10_000
"""People whose roles and groups are looked through, those seen last."""


class Known(NamedTuple):
    """What is known of somebody, as the principal that they would be."""

    principal: Principal
    source: Literal["request", "directory", "sign_in", "nothing"]
    at: float | None
    """When it was so, in seconds since 1970."""


class People:
    """Who there is, for those who give grants."""

    def __init__(self, database: Database, rights: Rights, directories: Mapping[str, Directory]) -> None:
        """`directories` are those of the identity sources that have one, by the sources' names."""
        self._database = database
        self._rights = rights
        self._gate = Gate(database, rights)
        self._directories = directories

    async def users(
        self, principal: Principal, *, search: str = "", after: str | None = None, limit: int = 100
    ) -> PersonList:
        """People by their sources' names, and within a source by their names.

        Args:
            principal: Who asks.
            search: Part of a name or e-mail address.
            after: The subject of the last one of the page before.
            limit: 1 to 1000.

        Raises:
            Forbidden: The principal neither manages a collection nor may create one.
            IdentityUnavailable: A directory does not answer.
        """
        await self._check(principal)
        _check_search(search)
        first, name = self._person(after, "after") if after is not None else ("", None)
        found: list[PersonView] = []
        for source in sorted(self._rights.sources):
            if source < first or len(found) > limit:
                continue
            behind = name if source == first else None
            found += await self._of_source(source, search, behind, limit + 1 - len(found))
        return PersonList(data=found[:limit], has_more=len(found) > limit)

    async def roles(
        self, principal: Principal, *, search: str = "", after: str | None = None, limit: int = 100
    ) -> RoleList:
        """Roles and groups by their subjects; arguments and errors as those of `users`."""
        await self._check(principal)
        _check_search(search)
        found: set[tuple[Literal["role", "group"], str, str]] = set()
        async with self._database.read() as connection:
            table = tables.people
            seen = select(table).order_by(table.c.seen_at.desc()).limit(MAX_SEEN)
            for row in await connection.execute(seen):
                if row.source in self._rights.sources:
                    found |= {("role", row.source, name) for name in row.roles}
                    found |= {("group", row.source, name) for name in row.groups}
        for source, directory in self._directories.items():
            found |= {("role", source, name) for name in await directory.roles()}
            found |= {("group", source, name) for name in await directory.groups()}
        views = sorted(
            (
                RoleView(object=kind, subject=f"{kind}:{source}/{name}", source=source, name=name)
                for kind, source, name in found
                if search.casefold() in name.casefold()
            ),
            key=lambda view: view.subject,
        )
        rest = [view for view in views if after is None or view.subject > after]
        return RoleList(data=rest[:limit], has_more=len(rest) > limit)

    async def known(self, user: str) -> Known:
        """What is known of somebody.

        Args:
            user: Their subject, or `<source>/<name>`, or the name alone where there is one source.

        Raises:
            InvalidRequest: It does not name a person.
            IdentityUnavailable: Their directory does not answer.
        """
        source, username = self._person(user, "user")
        directory = self._directories.get(source)
        person = await directory.person(username) if directory is not None else None
        if person is not None:
            found = Principal(
                source=source,
                subject=username,
                username=username,
                groups=person.groups,
                roles=person.roles,
            )
            return Known(found, "directory", now())
        table = tables.people
        of_them = select(table).where(table.c.source == source, table.c.username == username)
        async with self._database.read() as connection:
            row = (await connection.execute(of_them)).one_or_none()
        nobody = Principal(source=source, subject=username, username=username)
        if row is None:
            return Known(nobody, "nothing", None)
        seen = nobody.model_copy(update={"groups": frozenset(row.groups), "roles": frozenset(row.roles)})
        return Known(seen, "sign_in", row.seen_at)

    async def _check(self, principal: Principal) -> None:
        if self._rights.may_create(principal):
            return
        async with self._database.read() as connection:
            if await self._gate.collections(connection, principal, "manage"):
                return
        message = "This needs the right `manage` to a collection, or to `create` one."
        raise refused("manage", Forbidden(message))

    def _person(self, text: str, param: str) -> tuple[str, str]:
        """Source and name."""
        kind = text.partition(":")[0] if text.startswith(("group:", "role:")) else ""
        if kind or text == "*" or has_controls(text):
            raise InvalidRequest("Name one person: `user:<source>/<name>`.", param=param)
        subject = text if text.startswith("user:") else f"user:{text}"
        source, _, name = (
            canonical_subject(subject, self._rights.sources, param).partition(":")[2].partition("/")
        )
        return source, name

    async def _of_source(self, source: str, search: str, after: str | None, limit: int) -> list[PersonView]:
        directory = self._directories.get(source)
        if directory is not None:
            return [
                _view(source, person.username, person.email, None)
                for person in await directory.people(search, after=after, limit=limit)
            ]
        async with self._database.read() as connection:
            return await _seen(connection, source, search, after, limit)


async def _seen(
    connection: AsyncConnection, source: str, search: str, after: str | None, limit: int
) -> list[PersonView]:
    table = tables.people
    query = select(table).where(table.c.source == source).order_by(table.c.username).limit(limit)
    if search:
        query = query.where(
            or_(
                table.c.username.icontains(search, autoescape=True),
                table.c.email.icontains(search, autoescape=True),
            )
        )
    if after is not None:
        query = query.where(table.c.username > after)
    return [_view(source, row.username, row.email, row.seen_at) for row in await connection.execute(query)]


def _view(source: str, name: str, email: str | None, seen_at: float | None) -> PersonView:
    subject = f"user:{source}/{name}"
    return PersonView(subject=subject, source=source, name=name, email=email, seen_at=seen_at)


def _check_search(search: str) -> None:
    if has_controls(search):
        raise InvalidRequest("`q` has no control characters.", param="q")
