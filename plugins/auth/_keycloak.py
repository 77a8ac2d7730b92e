"""What Keycloak does for a client of its own, through python-keycloak: grants, introspection, logout, admin.

Tokens are not verified here: the library's ``decode_token`` looks at neither ``iss``, ``aud`` nor ``typ``
and fetches the keys each time. `plugins.auth.oidc` verifies.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import ssl
import time
from collections.abc import Awaitable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

import httpx
from keycloak import KeycloakAdmin, KeycloakOpenID, KeycloakOpenIDConnection
from keycloak.exceptions import KeycloakError
from pydantic import SecretStr, ValidationError

from plugins.core.errors import IdentityUnavailable, Unauthenticated
from plugins.core.ports import Tokens

log = logging.getLogger(__name__)

T = TypeVar("T")

WRONG_PASSWORD = "The user name or the password is wrong."  # noqa: S105 - a sentence
SIGN_IN_AGAIN = "The sign-in has ended. Sign in again."
UNFINISHED = "The account is not fully set up. Sign in with a browser once and finish it."
SCOPE = "openid"
DISCOVERY_S = 300.0


def is_keycloak(issuer: str) -> bool:
    """Whether the issuer's address is that of a Keycloak realm: ``<server>/realms/<realm>``."""
    server, found, realm = issuer.rstrip("/").rpartition("/realms/")
    return bool(server and found and realm) and "/" not in realm


