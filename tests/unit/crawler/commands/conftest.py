"""A proxy, and the key for it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.upload_server import KEY, UploadServer, upload_server


@pytest.fixture
def proxy(monkeypatch: pytest.MonkeyPatch) -> Iterator[UploadServer]:
    monkeypatch.setenv("LITELLM_API_KEY", KEY)
    monkeypatch.setattr("crawler.commands.jobs.POLL_S", 0.01)
    with upload_server() as server:
        yield server
