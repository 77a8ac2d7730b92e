"""What ends at a real Keycloak ends at the proxy: sessions, accounts, tokens."""

from __future__ import annotations

from collections.abc import Callable

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
