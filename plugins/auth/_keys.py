"""Keys as settings hold them: in clear from the environment, or as their hash."""

from __future__ import annotations

import hashlib
import re
from typing import Annotated

from pydantic import AfterValidator, SecretStr

MIN_LENGTH = 16
PREFIX = "sk-"
"""LiteLLM hashes a key in what it logs of a failed request only where it begins so."""
HASHED = re.compile(r"sha256:([0-9a-f]{64})")


def _strong(value: SecretStr) -> SecretStr:
    text = value.get_secret_value()
    if text.startswith("sha256:"):
        if not HASHED.fullmatch(text):
            raise ValueError("must have 64 lower-case hex digits after `sha256:`")
    elif len(text) < MIN_LENGTH or not text.startswith(PREFIX):
        raise ValueError(
            f"must begin with `{PREFIX}` and have at least {MIN_LENGTH} characters; "
            f"`echo {PREFIX}$(openssl rand -hex 32)` makes one"
        )
    return value


Key = Annotated[SecretStr, AfterValidator(_strong)]
"""A key that begins with `sk-`, or `sha256:` and the 64 hex digits of its hash."""


def digest(key: str) -> str:
    """The sha256 of a key that a request brought, as 64 hex digits."""
    return hashlib.sha256(key.encode()).hexdigest()


def known_digest(key: SecretStr) -> str:
    """The same of a key of the settings, where its hash may stand instead. Never for what a request brought:
    who has read the hash does not have the key."""
    text = key.get_secret_value()
    hashed = HASHED.fullmatch(text)
    return hashed[1] if hashed else digest(text)
