"""The proxy as Keycloak's client, against an issuer in Keycloak's shape: what is made of each answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from pydantic import SecretStr

from plugins.auth._keycloak import Keycloak, is_keycloak
from plugins.core.errors import IdentityUnavailable, Unauthenticated
from tests.support.issuer import Issuer, issuer


@pytest.fixture
def realm() -> Iterator[Issuer]:
    with issuer() as running:
        yield running


@pytest.fixture
async def client(realm: Issuer) -> AsyncIterator[Keycloak]:
    secret = SecretStr("the-secret")
    made = Keycloak(realm.url, client_id="litellm", client_secret=secret, timeout_s=5, ca_file=None)
    yield made
    await made.close()


async def sign_in(client: Keycloak) -> str:
    return (await client.password("alice", SecretStr("alice-pw"))).access_token


async def test_a_password_gives_tokens_that_no_log_shows(client: Keycloak) -> None:
    given = await client.password("alice", SecretStr("alice-pw"))
    assert given.token_type == "Bearer"
    assert given.access_token not in repr(given)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ("Invalid user credentials", "The user name or the password is wrong."),
        ("Account disabled", "The user name or the password is wrong."),
        ("Account is not fully set up", "not fully set up. Sign in with a browser"),
    ],
)
async def test_what_the_person_can_mend_is_said(
    client: Keycloak, realm: Issuer, description: str, message: str
) -> None:
    realm.overrides["token"] = (400, {"error": "invalid_grant", "error_description": description})
    with pytest.raises(Unauthenticated) as caught:
        await sign_in(client)
    assert message in caught.value.message


@pytest.mark.parametrize(
    ("status", "answer"),
    [
        (401, {"error": "unauthorized_client", "error_description": "Invalid client or its credentials"}),
        (400, {"error": "invalid_scope"}),
        (404, {"error": "Realm does not exist"}),
        (500, {"error": "unknown_error"}),
        (200, {}),
        (200, {"access_token": "x", "token_type": "mac", "expires_in": 1}),
        (200, {"access_token": "x", "expires_in": "soon"}),
    ],
)
async def test_what_the_operator_must_mend_is_no_wrong_password(
    client: Keycloak, realm: Issuer, status: int, answer: dict[str, Any]
) -> None:
    realm.overrides["token"] = (status, answer)
    with pytest.raises(IdentityUnavailable) as caught:
        await sign_in(client)
    assert realm.url not in caught.value.message


async def test_a_refusal_of_the_client_is_logged_without_secrets(
    client: Keycloak, realm: Issuer, caplog: pytest.LogCaptureFixture
) -> None:
    realm.overrides["token"] = (401, {"error": "unauthorized_client", "error_description": "Invalid client"})
    with pytest.raises(IdentityUnavailable):
        await sign_in(client)
    assert "client litellm: answered 401 unauthorized_client Invalid client" in caplog.text
    assert "alice-pw" not in caplog.text
    assert "the-secret" not in caplog.text


async def test_an_issuer_that_is_not_there_is_unavailable(client: Keycloak, realm: Issuer) -> None:
    realm.close()
    with pytest.raises(IdentityUnavailable):
        await sign_in(client)
    with pytest.raises(IdentityUnavailable):
        await client.introspect(SecretStr("x"))


async def test_no_proxy_of_the_environment_gets_the_password(
    realm: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("NO_PROXY", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
    secret = SecretStr("the-secret")
    made = Keycloak(realm.url, client_id="litellm", client_secret=secret, timeout_s=5, ca_file=None)
    assert await sign_in(made)
    await made.close()


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("https://keycloak.example.com/realms/company", True),
        ("https://example.com/auth/realms/company/", True),
        ("https://gitlab.example.com", False),
        ("https://example.com/realms/", False),
        ("https://example.com/realms/a/b", False),
    ],
)
def test_a_realm_is_told_by_its_address(address: str, expected: bool) -> None:
    assert is_keycloak(address) is expected
