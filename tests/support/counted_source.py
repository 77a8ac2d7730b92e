"""An identity source that tells which of its kind were closed: `use: tests.support.counted_source`."""

from __future__ import annotations

from crawler.settings import Settings
from plugins.core.errors import Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.ports import IdentitySource


class CountedSettings(Settings):
    number: int


class Counted(IdentitySource[CountedSettings]):
    closed: list[int] = []

    def accepts(self, credential: Credential) -> bool:
        return False

    async def authenticate(self, credential: Credential) -> Principal:
        raise Unauthenticated

    async def close(self) -> None:
        Counted.closed.append(self.settings.number)
