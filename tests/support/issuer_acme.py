"""A second OpenID Connect issuer that shares nothing with `tests.support.issuer`.

Another server (ASGI), ES256 signed with `cryptography` alone, other paths, other names of claims, `at+jwt`
(RFC 9068).
"""

from __future__ import annotations

import base64
import json
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import Any

import uvicorn
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

Claims = dict[str, Any]
Send = Callable[[Claims], Awaitable[None]]

START_S = 20.0
NAMESPACE = "https://acme.example/claims"
PATH = "/acme/v2.0"
KEYS_PATH = "/acme/discovery/v2.0/keys"
COORDINATE_BYTES = 32


class AcmeIssuer:
    """One tenant of it; `https://acme.example/claims` and `resource_access.litellm.roles` hold who it is."""

    def __init__(self) -> None:
        self.down = False
        """Answer 503 to everything."""
        self.requests: list[str] = []
        self._keys: dict[str, ec.EllipticCurvePrivateKey] = {}
        self.kid = ""
        self.rotate()
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._socket.getsockname()[1]}{PATH}"
        config = uvicorn.Config(
            self._app, interface="asgi3", log_config=None, lifespan="off", access_log=False
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._server.run, args=([self._socket],), daemon=True)
        self._thread.start()
        deadline = time.monotonic() + START_S
        while not self._server.started:
            assert self._thread.is_alive(), "the issuer ended"
            assert time.monotonic() < deadline, "the issuer did not start"
            time.sleep(0.01)

    @property
    def settings(self) -> Claims:
        """What stands in YAML for it."""
        return {
            "issuer": self.url,
            "audience": "api://litellm",
            "algorithms": ["ES256"],
            "token_types": ["at+jwt"],
            "username_claim": f"{NAMESPACE}.login",
            "groups_claim": f"{NAMESPACE}.teams",
            "roles_claims": ["resource_access.litellm.roles"],
        }

    def close(self) -> None:
        self._server.should_exit = True
        self._thread.join(START_S)
        self._socket.close()

    def rotate(self) -> None:
        """A new key that signs from now on; the old ones stay published."""
        self.kid = f"acme-{len(self._keys) + 1}"
        self._keys[self.kid] = ec.generate_private_key(ec.SECP256R1())

    def retire(self) -> None:
        """Publish only the key that signs now."""
        self._keys = {self.kid: self._keys[self.kid]}

    @property
    def public_pem(self) -> bytes:
        public = self._keys[self.kid].public_key()
        return public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def claims(self, username: str = "alice", **changed: Any) -> Claims:
        """An access token's claims; a value of None leaves the claim out."""
        now = int(time.time())
        own = {
            "iss": self.url,
            "aud": "api://litellm",
            "sub": f"acme|{username}",
            "client_id": "open-webui",
            "iat": now,
            "exp": now + 60,
            "jti": f"jti-{time.monotonic_ns()}",
            NAMESPACE: {"login": username, "teams": ["/finance"]},
            "resource_access": {"litellm": {"roles": ["reader"]}, "account": {"roles": ["manage-account"]}},
            **changed,
        }
        return {name: value for name, value in own.items() if value is not None}

    def token(self, username: str = "alice", **changed: Any) -> str:
        return self.sign(self.claims(username, **changed))

    def sign(self, claims: Claims | bytes, header: Claims | None = None, *, stranger: bool = False) -> str:
        """Any token at all; ``stranger``: signed with a key that is not published."""
        fields = {"alg": "ES256", "typ": "at+jwt", "kid": self.kid, **(header or {})}
        payload = claims if isinstance(claims, bytes) else json.dumps(claims).encode()
        signed = f"{_b64(json.dumps(fields).encode())}.{_b64(payload)}"
        key = ec.generate_private_key(ec.SECP256R1()) if stranger else self._keys[self.kid]
        r, s = decode_dss_signature(key.sign(signed.encode(), ec.ECDSA(hashes.SHA256())))
        return f"{signed}.{_b64(_bytes(r) + _bytes(s))}"

    async def _app(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        query = scope["query_string"].decode()
        self.requests.append(scope["path"])
        status, body = 503 if self.down else 200, self._answer(scope["path"], query)
        if body is None:
            status, body = 404, {"error": "not found"}
        content = json.dumps(body).encode()
        headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    def _answer(self, path: str, query: str) -> Claims | None:
        if path == f"{PATH}/.well-known/openid-configuration":
            origin = self.url.removesuffix(PATH)
            return {"issuer": self.url, "jwks_uri": f"{origin}{KEYS_PATH}?appid=litellm"}
        if path == KEYS_PATH and query == "appid=litellm":
            return {"keys": [_public(kid, key) for kid, key in self._keys.items()]}
        return None


def _public(kid: str, key: ec.EllipticCurvePrivateKey) -> Claims:
    """As an entry of a key set, without `use` and `alg`, which are optional (RFC 7517, section 4)."""
    numbers = key.public_key().public_numbers()
    return {
        "kty": "EC",
        "crv": "P-256",
        "kid": kid,
        "x": _b64(_bytes(numbers.x)),
        "y": _b64(_bytes(numbers.y)),
    }


def _bytes(number: int) -> bytes:
    return number.to_bytes(COORDINATE_BYTES, "big")


def _b64(content: bytes) -> str:
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


@contextmanager
def acme_issuer() -> Iterator[AcmeIssuer]:
    running = AcmeIssuer()
    try:
        yield running
    finally:
        running.close()
