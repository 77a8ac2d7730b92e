"""The proxy in front of a real Keycloak, as its callers see it."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import httpx
import pytest

from deploy.keycloak.keycloak import Server
from plugins.auth.oidc import Oidc, OidcSettings
from tests.live.keycloak_realm import CA_FILE, SECRETS, Realm
from tests.support.proxy import Proxy

T = TypeVar("T")

TOOLS = [
    {"use": "list_collections", "allow": ["role:keycloak/writer"]},
    {"use": "search_documents", "allow": ["group:keycloak/finance"]},
    {"use": "read_document", "allow": ["*"]},
]
"""Those that one may run show whom the proxy takes one for."""
EVERYONE = {"read_document"}
FINANCE = {"search_documents"}
WRITER = {"list_collections"}


def source(realm: Realm, name: str = "keycloak", **settings: Any) -> dict[str, Any]:
    """The realm as an identity source in YAML, with us as its client."""
    own = {"use": "oidc", "name": name, "issuer": realm.url, "audience": "litellm", "timeout_s": 5}
    client = {"client_id": "litellm", "client_secret": SECRETS["litellm"]}
    return {**own, **client, **({"ca_file": CA_FILE} if CA_FILE else {}), **settings}


def config(*sources: dict[str, Any], **identity: Any) -> dict[str, Any]:
    return {"identity": {"sources": [*sources, {"use": "litellm"}], **identity}, "tools": TOOLS}


def in_process(realm: Realm, **settings: Any) -> Oidc:
    """The same source without a proxy around it."""
    given = source(realm, **settings)
    return Oidc(OidcSettings(**{name: given[name] for name in given.keys() - {"use", "name"}}), "keycloak")


def get(proxy: Proxy, token: str, path: str = "/v1/tools") -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.get(f"{proxy.url}{path}", headers=headers, timeout=30, trust_env=False)


def tools(proxy: Proxy, token: str) -> set[str]:
    """The names of the tools that the token's bearer may run."""
    answer = get(proxy, token)
    assert answer.status_code == 200, answer.text
    return {tool["function"]["name"] for tool in answer.json()["data"]}


def refusal(proxy: Proxy, token: str, status: int = 401) -> str:
    """Why the token is refused, on a route of ours and on one of LiteLLM's alike."""
    ours, theirs = get(proxy, token), get(proxy, token, "/v1/models")
    assert (ours.status_code, theirs.status_code) == (status, status), (ours.text, theirs.text)
    message: str = ours.json()["error"]["message"]
    assert theirs.json()["error"]["message"] == message
    return message


def until(look: Callable[[], T], good: Callable[[T], bool], limit_s: float = 30) -> T:
    """What ``look`` answers as soon as it is good."""
    deadline = time.monotonic() + limit_s
    while True:
        found = look()
        if good(found):
            return found
        assert time.monotonic() < deadline, f"in the end it was {found!r}"
        time.sleep(0.05)


@contextmanager
def halted(server: Server) -> Iterator[None]:
    """While it lasts, Keycloak takes connections and answers nothing."""
    if server.process is None or "kc.sh" not in str(server.process.args):
        pytest.skip("this Keycloak cannot be halted by the tests")
    os.killpg(server.process.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.killpg(server.process.pid, signal.SIGCONT)
