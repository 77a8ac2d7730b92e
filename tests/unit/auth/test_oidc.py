"""Access tokens of an issuer with real keys: who is let in, who is not, and what they are told."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from joserfc import jwk
from pydantic import ValidationError

from plugins.auth.oidc import Oidc, OidcSettings
from tests.support.issuer import Issuer, b64, issuer
from tests.support.oidc import bearer, refusal, sign_in, source_for


@pytest.fixture(scope="module")
def shared() -> Iterator[Issuer]:
    """For tests that change nothing in it."""
    with issuer() as running:
        yield running


@pytest.fixture
def own() -> Iterator[Issuer]:
    with issuer() as running:
        yield running


@pytest.fixture
async def source(shared: Issuer) -> AsyncIterator[Oidc]:
    made = source_for(shared)
    yield made
    await made.close()


async def test_a_keycloak_access_token_becomes_the_principal_that_it_names(
    source: Oidc, shared: Issuer
) -> None:
    token = shared.token("alice")
    principal = await sign_in(source, token)
    assert principal.user_id == "keycloak/alice"
    assert (principal.subject, principal.issuer) == ("id-of-alice", shared.url)
    assert principal.email == "alice@example.test"
    assert principal.subjects == {
        "*",
        "user:keycloak/alice",
        "group:keycloak/finance",
        "role:keycloak/reader",
        "role:keycloak/writer",
    }
    assert principal.token is not None
    assert principal.token.get_secret_value() == token
    assert token not in repr(principal) + principal.model_dump_json()


async def test_a_user_without_groups_and_roles_has_none(source: Oidc, shared: Issuer) -> None:
    assert (await sign_in(source, shared.token("carol"))).subjects == {"*", "user:keycloak/carol"}


async def test_an_address_that_is_not_verified_is_left_out(source: Oidc, shared: Issuer) -> None:
    assert (await sign_in(source, shared.token(email_verified=False))).email is None


@pytest.mark.parametrize("typ", ["JWT", "at+jwt", "application/at+jwt", "AT+JWT"])
async def test_the_header_types_of_access_tokens_are_accepted(source: Oidc, shared: Issuer, typ: str) -> None:
    assert await sign_in(source, shared.sign(shared.claims(), {"typ": typ}))


async def test_an_issuer_without_keycloaks_typ_claim_is_accepted(source: Oidc, shared: Issuer) -> None:
    assert await sign_in(source, shared.token(typ=None))


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"exp": int(time.time()) - 31}, "The access token has expired. Sign in again."),
        ({"exp": None}, "lacks the claim `exp`"),
        ({"exp": "tomorrow"}, "claim `exp` is not valid"),
        ({"nbf": int(time.time()) + 86_400}, "not valid yet"),
        ({"iat": int(time.time()) + 86_400}, "issued in the future"),
        ({"iat": None}, "lacks the claim `iat`"),
        ({"aud": "account"}, "not for this service"),
        ({"aud": ["litellm-admin"]}, "not for this service"),
        ({"aud": None}, "lacks the claim `aud`"),
        ({"iss": "http://evil.test/realms/rag"}, "issued by another issuer"),
        ({"iss": None}, "lacks the claim `iss`"),
        ({"sub": None}, "lacks the claim `sub`"),
        ({"sub": 7}, "claim `sub` is not valid"),
        ({"typ": ["Bearer"]}, "not an access token"),
        ({"typ": "ID"}, "not an access token"),
        ({"typ": "Refresh"}, "not an access token"),
        ({"typ": "Logout"}, "not an access token"),
        ({"typ": None, "at_hash": "x"}, "not an access token"),
        ({"preferred_username": None}, "does not name its user"),
        ({"preferred_username": "alice\nroot"}, "does not name its user"),
    ],
)
async def test_a_token_with_wrong_claims_is_refused_with_the_reason(
    source: Oidc, shared: Issuer, changed: dict[str, Any], reason: str
) -> None:
    assert reason in await refusal(source, shared.token(**changed))


async def test_clocks_may_be_off_by_the_leeway(shared: Issuer) -> None:
    now = int(time.time())
    late = shared.token(exp=now - 20)
    assert await sign_in(source_for(shared, leeway_s=60), late)
    assert "expired" in await refusal(source_for(shared, leeway_s=0), late)


@pytest.mark.parametrize("typ", ["logout+jwt", "dpop+jwt", "", None, 7])
async def test_a_header_type_that_is_no_access_token_is_refused(
    source: Oidc, shared: Issuer, typ: object
) -> None:
    assert "not an access token" in await refusal(source, shared.sign(shared.claims(), {"typ": typ}))


async def test_an_unsigned_token_is_refused(source: Oidc, shared: Issuer) -> None:
    assert "signed in a way" in await refusal(source, shared.sign(shared.claims(), {"alg": "none"}))


async def test_a_token_signed_with_the_public_key_as_secret_is_refused(source: Oidc, shared: Issuer) -> None:
    _, payload, _ = shared.token().split(".")
    header = b64(json.dumps({"alg": "HS256", "typ": "JWT", "kid": shared.keys[0].kid}).encode())
    mac = hmac.new(shared.keys[0].as_pem(private=False), f"{header}.{payload}".encode(), hashlib.sha256)
    assert "signed in a way" in await refusal(source, f"{header}.{payload}.{b64(mac.digest())}")


async def test_a_changed_token_is_refused_for_its_signature(source: Oidc, shared: Issuer) -> None:
    header, _, signature = shared.token("carol").split(".")
    forged = b64(json.dumps(shared.claims("alice")).encode())
    assert "signature is wrong" in await refusal(source, f"{header}.{forged}.{signature}")


async def test_a_key_in_the_token_is_not_used(source: Oidc, shared: Issuer) -> None:
    mine = jwk.RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"})
    embedded = {
        "jwk": mine.as_dict(private=False),
        "jku": "http://127.0.0.1:9/keys",
        "x5u": "http://127.0.0.1:9/",
    }
    assert "signature is wrong" in await refusal(source, shared.sign(shared.claims(), embedded, mine))
    assert await sign_in(source, shared.sign(shared.claims(), embedded)), (
        "they are ignored where the key is good"
    )


@pytest.mark.parametrize("field", [{"crit": ["exp"]}, {"crit": []}, {"b64": True}])
async def test_an_extension_that_must_be_understood_is_refused(
    source: Oidc, shared: Issuer, field: dict[str, Any]
) -> None:
    assert "demands an extension" in await refusal(source, shared.sign(shared.claims(), field))


async def test_a_claim_that_occurs_twice_is_refused(source: Oidc, shared: Issuer) -> None:
    twice = json.dumps(shared.claims())[:-1] + ', "preferred_username": "root"}'
    assert "malformed" in await refusal(source, shared.sign(twice.encode()))
    nested = json.dumps(shared.claims())[:-1] + ', "address": {"a": 1, "a": 2}}'
    assert "malformed" in await refusal(source, shared.sign(nested.encode()))


async def test_a_huge_token_is_refused_unread(source: Oidc, shared: Issuer) -> None:
    assert "larger than 16 KiB" in await refusal(source, shared.token(padding="x" * 17_000))
    assert await sign_in(source, shared.token(padding="x" * 10_000))


@pytest.mark.parametrize(
    "token", ["", "abc", "a.b", "a.b.c", "a.b.c.d", "e30.e30.e30", "ä.ö.ü", "W10.e30.", "..."]
)
async def test_garbage_is_refused_and_not_accepted(source: Oidc, token: str) -> None:
    assert not source.accepts(bearer(token))
    assert await refusal(source, token)


async def test_a_token_cut_short_or_with_a_letter_more_is_refused(source: Oidc, shared: Issuer) -> None:
    token = shared.token()
    assert await refusal(source, token[:-1])
    assert await refusal(source, token + "A")
    assert await refusal(source, token.replace(".", "..", 1))


async def test_two_issuers_with_equal_names_do_not_mix(shared: Issuer, own: Issuer) -> None:
    first = Oidc(OidcSettings(issuer=shared.url, audience="litellm"), "first")
    second = Oidc(OidcSettings(issuer=own.url, audience="litellm"), "second")
    mine, theirs = shared.token("alice"), own.token("alice")
    assert (first.accepts(bearer(mine)), second.accepts(bearer(mine))) == (True, False)
    assert (first.accepts(bearer(theirs)), second.accepts(bearer(theirs))) == (False, True)
    one, other = await sign_in(first, mine), await sign_in(second, theirs)
    assert one.subjects & other.subjects == {"*"}
    assert await refusal(first, theirs)
    forged = own.sign(own.claims(iss=shared.url), {"kid": shared.keys[0].kid}, own.keys[0])
    assert "signature is wrong" in await refusal(first, forged)


async def test_roles_and_groups_come_from_the_configured_claims(shared: Issuer) -> None:
    source = source_for(
        shared,
        username_claim="upn",
        groups_claim="https://acme.example/groups",
        roles_claims=["resource_access.my.client.roles", "role"],
    )
    claims: dict[str, Any] = {
        "upn": "a.lice",
        "role": "auditor",
        "resource_access": {"my.client": {"roles": ["editor", 7, ""]}},
        "https://acme.example/groups": ["/finance/eu", "staff", None, "/", "staff\nfinance"],
    }
    principal = await sign_in(source, shared.token(**claims))
    assert principal.username == "a.lice"
    assert principal.groups == {"finance/eu", "staff"}
    assert principal.roles == {"editor", "auditor"}


@pytest.mark.parametrize(
    "wrong",
    [
        {"algorithms": ["HS256"]},
        {"algorithms": ["none"]},
        {"algorithms": []},
        {"issuer": "keycloak"},
        {"issuer": "https://x.test/?a=b"},
        {"audience": []},
        {"audience": ""},
        {"ca_file": "/does/not/exist.pem"},
        {"leeway_s": 3600},
    ],
)
def test_unsafe_settings_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        OidcSettings(**{"issuer": "https://sign-in.test", "audience": "litellm", **wrong})


@pytest.mark.parametrize(
    ("url", "warned"),
    [
        ("http://keycloak:8080/realms/rag", True),
        ("https://keycloak/realms/rag", False),
        ("http://127.0.0.1:8080/realms/rag", False),
    ],
)
def test_an_issuer_without_tls_is_warned_of(url: str, warned: bool, caplog: pytest.LogCaptureFixture) -> None:
    Oidc(OidcSettings(issuer=url, audience="litellm"), "keycloak")
    assert ("fetched in the clear" in caplog.text) == warned
