"""Signing in through the stock proxy: passwords, browsers, citations, signing out, what cookies may do."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any

import httpx
import pytest

from plugins.auth._sessions import COOKIE
from tests.support.keycloak_issuer import CLIENT, KeycloakIssuer, keycloak_issuer
from tests.support.proxy import MASTER_KEY, ROOT, Proxy, proxy

BASE = "https://proxy.example.test"
TEXT = "Everyone has 30 days of leave."
LITELLM: dict[str, Any] = {
    "model_list": [
        {"model_name": name, "litellm_params": {"model": "openai/x", "api_key": "x", "mock_response": "hi"}}
        for name in ("open", "secret")
    ]
    + [{"model_name": "local/minilm", "litellm_params": {"model": "local/minilm"}}],
    "litellm_settings": {"callbacks": ["plugins.entry.hooks", "tests.support.seen_by_callbacks.recorder"]},
    "general_settings": {
        "custom_auth": "plugins.entry.authenticate",
        "custom_auth_run_common_checks": True,
        "master_key": "os.environ/LITELLM_MASTER_KEY",
    },
}
CHAT = {"model": "open", "messages": [{"role": "user", "content": "hello"}]}


@dataclass
class Browser:
    """A browser that reaches the proxy through a TLS proxy, as `BASE`."""

    proxy: Proxy
    realm: KeycloakIssuer
    cookies: dict[str, str] = field(default_factory=dict)

    def request(self, method: str, address: str, **headers: str) -> httpx.Response:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        if self.cookies:
            sent["cookie"] = "; ".join(f"{name}={value}" for name, value in self.cookies.items())
        body = CHAT if method == "POST" and "/chat/" in address else None
        url = self.proxy.url + address.removeprefix(BASE)
        answer = httpx.request(method, url, headers=sent, json=body, timeout=30, trust_env=False)
        for line in answer.headers.get_list("set-cookie"):
            for name, morsel in SimpleCookie(line).items():
                self.cookies[name] = morsel.value
                if morsel["max-age"] == "0":
                    del self.cookies[name]
        return answer

    def open(self, address: str) -> httpx.Response:
        """Open an address as a person does, and go wherever one is sent; alice types her password."""
        for _ in range(6):
            answer = self.request("GET", address, sec_fetch_mode="navigate", accept="text/html")
            if answer.status_code != 302:
                return answer
            address = answer.headers["location"]
            if address.startswith(self.realm.url):
                address = self.realm.browser_signs_in(address, "alice")
        raise AssertionError("the browser is sent around in a circle")


@pytest.fixture(scope="module")
def realm() -> Iterator[KeycloakIssuer]:
    with keycloak_issuer() as running:
        running.lifetime_s = 600
        yield running


@pytest.fixture(scope="module")
def seen(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("seen") / "callbacks"


@pytest.fixture(scope="module")
def stock(tmp_path_factory: pytest.TempPathFactory, realm: KeycloakIssuer, seen: Path) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    prompts = folder / "config" / "prompts"
    prompts.mkdir(parents=True)
    prompt = (ROOT / "config" / "prompts" / "answer.md").read_text(encoding="utf-8")
    (prompts / "answer.md").write_text(prompt, encoding="utf-8")
    source = {"use": "oidc", "name": "keycloak", "issuer": realm.url, "audience": "litellm", **CLIENT}
    allowances: list[dict[str, Any]] = [
        {"subjects": ["group:keycloak/finance"], "models": ["open"], "rpm_limit": 500}
    ]
    allowances.append({"subjects": ["*"]})
    config: dict[str, dict[str, Any]] = {
        "identity": {"identity": {"sources": [source, {"use": "litellm"}], "allowances": allowances}},
        "collections": {"collections": {"create": [{"subjects": ["user:keycloak/alice"]}]}},
        "storage": {"storage": {"data_dir": str(folder / "data")}, "worker": {"embedded": False}},
        "tools": {"tools": [{"use": "list_collections", "allow": ["*"]}]},
        "chat": {"chat": {"public_base_url": BASE}},
    }
    with proxy(folder, LITELLM, config, {"SEEN_FILE": str(seen), "LITELLM_LOG": "DEBUG"}) as running:
        yield running


@pytest.fixture
def browser(stock: Proxy, realm: KeycloakIssuer) -> Browser:
    return Browser(stock, realm)


def login(stock: Proxy, username: str = "alice", password: str = "") -> httpx.Response:
    form = {"username": username, "password": password or f"{username}-pw"}
    return httpx.post(f"{stock.url}/api/auth/login", data=form, timeout=30, trust_env=False)


def ask(stock: Proxy, method: str, path: str, token: str = "", **options: Any) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx.request(
        method, f"{stock.url}{path}", headers=headers, timeout=60, trust_env=False, **options
    )


@pytest.fixture(scope="module")
def content(stock: Proxy) -> str:
    """The path of a document's content, which alice may read."""
    token = login(stock).json()["access_token"]
    made = ask(stock, "POST", "/v1/collections/new", token, json={"name": "handbook"})
    assert made.status_code == 201, made.text
    document = {"documents": [{"text": TEXT, "filename": "leave.txt"}]}
    added = ask(stock, "POST", "/v1/collections/handbook/add", token, json=document)
    assert added.status_code == 202, added.text
    return f"/v1/collections/{made.json()['id']}/documents/{added.json()['data'][0]['id']}/content"


