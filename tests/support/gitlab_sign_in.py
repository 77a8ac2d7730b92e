"""Signing in with GitLab's tokens, as short as tests want to write it."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import SecretStr

from plugins.auth.gitlab import Gitlab, GitlabSettings
from plugins.core.errors import Unauthenticated
from plugins.core.identity import Credential, Principal
from tests.support.gitlab import Gitlab as Server


def source_for(server: Server, **settings: Any) -> Gitlab:
    return Gitlab(GitlabSettings(**{**server.settings, **settings}), "gitlab")


def bearer(token: str | None) -> Credential:
    return Credential(bearer=SecretStr(token) if token is not None else None, headers={}, peer="")


async def sign_in(source: Gitlab, token: str) -> Principal:
    return await source.authenticate(bearer(token))


async def refusal(source: Gitlab, token: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await sign_in(source, token)
    return caught.value.message
