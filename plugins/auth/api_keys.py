"""Keys of services and of local use, each bound to a user and groups."""

from __future__ import annotations

import hashlib
import hmac
import re

from pydantic import Field, SecretStr, field_validator

from crawler.settings import Settings
from plugins.core.errors import Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.ports import IdentitySource

MIN_LENGTH = 16
PREFIX = "sk-"
"""LiteLLM hashes a key in what it logs of a failed request only where it begins so."""
HASHED = re.compile(r"sha256:([0-9a-f]{64})")


class ApiKey(Settings):
    key: SecretStr
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

    @field_validator("key")
    @classmethod
    def _is_strong(cls, value: SecretStr) -> SecretStr:
        text = value.get_secret_value()
        if text.startswith("sha256:"):
            if not HASHED.fullmatch(text):
                raise ValueError("must have 64 lower-case hex digits after `sha256:`")
        elif len(text) < MIN_LENGTH or not text.startswith(PREFIX):
            raise ValueError(
                f"must begin with `{PREFIX}` and have at least {MIN_LENGTH} characters; "
                f"`echo {PREFIX}$(openssl rand -hex 32)` makes one"
            )
        return value

    @property
    def digest(self) -> str:
        """The key's sha256 as 64 hex digits."""
        text = self.key.get_secret_value()
        hashed = HASHED.fullmatch(text)
        return hashed[1] if hashed else hashlib.sha256(text.encode()).hexdigest()


class ApiKeysSettings(Settings):
    keys: list[ApiKey] = Field(min_length=1)
    """Whose they are; no key may be there twice."""

    @field_validator("keys")
    @classmethod
    def _are_different(cls, value: list[ApiKey]) -> list[ApiKey]:
        if len({key.digest for key in value}) != len(value):
            raise ValueError("two entries have the same key")
        return value


class ApiKeys(IdentitySource[ApiKeysSettings]):
    """Accepts the keys that it knows; any other is left to the sources after it."""

    def __init__(self, settings: ApiKeysSettings, name: str) -> None:
        super().__init__(settings, name)
        self._keys = [(key.digest, key) for key in settings.keys]

    def accepts(self, credential: Credential) -> bool:
        return self._find(credential) is not None

    async def authenticate(self, credential: Credential) -> Principal:
        key = self._find(credential)
        if key is None or credential.bearer is None:
            raise Unauthenticated("This key is not known.")
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
        digest = hashlib.sha256(credential.bearer.get_secret_value().encode()).hexdigest()
        found = [key for known, key in self._keys if hmac.compare_digest(known, digest)]
        return found[0] if found else None
