"""What tests against real servers share. What is missing on this machine skips its tests, with the reason."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from typing import Any

import pytest

from deploy.keycloak.keycloak import Server, Unavailable, server
from tests.live.keycloak_realm import Realm, throwaway
from tests.support.proxy import Proxy, free_port, proxy

LITELLM: dict[str, Any] = {
    "model_list": [
        {"model_name": name, "litellm_params": {"model": "openai/x", "api_key": "x", "mock_response": "hi"}}
        for name in ("open", "secret")
    ],
    "litellm_settings": {"callbacks": ["plugins.entry.hooks"]},
    "general_settings": {
        "master_key": "os.environ/LITELLM_MASTER_KEY",
        "custom_auth": "plugins.entry.authenticate",
        "custom_auth_run_common_checks": True,
    },
}
RunProxy = Callable[[Mapping[str, Any]], Proxy]


def pytest_configure() -> None:
    """An interrupt ends the tests and their servers, also where a shell started them in the background, which
    has it ignored: `.ci/run` ends tests that take too long."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """KEYCLOAK_URL with KEYCLOAK_ADMIN_USER and KEYCLOAK_ADMIN_PASSWORD (an admin of the realm `master`), or
    else one that is started here."""
    if url := os.environ.get("KEYCLOAK_URL"):
        names = ("KEYCLOAK_ADMIN_USER", "KEYCLOAK_ADMIN_PASSWORD")
        if missing := [name for name in names if not os.environ.get(name)]:
            pytest.skip(f"KEYCLOAK_URL is set, but not {' and '.join(missing)}")
        admin, password = (os.environ[name] for name in names)
        yield Server(url.rstrip("/"), admin, password)
        return
    with ExitStack() as stack:
        try:
            running = stack.enter_context(server(tmp_path_factory.mktemp("keycloak") / "keycloak.log"))
        except Unavailable as error:
            pytest.skip(f"{error} Or set KEYCLOAK_URL to a server that runs.")
        yield running


@pytest.fixture(scope="module")
def realm(keycloak: Server) -> Iterator[Realm]:
    """A realm of this module's own."""
    with throwaway(keycloak) as made:
        yield made


@pytest.fixture(scope="module")
def run_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunProxy]:
    """Start the proxy with what `config/` holds (`{"identity": {...}, "tools": [...]}`), ended in any case.

    Two mock models, `open` and `secret`; no worker unless the configuration says so.
    """
    with ExitStack() as stack:

        def run(config: Mapping[str, Any]) -> Proxy:
            folder, port = tmp_path_factory.mktemp("proxy"), free_port()
            own = {
                "worker": {"embedded": False},
                "storage": {"data_dir": str(folder / "data")},
                "chat": {"public_base_url": f"http://127.0.0.1:{port}"},
            }
            (folder / "config" / "prompts").mkdir(parents=True)
            (folder / "config" / "prompts" / "answer.md").write_text("Cite.", encoding="utf-8")
            files = {key: {key: value} for key, value in {**own, **config}.items()}
            return stack.enter_context(proxy(folder, LITELLM, files, {"LITELLM_LOG": "INFO"}, port))

        yield run
