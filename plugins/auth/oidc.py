"""Access tokens (JWT) of Keycloak and of any other OpenID Connect issuer."""

from __future__ import annotations

import base64
import binascii
import json
import logging
import re
from collections.abc import Mapping
from typing import Any, Literal
from urllib.parse import urlsplit

from joserfc import jws, jwt
from joserfc.errors import (
    ClaimError,
    ExpiredTokenError,
    JoseError,
    MissingClaimError,
)
from pydantic import Field, FilePath, SecretStr, field_validator, model_validator

from crawler.settings import Settings
from plugins.auth._issuer import Issuer
from plugins.auth._keycloak import Keycloak, is_keycloak
from plugins.core.errors import Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.ports import IdentitySource

log = logging.getLogger(__name__)

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"
]

MAX_TOKEN_BYTES = 16 * 1024
CONTROL = re.compile(r"[\x00-\x1f\x7f]")

MALFORMED = "The access token is malformed."
BAD_SIGNATURE = "The access token's signature is wrong."
EXPIRED = "The access token has expired. Sign in again."
NOT_ACCESS_TOKEN = "This is not an access token. Send the access token, not the ID or the refresh token."  # noqa: S105 - a sentence
REASONS = {
    "iss": "The access token was issued by another issuer.",
    "aud": "The access token is not for this service (its audience is another one).",
    "nbf": "The access token is not valid yet. Check the clocks of the issuer and of this server.",
    "iat": "The access token was issued in the future. Check the clocks of the issuer and of this server.",
    "typ": NOT_ACCESS_TOKEN,
}


class OidcSettings(Settings):
    issuer: str
    """Exactly as the tokens' ``iss``: `https://sign-in.example.com/realms/company`."""
    audience: str | list[str] = Field(min_length=1)
    """One of these must be in the tokens' ``aud``."""
    algorithms: list[Algorithm] = Field(default=["RS256", "PS256", "ES256"], min_length=1)
    """Signature algorithms that are accepted; symmetric ones are never."""
    token_types: list[str] = Field(default=["JWT", "at+jwt"], min_length=1)
    """What the header's ``typ`` may be. Only `at+jwt` is strictest, where the issuer sets it (RFC 9068)."""
    username_claim: str = "preferred_username"
    """The claim that subjects and logs carry as the name."""
    groups_claim: str = "groups"
    """A path through nested claims is written with dots."""
    roles_claims: list[str] = ["realm_access.roles"]
    """Paths of claims that hold roles, joined."""
    store_credential_claim: str | None = None
    """The claim that holds the person's Milvus credential, for collections of `rights: milvus`."""
    client_id: str | None = None
    """This proxy's own client at the issuer (Keycloak): for `/api/auth`, introspection and lists of users."""
    client_secret: SecretStr | None = None
    """With `client_id`."""
    leeway_s: int = Field(default=30, ge=0, le=300)
    """How far the issuer's clock may be off."""
    jwks_cache_s: float = Field(default=300.0, gt=0)
    """Keys older than this are renewed in the background."""
    jwks_refetch_s: float = Field(default=10.0, gt=0)
    """Unknown keys are looked for at most this often."""
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    """Of one request to the issuer, in seconds."""
    ca_file: FilePath | None = None
    """PEM file with the authorities to trust for the issuer's TLS certificate."""

    @model_validator(mode="after")
    def _is_a_client(self) -> OidcSettings:
        if (self.client_id is None) != (self.client_secret is None):
            raise ValueError("`client_id` and `client_secret` belong together")
        if self.client_id is not None and not is_keycloak(self.issuer):
            raise ValueError(
                "`client_id` needs an issuer that is a Keycloak realm (`https://<server>/realms/<realm>`)"
            )
        return self

    @field_validator("issuer")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("https", "http") or not url.hostname or url.query or url.fragment:
            raise ValueError("must be the issuer's URL, without query or fragment")
        return value


