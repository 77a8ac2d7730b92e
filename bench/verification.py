"""(d) Verification of an access token whose issuer's key is cached, within this process."""

from __future__ import annotations

import time
from collections.abc import Callable

from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.util import urlsafe_b64decode
from pydantic import SecretStr

from bench.figures import MeasurementFailed, Row, p50_p95
from bench.proxies import SOURCE
from plugins.auth.oidc import Oidc, OidcSettings
from plugins.core.identity import Credential
from tests.support.issuer import Issuer, issuer

TOKENS = 100
"""Different ones, in turn: nothing is gained by remembering the last."""
WARM_UP = 200
AIM_MS = 0.3


async def verification(calls: int) -> list[Row]:
    """What the sign-in hook does for each request: whose token it is, signature and claims, the principal."""
    with issuer() as realm:
        source = Oidc(OidcSettings(issuer=realm.url, audience="litellm"), SOURCE)
        try:
            return await _measured(source, realm, calls)
        finally:
            await source.close()


async def _measured(source: Oidc, realm: Issuer, calls: int) -> list[Row]:
    tokens = [realm.token("alice", jti=str(number), groups=["/staff"]) for number in range(TOKENS)]
    credentials = [Credential(bearer=SecretStr(token), headers={}, peer="127.0.0.1") for token in tokens]
    checks = [_signature_check(realm, token) for token in tokens]
    ours: list[float] = []
    bare: list[float] = []
    asked = 0
    for number in range(WARM_UP + calls):
        if number == WARM_UP:
            asked = len(realm.requests)
        begin = time.perf_counter()
        checks[number % TOKENS]()
        between = time.perf_counter()
        accepted = source.accepts(credentials[number % TOKENS])
        await source.authenticate(credentials[number % TOKENS])
        end = time.perf_counter()
        if not accepted:
            raise MeasurementFailed("the token was not accepted")
        if number >= WARM_UP:
            bare.append(between - begin)
            ours.append(end - between)
    if len(realm.requests) != asked:
        raise MeasurementFailed("the issuer was asked while its key was cached")
    (bare50, bare95), (ours50, ours95) = p50_p95(bare), p50_p95(ours)
    return [
        Row(
            f"(d) verification of a token (RS256, 2048 bits), {calls:,} calls: p50 / p95",
            f"{bare50 * 1000:.3f} / {bare95 * 1000:.3f} ms",
            f"{ours50 * 1000:.3f} / {ours95 * 1000:.3f} ms",
            f"+{(ours50 - bare50) * 1000:.3f} ms at p50",
            f"p95 < {AIM_MS} ms",
            ours95 * 1000 < AIM_MS,
        )
    ]


def _signature_check(realm: Issuer, token: str) -> Callable[[], None]:
    """The bare check of the signature, by the same library that joserfc uses."""
    key = realm.keys[0].get_op_key("verify")
    assert isinstance(key, rsa.RSAPublicKey)
    signed, _, signature = token.rpartition(".")
    decoded = urlsafe_b64decode(signature.encode())
    return lambda: key.verify(decoded, signed.encode(), padding.PKCS1v15(), SHA256())
