"""Access tokens (JWT) of Keycloak and of any other OpenID Connect issuer."""

from __future__ import annotations

import hmac
import logging
from typing import Any, Literal
from urllib.parse import urlsplit

from pydantic import Field, FilePath, SecretStr, field_validator, model_validator

from crawler.settings import Settings
from plugins.auth._claims import CONTROL, claim, names, text_or_none, unverified_claims
from plugins.auth._directory import KeycloakDirectory
from plugins.auth._introspection import Introspection
from plugins.auth._issuer import Issuer
from plugins.auth._keycloak import Keycloak, is_keycloak
from plugins.auth._verifier import NOT_ID_TOKEN, NOT_LOGOUT_TOKEN, Kind, Verifier
from plugins.core.errors import Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.ports import Ended, IdentitySource

log = logging.getLogger(__name__)

Algorithm = Literal[
    "RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "Ed25519"
]


class Introspect(Settings):
    every_s: float = Field(gt=0, le=3600)
    """A logout or a disabled account takes effect within so many seconds."""


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
    directory: bool = False
    """Whether `/v1/users` and `/v1/roles` list those of Keycloak. Needs `client_id` with a service account
    that has the roles `view-users` and `view-realm` of `realm-management`."""
    introspect: Literal["never"] | Introspect = "never"
    """Whether Keycloak is asked if a token was revoked: `never` (it counts until it expires) or
    `{every_s: 30}`: each token at most so often. Needs `client_id`, which must be in the tokens' ``aud``."""
    leeway_s: int = Field(default=30, ge=0, le=300)
    """How far the issuer's clock may be off."""
    jwks_cache_s: float = Field(default=300.0, gt=0)
    """So late a withdrawn key is refused, at most: keys older than this are renewed before they are used."""
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
        if self.client_id is None and self.introspect != "never":
            raise ValueError("`introspect` needs `client_id` and `client_secret`")
        if self.client_id is None and self.directory:
            raise ValueError("`directory` needs `client_id` and `client_secret`")
        if self.directory and self.username_claim != "preferred_username":
            raise ValueError("`directory` knows people by `preferred_username`, as `username_claim` must")
        return self

    @field_validator("issuer")
    @classmethod
    def _is_a_url(cls, value: str) -> str:
        url = urlsplit(value)
        if url.scheme not in ("https", "http") or not url.hostname or url.query or url.fragment:
            raise ValueError("must be the issuer's URL, without query or fragment")
        return value


class Oidc(IdentitySource[OidcSettings]):
    """Verifies access tokens locally against the issuer's published keys, and asks the issuer whether they
    were revoked where it is told to.

    Sources: RFC 7519, RFC 8725 (best practices), RFC 9068 (access tokens).
    """

    keycloak: Keycloak | None = None

    def __init__(self, settings: OidcSettings, name: str) -> None:
        super().__init__(settings, name)
        self.authorization_server = settings.issuer
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
        self._verifier = Verifier(self._issuer, settings.algorithms, settings.leeway_s)
        audience = [settings.audience] if isinstance(settings.audience, str) else settings.audience
        self._access_token = self._verifier.access_token(audience, settings.token_types)
        self._id_token: Kind | None = None
        self._logout_token: Kind | None = None
        self._introspection: Introspection | None = None
        if settings.client_id is not None and settings.client_secret is not None:
            self._be_client(settings.client_id, settings.client_secret)

    def _be_client(self, client_id: str, client_secret: SecretStr) -> None:
        settings = self.settings
        self.keycloak = self.sign_in = Keycloak(
            settings.issuer,
            client_id=client_id,
            client_secret=client_secret,
            timeout_s=settings.timeout_s,
            ca_file=settings.ca_file,
        )
        self._id_token = self._verifier.id_token(client_id)
        self._logout_token = self._verifier.logout_token(client_id)
        if settings.directory:
            self.directory = KeycloakDirectory(self.keycloak, settings.timeout_s)
        if settings.introspect != "never":
            self._introspection = Introspection(self.keycloak, settings.introspect.every_s)

    def accepts(self, credential: Credential) -> bool:
        """Whether it is a JWT that says it is of this issuer; nothing of it is verified here."""
        if credential.bearer is None:
            return False
        claims = unverified_claims(credential.bearer.get_secret_value())
        return claims is not None and claims.get("iss") == self.settings.issuer

    async def authenticate(self, credential: Credential) -> Principal:
        if credential.bearer is None:
            raise Unauthenticated
        claims = await self._verifier.verified(credential.bearer.get_secret_value(), self._access_token)
        principal = self._principal(claims, credential.bearer)
        if self._introspection is not None:
            await self._introspection.check(credential.bearer)
        return principal

    async def ended(self, logout_token: str) -> Ended:
        if self._logout_token is None:
            raise Unauthenticated(NOT_LOGOUT_TOKEN)
        claims = await self._verifier.verified(logout_token, self._logout_token)
        subject, session = text_or_none(claims.get("sub")), text_or_none(claims.get("sid"))
        if subject is None and session is None:
            raise Unauthenticated(NOT_LOGOUT_TOKEN)
        return Ended(self.name, subject, session, float(claims["iat"]))

    async def verified_id_token(self, id_token: str, *, nonce: str) -> str:
        if self._id_token is None:
            raise Unauthenticated(NOT_ID_TOKEN)
        claims = await self._verifier.verified(id_token, self._id_token)
        given = claims.get("nonce")
        if not isinstance(given, str) or not hmac.compare_digest(given.encode(), nonce.encode()):
            raise Unauthenticated("The sign-in was not begun in this browser. Sign in again.")
        return str(claims["sub"])

    async def ping(self) -> None:
        await self._issuer.ping()

    async def close(self) -> None:
        if self._introspection is not None:
            await self._introspection.close()
        await self._issuer.close()
        if self.keycloak is not None:
            await self.keycloak.close()

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