class Oidc(IdentitySource[OidcSettings]):
    """Verifies access tokens locally against the issuer's published keys.

    Checked: signature, ``alg``, header ``typ``, ``crit`` (refused), ``iss``, ``aud``, ``exp``, ``nbf``,
    ``iat``, and that Keycloak's claim ``typ`` is ``Bearer`` where there is one. Keys or addresses in
    the token (``jwk``, ``jku``, ``x5u``, ``x5c``) are ignored.

    Sources: RFC 7519, RFC 8725 (best practices), RFC 9068 (access tokens).
    """

    keycloak: Keycloak | None = None

    def __init__(self, settings: OidcSettings, name: str) -> None:
        super().__init__(settings, name)
        url = urlsplit(settings.issuer)
        if url.scheme == "http" and url.hostname not in ("127.0.0.1", "::1", "localhost"):
            log.warning("identity source %s: the issuer's keys are fetched in the clear; use https", name)
        self._issuer = Issuer(
            settings.issuer,
            cache_s=settings.jwks_cache_s,
            refetch_s=settings.jwks_refetch_s,
            timeout_s=settings.timeout_s,
            ca_file=settings.ca_file,
        )
        if settings.client_id is not None and settings.client_secret is not None:
            self.keycloak = self.sign_in = Keycloak(
                settings.issuer,
                client_id=settings.client_id,
                client_secret=settings.client_secret,
                timeout_s=settings.timeout_s,
                ca_file=settings.ca_file,
            )
        audience = [settings.audience] if isinstance(settings.audience, str) else settings.audience
        self._claims = jwt.JWTClaimsRegistry(
            leeway=settings.leeway_s,
            iss={"essential": True, "value": settings.issuer},
            aud={"essential": True, "values": audience},
            exp={"essential": True},
            iat={"essential": True},
            sub={"essential": True},
            typ={"value": "Bearer"},
        )
        self._types = {kind.lower() for kind in settings.token_types}
        self._registry = jws.JWSRegistry(algorithms=list(settings.algorithms), strict_check_header=False)
        self._registry.max_header_length = MAX_TOKEN_BYTES

    def accepts(self, credential: Credential) -> bool:
        """Whether it is a JWT that says it is of this issuer; nothing of it is verified here."""
        if credential.bearer is None:
            return False
        claims = unverified_claims(credential.bearer.get_secret_value())
        return claims is not None and claims.get("iss") == self.settings.issuer

    async def authenticate(self, credential: Credential) -> Principal:
        if credential.bearer is None:
            raise Unauthenticated
        token = credential.bearer.get_secret_value()
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthenticated("The access token is larger than 16 KiB. Ask for one with fewer claims.")
        header = self._header(token)
        key = await self._issuer.key(header.get("kid"))
        try:
            verified = jws.deserialize_compact(token, key, registry=self._registry)
            claims = strict_object(verified.payload or b"")
        except JoseError as error:
            # wrong, or the key is not of the kind that the header's `alg` needs
            raise Unauthenticated(BAD_SIGNATURE) from error
        except ValueError as error:
            raise Unauthenticated(MALFORMED) from error
        self._check(claims)
        return self._principal(claims, credential.bearer)

    async def ping(self) -> None:
        await self._issuer.ping()

    async def close(self) -> None:
        await self._issuer.close()
        if self.keycloak is not None:
            await self.keycloak.close()

    def _header(self, token: str) -> dict[str, Any]:
        try:
            first, _, _ = token.split(".")
            header = strict_object(decoded(first))
        except ValueError as error:
            raise Unauthenticated(MALFORMED) from error
        if header.get("alg") not in self.settings.algorithms:
            raise Unauthenticated("The access token is signed in a way that this server does not accept.")
        kind = header.get("typ")
        if not isinstance(kind, str) or kind.lower().removeprefix("application/") not in self._types:
            raise Unauthenticated(NOT_ACCESS_TOKEN)
        if "crit" in header or "b64" in header:
            raise Unauthenticated("The access token demands an extension that this server does not know.")
        if not isinstance(header.get("kid"), str | None):
            raise Unauthenticated(MALFORMED)
        return header

    def _check(self, claims: dict[str, Any]) -> None:
        try:
            self._claims.validate(claims)
        except ExpiredTokenError as error:
            raise Unauthenticated(EXPIRED) from error
        except MissingClaimError as error:
            raise Unauthenticated(f"The access token lacks the claim `{error.claim}`.") from error
        except ClaimError as error:
            wrong = f"The access token's claim `{error.claim}` is not valid."
            raise Unauthenticated(REASONS.get(error.claim, wrong)) from error
        if "at_hash" in claims:
            # only an ID token has the hash of an access token (OpenID Connect Core, 3.1.3.6)
            raise Unauthenticated(NOT_ACCESS_TOKEN)

    def _principal(self, claims: dict[str, Any], token: SecretStr) -> Principal:
        settings = self.settings
        username = claim(claims, settings.username_claim)
        if not isinstance(username, str) or not 0 < len(username) <= 255 or CONTROL.search(username):
            raise Unauthenticated(
                f"The access token does not name its user (claim `{settings.username_claim}`)."
            )
        path = settings.store_credential_claim
        credential = text_or_none(claim(claims, path)) if path else None
        email = claims.get("email") if claims.get("email_verified") is not False else None
        return Principal(
            source=self.name,
            subject=claims["sub"],
            issuer=settings.issuer,
            username=username,
            session=text_or_none(claims.get("sid")),
            issued_at=float(claims["iat"]),
            store_credential=SecretStr(credential) if credential else None,
            email=email if isinstance(email, str) else None,
            groups=frozenset(path.removeprefix("/") for path in names(claim(claims, settings.groups_claim))),
            roles=frozenset(role for path in settings.roles_claims for role in names(claim(claims, path))),
            token=token,
        )


