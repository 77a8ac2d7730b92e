"""A GitLab on loopback and the source of its tokens, as fixtures."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from plugins.auth.gitlab import Gitlab, GitlabSettings
from tests.support.gitlab import Gitlab as Server
from tests.support.gitlab import gitlab

INFO, USER = "/oauth/token/info", "/oauth/userinfo"


def source_for(server: Server, **settings: Any) -> Gitlab:
    return Gitlab(GitlabSettings(**{**server.settings, **settings}), "gitlab")


@pytest.fixture
def server() -> Iterator[Server]:
    with gitlab() as running:
        yield running


@pytest.fixture
async def source(server: Server) -> AsyncIterator[Gitlab]:
    made = source_for(server)
    yield made
    await made.close()