def test_a_password_signs_in_on_our_routes_and_litellms(stock: Proxy, content: str) -> None:
    answer = login(stock)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    token = answer.json()["access_token"]
    assert [model["id"] for model in ask(stock, "GET", "/v1/models", token).json()["data"]] == ["open"]
    me = ask(stock, "GET", "/api/auth/me", token).json()
    assert (me["user"], me["litellm"]["models"], me["litellm"]["rpm_limit"]) == (
        "keycloak/alice",
        ["open"],
        500,
    )
    assert [(c["name"], c["permissions"]) for c in me["collections"]] == [
        ("handbook", ["discover", "query", "add", "manage"])
    ]
    assert me["tools"] == ["list_collections"]


def test_the_openapi_page_signs_in_with_a_password(stock: Proxy) -> None:
    document = ask(stock, "GET", "/openapi.json").json()
    schemes = document["components"]["securitySchemes"]
    found = {
        name: scheme["flows"]["password"]["tokenUrl"]
        for name, scheme in schemes.items()
        if scheme["type"] == "oauth2"
    }
    ((name, address),) = found.items()
    assert address == "/api/auth/login"
    for path in ("/v1/collections", "/v1/tools", "/api/auth/me"):
        assert any(name in way for way in document["paths"][path]["get"]["security"])


def test_me_knows_the_master_key_too(stock: Proxy) -> None:
    me = ask(stock, "GET", "/api/auth/me", MASTER_KEY).json()
    assert (me["source"], me["litellm"]["user_role"]) == ("litellm", "proxy_admin")
    assert ask(stock, "GET", "/api/auth/me").status_code == 401


def test_a_browser_that_opens_a_citation_signs_in_and_comes_back(browser: Browser, content: str) -> None:
    answer = browser.open(f"{BASE}{content}")
    assert (answer.status_code, answer.text) == (200, TEXT)
    assert list(browser.cookies) == [COOKIE]


def test_a_program_that_opens_a_citation_is_told_how_to_sign_in(stock: Proxy, content: str) -> None:
    metadata = f'resource_metadata="{BASE}/.well-known/oauth-protected-resource/v1"'
    for path in (content, "/v1/models", "/v1/collections", "/api/auth/me"):
        answer = ask(stock, "GET", path)
        assert answer.status_code == 401
        assert metadata in answer.headers["www-authenticate"]


def test_the_metadata_of_v1_is_ours_and_the_bare_path_litellms(stock: Proxy, realm: KeycloakIssuer) -> None:
    bare = ask(stock, "GET", "/.well-known/oauth-protected-resource")
    ours = ask(stock, "GET", "/.well-known/oauth-protected-resource/v1").json()
    assert (ours["resource"], ours["authorization_servers"]) == (f"{BASE}/v1", [realm.url])
    assert bare.text != ask(stock, "GET", "/.well-known/oauth-protected-resource/v1").text
    assert realm.url not in bare.text


def test_the_cookie_signs_in_on_litellms_routes_for_pages_of_ours(browser: Browser, stock: Proxy) -> None:
    browser.open(f"{BASE}/api/auth/me")
    browser.open(f"{BASE}/api/auth/sign-in")
    assert browser.request("GET", "/v1/models", sec_fetch_site="same-origin").status_code == 200
    chat = browser.request("POST", "/v1/chat/completions", sec_fetch_site="same-origin")
    assert chat.status_code == 200, chat.text
    assert chat.json()["choices"][0]["message"]["content"] == "hi"
    by_origin = browser.request("POST", "/v1/chat/completions", origin=BASE)
    assert by_origin.status_code == 200


