"""An issuer that a client can sign people in at, as Keycloak does it: passwords, codes with PKCE, refresh
tokens, sessions, back-channel logout. The page where a person types their password is `browser_signs_in`."""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

from tests.support.issuer import USERS, Claims, Issuer, b64

CLIENT = {"client_id": "litellm", "client_secret": "litellm-secret"}
LOGOUT: Claims = {"http://schemas.openid.net/event/backchannel-logout": {}}


@dataclass
class Code:
    username: str
    nonce: str
    challenge: str
    redirect_uri: str


@dataclass
class KeycloakIssuer(Issuer):
    """Beside the issuer's own: what it has given out, and how long that lives."""

    lifetime_s: int = 60
    """Of the next access tokens."""
    rotates: bool = False
    """Whether a refresh token is good once only, and ends its session when it comes again."""
    sessions: dict[str, str] = field(default_factory=dict)
    """The user names of those that are not over, by their `sid`."""
    refresh_tokens: dict[str, str] = field(default_factory=dict)
    """Their sessions."""
    codes: dict[str, Code] = field(default_factory=dict)
    id_claims: Claims = field(default_factory=dict)
    """What is wrong with the next ID tokens."""
    refreshed: int = 0

    def __post_init__(self) -> None:
        super().__init__()

    def forget(self) -> None:
        """As it was at first, for the next test; its keys stay."""
        self.down, self.lifetime_s, self.rotates, self.refreshed = False, 60, False, 0
        for found in (self.sessions, self.refresh_tokens, self.codes, self.overrides, self.requests):
            found.clear()
        self.id_claims = {}

    def browser_signs_in(self, address: str, username: str = "alice") -> str:
        """The address that the login page sends a browser to once ``username`` typed the password."""
        asked = {name: values[0] for name, values in parse_qs(urlsplit(address).query).items()}
        assert (asked["response_type"], asked["client_id"]) == ("code", CLIENT["client_id"])
        assert asked["code_challenge_method"] == "S256"
        assert "openid" in asked["scope"]
        code = secrets.token_urlsafe(16)
        self.codes[code] = Code(username, asked["nonce"], asked["code_challenge"], asked["redirect_uri"])
        answer = {"state": asked["state"], "session_state": "x", "iss": self.url, "code": code}
        return f"{asked['redirect_uri']}?{urlencode(answer)}"

    def logout_token(self, header: Claims | None = None, **changed: Any) -> str:
        now = int(time.time())
        own = {"iss": self.url, "aud": "litellm", "iat": now, "exp": now + 120, "jti": secrets.token_hex(8)}
        claims = {**own, "typ": "Logout", "events": LOGOUT, **changed}
        return self.sign(claims, {"typ": "logout+jwt", **(header or {})})

    def answer(self, path: str, form: dict[str, str], bearer: str) -> tuple[int, Claims]:
        status, body = super().answer(path, form, bearer)
        end = path.removeprefix(f"{self.path}/protocol/openid-connect/")
        if status == 503 or end in self.overrides:
            return status, body
        if path.endswith("openid-configuration"):
            return status, {
                **body,
                "authorization_endpoint": f"{self.url}/protocol/openid-connect/auth",
                "end_session_endpoint": f"{self.url}/protocol/openid-connect/logout",
            }
        if end in ("token", "logout") and not self._is_the_client(form):
            return 401, {"error": "unauthorized_client"}
        if end == "token":
            return self._token(form)
        if end == "logout":
            return self._logout(form)
        return status, body

    def _is_the_client(self, form: dict[str, str]) -> bool:
        return {name: form.get(name) for name in CLIENT} == CLIENT

    def _token(self, form: dict[str, str]) -> tuple[int, Claims]:
        match form["grant_type"]:
            case "password":
                name = form.get("username", "")
                if name in USERS and form.get("password") == f"{name}-pw":
                    return 200, self._given(name)
                return 401, {"error": "invalid_grant", "error_description": "Invalid user credentials"}
            case "authorization_code":
                code = self.codes.pop(form["code"], None)
                digest = hashlib.sha256(form.get("code_verifier", "").encode()).digest()
                proof = b64(digest)
                if code and (code.challenge, code.redirect_uri) == (proof, form["redirect_uri"]):
                    return 200, self._given(code.username, nonce=code.nonce)
            case "refresh_token":
                self.refreshed += 1
                token = form["refresh_token"]
                session = self.refresh_tokens.get(token)
                if session in self.sessions:
                    return 200, self._given(self.sessions[session], session)
        return 400, {"error": "invalid_grant", "error_description": "Not (or no longer) good"}

    def _given(self, username: str, session: str | None = None, nonce: str | None = None) -> Claims:
        session = session or secrets.token_hex(8)
        self.sessions[session] = username
        if self.rotates:
            self.refresh_tokens = {token: s for token, s in self.refresh_tokens.items() if s != session}
        refresh = secrets.token_urlsafe(24)
        self.refresh_tokens[refresh] = session
        now = int(time.time())
        own = {"typ": "ID", "aud": "litellm", "nonce": nonce, "at_hash": "x", "sid": session}
        return {
            "access_token": self.token(username, sid=session, exp=now + self.lifetime_s),
            "token_type": "Bearer",
            "expires_in": self.lifetime_s,
            "refresh_token": refresh,
            "refresh_expires_in": 1800,
            "id_token": self.sign(self.claims(username, **{**own, **self.id_claims})),
            "session_state": session,
            "scope": "openid profile email",
        }

    def _logout(self, form: dict[str, str]) -> tuple[int, Claims]:
        session = self.refresh_tokens.get(form.get("refresh_token", ""))
        if self.sessions.pop(session or "", None) is None:
            return 400, {"error": "invalid_grant", "error_description": "Invalid refresh token"}
        return 204, {}


@contextmanager
def keycloak_issuer() -> Iterator[KeycloakIssuer]:
    running = KeycloakIssuer()
    try:
        yield running
    finally:
        running.close()
