"""GitLab as a source of identity, over real HTTP on loopback: opaque tokens, and its two answers about them.

Their shapes are those of https://docs.gitlab.com/api/oauth2/#retrieve-the-token-information and
https://docs.gitlab.com/integration/openid_connect_provider/#shared-information.
"""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.loopback import Loopback, Request, Response, as_json

Object = dict[str, Any]

APPLICATION = "1cb242f495280beb4291e64bee2a17f330902e499882fe8e1e2aa875519cab33"
CLAIMS = "https://gitlab.org/claims/groups"
NUMBERS = {"alice": 42, "bob": 43, "carol": 44}
USERS: dict[str, Object] = {
    "alice": {
        "groups": ["finance", "finance/eu", "staff"],
        f"{CLAIMS}/owner": ["finance"],
        f"{CLAIMS}/maintainer": ["finance/eu"],
        f"{CLAIMS}/developer": ["staff"],
    },
    "bob": {"groups": ["staff"], f"{CLAIMS}/developer": ["staff"]},
    "carol": {"groups": []},
}


class Gitlab:
    def __init__(self) -> None:
        self.down = False
        """Answer 503 to everything."""
        self.open = threading.Event()
        """While it is not set, requests wait."""
        self.open.set()
        self.overrides: dict[str, tuple[int, bytes, dict[str, str]]] = {}
        """Status, body and headers to answer instead, by the path."""
        self.requests: list[str] = []
        """Paths with their queries."""
        self._tokens: dict[str, tuple[Object, Object]] = {}
        self._server = Loopback(self._respond)
        self.url = self._server.url

    @property
    def settings(self) -> Object:
        """What stands in YAML for it."""
        return {"url": self.url, "applications": [APPLICATION]}

    def close(self) -> None:
        self.open.set()
        self._server.close()

    def token(
        self,
        username: str = "alice",
        *,
        user: Object | None = None,
        expires_in: float | None = 7200,
        **info: Any,
    ) -> str:
        """An OAuth access token; ``user`` and ``info`` change what GitLab says of its user and of itself."""
        token = secrets.token_hex(32)
        number = NUMBERS[username]
        about = {
            "resource_owner_id": number,
            "scope": ["openid", "email"],
            "expires_in": expires_in,
            "application": {"uid": APPLICATION},
            "created_at": int(time.time()),
            **info,
        }
        person = {
            "sub": str(number),
            "name": username.title(),
            "nickname": username,
            "preferred_username": username,
            "email": f"{username}@example.test",
            "email_verified": True,
            "profile": f"{self.url}/{username}",
            **USERS[username],
            **(user or {}),
        }
        self._tokens[token] = (about, person)
        return token

    def change(self, token: str, **user: Any) -> None:
        """What GitLab says of the token's user from now on."""
        self._tokens[token][1].update(user)

    def revoke(self, token: str) -> None:
        del self._tokens[token]

    def _respond(self, request: Request) -> Response:
        self.requests.append(request.path)
        self.open.wait(30)
        return self._answer(request.path, request.bearer)

    def _answer(self, path: str, bearer: str) -> Response:
        if path in self.overrides:
            return Response(*self.overrides[path])
        if self.down:
            return Response(503, b"<html>GitLab is not responding</html>")
        found = self._tokens.get(bearer)
        match path:
            case "/oauth/token/info":
                return as_json(200, found[0]) if found else as_json(400, {"error": "invalid_request"})
            case "/oauth/userinfo" if found and "openid" not in found[0]["scope"]:
                return as_json(403, {"error": "insufficient_scope"})
            case "/oauth/userinfo":
                return as_json(200, found[1]) if found else as_json(401, {"error": "invalid_token"})
            case "/.well-known/openid-configuration":
                return as_json(200, {"issuer": self.url})
        return as_json(404, {"error": "not found"})


@contextmanager
def gitlab() -> Iterator[Gitlab]:
    running = Gitlab()
    try:
        yield running
    finally:
        running.close()