def test_a_page_of_another_site_gets_nothing_with_the_cookie(browser: Browser, content: str) -> None:
    browser.open(f"{BASE}{content}")
    foreign: list[dict[str, str]] = [
        {"sec_fetch_site": "cross-site", "origin": "https://evil.example"},
        {"sec_fetch_site": "same-site", "origin": "https://other.example.test"},
        {"origin": "https://evil.example"},
        {},
    ]
    for headers in foreign:
        for method, path in (
            ("POST", "/v1/chat/completions"),
            ("POST", "/v1/tools"),
            ("DELETE", "/v1/collections/handbook"),
            ("POST", "/key/generate"),
        ):
            answer = browser.request(method, path, **headers)
            assert answer.status_code == 403, f"{method} {path} {headers}: {answer.text}"
            assert "page of another site" in answer.json()["error"]["message"]
    read = browser.request("GET", content, sec_fetch_site="same-site", sec_fetch_mode="cors")
    assert read.status_code == 403


def test_the_cookie_of_litellms_admin_pages_is_another(stock: Proxy, realm: KeycloakIssuer) -> None:
    other = Browser(stock, realm, {"token": realm.token("alice")})
    assert other.request("GET", "/v1/models", sec_fetch_site="same-origin").status_code == 401


def test_signing_out_ends_session_and_access_token_at_once(
    browser: Browser, stock: Proxy, realm: KeycloakIssuer
) -> None:
    realm.forget()
    browser.open(f"{BASE}/api/auth/sign-in")
    (session,) = realm.sessions
    token = realm.token("alice", sid=session)
    assert ask(stock, "GET", "/v1/models", token).status_code == 200
    kept = dict(browser.cookies)
    answer = browser.request("POST", "/api/auth/logout", sec_fetch_site="same-origin")
    assert answer.json() == {"object": "signed_out", "at_issuer": True}
    assert browser.cookies == {}
    assert ask(stock, "GET", "/v1/models", token).status_code == 401
    browser.cookies = kept
    assert browser.request("GET", "/v1/models", sec_fetch_site="same-origin").status_code == 401


def test_a_logout_token_ends_a_persons_chats_at_once(stock: Proxy, realm: KeycloakIssuer) -> None:
    token = login(stock, "bob").json()["access_token"]
    assert ask(stock, "POST", "/v1/chat/completions", token, json=CHAT).status_code == 200
    form = {"logout_token": realm.logout_token(sub="id-of-bob")}
    ended = ask(stock, "POST", "/api/auth/backchannel-logout", data=form)
    assert ended.status_code == 200, ended.text
    refused = ask(stock, "POST", "/v1/chat/completions", token, json=CHAT)
    assert refused.status_code == 401
    assert "signed out" in refused.json()["error"]["message"]
    assert ask(stock, "POST", "/api/auth/backchannel-logout", data={"logout_token": "x"}).status_code == 400


def test_failed_passwords_are_delayed(stock: Proxy) -> None:
    statuses = [login(stock, "carol", "wrong").status_code for _ in range(6)]
    assert statuses == [401] * 5 + [429]
    assert login(stock, "alice").status_code == 200


# The last of this file, so that all the requests above have been logged.


def test_no_credential_is_in_logs_or_in_what_callbacks_get(
    browser: Browser, stock: Proxy, realm: KeycloakIssuer, seen: Path
) -> None:
    tokens = login(stock).json()
    by_address = f"/v1beta/models/open:generateContent?key={tokens['access_token']}&alt=json"
    spoken = {"contents": [{"role": "user", "parts": [{"text": "hello"}]}]}
    assert ask(stock, "POST", by_address, json=spoken).status_code == 200, "as Google's clients send keys"
    browser.open(f"{BASE}/api/auth/sign-in")
    chat = browser.request("POST", "/v1/chat/completions", sec_fetch_site="same-origin")
    assert chat.status_code == 200
    deadline = time.monotonic() + 20
    while "logged" not in seen.read_text(encoding="utf-8").rpartition("'before'")[2]:
        assert time.monotonic() < deadline, "the chat was not logged"
        time.sleep(0.05)
    texts = seen.read_text(encoding="utf-8") + stock.log
    name, _, key = browser.cookies[COOKIE].partition(".")
    secrets = {
        name,
        key,
        "alice-pw",
        CLIENT["client_secret"],
        tokens["access_token"],
        tokens["refresh_token"],
    }
    assert {secret for secret in (*secrets, *realm.refresh_tokens) if secret in texts} == set()
