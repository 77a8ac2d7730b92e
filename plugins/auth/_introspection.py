"""Whether an access token is still good at its issuer, asked rarely (RFC 7662)."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict

from pydantic import SecretStr

from plugins.auth._keycloak import Keycloak
from plugins.core.errors import Unauthenticated

MAX_TOKENS = 10_000
REVOKED = "The access token was revoked: its session ended or its account was changed. Sign in again."


class Introspection:
    """Asks Keycloak about each token at most every ``every_s``, with one request in flight for each.

    The answers are kept by the hash of the whole token, at most ``MAX_TOKENS`` of them. An answer counts
    from when it was asked for, so that a revocation takes effect within ``every_s``. Bound to the event loop
    of its first use.
    """

    def __init__(self, keycloak: Keycloak, every_s: float) -> None:
        self._keycloak = keycloak
        self._every_s = every_s
        self._known: OrderedDict[bytes, tuple[float, bool]] = OrderedDict()
        self._asking: dict[bytes, asyncio.Task[bool]] = {}

    async def check(self, token: SecretStr) -> None:
        """Return where the token is active.

        Raises:
            Unauthenticated: It is not.
            IdentityUnavailable: Keycloak cannot be asked, and was not within ``every_s``.
        """
        digest = hashlib.sha256(token.get_secret_value().encode()).digest()
        asked, active = self._known.get(digest, (-float("inf"), False))
        if time.monotonic() - asked >= self._every_s:
            # shielded: the request that waits may be cancelled, others wait for the same answer
            active = await asyncio.shield(self._task(digest, token))
        if not active:
            raise Unauthenticated(REVOKED)

    async def close(self) -> None:
        for task in self._asking.values():
            task.cancel()
        await asyncio.gather(*self._asking.values(), return_exceptions=True)

    def _task(self, digest: bytes, token: SecretStr) -> asyncio.Task[bool]:
        if digest not in self._asking:
            task = asyncio.create_task(self._ask(digest, token))
            task.add_done_callback(lambda done: self._done(digest, done))
            self._asking[digest] = task
        return self._asking[digest]

    def _done(self, digest: bytes, task: asyncio.Task[bool]) -> None:
        del self._asking[digest]
        if not task.cancelled():
            # seen, also where nobody waits any more
            task.exception()

    async def _ask(self, digest: bytes, token: SecretStr) -> bool:
        asked = time.monotonic()
        active = bool((await self._keycloak.introspect(token))["active"])
        self._known[digest] = (asked, active)
        self._known.move_to_end(digest)
        if len(self._known) > MAX_TOKENS:
            self._known.popitem(last=False)
        return active
