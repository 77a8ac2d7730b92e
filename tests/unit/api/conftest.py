"""The fixture `server`: see `tests.support.api_server`; and `app`, the routes of signing in."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.support.api_server import server
from tests.support.auth_app import App, auth_app
from tests.support.keycloak_issuer import KeycloakIssuer

__all__ = ["server"]


@pytest.fixture
async def app(tmp_path: Path, realm: KeycloakIssuer) -> AsyncIterator[App]:
    async with auth_app(tmp_path, realm) as made:
        yield made
