"""Signing in with tokens, as short as tests want to write it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from plugins.auth.oidc import Oidc, OidcSettings
from plugins.core.errors import Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.ports import IdentitySource
from tests.support.issuer import Issuer


def source_for(realm: Issuer, **settings: Any) -> Oidc:
    return Oidc(OidcSettings(**{"issuer": realm.url, "audience": "litellm", **settings}), "keycloak")


def bearer(token: str | None) -> Credential:
    return Credential(SecretStr(token) if token is not None else None, headers={}, peer="127.0.0.1")


async def sign_in(source: IdentitySource[Any], token: str) -> Principal:
    return await source.authenticate(bearer(token))


async def refusal(source: IdentitySource[Any], token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await source.authenticate(bearer(token))
    return caught.value.message
