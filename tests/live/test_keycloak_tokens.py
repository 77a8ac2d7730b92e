"""Tokens of a real Keycloak at the proxy: who is let in as whom, and which tokens are not."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest
from joserfc import jwk

from deploy.keycloak.keycloak import Server
from tests.live.conftest import RunProxy
from tests.live.keycloak_callers import (
    EVERYONE,
    FINANCE,
    WRITER,
    config,
    get,
    refusal,
    source,
    tools,
)
from tests.live.keycloak_realm import Realm, claims_of, signed, signed_with_secret, throwaway
from tests.support.proxy import Proxy

NOT_ACCESS_TOKEN = "This is not an access token"


@pytest.fixture(scope="module")
def other_realm(keycloak: Server) -> Iterator[Realm]:
    """Made of the same file, but unknown to the proxy."""
    with throwaway(keycloak) as made:
        yield made


@pytest.fixture(scope="module")
def key(realm: Realm) -> jwk.RSAKey:
    """A key of the realm's; from now on its tokens are signed with it."""
    return realm.own_key()


@pytest.fixture(scope="module")
def proxy(realm: Realm, key: jwk.RSAKey, run_proxy: RunProxy) -> Proxy:
    return run_proxy(config(source(realm), allowances=[{"subjects": ["role:keycloak/reader"]}]))


def test_a_password_sign_in_is_let_in_with_its_roles_and_groups(proxy: Proxy, realm: Realm) -> None:
    assert tools(proxy, realm.tokens("alice")["access_token"]) == EVERYONE | FINANCE | WRITER
    assert tools(proxy, realm.tokens("bob")["access_token"]) == EVERYONE
    assert tools(proxy, realm.tokens("carol")["access_token"]) == EVERYONE


def test_a_service_account_is_let_in_with_its_roles(proxy: Proxy, realm: Realm) -> None:
    assert tools(proxy, realm.service_tokens("ingest")["access_token"]) == EVERYONE | WRITER


def test_litellms_own_routes_accept_the_token(proxy: Proxy, realm: Realm) -> None:
    client = openai.OpenAI(
        base_url=f"{proxy.url}/v1",
        api_key=realm.tokens("alice")["access_token"],
        max_retries=0,
        http_client=httpx.Client(trust_env=False),
    )
    assert {model.id for model in client.models.list()} == {"open", "secret"}
    said = client.chat.completions.create(model="open", messages=[{"role": "user", "content": "hello"}])
    assert said.choices[0].message.content == "hi"


def test_a_refreshed_token_is_let_in(proxy: Proxy, realm: Realm) -> None:
    first = realm.tokens("alice")
    second = realm.refreshed(first["refresh_token"])["access_token"]
    assert second != first["access_token"]
    assert tools(proxy, second) == EVERYONE | FINANCE | WRITER


def test_changed_roles_and_groups_count_with_the_next_token(proxy: Proxy, realm: Realm) -> None:
    before = realm.tokens("bob")
    admin, bob = realm.admin, realm.user_id("bob")
    [finance] = [group["id"] for group in admin.get_groups() if group["name"] == "finance"]
    writer = admin.get_realm_role("writer")
    admin.group_user_add(bob, finance)
    admin.assign_realm_roles(bob, [writer])
    try:
        assert tools(proxy, before["access_token"]) == EVERYONE
        after = realm.refreshed(before["refresh_token"])["access_token"]
        assert tools(proxy, after) == EVERYONE | FINANCE | WRITER
    finally:
        admin.group_user_remove(bob, finance)
        admin.delete_realm_roles_of_user(bob, [writer])
    assert tools(proxy, realm.tokens("bob")["access_token"]) == EVERYONE


def test_a_header_type_of_rfc_9068_is_let_in(proxy: Proxy, realm: Realm) -> None:
    realm.change_client("litellm", attributes={"access.token.header.type.rfc9068": "true"})
    try:
        assert tools(proxy, realm.tokens("alice")["access_token"]) == EVERYONE | FINANCE | WRITER
    finally:
        realm.change_client("litellm", attributes={"access.token.header.type.rfc9068": "false"})


def test_an_id_token_is_refused(proxy: Proxy, realm: Realm) -> None:
    assert NOT_ACCESS_TOKEN in refusal(proxy, realm.tokens()["id_token"])


