"""What signing in takes, over a real database and a real issuer, as one process has it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from plugins.api.sign_in import SignInParts
from plugins.auth._attempts import Attempts
from plugins.auth._revocations import Revocations
from plugins.auth._sessions import COOKIE, SessionSource
from plugins.collections.database import Database
from plugins.core.config import StorageConfig
from plugins.core.identity import Credential
from plugins.core.identity_config import SignInConfig
from plugins.core.ports import IdentitySource
from tests.support.keycloak_issuer import CLIENT, KeycloakIssuer
from tests.support.migrated import migrated
from tests.support.oidc import source_for

BASE = "https://proxy.example.test"


@asynccontextmanager
async def sign_in_parts(
    folder: Path, realm: KeycloakIssuer, settings: SignInConfig | None = None, base: str = BASE
) -> AsyncIterator[SignInParts]:
    """Those of one process; others over the same folder are other processes."""
    url = migrated(StorageConfig(data_dir=folder / "data"))
    database, settings = Database(url), settings or SignInConfig()
    sources: list[IdentitySource[Any]] = [source_for(realm, **CLIENT)]
    sessions = SessionSource(settings, {source.name: source for source in sources}, database, base)
    revocations = Revocations(database, settings.revocation_s)
    try:
        yield SignInParts(sources, sessions, revocations, settings, base, Attempts(database))
    finally:
        await revocations.close()
        for source in sources:
            await source.close()
        await database.close()


def with_cookie(value: str, method: str = "GET", **headers: str) -> Credential:
    """A request with a session's cookie, by default as an old browser opens an address."""
    sent = {name.replace("_", "-"): text for name, text in headers.items()}
    return Credential(None, {"cookie": f"token=x; {COOKIE}={value}; a=b", **sent}, "127.0.0.1", method)
