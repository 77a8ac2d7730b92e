"""Whether an access token is still good at its issuer, asked rarely (RFC 7662)."""

from __future__ import annotations

from pydantic import SecretStr

from plugins.auth._answers import Answers
from plugins.auth._keycloak import Keycloak
from plugins.core.errors import Unauthenticated

REVOKED = "The access token was revoked: its session ended or its account was changed. Sign in again."


class Introspection:
    """Asks Keycloak about each token at most every ``every_s``. An answer counts from when it was asked for,
    so that a revocation takes effect within that time. Bound to the event loop of its first use."""

    def __init__(self, keycloak: Keycloak, every_s: float) -> None:
        self._keycloak = keycloak
        self._every_s = every_s
        self._answers = Answers(self._ask, untrusted=False)

    async def check(self, token: SecretStr) -> None:
        """Return where the token, whose signature was verified, is active.

        Raises:
            Unauthenticated: It is not.
            IdentityUnavailable: Keycloak cannot be asked, and was not within ``every_s``.
        """
        await self._answers.about(token)

    async def close(self) -> None:
        await self._answers.close()

    async def _ask(self, token: SecretStr) -> tuple[None, float]:
        if not (await self._keycloak.introspect(token))["active"]:
            raise Unauthenticated(REVOKED, why="revoked")
        return None, self._every_s