def test_a_refresh_token_is_refused(proxy: Proxy, realm: Realm) -> None:
    assert "signed in a way" in refusal(proxy, realm.tokens()["refresh_token"])


def test_an_offline_token_is_refused(proxy: Proxy, realm: Realm) -> None:
    token = realm.tokens(scope="openid offline_access")["refresh_token"]
    assert claims_of(token)["typ"] == "Offline"
    assert "signed in a way" in refusal(proxy, token)


def test_a_token_of_another_application_is_refused(proxy: Proxy, realm: Realm) -> None:
    token = realm.tokens(client="other-app")["access_token"]
    assert claims_of(token)["aud"] == "account"
    assert "not for this service" in refusal(proxy, token)


def test_a_token_of_another_realm_is_refused(proxy: Proxy, other_realm: Realm) -> None:
    assert "another issuer" in refusal(proxy, other_realm.tokens()["access_token"])


def test_a_token_of_the_servers_own_admin_is_refused(proxy: Proxy, keycloak: Server) -> None:
    assert "another issuer" in refusal(proxy, keycloak.token())


def test_a_lightweight_token_is_refused_with_what_it_lacks(proxy: Proxy, realm: Realm) -> None:
    attribute = "client.use.lightweight.access.token.enabled"
    realm.change_client("litellm", attributes={attribute: "true"})
    try:
        token = realm.tokens()["access_token"]
    finally:
        realm.change_client("litellm", attributes={attribute: "false"})
    assert "sub" not in claims_of(token)
    assert "lacks the claim" in refusal(proxy, token)


