"""The chat hooks in a fake proxy."""

from __future__ import annotations

from typing import Any

import litellm
import pytest
from litellm.proxy import proxy_server

from tests.support.fake_proxy import Proxy
from tests.support.fake_router import Round


@pytest.fixture
def proxy_with(monkeypatch: pytest.MonkeyPatch) -> Any:
    def make(*rounds: Round, **options: Any) -> Proxy:
        proxy = Proxy(rounds, **options)
        monkeypatch.setattr(proxy_server, "llm_router", proxy.router)
        monkeypatch.setattr(litellm, "callbacks", [proxy.hooks])
        return proxy

    return make
