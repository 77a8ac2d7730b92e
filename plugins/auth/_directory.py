"""Who there is in a Keycloak realm, from its admin API as the service account of our client.

Sources: https://www.keycloak.org/docs-api/latest/rest-api (users, groups, roles). The service account needs
the roles `view-users` and `view-realm` of the realm's client `realm-management`.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Awaitable, Iterator, Mapping, Sequence
from contextlib import aclosing
from typing import Any, TypeVar

import httpx
from keycloak.exceptions import KeycloakError

from plugins.auth._keycloak import Keycloak
from plugins.core.errors import IdentityUnavailable
from plugins.core.ports import Person

log = logging.getLogger(__name__)

T = TypeVar("T")

PAGE = 100
MAX_SCANNED = 10_000
"""Users that are looked through for the one that a page begins after."""
NOT_ALLOWED = "The issuer does not let this server list people. Tell the operator of this server."


class KeycloakDirectory:
    """A realm's users, roles and groups. All methods raise IdentityUnavailable where it does not answer.

    Subjects are made of realm roles and of groups' full paths, as Keycloak's mappers write them in tokens by
    default.
    """

    def __init__(self, keycloak: Keycloak, timeout_s: float) -> None:
        self._keycloak = keycloak
        self._timeout_s = timeout_s

    async def people(self, search: str, *, after: str | None, limit: int) -> list[Person]:
        """Enabled users in Keycloak's order, from the one behind the user `after` on."""
        found: list[Person] = []
        behind = after is None
        async with aclosing(self._users(search)) as users:
            async for user in users:
                if behind:
                    found.append(_person(user))
                    if len(found) == limit:
                        break
                behind = behind or user["username"] == after
        return found

    async def _users(self, search: str) -> AsyncGenerator[dict[str, Any]]:
        infix = search.replace("*", "").replace('"', "").strip()
        # a search, also for everything, leaves out the users of service accounts
        pattern = f"*{infix}*" if infix else "*"
        query = {"search": pattern, "max": PAGE, "enabled": True, "briefRepresentation": True}
        for first in range(0, MAX_SCANNED, PAGE):
            page = await self._asked(self._keycloak.admin.a_get_users({**query, "first": first}))
            for user in page:
                yield user
            if len(page) < PAGE:
                return

    async def person(self, username: str) -> Person | None:
        """An enabled user with the groups and roles that a new token would carry; None = there is none."""
        admin = self._keycloak.admin
        found = await self._asked(admin.a_get_users({"username": username, "exact": True, "enabled": True}))
        user = next((user for user in found if user["username"] == username), None)
        if user is None:
            return None
        groups = await self._asked(admin.a_get_user_groups(user["id"]))
        roles = await self._asked(admin.a_get_composite_realm_roles_of_user(user["id"]))
        return _person(user)._replace(
            groups=frozenset(str(group["path"]).lstrip("/") for group in groups),
            roles=frozenset(str(role["name"]) for role in roles),
        )

    async def roles(self) -> list[str]:
        """The realm's roles."""
        return [str(role["name"]) for role in await self._asked(self._keycloak.admin.a_get_realm_roles())]

    async def groups(self) -> list[str]:
        """The paths of the realm's groups, without the leading slash."""
        tree = await self._asked(self._keycloak.admin.a_get_groups(full_hierarchy=True))
        return [path.lstrip("/") for path in _paths(tree)]

    async def _asked(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except KeycloakError as error:
            if error.response_code in (401, 403):
                log.warning(
                    "Keycloak refuses its admin API to this server's client: its service account needs the "
                    "roles `view-users` and `view-realm` of the client `realm-management`"
                )
                raise IdentityUnavailable(NOT_ALLOWED) from error
            raise IdentityUnavailable from error
        except (httpx.HTTPError, TimeoutError, TypeError, KeyError) as error:
            raise IdentityUnavailable from error


def _person(user: Mapping[str, Any]) -> Person:
    email = user.get("email")
    return Person(username=str(user["username"]), email=str(email) if email else None)


def _paths(groups: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    for group in groups:
        yield str(group["path"])
        yield from _paths(group.get("subGroups") or [])