def test_what_the_realm_signs_with_the_tests_key_is_let_in(
    proxy: Proxy, realm: Realm, key: jwk.RSAKey
) -> None:
    """Else the forged tokens below could be refused for their key."""
    real = realm.tokens()["access_token"]
    assert tools(proxy, signed(claims_of(real), key)) == EVERYONE | FINANCE | WRITER


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"typ": "ID"}, NOT_ACCESS_TOKEN),
        ({"typ": "Refresh"}, NOT_ACCESS_TOKEN),
        ({"typ": "Offline"}, NOT_ACCESS_TOKEN),
        ({"typ": "Logout"}, NOT_ACCESS_TOKEN),
        ({"typ": "bearer"}, NOT_ACCESS_TOKEN),
        ({"typ": ["Bearer"]}, NOT_ACCESS_TOKEN),
        ({"exp": -31}, "has expired"),
        ({"exp": None}, "lacks the claim `exp`"),
        ({"nbf": 60}, "not valid yet"),
        ({"iat": 60}, "issued in the future"),
        ({"iat": None}, "lacks the claim `iat`"),
        ({"aud": "account"}, "not for this service"),
        ({"aud": ["litellm2", "xlitellm"]}, "not for this service"),
        ({"aud": None}, "lacks the claim `aud`"),
        ({"iss": None}, "another issuer"),
        ({"sub": None}, "lacks the claim `sub`"),
        ({"padding": "x" * 17_000}, "larger than 16 KiB"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_a_token_with_a_wrong_claim_is_refused_though_the_realms_key_signed_it(
    proxy: Proxy, realm: Realm, key: jwk.RSAKey, changed: dict[str, Any], reason: str
) -> None:
    now = int(time.time())
    moved = {name: now + value if isinstance(value, int) else value for name, value in changed.items()}
    assert reason in refusal(proxy, signed({**claims_of(realm.tokens()["access_token"]), **moved}, key))


@pytest.mark.parametrize(("claim", "off_by_s"), [("exp", -20), ("nbf", 20), ("iat", 20)])
def test_clocks_may_be_off_by_half_a_minute(
    proxy: Proxy, realm: Realm, key: jwk.RSAKey, claim: str, off_by_s: int
) -> None:
    claims = {**claims_of(realm.tokens()["access_token"]), claim: int(time.time()) + off_by_s}
    assert tools(proxy, signed(claims, key)) == EVERYONE | FINANCE | WRITER


def test_another_claim_of_the_same_name_is_refused(proxy: Proxy, realm: Realm, key: jwk.RSAKey) -> None:
    claims = json.dumps(claims_of(realm.tokens("bob")["access_token"]))
    twice = claims[:-1] + ', "preferred_username": "alice"}'
    assert "malformed" in refusal(proxy, signed(twice.encode(), key))


@pytest.mark.parametrize(
    ("header", "reason"),
    [
        ({"typ": "logout+jwt"}, NOT_ACCESS_TOKEN),
        ({"typ": "dpop+jwt"}, NOT_ACCESS_TOKEN),
        ({"typ": None}, NOT_ACCESS_TOKEN),
        ({"crit": ["exp"]}, "demands an extension"),
        ({"crit": ["b64"], "b64": False}, "demands an extension"),
        ({"kid": "../../etc/passwd"}, "does not publish"),
        ({"kid": 7}, "malformed"),
    ],
)
def test_a_token_with_a_wrong_header_is_refused_though_the_realms_key_signed_it(
    proxy: Proxy, realm: Realm, key: jwk.RSAKey, header: dict[str, Any], reason: str
) -> None:
    assert reason in refusal(proxy, signed(claims_of(realm.tokens()["access_token"]), key, **header))


def test_an_unsigned_token_is_refused(proxy: Proxy, realm: Realm, key: jwk.RSAKey) -> None:
    real = claims_of(realm.tokens()["access_token"])
    for alg in ("none", "None", "NONE", ""):
        assert "signed in a way" in refusal(proxy, signed(real, None, key.kid, alg=alg))


def test_a_token_signed_with_the_public_key_as_a_secret_is_refused(
    proxy: Proxy, realm: Realm, key: jwk.RSAKey
) -> None:
    real = claims_of(realm.tokens()["access_token"])
    for public in (key.as_pem(private=False), json.dumps(key.as_dict(private=False)).encode()):
        assert "signed in a way" in refusal(proxy, signed_with_secret(real, public, key.kid))


def test_a_key_or_an_address_in_the_token_is_never_used(
    proxy: Proxy, realm: Realm, key: jwk.RSAKey, other_realm: Realm
) -> None:
    real = claims_of(realm.tokens()["access_token"])
    mine = jwk.RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256", "kid": "mine"})
    keys = f"{other_realm.url}/protocol/openid-connect/certs"
    for header in ({"jwk": mine.as_dict(private=False)}, {"jku": keys}, {"x5u": keys}):
        assert "does not publish" in refusal(proxy, signed(real, mine, **header))
        assert "signature is wrong" in refusal(proxy, signed(real, mine, key.kid, **header))


def test_another_realms_key_under_the_known_name_is_refused(
    proxy: Proxy, realm: Realm, key: jwk.RSAKey
) -> None:
    stranger = jwk.RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"})
    forged = {**claims_of(realm.tokens("bob")["access_token"]), "preferred_username": "alice"}
    assert "signature is wrong" in refusal(proxy, signed(forged, stranger, key.kid))


def test_tokens_with_a_common_beginning_are_told_apart(proxy: Proxy, realm: Realm, key: jwk.RSAKey) -> None:
    real = claims_of(realm.tokens("bob")["access_token"])
    beginning = {"aaa": "x" * 8000, **real}
    good = signed(beginning, key)
    changed = signed({**beginning, "realm_access": {"roles": ["writer"]}}, key)
    forged = changed.rpartition(".")[0] + "." + good.rpartition(".")[2]
    assert good[:8000] == changed[:8000] == forged[:8000]
    assert tools(proxy, good) == EVERYONE
    assert "signature is wrong" in refusal(proxy, forged)
    assert tools(proxy, changed) == EVERYONE | WRITER
    assert tools(proxy, good) == EVERYONE


def test_a_refusal_names_its_reason_to_the_client_and_leaks_nothing(
    proxy: Proxy, realm: Realm, key: jwk.RSAKey
) -> None:
    expired = signed({**claims_of(realm.tokens()["access_token"]), "exp": 1}, key)
    answer = get(proxy, expired)
    assert answer.json()["error"]["message"] == "The access token has expired. Sign in again."
    assert answer.headers["www-authenticate"].startswith('Bearer error="invalid_token"')
    for secret in (expired, realm.server.url, realm.name):
        assert secret not in answer.text
    assert expired not in proxy.log
