"""Open WebUI's users, behind the one key that Open WebUI has for this proxy."""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from joserfc import jwk, jws, jwt
from joserfc.errors import ClaimError, ExpiredTokenError, JoseError
from pydantic import Field, SecretStr, field_validator, model_validator

from crawler.settings import Settings
from plugins.auth._claims import MAX_TOKEN_BYTES, decoded, strict_object, text_or_none
from plugins.auth._keys import PREFIX, Key, digest, known_digest
from plugins.core.errors import Unauthenticated
from plugins.core.identity import Credential, Principal
from plugins.core.ports import IdentitySource

JWT_HEADER = "x-openwebui-user-jwt"
PLAIN_HEADERS = {
    "sub": "x-openwebui-user-id",
    "email": "x-openwebui-user-email",
    "role": "x-openwebui-user-role",
}
"""By the claim of the signed token that says the same."""
ALGORITHM = "HS256"
MIN_SECRET_BYTES = 32
MAX_LIFE_S = 300
ADDRESS = re.compile(r"[!-?A-~]+@[!-?A-~]+")
"""Printable ASCII: other letters could look, or be written in lower case, like another's address."""
PATTERN = re.compile(r"(\*|[!-)+-?A-~]+)@[!-)+-?A-~]+")

UNSIGNED = (
    "Open WebUI did not say who is asking. Its operator must set ENABLE_FORWARD_USER_INFO_HEADERS=true and "
    "FORWARD_USER_INFO_HEADER_JWT_SECRET to the secret that this server knows."
)
UNNAMED = (
    "Open WebUI did not say who is asking. Its operator must set ENABLE_FORWARD_USER_INFO_HEADERS=true, and "
    "every user needs an e-mail address."
)
TWICE = "Open WebUI's user header came twice. Only Open WebUI itself may set it."
MALFORMED = "Open WebUI's user token (X-OpenWebUI-User-Jwt) is malformed."
OTHER_SIGNATURE = (
    "Open WebUI's user token is signed with another secret than this server knows. Its operator must set "
    "FORWARD_USER_INFO_HEADER_JWT_SECRET to the same value as `jwt_secret`."
)
EXPIRED = (
    "Open WebUI's user token has expired. Send the message again; if it stays, the clocks of Open WebUI and "
    "of this server differ."
)
NOT_ITS_TOKEN = "This is not a user token of the Open WebUI that this server knows."  # noqa: S105 - a sentence
TOO_LONG = (
    f"Open WebUI's user token is valid for too long. Its operator must set "
    f"FORWARD_USER_INFO_HEADER_JWT_EXPIRES_SECONDS to at most {MAX_LIFE_S}."
)
NO_ADDRESS = "Open WebUI's user has no usable e-mail address. Ask its operator to set one."


class Person(Settings):
    email: str
    """`alice@example.com`, or `*@example.com` for everyone of that domain; in upper or lower case."""
    groups: list[str] = []
    """Paths: `finance/eu`."""
    roles: list[str] = []
    """Names of roles."""

    @field_validator("email")
    @classmethod
    def _is_an_address(cls, value: str) -> str:
        if not PATTERN.fullmatch(value):
            raise ValueError("must be an e-mail address, or `*@` and a domain")
        return value.lower()


