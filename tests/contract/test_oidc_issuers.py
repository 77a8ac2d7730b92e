"""What the OIDC source promises, with two issuers that share no code: Keycloak's shape, and another."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from joserfc import jwk
from pydantic import SecretStr

from plugins.auth.oidc import Oidc, OidcSettings
from plugins.core.errors import IdentityUnavailable, Unauthenticated
from plugins.core.identity import Credential, Principal
from tests.support.issuer import Issuer, b64, issuer
from tests.support.issuer_acme import NAMESPACE, AcmeIssuer, acme_issuer

Either = Issuer | AcmeIssuer
KINDS = ["keycloak", "acme"]
TYPES = {"keycloak": "JWT", "acme": "at+jwt"}


def started(kind: str) -> AbstractContextManager[Either]:
    return issuer() if kind == "keycloak" else acme_issuer()


@pytest.fixture(params=KINDS, scope="module")
def shared(request: pytest.FixtureRequest) -> Iterator[Either]:
    """For tests that change nothing in it."""
    with started(str(request.param)) as running:
        yield running


@pytest.fixture(params=KINDS)
def own(request: pytest.FixtureRequest) -> Iterator[Either]:
    with started(str(request.param)) as running:
        yield running


@pytest.fixture
async def source(shared: Either) -> AsyncIterator[Oidc]:
    made = source_for(shared)
    yield made
    await made.close()


def source_for(of: Either, **settings: Any) -> Oidc:
    if isinstance(of, AcmeIssuer):
        given = of.settings
    else:
        given = {"issuer": of.url, "audience": "litellm", "roles_claims": ["realm_access.roles"]}
    return Oidc(OidcSettings(**{**given, **settings}), "company")


def bearer(token: str) -> Credential:
    return Credential(bearer=SecretStr(token), headers={}, peer="")


async def sign_in(source: Oidc, token: str) -> Principal:
    return await source.authenticate(bearer(token))


async def refusal(source: Oidc, token: str) -> str:
    assert source.accepts(bearer(token))
    with pytest.raises(Unauthenticated) as caught:
        await sign_in(source, token)
    return caught.value.message


def audience(of: Either) -> str:
    return "api://litellm" if isinstance(of, AcmeIssuer) else "litellm"


def by_stranger(of: Either, header: dict[str, Any] | None = None) -> str:
    """A token with the right claims, signed with a key that the issuer never published."""
    if isinstance(of, AcmeIssuer):
        return of.sign(of.claims(), header, stranger=True)
    return of.sign(of.claims(), header, jwk.RSAKey.generate_key(2048, {"use": "sig", "alg": "RS256"}))


def with_header(of: Either, **header: Any) -> str:
    """A token of the issuer whose header says something else than it should; its signature is good."""
    return of.sign(of.claims(), header)


def public_key(of: Either) -> bytes:
    return of.public_pem if isinstance(of, AcmeIssuer) else of.keys[0].as_pem(private=False)


async def test_a_token_becomes_the_principal_with_the_roles_and_groups_of_the_configured_claims(
    source: Oidc, shared: Either
) -> None:
    principal = await sign_in(source, shared.token("alice"))
    assert (principal.user_id, principal.issuer) == ("company/alice", shared.url)
    assert principal.groups == {"finance"}
    assert "reader" in principal.roles
    assert "manage-account" not in principal.roles, "roles of another client do not count"


async def test_claims_that_are_missing_or_of_another_shape_grant_nothing(own: Either) -> None:
    source = source_for(own)
    if isinstance(own, AcmeIssuer):
        odd = {NAMESPACE: {"login": "alice", "teams": {"finance": True}}, "resource_access": ["litellm"]}
    else:
        odd = {"groups": {"finance": True}, "realm_access": "reader"}
    principal = await sign_in(source, own.token("alice", **odd))
    assert principal.subjects == {"*", "user:company/alice"}
    await source.close()


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"exp": int(time.time()) - 31}, "has expired"),
        ({"exp": None}, "lacks the claim `exp`"),
        ({"nbf": int(time.time()) + 86_400}, "not valid yet"),
        ({"iat": int(time.time()) + 86_400}, "issued in the future"),
        ({"iat": None}, "lacks the claim `iat`"),
        ({"aud": "another-service"}, "not for this service"),
        ({"aud": None}, "lacks the claim `aud`"),
        ({"aud": []}, "not for this service"),
        ({"sub": None}, "lacks the claim `sub`"),
        ({"typ": "ID"}, "not an access token"),
        ({"typ": "Refresh"}, "not an access token"),
        ({"at_hash": "x"}, "not an access token"),
    ],
)
async def test_wrong_claims_are_refused_with_the_reason(
    source: Oidc, shared: Either, changed: dict[str, Any], reason: str
) -> None:
    assert reason in await refusal(source, shared.token(**changed))


async def test_the_audience_may_be_one_text_or_a_list_of_texts(source: Oidc, shared: Either) -> None:
    ours = audience(shared)
    assert await sign_in(source, shared.token(aud=ours))
    assert await sign_in(source, shared.token(aud=["another", ours]))
    assert "not for this service" in await refusal(source, shared.token(aud=[f"{ours}-admin", ours.upper()]))


@pytest.mark.parametrize("alg", ["none", "HS256", "RS384", "PS512", "ES512", ""])
async def test_algorithms_that_are_not_allowed_are_refused(source: Oidc, shared: Either, alg: str) -> None:
    header = b64(json.dumps({"alg": alg, "typ": "JWT", "kid": "any"}).encode())
    payload = b64(json.dumps(shared.claims()).encode())
    assert "signed in a way" in await refusal(source, f"{header}.{payload}.")


async def test_the_public_key_is_no_shared_secret(source: Oidc, shared: Either) -> None:
    kind = "acme" if isinstance(shared, AcmeIssuer) else "keycloak"
    header = b64(json.dumps({"alg": "HS256", "typ": TYPES[kind]}).encode())
    signed = f"{header}.{b64(json.dumps(shared.claims()).encode())}"
    mac = hmac.new(public_key(shared), signed.encode(), hashlib.sha256).digest()
    assert "signed in a way" in await refusal(source, f"{signed}.{b64(mac)}")


async def test_keys_and_addresses_in_the_token_are_not_used(source: Oidc, shared: Either) -> None:
    theirs = ec.generate_private_key(ec.SECP256R1()).public_key()
    embedded = {
        "jwk": jwk.ECKey.import_key(
            theirs.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
        ).as_dict(private=False),
        "jku": f"{shared.url}/theirs",
        "x5u": f"{shared.url}/theirs",
    }
    assert "signature is wrong" in await refusal(source, by_stranger(shared, embedded))
    assert not [path for path in shared.requests if "theirs" in path]


@pytest.mark.parametrize(
    "header", [{"crit": ["exp"]}, {"b64": False}, {"typ": "logout+jwt"}, {"typ": "dpop+jwt"}]
)
async def test_headers_that_say_something_else_are_refused(
    source: Oidc, shared: Either, header: dict[str, Any]
) -> None:
    assert await refusal(source, with_header(shared, **header))


async def test_a_name_that_occurs_twice_is_refused(source: Oidc, shared: Either) -> None:
    twice = json.dumps(shared.claims())[:-1] + ', "sub": "root"}'
    assert "malformed" in await refusal(source, shared.sign(twice.encode()))


async def test_a_changed_or_cut_token_is_refused(source: Oidc, shared: Either) -> None:
    head, _, signature = shared.token("bob").split(".")
    other = b64(json.dumps(shared.claims("alice")).encode())
    assert "signature is wrong" in await refusal(source, f"{head}.{other}.{signature}")
    assert "signature is wrong" in await refusal(source, shared.token()[:-4])


async def test_a_token_of_the_other_issuer_is_not_this_sources(shared: Either) -> None:
    source = source_for(shared)
    other = "acme" if isinstance(shared, Issuer) else "keycloak"
    with started(other) as stranger:
        assert not source.accepts(bearer(stranger.token("alice")))
        with pytest.raises(Unauthenticated):
            await sign_in(source, stranger.token("alice"))
        assert await refusal(source, stranger.token("alice", iss=shared.url))
    await source.close()


async def test_a_new_key_is_found_and_the_old_one_counts_while_it_is_published(own: Either) -> None:
    source = source_for(own, jwks_refetch_s=0.02, jwks_cache_s=0.02)
    old = own.token("alice")
    await sign_in(source, old)
    own.rotate()
    await eventually(source, own.token("bob"), good=True)
    assert await sign_in(source, old)
    if isinstance(own, AcmeIssuer):
        own.retire()
    else:
        del own.keys[1:]
    await eventually(source, old, good=False)
    assert await sign_in(source, own.token("bob"))
    await source.close()


async def eventually(source: Oidc, token: str, *, good: bool) -> None:
    """Wait until the token is let in, or is no longer."""
    async with asyncio.timeout(10):
        while True:
            try:
                await sign_in(source, token)
            except (Unauthenticated, IdentityUnavailable):
                if not good:
                    return
            else:
                if good:
                    return
            await asyncio.sleep(0.01)


async def test_strangers_keys_cost_the_issuer_one_look(own: Either) -> None:
    source = source_for(own, jwks_refetch_s=600)
    await sign_in(source, own.token())
    asked = len(own.requests)
    unknown = [by_stranger(own, {"kid": f"unknown-{number}"}) for number in range(20)]
    reasons = await asyncio.gather(*(refusal(source, token) for token in unknown))
    assert all("does not publish" in reason for reason in reasons)
    assert len(own.requests) == asked, "it was looked for within `jwks_refetch_s`"
    await source.close()


async def test_an_issuer_that_is_down_lets_known_keys_in_and_nobody_else(own: Either) -> None:
    source = source_for(own)
    await sign_in(source, own.token())
    own.down = True
    assert await sign_in(source, own.token("bob"))
    fresh = source_for(own)
    with pytest.raises(IdentityUnavailable):
        await sign_in(fresh, own.token("bob"))
    await source.close()
    await fresh.close()
