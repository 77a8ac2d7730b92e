"""The issuer's keys: which are used, how often it is asked, and what if it does not answer."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from joserfc import jwk

from plugins.auth.oidc import Oidc
from plugins.core.errors import IdentityUnavailable, Unauthenticated
from plugins.core.identity import Principal
from tests.support.issuer import Issuer, issuer
from tests.support.oidc import bearer, refusal, sign_in, source_for


@pytest.fixture
def own() -> Iterator[Issuer]:
    with issuer() as running:
        yield running


async def test_a_key_that_is_not_for_signatures_is_not_used(own: Issuer) -> None:
    encryption = jwk.RSAKey.generate_key(2048, {"use": "enc", "alg": "RSA-OAEP"}, auto_kid=True)
    own.extra_certs = [encryption.as_dict(private=False), {"kty": "oct", "k": "c2VjcmV0", "kid": "oct"}]
    signed = own.sign(
        own.claims(),
        {"alg": "RS256", "kid": encryption.kid},
        jwk.RSAKey.import_key({**encryption.as_dict(private=True), "use": "sig", "alg": "RS256"}),
    )
    assert "does not publish" in await refusal(source_for(own), signed)


async def test_elliptic_curve_keys_and_a_token_without_kid_are_accepted(own: Issuer) -> None:
    own.keys.clear()
    own.rotate("ES256")
    assert await sign_in(source_for(own), own.token())
    assert await sign_in(source_for(own), own.sign(own.claims(), {"kid": None}))


async def test_a_token_without_kid_is_refused_where_there_are_two_keys(own: Issuer) -> None:
    own.rotate()
    assert "does not publish" in await refusal(source_for(own), own.sign(own.claims(), {"kid": None}))


async def test_a_rotated_key_is_found_and_the_old_one_goes_on(own: Issuer) -> None:
    source = source_for(own, jwks_refetch_s=0.05)
    old = own.token()
    await sign_in(source, old)
    own.rotate()
    new = own.token()
    assert await eventually(source, new)
    assert await sign_in(source, old)


async def test_a_withdrawn_key_opens_nothing_once_its_time_is_over(
    own: Issuer, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = source_for(own, jwks_refetch_s=0.001)
    old = own.token()
    assert await sign_in(source, old)
    own.rotate()
    own.keys.pop()
    assert await sign_in(source, old), "nobody looked since"
    later = time.monotonic() + source.settings.jwks_cache_s + 1
    monkeypatch.setattr("plugins.auth._issuer.time.monotonic", lambda: later)
    assert "does not publish" in await refusal(source, old), "not even the first request"


async def eventually(source: Oidc, token: str) -> Principal:
    """The principal, as soon as the source may ask the issuer again."""
    async with asyncio.timeout(10):
        while True:
            try:
                return await sign_in(source, token)
            except (Unauthenticated, IdentityUnavailable):
                await asyncio.sleep(0.02)


async def test_many_unknown_keys_cost_the_issuer_one_request(own: Issuer) -> None:
    source = source_for(own, jwks_refetch_s=600)
    tokens = [own.sign(own.claims(), {"kid": f"unknown-{i}"}) for i in range(20)]
    reasons = await asyncio.gather(*(refusal(source, token) for token in tokens))
    assert all("does not publish" in reason for reason in reasons)
    assert "does not publish" in await refusal(source, tokens[0]), "also after the answer"
    assert len([path for path in own.requests if path.endswith("/certs")]) == 1


async def test_many_at_once_share_the_first_fetch(own: Issuer) -> None:
    source = source_for(own)
    await asyncio.gather(*(sign_in(source, own.token()) for _ in range(20)))
    assert len([path for path in own.requests if path.endswith("/certs")]) == 1


async def test_while_a_fetch_is_under_way_there_is_no_second_one(own: Issuer) -> None:
    source = source_for(own, jwks_refetch_s=0.001)
    own.open.clear()
    waiting = [asyncio.create_task(sign_in(source, own.token())) for _ in range(20)]
    for _ in range(1000):
        if own.requests:
            break
        await asyncio.sleep(0.01)
    late = asyncio.create_task(sign_in(source, own.token()))
    for _ in range(5):
        await asyncio.sleep(0.002)
    assert len(own.requests) == 1
    own.open.set()
    assert all(await asyncio.gather(*waiting, late))
    assert len(own.requests) == 2, "discovery and keys"


async def test_an_issuer_that_is_down_shuts_out_only_unknown_keys(own: Issuer) -> None:
    source = source_for(own, jwks_refetch_s=0.05, jwks_cache_s=0.05)
    await sign_in(source, own.token())
    own.down = True
    known = own.token()
    async with asyncio.timeout(10):
        while len(own.requests) < 3:  # until the keys are stale and the background renewal has failed
            assert await sign_in(source, known)
            await asyncio.sleep(0.02)
    assert await sign_in(source, known)
    own.rotate()
    with pytest.raises(IdentityUnavailable):
        await source.authenticate(bearer(own.token()))
    own.down = False
    assert await eventually(source, own.token())


async def test_an_issuer_that_was_never_reached_lets_nobody_in(own: Issuer) -> None:
    own.down = True
    source = source_for(own)
    with pytest.raises(IdentityUnavailable) as caught:
        await source.authenticate(bearer(own.token()))
    assert own.url not in caught.value.message
    with pytest.raises(IdentityUnavailable):
        await source.ping()


async def test_discovery_that_names_another_issuer_is_not_believed(own: Issuer) -> None:
    aliased = own.url.replace("127.0.0.1", "localhost")
    source = source_for(own, issuer=aliased)
    with pytest.raises(IdentityUnavailable):
        await source.authenticate(bearer(own.token(iss=aliased)))


@pytest.mark.parametrize(
    ("path", "status", "body"),
    [
        ("certs", 500, {}),
        ("certs", 200, {"padding": "x" * (1 << 20)}),
        ("certs", 200, {"keys": "none"}),
        ("openid-configuration", 404, {}),
        ("openid-configuration", 200, {"jwks_uri": None}),
        ("openid-configuration", 200, {"jwks_uri": "file:///etc/passwd"}),
    ],
)
async def test_an_issuers_unusable_answer_lets_nobody_in(
    own: Issuer, path: str, status: int, body: dict[str, Any]
) -> None:
    good: dict[str, dict[str, Any]] = {
        "certs": {"keys": [key.as_dict(private=False) for key in own.keys]},
        "openid-configuration": {
            "issuer": own.url,
            "jwks_uri": f"{own.url}/protocol/openid-connect/certs",
        },
    }
    own.overrides[path] = (status, {**good[path], **body})
    with pytest.raises(IdentityUnavailable):
        await source_for(own).authenticate(bearer(own.token()))


async def test_a_short_rsa_key_is_not_used(own: Issuer) -> None:
    made = rsa.generate_private_key(65537, 1024)  # noqa: S505 - that is the test
    pem = made.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    weak = jwk.RSAKey.import_key(pem, {"kid": "weak", "use": "sig", "alg": "RS256"})
    own.extra_certs = [weak.as_dict(private=False)]
    signed = own.sign(own.claims(), {"kid": "weak", "alg": "RS256"}, weak)
    assert "does not publish" in await refusal(source_for(own), signed)


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Issuer, Path]]:
    """An issuer with TLS and the file to trust it by."""
    file = tmp_path_factory.mktemp("tls") / "issuer.pem"
    file.write_bytes(self_signed())
    with issuer(certificate=file) as running:
        yield running, file


def self_signed() -> bytes:
    """A key and its certificate for 127.0.0.1 as PEM."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "issuer")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(hours=1))
        .not_valid_after(now + timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    private = key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    return private + certificate.public_bytes(pem)


async def test_tls_is_checked_against_the_configured_authority(secure: tuple[Issuer, Path]) -> None:
    realm, file = secure
    assert await sign_in(source_for(realm, ca_file=file), realm.token())
    with pytest.raises(IdentityUnavailable):
        await source_for(realm).authenticate(bearer(realm.token()))


async def test_the_keys_of_a_tls_issuer_are_not_fetched_in_the_clear(
    secure: tuple[Issuer, Path], own: Issuer
) -> None:
    realm, file = secure
    own.extra_certs = [realm.keys[0].as_dict(private=False)]
    clear = f"{own.url}/protocol/openid-connect/certs"
    realm.overrides["openid-configuration"] = (200, {"issuer": realm.url, "jwks_uri": clear})
    with pytest.raises(IdentityUnavailable):
        await source_for(realm, ca_file=file).authenticate(bearer(realm.token()))
    assert own.requests == []