def text_or_none(value: Any) -> str | None:
    """A claim that is a plain text of at most 1000 characters; None for anything else."""
    plain = isinstance(value, str) and 0 < len(value) <= 1000 and not CONTROL.search(value)
    return value if plain else None


def decoded(segment: str) -> bytes:
    """Base64url without padding (RFC 7515, section 2).

    Raises:
        ValueError: It is not.
    """
    try:
        return base64.b64decode(segment + "=" * (-len(segment) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("not base64url") from error


def strict_object(content: bytes) -> dict[str, Any]:
    """A JSON object in which no name occurs twice (RFC 8725, section 3: readers must not disagree).

    Raises:
        ValueError: It is not.
    """

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            raise ValueError("a name occurs twice")
        return found

    try:
        value = json.loads(content, object_pairs_hook=unique)
    except RecursionError as error:
        raise ValueError("nested too deeply") from error
    if not isinstance(value, dict):
        raise ValueError("not a JSON object")
    return value


def unverified_claims(token: str) -> dict[str, Any] | None:
    """What a JWT says of itself; None where the text is no signed JWT. For choosing a source only."""
    segments = token.split(".")
    if len(segments) != 3:
        return None
    try:
        value = json.loads(decoded(segments[1]))
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def claim(claims: Any, path: str) -> Any:
    """The claim at a dotted path; a name that itself has dots is found as well. None where there is none."""
    if not isinstance(claims, Mapping):
        return None
    if path in claims:
        return claims[path]
    for index, character in enumerate(path):
        if character == "." and path[:index] in claims:
            found = claim(claims[path[:index]], path[index + 1 :])
            if found is not None:
                return found
    return None


def names(value: Any) -> list[str]:
    """The non-empty strings of a claim that is a string or a list; anything else grants nothing."""
    items = value if isinstance(value, list) else [value]
    return [item for item in items if isinstance(item, str) and item.strip("/ ") and not CONTROL.search(item)]
