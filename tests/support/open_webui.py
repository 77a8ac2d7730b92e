"""What Open WebUI 0.12 sends of the person who asks: a signed user token, or plain headers."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from typing import Any

from tests.support.issuer import b64

KEY = "sk-of-open-webui-0123456789abcdef"
SECRET = "secret-of-open-webui-and-this-proxy-0123456789"
HEADER = "X-OpenWebUI-User-Jwt"


def user_token(
    username: str = "alice",
    *,
    secret: str = SECRET,
    header: dict[str, Any] | None = None,
    payload: bytes | None = None,
    **changed: Any,
) -> str:
    """The signed user token as Open WebUI makes it; a claim of None is left out."""
    now = int(time.time())
    claims = {
        "sub": f"id-of-{username}",
        "email": f"{username}@example.test",
        "name": username.title(),
        "role": "user",
        "iss": "open-webui",
        "iat": now,
        "exp": now + 300,
        **changed,
    }
    present = {name: value for name, value in claims.items() if value is not None}
    head = b64(json.dumps({"alg": "HS256", "typ": "JWT", **(header or {})}).encode())
    signed = f"{head}.{b64(json.dumps(present).encode() if payload is None else payload)}"
    return f"{signed}.{b64(hmac.new(secret.encode(), signed.encode(), hashlib.sha256).digest())}"


def plain_headers(username: str = "alice", **changed: str) -> dict[str, str]:
    """The unsigned headers that it sends without a secret."""
    said = {"Name": username.title(), "Id": f"id-of-{username}", "Email": f"{username}@example.test"}
    return {f"X-OpenWebUI-User-{name}": value for name, value in {**said, "Role": "user", **changed}.items()}