class Keycloak:
    """One realm, as one of its clients. Bound to the event loop of its first use.

    Every method raises IdentityUnavailable where Keycloak does not answer, or not as it should.

    Sources: RFC 6749 (grants), RFC 7636 (PKCE), RFC 7662 (introspection), and Keycloak's admin API.
    """

    def __init__(
        self, issuer: str, *, client_id: str, client_secret: SecretStr, timeout_s: float, ca_file: Path | None
    ) -> None:
        server, _, realm = issuer.rstrip("/").rpartition("/realms/")
        self._server, self._realm = f"{server}/", realm
        self._client_id = client_id
        self._client_secret = client_secret
        self._timeout_s = timeout_s
        self._ca_file = ca_file
        self._client: httpx.AsyncClient | None = None
        self._openid: KeycloakOpenID | None = None
        self._admin: KeycloakAdmin | None = None
        self._endpoint = ""
        self._discovered_until = -float("inf")

    @property
    def openid(self) -> KeycloakOpenID:
        if self._openid is None:
            self._openid = KeycloakOpenID(
                server_url=self._server,
                realm_name=self._realm,
                client_id=self._client_id,
                client_secret_key=self._client_secret.get_secret_value(),
                timeout=self._whole_timeout_s,
            )
            self._openid.connection.async_s = self._http
        return self._openid

    @property
    def admin(self) -> KeycloakAdmin:
        """The admin API as the client's service account."""
        if self._admin is None:
            connection = KeycloakOpenIDConnection(
                server_url=self._server,
                realm_name=self._realm,
                client_id=self._client_id,
                client_secret_key=self._client_secret.get_secret_value(),
                timeout=self._whole_timeout_s,
            )
            connection.async_s = connection.keycloak_openid.connection.async_s = self._http
            self._admin = KeycloakAdmin(connection=connection)
        return self._admin

    @property
    def _http(self) -> httpx.AsyncClient:
        """One client for all that takes no proxy from the environment; the library's own do."""
        if self._client is None:
            verify = ssl.create_default_context(cafile=str(self._ca_file) if self._ca_file else None)
            self._client = httpx.AsyncClient(verify=verify, trust_env=False)
        return self._client

    @property
    def _whole_timeout_s(self) -> int:
        return math.ceil(self._timeout_s)

    async def password(self, username: str, password: SecretStr) -> Tokens:
        """The password grant.

        Raises:
            Unauthenticated: Keycloak refuses them.
        """
        given = self.openid.a_token(username, password.get_secret_value(), scope=SCOPE)
        return _tokens(await self._asked(given, WRONG_PASSWORD))

    async def code(self, code: str, *, redirect_uri: str, code_verifier: str) -> Tokens:
        """The tokens of an authorization code.

        Raises:
            Unauthenticated: The code is not (or no longer) good.
        """
        given = self.openid.a_token(
            grant_type="authorization_code",
            code=code,
            redirect_uri=redirect_uri,
            code_verifier=code_verifier,
            scope=SCOPE,
        )
        return _tokens(await self._asked(given, SIGN_IN_AGAIN))

    async def refresh(self, refresh_token: SecretStr) -> Tokens:
        """New tokens for a refresh token.

        Raises:
            Unauthenticated: It is not (or no longer) good.
        """
        given = self.openid.a_refresh_token(refresh_token.get_secret_value())
        return _tokens(await self._asked(given, SIGN_IN_AGAIN))

    async def revoke(self, refresh_token: SecretStr) -> None:
        """End the session of a refresh token.

        Raises:
            Unauthenticated: It is not (or no longer) good.
        """
        await self._asked(self.openid.a_logout(refresh_token.get_secret_value()), SIGN_IN_AGAIN)

    async def introspect(self, token: SecretStr) -> dict[str, Any]:
        """What Keycloak says of an access token now; ``active`` is False for any other token."""
        answer = await self._asked(self.openid.a_introspect(token.get_secret_value()), SIGN_IN_AGAIN)
        found = dict(answer) if isinstance(answer, dict) else {}
        # an ID token is said to be active, too
        return found if found.get("active") is True and found.get("typ") == "Bearer" else {"active": False}

    async def authorization_url(
        self, *, redirect_uri: str, state: str, nonce: str, code_challenge: str
    ) -> str:
        """Where a browser signs in (PKCE with S256)."""
        asked = {
            "client_id": self._client_id,
            "response_type": "code",
            "redirect_uri": redirect_uri,
            "scope": SCOPE,
            "state": state,
            "nonce": nonce,
            "code_challenge": code_challenge,
            "code_challenge_method": "S256",
        }
        return f"{await self._authorization_endpoint()}?{urlencode(asked)}"

    async def _authorization_endpoint(self) -> str:
        """Looked up at most every `DISCOVERY_S`: whoever opens the sign-in page costs Keycloak nothing."""
        if time.monotonic() >= self._discovered_until:
            document = await self._asked(self.openid.a_well_known(), SIGN_IN_AGAIN)
            endpoint = document.get("authorization_endpoint")
            if not isinstance(endpoint, str):
                raise IdentityUnavailable
            self._endpoint, self._discovered_until = endpoint, time.monotonic() + DISCOVERY_S
        return self._endpoint

    async def close(self) -> None:
        if self._client is not None:
            await self._client.aclose()

    async def _asked(self, answer: Awaitable[T], refused: str) -> T:
        try:
            async with asyncio.timeout(self._timeout_s):
                return await answer
        except KeycloakError as error:
            reason, description = _why(error)
            if reason == "invalid_grant" and "not fully set up" in description:
                raise Unauthenticated(UNFINISHED) from error
            if reason == "invalid_grant":
                raise Unauthenticated(refused) from error
            code = error.response_code
            said = f"answered {code} {reason} {description}".rstrip() if code else str(error)
            log.warning("Keycloak's realm %s, client %s: %s", self._realm, self._client_id, said)
            raise IdentityUnavailable from error
        except (httpx.HTTPError, TimeoutError, TypeError, KeyError) as error:
            log.warning("Keycloak's realm %s did not answer as it should: %r", self._realm, error)
            raise IdentityUnavailable from error


def _why(error: KeycloakError) -> tuple[str, str]:
    """The `error` and `error_description` of RFC 6749, section 5.2."""
    try:
        body = json.loads(error.response_body or b"")
    except ValueError:
        return "", ""
    if not isinstance(body, dict):
        return "", ""
    return str(body.get("error", "")), str(body.get("error_description", ""))


def _tokens(answer: Any) -> Tokens:
    try:
        known = {key: value for key, value in dict(answer).items() if key in Tokens.model_fields}
        return Tokens.model_validate(known)
    except (ValidationError, TypeError, ValueError) as error:
        raise IdentityUnavailable from error