class OpenWebuiSettings(Settings):
    key: Key
    """The key of Open WebUI's connection to this proxy (from the environment), or `sha256:` and the 64 hex
    digits of its hash. Nobody else may have it. `echo sk-$(openssl rand -hex 32)` makes one."""
    jwt_secret: SecretStr | None = None
    """The same as Open WebUI's `FORWARD_USER_INFO_HEADER_JWT_SECRET`, at least 32 bytes."""
    plain_headers: bool = False
    """Instead of `jwt_secret`: believe the unsigned headers `X-OpenWebUI-User-*` of whoever has the key."""
    issuer: str = "open-webui"
    """The token's ``iss``."""
    leeway_s: int = Field(default=30, ge=0, le=300)
    """How far Open WebUI's clock may be off."""
    username_claim: Literal["email", "sub"] = "email"
    """What subjects and logs carry as the name: the e-mail address, in lower case, which an administrator of
    Open WebUI can change and give to another person; or `sub`, Open WebUI's own id, which never changes."""
    people: list[Person] = []
    """Groups and roles by e-mail address; all entries that match count."""
    roles: dict[str, list[str]] = {}
    """Roles by Open WebUI's own role (`admin`, `user`); none by default."""

    @field_validator("jwt_secret")
    @classmethod
    def _is_strong(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and len(value.get_secret_value().encode()) < MIN_SECRET_BYTES:
            raise ValueError(
                f"must have at least {MIN_SECRET_BYTES} bytes (RFC 7518, section 3.2); "
                "`openssl rand -hex 32` makes one"
            )
        return value

    @model_validator(mode="after")
    def _says_how(self) -> OpenWebuiSettings:
        if (self.jwt_secret is None) != self.plain_headers:
            raise ValueError("needs either `jwt_secret` or `plain_headers: true`, and not both")
        return self


class User(NamedTuple):
    """What Open WebUI says of a user."""

    subject: str
    email: str | None
    role: str | None
    issued_at: float | None = None


class OpenWebui(IdentitySource[OpenWebuiSettings]):
    """Whoever has the service key acts as the person that the signed header `X-OpenWebUI-User-Jwt` names.
    Without the key the headers mean nothing: the bearer is judged by the other sources.

    The person is as sure as Open WebUI's accounts: it checks no e-mail address, so only its operator or an
    identity provider should make accounts there. Its requests for titles, tags and follow-up questions
    carry the same headers and count as the person's.

    Sources: Open WebUI's `utils/headers.py` (claims ``sub``, ``email``, ``name``, ``role``, ``iss``, ``iat``,
    ``exp``; HS256); RFC 7515, RFC 7519, RFC 8725 (best practices).
    """

    secret_headers = frozenset({JWT_HEADER})

    def __init__(self, settings: OpenWebuiSettings, name: str) -> None:
        super().__init__(settings, name)
        self._digest = known_digest(settings.key)
        secret = settings.jwt_secret
        self._secret = jwk.OctKey.import_key(secret.get_secret_value()) if secret else None
        self._jws = jws.JWSRegistry(algorithms=[ALGORITHM], strict_check_header=False)
        self._jws.max_header_length = MAX_TOKEN_BYTES
        self._registry = jwt.JWTClaimsRegistry(
            leeway=settings.leeway_s,
            iss={"essential": True, "value": settings.issuer},
            sub={"essential": True},
            iat={"essential": True},
            exp={"essential": True},
        )

    def accepts(self, credential: Credential) -> bool:
        if credential.bearer is None:
            return False
        return hmac.compare_digest(digest(credential.bearer.get_secret_value()), self._digest)

    async def authenticate(self, credential: Credential) -> Principal:
        if credential.bearer is None or not self.accepts(credential):
            raise Unauthenticated("This key is not known.", why="unknown_key")
        if not credential.bearer.get_secret_value().startswith(PREFIX):
            raise Unauthenticated(f"Keys must begin with `{PREFIX}`: ask for a new one.")
        user = self._signed(credential.headers, self._secret) if self._secret else _plain(credential.headers)
        return self._principal(user)

    def _principal(self, user: User) -> Principal:
        settings = self.settings
        username = user.email if settings.username_claim == "email" else user.subject
        if username is None:
            raise Unauthenticated(NO_ADDRESS)
        domain = f"*@{user.email.rpartition('@')[2]}" if user.email else None
        entries = [person for person in settings.people if person.email in (user.email, domain)]
        roles = {role for person in entries for role in person.roles}
        return Principal(
            source=self.name,
            subject=user.subject,
            issuer=settings.issuer,
            username=username,
            issued_at=user.issued_at,
            email=user.email,
            groups=frozenset(group.lstrip("/") for person in entries for group in person.groups),
            roles=frozenset(roles.union(settings.roles.get(user.role or "", []))),
        )

    def _signed(self, headers: Mapping[str, str], secret: jwk.OctKey) -> User:
        claims = self._claims(_once(headers, JWT_HEADER), secret)
        times = claims["iat"], claims["exp"]
        if not all(type(value) is int for value in times):
            raise Unauthenticated(MALFORMED, why="malformed")
        # a token for somebody else with the same secret, or one that outlives its use
        if "aud" in claims or times[1] <= times[0]:
            raise Unauthenticated(NOT_ITS_TOKEN, why="wrong_claims")
        if times[1] - times[0] > MAX_LIFE_S:
            raise Unauthenticated(TOO_LONG)
        return _user(claims, float(times[0]))

    def _claims(self, token: str | None, secret: jwk.OctKey) -> dict[str, Any]:
        if token is None:
            raise Unauthenticated(UNSIGNED)
        if len(token) > MAX_TOKEN_BYTES:
            raise Unauthenticated(MALFORMED, why="malformed")
        try:
            header = strict_object(decoded(token.split(".")[0]))
            if (
                header.get("alg") != ALGORITHM
                or header.get("typ") != "JWT"
                or {"crit", "b64"} & header.keys()
            ):
                raise Unauthenticated(NOT_ITS_TOKEN, why="wrong_claims")
            verified = jws.deserialize_compact(token, secret, registry=self._jws)
            claims = strict_object(verified.payload or b"")
            self._registry.validate(claims)
        except ExpiredTokenError as error:
            raise Unauthenticated(EXPIRED, why="expired") from error
        except ClaimError as error:
            raise Unauthenticated(NOT_ITS_TOKEN, why="wrong_claims") from error
        except JoseError as error:
            raise Unauthenticated(OTHER_SIGNATURE, why="wrong_signature") from error
        except ValueError as error:
            raise Unauthenticated(MALFORMED, why="malformed") from error
        return claims


def _plain(headers: Mapping[str, str]) -> User:
    return _user({name: _once(headers, header) for name, header in PLAIN_HEADERS.items()})


def _user(said: Mapping[str, Any], issued_at: float | None = None) -> User:
    subject, email, role = (text_or_none(said.get(name)) for name in ("sub", "email", "role"))
    if subject is None or len(subject) > 255:
        raise Unauthenticated(UNNAMED)
    usable = email is not None and len(email) <= 255 and ADDRESS.fullmatch(email)
    return User(subject, email.lower() if email is not None and usable else None, role, issued_at)


def _once(headers: Mapping[str, str], name: str) -> str | None:
    """The header's value; one that came several times is joined with commas (RFC 9110, section 5.3), which
    neither a token, an id, an address nor a role has."""
    value = headers.get(name) or None
    if value is not None and "," in value:
        raise Unauthenticated(TWICE)
    return value
