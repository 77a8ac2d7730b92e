"""Keys of services and of local use, each bound to a user and groups."""

from __future__ import annotations

import hmac

from pydantic import Field, field_validator

from crawler.settings import Settings
from plugins.auth._keys import PREFIX, Key, digest, known_digest
from plugins.core.errors import Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.ports import IdentitySource


class ApiKey(Settings):
    key: Key
    """The key itself (from the environment), or `sha256:` and the 64 hex digits of its hash.

    Keys begin with `sk-`; `echo sk-$(openssl rand -hex 32)` makes one.
    """
    user: str = Field(min_length=1, max_length=255)
    """The name that subjects and logs carry."""
    email: str | None = None
    """For LiteLLM and its spend reports."""
    groups: list[str] = []
    """Paths: `finance/eu`."""
    roles: list[str] = []
    """Names of roles."""


class ApiKeysSettings(Settings):
    keys: list[ApiKey] = Field(min_length=1)
    """Whose they are; no key may be there twice."""

    @field_validator("keys")
    @classmethod
    def _are_different(cls, value: list[ApiKey]) -> list[ApiKey]:
        if len({known_digest(key.key) for key in value}) != len(value):
            raise ValueError("two entries have the same key")
        return value


class ApiKeys(IdentitySource[ApiKeysSettings]):
    """Accepts the keys that it knows; any other is left to the sources after it."""

    def __init__(self, settings: ApiKeysSettings, name: str) -> None:
        super().__init__(settings, name)
        self._keys = [(known_digest(key.key), key) for key in settings.keys]

    def accepts(self, credential: Credential) -> bool:
        return self._find(credential) is not None

    async def authenticate(self, credential: Credential) -> Principal:
        key = self._find(credential)
        if key is None or credential.bearer is None:
            raise Unauthenticated("This key is not known.", why="unknown_key")
        if not credential.bearer.get_secret_value().startswith(PREFIX):
            raise Unauthenticated(f"Keys must begin with `{PREFIX}`: ask for a new one.")
        return Principal(
            source=self.name,
            subject=key.user,
            username=key.user,
            email=key.email,
            groups=frozenset(group.lstrip("/") for group in key.groups),
            roles=frozenset(key.roles),
            token=credential.bearer,
        )

    def _find(self, credential: Credential) -> ApiKey | None:
        if credential.bearer is None:
            return None
        given = digest(credential.bearer.get_secret_value())
        found = [key for known, key in self._keys if hmac.compare_digest(known, given)]
        return found[0] if found else None
