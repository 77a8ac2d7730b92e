"""Signed tokens of one OpenID Connect issuer, verified against its published keys."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any

from joserfc import jws, jwt
from joserfc.errors import ClaimError, ExpiredTokenError, JoseError, MissingClaimError

from plugins.auth._claims import MAX_TOKEN_BYTES, decoded, strict_object
from plugins.auth._issuer import Issuer
from plugins.core.errors import Unauthenticated

Claims = dict[str, Any]

NOT_ACCESS_TOKEN = "This is not an access token. Send the access token, not the ID or the refresh token."  # noqa: S105 - a sentence
NOT_ID_TOKEN = "This is not an ID token for this server."  # noqa: S105 - a sentence
NOT_LOGOUT_TOKEN = "This is not a logout token for this server."  # noqa: S105 - a sentence
CLOCKS = "Check the clocks of the issuer and of this server."
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"


class Kind:
    """One kind of token: what its header and its claims must be.

    Args:
        name: For messages.
        types: What the header's ``typ`` may be, in lower case; None = it may be absent.
        registry: What its claims must be.
        other: The message where it is a token of another kind.
        is_it: Whether the claims are of this kind, beyond what the registry can say.
    """

    def __init__(
        self,
        name: str,
        types: Collection[str | None],
        registry: jwt.JWTClaimsRegistry,
        other: str,
        is_it: Callable[[Claims], bool],
    ) -> None:
        self.name = name
        self.types = frozenset(types)
        self.other = other
        self._registry = registry
        self._is_it = is_it

    def check(self, claims: Claims) -> None:
        """Raise Unauthenticated where the claims are not of a good token of this kind."""
        try:
            self._registry.validate(claims)
        except ExpiredTokenError as error:
            raise Unauthenticated(f"The {self.name} has expired. Sign in again.", why="expired") from error
        except MissingClaimError as error:
            raise Unauthenticated(
                f"The {self.name} lacks the claim `{error.claim}`.", why="wrong_claims"
            ) from error
        except ClaimError as error:
            raise Unauthenticated(self._wrong(error.claim), why="wrong_claims") from error
        for name in ("iss", "sub", "typ"):
            # the registry also takes a list that has the value
            if not isinstance(claims.get(name, ""), str):
                raise Unauthenticated(self._wrong(name), why="wrong_claims")
        if not self._is_it(claims):
            raise Unauthenticated(self.other, why="wrong_claims")

    def _wrong(self, claim: str) -> str:
        reasons = {
            "iss": f"The {self.name} was issued by another issuer.",
            "aud": f"The {self.name} is not for this service (its audience is another one).",
            "nbf": f"The {self.name} is not valid yet. {CLOCKS}",
            "iat": f"The {self.name} was issued in the future. {CLOCKS}",
            "typ": self.other,
        }
        return reasons.get(claim, f"The {self.name}'s claim `{claim}` is not valid.")


class Verifier:
    """Signature and claims of one issuer's tokens.

    Checked: signature, ``alg``, header ``typ``, ``crit`` (refused), no name twice, ``iss``, ``aud``, ``exp``,
    ``nbf``, ``iat`` and what the kind demands. Keys or addresses in the token (``jwk``, ``jku``, ``x5u``,
    ``x5c``) are ignored.

    Sources: RFC 7515, RFC 7519, RFC 8725 (best practices).
    """

    def __init__(self, issuer: Issuer, algorithms: Collection[str], leeway_s: int) -> None:
        self._issuer = issuer
        self._algorithms = frozenset(algorithms)
        self._leeway_s = leeway_s
        self._registry = jws.JWSRegistry(algorithms=list(algorithms), strict_check_header=False)
        self._registry.max_header_length = MAX_TOKEN_BYTES

    def access_token(self, audiences: Collection[str], types: Collection[str]) -> Kind:
        """RFC 9068, and Keycloak's claim ``typ`` where there is one."""
        # only an ID token has the hash of an access token (OpenID Connect Core, 3.1.3.6)
        registry = self._claims(audiences, "Bearer", sub={"essential": True})
        lower = {kind.lower() for kind in types}
        return Kind("access token", lower, registry, NOT_ACCESS_TOKEN, lambda claims: "at_hash" not in claims)

    def id_token(self, client_id: str) -> Kind:
        """OpenID Connect Core 1.0, section 3.1.3.7."""

        def is_it(claims: Claims) -> bool:
            many = isinstance(claims["aud"], list) and len(claims["aud"]) > 1
            return claims.get("azp", None if many else client_id) == client_id

        registry = self._claims([client_id], "ID", sub={"essential": True})
        return Kind("ID token", {None, "jwt"}, registry, NOT_ID_TOKEN, is_it)

    def logout_token(self, client_id: str) -> Kind:
        """OpenID Connect Back-Channel Logout 1.0, section 2.6, but for whom it names."""

        def is_it(claims: Claims) -> bool:
            events = claims.get("events")
            is_logout = isinstance(events, dict) and isinstance(events.get(LOGOUT_EVENT), dict)
            return is_logout and "nonce" not in claims

        registry = self._claims([client_id], "Logout", jti={"essential": True})
        return Kind("logout token", {"logout+jwt", "jwt"}, registry, NOT_LOGOUT_TOKEN, is_it)

    async def verified(self, token: str, kind: Kind) -> Claims:
        """The claims of a good token of this kind.

        Raises:
            Unauthenticated: It is not one; the message says why.
            IdentityUnavailable: Its key is not known and the issuer cannot be asked.
        """
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthenticated(f"The {kind.name} is larger than 16 KiB. Ask for one with fewer claims.")
        header = self._header(token, kind)
        key = await self._issuer.key(header.get("kid"))
        try:
            verified = jws.deserialize_compact(token, key, registry=self._registry)
            claims = strict_object(verified.payload or b"")
        except JoseError as error:
            # wrong, or the key is not of the kind that the header's `alg` needs
            raise Unauthenticated(f"The {kind.name}'s signature is wrong.", why="wrong_signature") from error
        except ValueError as error:
            raise Unauthenticated(f"The {kind.name} is malformed.", why="malformed") from error
        kind.check(claims)
        return claims

    def _claims(self, audiences: Collection[str], typ: str, **more: Any) -> jwt.JWTClaimsRegistry:
        return jwt.JWTClaimsRegistry(
            leeway=self._leeway_s,
            iss={"essential": True, "value": self._issuer.url},
            aud={"essential": True, "values": list(audiences)},
            exp={"essential": True},
            iat={"essential": True},
            typ={"value": typ},
            **more,
        )

    def _header(self, token: str, kind: Kind) -> Claims:
        malformed = f"The {kind.name} is malformed."
        try:
            first, _, _ = token.split(".")
            header = strict_object(decoded(first))
        except ValueError as error:
            raise Unauthenticated(malformed, why="malformed") from error
        if header.get("alg") not in self._algorithms:
            raise Unauthenticated(f"The {kind.name} is signed in a way that this server does not accept.")
        typ = header.get("typ")
        short = typ.lower().removeprefix("application/") if isinstance(typ, str) else typ
        if not isinstance(short, str | None) or short not in kind.types:
            raise Unauthenticated(kind.other)
        if "crit" in header or "b64" in header:
            raise Unauthenticated(f"The {kind.name} demands an extension that this server does not know.")
        if not isinstance(header.get("kid"), str | None):
            raise Unauthenticated(malformed, why="malformed")
        return header
