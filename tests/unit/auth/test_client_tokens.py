"""What an issuer sends to its client: ID tokens at sign-in, and logout tokens when a session ends."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from plugins.auth.oidc import Oidc
from plugins.core.errors import IdentityUnavailable, Unauthenticated
from plugins.core.ports import Ended
from tests.support.issuer import Claims, Issuer, issuer
from tests.support.oidc import refusal, source_for

CLIENT = {"client_id": "litellm", "client_secret": "litellm-secret"}
EVENT: Claims = {"http://schemas.openid.net/event/backchannel-logout": {}}


@pytest.fixture(scope="module")
def realm() -> Iterator[Issuer]:
    with issuer() as running:
        yield running


@pytest.fixture
def source(realm: Issuer) -> Oidc:
    return source_for(realm, **CLIENT)


def id_token(realm: Issuer, header: Claims | None = None, **changed: Any) -> str:
    own = {"typ": "ID", "aud": "litellm", "nonce": "the-nonce", "at_hash": "x"}
    return realm.sign(realm.claims(**{**own, **changed}), header)


def logout_token(realm: Issuer, header: Claims | None = None, **changed: Any) -> str:
    now = int(time.time())
    claims = {
        "iss": realm.url,
        "aud": "litellm",
        "iat": now,
        "exp": now + 120,
        "jti": "a-jti",
        "sub": "id-of-alice",
        "sid": "a-session",
        "typ": "Logout",
        "events": EVENT,
        **changed,
    }
    sent = {name: value for name, value in claims.items() if value is not None}
    return realm.sign(sent, {"typ": "logout+jwt", **(header or {})})


async def test_an_id_token_for_this_client_and_nonce_names_its_subject(source: Oidc, realm: Issuer) -> None:
    assert await source.verified_id_token(id_token(realm), nonce="the-nonce") == "id-of-alice"


@pytest.mark.parametrize("changed", [{"azp": None}, {"aud": ["litellm", "other"]}, {"typ": None}])
async def test_an_id_token_may_name_its_client_in_each_way_of_the_standard(
    source: Oidc, realm: Issuer, changed: dict[str, Any]
) -> None:
    assert await source.verified_id_token(id_token(realm, **changed), nonce="the-nonce")


async def test_an_id_token_needs_no_type_in_its_header(source: Oidc, realm: Issuer) -> None:
    assert await source.verified_id_token(id_token(realm, {"typ": None}), nonce="the-nonce")


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"nonce": "another"}, "not begun in this browser"),
        ({"nonce": None}, "not begun in this browser"),
        ({"nonce": ["the-nonce"]}, "not begun in this browser"),
        ({"aud": "other-app"}, "not for this service"),
        ({"azp": "other-app"}, "not an ID token for this server"),
        ({"aud": ["litellm", "other"], "azp": None}, "not an ID token for this server"),
        ({"typ": "Bearer"}, "not an ID token for this server"),
        ({"exp": int(time.time()) - 31}, "has expired"),
        ({"iat": int(time.time()) + 86_400}, "issued in the future"),
        ({"iss": "http://evil.test/realms/rag"}, "another issuer"),
        ({"sub": None}, "lacks the claim `sub`"),
    ],
)
async def test_another_id_token_is_refused_with_the_reason(
    source: Oidc, realm: Issuer, changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Unauthenticated, match=reason):
        await source.verified_id_token(id_token(realm, **changed), nonce="the-nonce")


async def test_a_logout_token_is_no_id_token(source: Oidc, realm: Issuer) -> None:
    with pytest.raises(Unauthenticated, match="not an ID token"):
        await source.verified_id_token(logout_token(realm, nonce="the-nonce"), nonce="the-nonce")


@pytest.mark.parametrize("typ", ["logout+jwt", "application/logout+jwt", "JWT"])
async def test_a_logout_token_names_the_session_that_ended(source: Oidc, realm: Issuer, typ: str) -> None:
    before = time.time() - 1
    ended = await source.ended(logout_token(realm, {"typ": typ}))
    assert ended == Ended("keycloak", "id-of-alice", "a-session", ended.issued_at)
    assert before <= ended.issued_at <= time.time()


@pytest.mark.parametrize(
    ("changed", "subject", "session"),
    [({"sid": None}, "id-of-alice", None), ({"sub": None}, None, "a-session")],
)
async def test_a_logout_token_may_name_only_the_user_or_only_the_session(
    source: Oidc, realm: Issuer, changed: dict[str, Any], subject: str | None, session: str | None
) -> None:
    ended = await source.ended(logout_token(realm, **changed))
    assert (ended.subject, ended.session) == (subject, session)


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"sub": None, "sid": None}, "not a logout token"),
        ({"sub": "", "sid": 7}, "not a logout token"),
        ({"events": None}, "not a logout token"),
        ({"events": {}}, "not a logout token"),
        ({"events": list(EVENT)}, "not a logout token"),
        ({"events": {next(iter(EVENT)): "yes"}}, "not a logout token"),
        ({"nonce": "x"}, "not a logout token"),
        ({"typ": "ID"}, "not a logout token"),
        ({"aud": "other-app"}, "not for this service"),
        ({"iss": "http://evil.test/realms/rag"}, "another issuer"),
        ({"exp": int(time.time()) - 31}, "has expired"),
        ({"exp": None}, "lacks the claim `exp`"),
        ({"iat": None}, "lacks the claim `iat`"),
        ({"iat": int(time.time()) + 86_400}, "issued in the future"),
        ({"jti": None}, "lacks the claim `jti`"),
    ],
)
async def test_another_logout_token_is_refused_with_the_reason(
    source: Oidc, realm: Issuer, changed: dict[str, Any], reason: str
) -> None:
    with pytest.raises(Unauthenticated, match=reason):
        await source.ended(logout_token(realm, **changed))


@pytest.mark.parametrize("header", [{"typ": "at+jwt"}, {"typ": None}, {"alg": "none"}, {"crit": ["exp"]}])
async def test_a_logout_token_with_another_header_is_refused(
    source: Oidc, realm: Issuer, header: dict[str, Any]
) -> None:
    with pytest.raises(Unauthenticated):
        await source.ended(logout_token(realm, header))


async def test_neither_access_nor_id_token_signs_anyone_out(source: Oidc, realm: Issuer) -> None:
    for token in (realm.token(jti="x"), id_token(realm, jti="x"), id_token(realm, jti="x", typ=None)):
        with pytest.raises(Unauthenticated):
            await source.ended(token)


async def test_neither_a_logout_nor_an_id_token_is_an_access_token(source: Oidc, realm: Issuer) -> None:
    for token in (logout_token(realm), logout_token(realm, {"typ": "JWT"}), id_token(realm, typ=None)):
        assert await refusal(source, token)


async def test_a_logout_token_of_another_issuers_key_is_refused(source: Oidc, realm: Issuer) -> None:
    with issuer() as stranger:
        forged = logout_token(stranger, {"kid": realm.keys[0].kid}, iss=realm.url)
    with pytest.raises(Unauthenticated, match="signature is wrong"):
        await source.ended(forged)


async def test_while_the_keys_cannot_be_fetched_neither_is_judged() -> None:
    with issuer() as down:
        down.down = True
        source = source_for(down, **CLIENT)
        with pytest.raises(IdentityUnavailable):
            await source.ended(logout_token(down))
        with pytest.raises(IdentityUnavailable):
            await source.verified_id_token(id_token(down), nonce="the-nonce")
        await source.close()


async def test_a_source_that_is_no_client_accepts_neither(realm: Issuer) -> None:
    source = source_for(realm)
    with pytest.raises(Unauthenticated):
        await source.ended(logout_token(realm))
    with pytest.raises(Unauthenticated):
        await source.verified_id_token(id_token(realm), nonce="the-nonce")
