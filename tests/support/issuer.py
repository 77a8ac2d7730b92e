"""A small OpenID Connect issuer with real keys and real HTTP on loopback, its paths in Keycloak's shape.

Discovery, certs, password grant, userinfo, introspection and key rotation.
"""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from joserfc import jwk, jws, jwt

from tests.support.loopback import Loopback, Request, Response, as_json

Claims = dict[str, Any]
Key = jwk.RSAKey | jwk.ECKey

USERS: dict[str, Claims] = {
    "alice": {"groups": ["/finance"], "realm_access": {"roles": ["reader", "writer"]}},
    "bob": {"groups": ["/hr"], "realm_access": {"roles": ["reader"]}},
    "carol": {},
}
"""The password of each is the name and `-pw`."""


class Issuer:
    """A realm; with a PEM file of a certificate and its key it speaks TLS."""

    def __init__(self, realm: str = "rag", certificate: Path | None = None) -> None:
        self.down = False
        """Answer 503 to everything."""
        self.open = threading.Event()
        """While it is not set, requests wait."""
        self.open.set()
        self.overrides: dict[str, tuple[int, Claims]] = {}
        """What to answer instead, by the last part of the path."""
        self.requests: list[str] = []
        self.keys: list[Key] = []
        self.extra_certs: list[Claims] = []
        self.rotate()
        self._server = Loopback(self._respond, certificate)
        self.path = f"/realms/{realm}"
        self.url = f"{self._server.url}{self.path}"

    def close(self) -> None:
        self.open.set()
        self._server.close()

    def rotate(self, kind: str = "RS256") -> None:
        """A new key that signs from now on; the old ones stay published."""
        parameters: jwk.KeyParameters = {"use": "sig", "alg": kind}
        if kind.startswith("ES"):
            self.keys.insert(0, jwk.ECKey.generate_key("P-256", parameters, auto_kid=True))
        else:
            self.keys.insert(0, jwk.RSAKey.generate_key(2048, parameters, auto_kid=True))

    def claims(self, username: str = "alice", **changed: Any) -> Claims:
        """An access token's claims as Keycloak writes them; a value of None leaves the claim out."""
        now = int(time.time())
        own = {
            "exp": now + 60,
            "iat": now,
            "iss": self.url,
            "aud": ["litellm", "account"],
            "sub": f"id-of-{username}",
            "typ": "Bearer",
            "azp": "litellm",
            "scope": "openid profile email",
            "email": f"{username}@example.test",
            "email_verified": True,
            "preferred_username": username,
            **USERS.get(username, {}),
            **changed,
        }
        return {name: value for name, value in own.items() if value is not None}

    def sign(
        self, claims: Claims | bytes, header: Claims | None = None, key: Key | jwk.OctKey | None = None
    ) -> str:
        """Any token at all, by default signed with the newest key."""
        used = key or self.keys[0]
        fields = {"alg": used.get("alg") or "RS256", "typ": "JWT", "kid": self.keys[0].kid, **(header or {})}
        fields = {name: value for name, value in fields.items() if value is not None}
        payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        signed = f"{b64(json.dumps(fields).encode())}.{b64(payload)}"
        if fields["alg"] == "none":
            return f"{signed}."
        algorithm = jws.JWSRegistry.algorithms[fields["alg"]]
        return f"{signed}.{b64(algorithm.sign(signed.encode(), used))}"

    def token(self, username: str = "alice", **changed: Any) -> str:
        return self.sign(self.claims(username, **changed))

    def introspect(self, token: str) -> Claims:
        try:
            claims = jwt.decode(token, jwk.KeySet(list(self.keys)), algorithms=["RS256", "ES256"]).claims
        except ValueError:
            return {"active": False}
        return {**claims, "active": claims["exp"] > time.time()}

    def _respond(self, request: Request) -> Response:
        self.requests.append(request.path)
        self.open.wait(30)
        form = {name: values[0] for name, values in parse_qs(request.content.decode()).items()}
        status, body = self.answer(request.path, form, request.bearer)
        return Response(status) if status == 204 else as_json(status, body)

    def answer(self, path: str, form: dict[str, str], bearer: str) -> tuple[int, Claims]:
        if self.down:
            return 503, {"error": "unavailable"}
        if path.rpartition("/")[2] in self.overrides:
            return self.overrides[path.rpartition("/")[2]]
        oidc = f"{self.url}/protocol/openid-connect"
        match path.removeprefix(self.path):
            case "/.well-known/openid-configuration":
                names = {"token": "token", "userinfo": "userinfo", "introspection": "token/introspect"}
                ends = {f"{name}_endpoint": f"{oidc}/{end}" for name, end in names.items()}
                return 200, {"issuer": self.url, "jwks_uri": f"{oidc}/certs", **ends}
            case "/protocol/openid-connect/certs":
                return 200, {"keys": [*(key.as_dict(private=False) for key in self.keys), *self.extra_certs]}
            case "/protocol/openid-connect/token":
                name = form.get("username", "")
                if name not in USERS or form.get("password") != f"{name}-pw":
                    return 401, {"error": "invalid_grant", "error_description": "Invalid user credentials"}
                return 200, {"access_token": self.token(name), "token_type": "Bearer", "expires_in": 60}
            case "/protocol/openid-connect/userinfo":
                found = self.introspect(bearer)
                return (200, found) if found.pop("active") else (401, {"error": "invalid_token"})
            case "/protocol/openid-connect/token/introspect":
                return 200, self.introspect(form.get("token", ""))
        return 404, {"error": "not found"}


def b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@contextmanager
def issuer(realm: str = "rag", certificate: Path | None = None) -> Iterator[Issuer]:
    running = Issuer(realm, certificate)
    try:
        yield running
    finally:
        running.close()
