"""The proxy as a client of a real Keycloak: signing in and out, refreshing, and what is said of failures."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator

import pytest
from pydantic import SecretStr

from plugins.auth._keycloak import Keycloak
from plugins.core.errors import IdentityUnavailable, Unauthenticated
from tests.live.keycloak_callers import halted, in_process
from tests.live.keycloak_realm import Realm
from tests.support.oidc import bearer


@pytest.fixture
async def client(realm: Realm) -> AsyncIterator[Keycloak]:
    source = in_process(realm)
    assert source.keycloak is not None
    yield source.keycloak
    await source.close()


async def test_a_password_gives_tokens_that_can_be_refreshed_until_they_are_revoked(
    client: Keycloak, realm: Realm
) -> None:
    given = await client.password("alice", SecretStr("alice-pw"))
    assert given.expires_in == 300
    assert given.id_token
    assert given.refresh_token
    again = await client.refresh(SecretStr(given.refresh_token))
    source = in_process(realm, store_credential_claim="milvus_token")
    principal = await source.authenticate(bearer(again.access_token))
    await source.close()
    assert principal.username == "alice"
    assert principal.groups == {"finance"}
    assert {"reader", "writer"} <= principal.roles
    assert principal.session
    assert principal.store_credential is not None
    assert principal.store_credential.get_secret_value() == "alice:milvus-alice"
    assert again.refresh_token
    await client.revoke(SecretStr(again.refresh_token))
    with pytest.raises(Unauthenticated, match="Sign in again"):
        await client.refresh(SecretStr(again.refresh_token))
    assert await client.introspect(SecretStr(again.access_token)) == {"active": False}


@pytest.mark.parametrize(("username", "password"), [("alice", "wrong"), ("nobody", "x"), ("alice", "")])
async def test_a_wrong_name_or_password_is_said_in_the_same_words(
    client: Keycloak, username: str, password: str
) -> None:
    with pytest.raises(Unauthenticated) as caught:
        await client.password(username, SecretStr(password))
    assert caught.value.message == "The user name or the password is wrong."


async def test_a_disabled_account_signs_nobody_in(client: Keycloak, realm: Realm) -> None:
    given = await client.password("bob", SecretStr("bob-pw"))
    assert given.refresh_token
    realm.change_user("bob", enabled=False)
    try:
        with pytest.raises(Unauthenticated):
            await client.password("bob", SecretStr("bob-pw"))
        with pytest.raises(Unauthenticated):
            await client.refresh(SecretStr(given.refresh_token))
    finally:
        realm.change_user("bob", enabled=True)


async def test_an_account_that_is_not_set_up_is_sent_to_the_browser(client: Keycloak, realm: Realm) -> None:
    realm.change_user("carol", requiredActions=["UPDATE_PASSWORD"])
    try:
        with pytest.raises(Unauthenticated, match="not fully set up"):
            await client.password("carol", SecretStr("carol-pw"))
    finally:
        realm.change_user("carol", requiredActions=[])


async def test_a_code_or_a_refresh_token_that_is_not_good_is_refused(client: Keycloak) -> None:
    with pytest.raises(Unauthenticated):
        await client.code("x", redirect_uri="http://127.0.0.1:1/x", code_verifier=secrets.token_urlsafe(48))
    with pytest.raises(Unauthenticated):
        await client.refresh(SecretStr("x"))
    with pytest.raises(Unauthenticated):
        await client.revoke(SecretStr("x"))


async def test_neither_id_nor_refresh_nor_anothers_token_is_called_active(
    client: Keycloak, realm: Realm
) -> None:
    ours, theirs = realm.tokens(), realm.tokens(client="other-app")
    assert (await client.introspect(SecretStr(ours["access_token"])))["active"] is True
    for token in (ours["id_token"], ours["refresh_token"], theirs["access_token"], "x"):
        assert await client.introspect(SecretStr(token)) == {"active": False}


async def test_a_wrong_client_secret_is_no_fault_of_the_person_and_is_logged_without_it(
    realm: Realm, caplog: pytest.LogCaptureFixture
) -> None:
    source = in_process(realm, client_secret="not-the-secret")
    assert source.keycloak is not None
    with pytest.raises(IdentityUnavailable):
        await source.keycloak.password("alice", SecretStr("alice-pw"))
    await source.close()
    assert "unauthorized_client" in caplog.text
    assert "not-the-secret" not in caplog.text
    assert "alice-pw" not in caplog.text


async def test_a_proxy_of_the_environment_is_not_used(realm: Realm, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    source = in_process(realm)
    assert source.keycloak is not None
    given = await source.keycloak.password("alice", SecretStr("alice-pw"))
    assert (await source.authenticate(bearer(given.access_token))).username == "alice"
    assert await source.keycloak.admin.a_users_count() == 5
    await source.close()


async def test_while_keycloak_does_not_answer_nobody_signs_in(realm: Realm) -> None:
    hasty, patient = in_process(realm, timeout_s=0.5).keycloak, in_process(realm, timeout_s=60).keycloak
    assert hasty is not None
    assert patient is not None
    with halted(realm.server):
        for asked in (
            hasty.password("alice", SecretStr("alice-pw")),
            hasty.refresh(SecretStr("x")),
            hasty.revoke(SecretStr("x")),
            hasty.introspect(SecretStr("x")),
        ):
            with pytest.raises(IdentityUnavailable):
                await asked
    assert await patient.password("alice", SecretStr("alice-pw")), "as soon as it is back"
    await hasty.close()
    await patient.close()
