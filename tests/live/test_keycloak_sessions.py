"""What ends at a real Keycloak ends at the proxy: sessions, accounts, tokens."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs

import httpx
import pytest

from plugins.core.errors import Unauthenticated
from tests.live.conftest import RunProxy
from tests.live.keycloak_callers import config, get, halted, in_process, refusal, source, until
from tests.live.keycloak_realm import Realm, claims_of
from tests.support.oidc import bearer
from tests.support.proxy import Proxy


@pytest.fixture(scope="module")
def proxy(realm: Realm, run_proxy: RunProxy) -> Proxy:
    return run_proxy(config(source(realm, introspect={"every_s": 1}, timeout_s=2)))


def logged_out(realm: Realm, tokens: dict[str, str]) -> None:
    realm.logout(tokens["refresh_token"])


def session_ended(realm: Realm, tokens: dict[str, str]) -> None:
    realm.admin.connection.raw_delete(
        f"{realm.server.url}/admin/realms/{realm.name}/sessions/{claims_of(tokens['access_token'])['sid']}"
    )


def all_sessions_ended(realm: Realm, tokens: dict[str, str]) -> None:
    realm.admin.user_logout(claims_of(tokens["access_token"])["sub"])


def token_revoked(realm: Realm, tokens: dict[str, str]) -> None:
    assert realm.post("revoke", token=tokens["access_token"]).status_code == 200


def disabled(realm: Realm, tokens: dict[str, str]) -> None:
    realm.change_user("carol", enabled=False)


def deleted(realm: Realm, tokens: dict[str, str]) -> None:
    realm.admin.delete_user(realm.user_id("carol"))


@pytest.mark.parametrize(
    "end",
    [logged_out, session_ended, all_sessions_ended, token_revoked, disabled, deleted],
    ids=lambda end: end.__name__,
)
async def test_a_token_that_keycloak_revoked_is_refused_where_it_is_asked(
    proxy: Proxy, realm: Realm, end: Callable[[Realm, dict[str, str]], None]
) -> None:
    realm.change_user("carol", enabled=True)
    tokens, others = realm.tokens("carol"), realm.tokens("alice")["access_token"]
    token = tokens["access_token"]
    assert get(proxy, token).status_code == 200
    end(realm, tokens)
    until(lambda: get(proxy, token).status_code, lambda status: status == 401)
    assert "was revoked" in refusal(proxy, token)
    assert get(proxy, others).status_code == 200
    unasked = in_process(realm)
    assert (await unasked.authenticate(bearer(token))).username == "carol", "only who asks Keycloak knows"
    await unasked.close()


def test_who_asks_keycloak_lets_a_service_account_in(proxy: Proxy, realm: Realm) -> None:
    assert get(proxy, realm.service_tokens("ingest")["access_token"]).status_code == 200


def test_after_a_logout_no_refresh_gives_a_token(realm: Realm) -> None:
    tokens = realm.tokens("alice")
    realm.logout(tokens["refresh_token"])
    answer = realm.post("token", grant_type="refresh_token", refresh_token=tokens["refresh_token"])
    assert (answer.status_code, answer.json()["error"]) == (400, "invalid_grant")


def test_who_asks_keycloak_lets_nobody_in_while_it_is_away(proxy: Proxy, realm: Realm) -> None:
    token = realm.tokens("alice")["access_token"]
    assert get(proxy, token).status_code == 200
    with halted(realm.server):
        until(lambda: get(proxy, token).status_code, lambda status: status == 503)
        assert refusal(proxy, token, 503)
    until(lambda: get(proxy, token).status_code, lambda status: status == 200)


async def test_a_real_token_ends_when_it_expires(realm: Realm) -> None:
    strict = in_process(realm, leeway_s=0)
    realm.change_client("litellm", attributes={"access.token.lifespan": "2"})
    try:
        token = realm.tokens("alice")["access_token"]
    finally:
        realm.change_client("litellm", attributes={"access.token.lifespan": ""})
    assert (await strict.authenticate(bearer(token))).username == "alice"
    reason = ""
    while not reason:
        try:
            await strict.authenticate(bearer(token))
        except Unauthenticated as error:
            reason = error.message
    assert reason == "The access token has expired. Sign in again."
    await strict.close()


LOGOUT = "/api/auth/backchannel-logout"


@pytest.fixture(scope="module")
def told(realm: Realm, run_proxy: RunProxy) -> Proxy:
    """A proxy that does not ask Keycloak, but is told by it."""
    running = run_proxy(config(source(realm)))
    realm.change_client("litellm", attributes={"backchannel.logout.url": f"{running.url}{LOGOUT}"})
    return running


@pytest.mark.parametrize("end", [logged_out, session_ended, all_sessions_ended], ids=lambda end: end.__name__)
def test_a_back_channel_logout_ends_the_session_at_once(
    told: Proxy, realm: Realm, end: Callable[[Realm, dict[str, str]], None]
) -> None:
    tokens, others = realm.tokens("bob"), realm.tokens("alice")["access_token"]
    token = tokens["access_token"]
    assert get(told, token).status_code == 200
    end(realm, tokens)
    until(lambda: get(told, token).status_code, lambda status: status == 401)
    assert refusal(told, token)
    assert get(told, others).status_code == 200
    assert get(told, realm.tokens("bob")["access_token"]).status_code == 200, "who signed in again"


class Caught:
    """The logout token that Keycloak sends."""

    def __init__(self) -> None:
        self.token = ""


@contextmanager
def listening(caught: Caught) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = self.rfile.read(int(self.headers["Content-Length"])).decode()
            caught.token = parse_qs(content)["logout_token"][0]
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            return

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


def test_a_real_logout_token_is_no_access_token_and_ends_its_session_only(told: Proxy, realm: Realm) -> None:
    caught = Caught()
    first, second = realm.tokens("bob"), realm.tokens("bob")
    with listening(caught) as address:
        realm.change_client("litellm", attributes={"backchannel.logout.url": address})
        try:
            realm.logout(first["refresh_token"])
            until(lambda: caught.token, bool)
        finally:
            realm.change_client("litellm", attributes={"backchannel.logout.url": f"{told.url}{LOGOUT}"})
    assert claims_of(caught.token)["sid"] == claims_of(first["access_token"])["sid"]
    assert "not an access token" in refusal(told, caught.token)
    assert get(told, first["access_token"]).status_code == 200, "we were not told yet"
    for wrong in (first["access_token"], first["id_token"], caught.token[:-8] + "AAAAAAAA", "x"):
        assert tell(told, wrong).status_code == 400
    assert get(told, first["access_token"]).status_code == 200
    for _ in range(2):
        assert tell(told, caught.token).status_code == 200, "also when it comes twice"
    assert refusal(told, first["access_token"])
    assert get(told, second["access_token"]).status_code == 200


def tell(proxy: Proxy, token: str) -> httpx.Response:
    return httpx.post(f"{proxy.url}{LOGOUT}", data={"logout_token": token}, timeout=30, trust_env=False)
