"""A fake vector store that has users: it knows a few credentials and counts what it is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from crawler.errors import CredentialRefused, StoreError
from crawler.settings import Settings
from crawler.store import Privileges
from tests.support.api_server import NoStore


@dataclass
class Person:
    visible: frozenset[str] = frozenset()
    privileges: Privileges = field(default_factory=Privileges)


class FakeRightsStore(NoStore):
    """`people` by their whole credential."""

    has_rights = True

    def __init__(self, people: Mapping[str, Person]) -> None:
        super().__init__(Settings())
        self.people = dict(people)
        self.fails: StoreError | None = None
        """What every question is answered with."""
        self.privileges_fail: StoreError | None = None
        self.hangs: asyncio.Event | None = None
        """Every question waits for it."""
        self.listed: list[str] = []
        self.described: list[str] = []
        self.existing: set[str] = set()
        self.made: list[tuple[str, str | None]] = []
        self.dropped: list[tuple[str, str | None]] = []

    async def visible(self, credential: SecretStr) -> frozenset[str]:
        self.listed.append(credential.get_secret_value())
        if self.hangs is not None:
            await self.hangs.wait()
        if self.fails is not None:
            raise self.fails
        return self._person(credential).visible

    async def privileges(self, credential: SecretStr) -> Privileges:
        self.described.append(credential.get_secret_value())
        if self.privileges_fail is not None:
            raise self.privileges_fail
        return self._person(credential).privileges

    async def names(self) -> frozenset[str]:
        return frozenset(self.existing)

    async def create(self, name: str, *, credential: SecretStr | None = None, **shape: Any) -> None:
        if self.fails is not None:
            raise self.fails
        self.existing.add(name)
        self.made.append((name, credential.get_secret_value() if credential else None))

    async def drop(self, name: str, *, credential: SecretStr | None = None) -> None:
        if self.fails is not None:
            raise self.fails
        self.existing.discard(name)
        self.dropped.append((name, credential.get_secret_value() if credential else None))

    def _person(self, credential: SecretStr) -> Person:
        try:
            return self.people[credential.get_secret_value()]
        except KeyError:
            raise CredentialRefused from None
