"""An OpenID Connect issuer's published keys, fetched rarely and kept.

Discovery goes through httpx and not through python-keycloak: it works for any issuer by its discovery
document alone, is asynchronous with one client, and takes no proxy from the environment
(``trust_env=False``).
"""

from __future__ import annotations

import asyncio
import json
import logging
import ssl
import time
from pathlib import Path
from typing import Any, Literal

import httpx
from joserfc import jwk
from joserfc.errors import JoseError

from plugins.core.errors import IdentityUnavailable, Unauthenticated

log = logging.getLogger(__name__)

Key = jwk.RSAKey | jwk.ECKey | jwk.OKPKey

MAX_RESPONSE_BYTES = 1 << 20
MIN_RSA_BITS = 2048
UNKNOWN_KEY = (
    "The access token is signed with a key that its issuer does not publish. Sign in again; "
    "if it stays, the token is forged or from another server."
)


class Issuer:
    """The signing keys of one issuer, by their ``kid``.

    Keys older than half of ``cache_s`` are renewed in the background while they go on being used, those
    older than ``cache_s`` before; an issuer that is down shuts nobody out whose key is known. A key that
    is not known is looked for at once, with one request in flight and not more often than every
    ``refetch_s``, however many tokens name unknown keys. Bound to the event loop of its first use.

    Sources: OpenID Connect Discovery 1.0, section 4; RFC 7517 (JWK set).
    """

    def __init__(
        self, url: str, *, cache_s: float, refetch_s: float, timeout_s: float, ca_file: Path | None
    ) -> None:
        self.url = url
        self._cache_s = cache_s
        self._refetch_s = refetch_s
        self._timeout_s = timeout_s
        self._ca_file = ca_file
        self._keys: dict[str | None, Key] = {}
        self._fetched = -float("inf")
        self._tried = -float("inf")
        self._reachable = False
        self._client: httpx.AsyncClient | None = None
        self._task: asyncio.Task[None] | None = None

    async def key(self, kid: str | None) -> Key:
        """The published signing key ``kid``; without one the only key, if there is only one.

        Raises:
            Unauthenticated: The issuer publishes no such key.
            IdentityUnavailable: The key is not known and the issuer cannot be asked.
        """
        found = self._find(kid)
        age_s = time.monotonic() - self._fetched
        if found is None or age_s > self._cache_s:
            await self._refresh(self._refetch_s)
            found = self._find(kid)
        elif age_s > self._cache_s / 2:
            self._start(self._refetch_s)
        if found is not None:
            return found
        if not self._reachable:
            raise IdentityUnavailable
        raise Unauthenticated(UNKNOWN_KEY, why="wrong_signature")

    async def ping(self) -> None:
        """Ask the issuer now, unless it was asked within ``refetch_s``; raise IdentityUnavailable."""
        await self._refresh(self._refetch_s)
        if not self._reachable:
            raise IdentityUnavailable

    async def close(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        if self._client is not None:
            await self._client.aclose()

    def _find(self, kid: str | None) -> Key | None:
        if kid is None:
            return next(iter(self._keys.values())) if len(self._keys) == 1 else None
        return self._keys.get(kid)

    def _start(self, interval_s: float) -> None:
        if self._task is not None and not self._task.done():
            return
        if time.monotonic() - self._tried >= interval_s:
            self._tried = time.monotonic()
            self._task = asyncio.create_task(self._fetch())

    async def _refresh(self, interval_s: float) -> None:
        self._start(interval_s)
        if self._task is not None:
            # shielded: the request that waits may be cancelled, others wait for the same fetch
            await asyncio.shield(self._task)

    async def _fetch(self) -> None:
        try:
            async with asyncio.timeout(self._timeout_s):
                self._keys = await self._published()
        except (httpx.HTTPError, TimeoutError, OSError, ValueError) as error:
            self._reachable = False
            log.warning(
                "issuer %s: its keys could not be fetched: %s", self.url, error or type(error).__name__
            )
            return
        self._fetched = time.monotonic()
        self._reachable = True

    async def _published(self) -> dict[str | None, Key]:
        document = await self._get(f"{self.url.rstrip('/')}/.well-known/openid-configuration")
        if document.get("issuer") != self.url:
            raise ValueError("its discovery document names another issuer; `issuer` must be equal to that")
        address = document.get("jwks_uri")
        if not isinstance(address, str) or not address.startswith(self.url.partition(":")[0] + "://"):
            raise ValueError("its discovery document has no usable jwks_uri")
        published = (await self._get(address)).get("keys")
        if not isinstance(published, list):
            raise ValueError("its key set has no `keys`")
        keys = {entry.get("kid"): signing_key(entry) for entry in published if isinstance(entry, dict)}
        return {kid: key for kid, key in keys.items() if key is not None}

    async def _get(self, address: str) -> dict[str, Any]:
        if self._client is None:
            verify = ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file else None)
            self._client = httpx.AsyncClient(verify=verify, timeout=self._timeout_s, trust_env=False)
        content = b""
        async with self._client.stream("GET", address) as response:
            if response.status_code != httpx.codes.OK:
                raise ValueError(f"answered {response.status_code}")
            async for part in response.aiter_bytes():
                content += part
                if len(content) > MAX_RESPONSE_BYTES:
                    raise ValueError("answered more than 1 MiB")
        value = json.loads(content)
        if not isinstance(value, dict):
            raise ValueError("answered something that is not a JSON object")
        return value


def signing_key(entry: dict[str, Any]) -> Key | None:
    """The entry of a key set as a public key; None where it is not for checking signatures."""
    kinds: dict[Any, type[Key]] = {"RSA": jwk.RSAKey, "EC": jwk.ECKey, "OKP": jwk.OKPKey}
    kind = kinds.get(entry.get("kty"))
    use: Literal["sig"] | Any = entry.get("use", "sig")
    if kind is None or use != "sig" or "d" in entry:
        return None
    try:
        key = kind.import_key(entry)
        if isinstance(key, jwk.RSAKey) and key.public_key.key_size < MIN_RSA_BITS:
            return None
    except (JoseError, ValueError, TypeError):
        return None
    return key
