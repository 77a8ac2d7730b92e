"""Reading JSON Web Tokens and the claims in them; nothing is verified here."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Mapping
from typing import Any

MAX_TOKEN_BYTES = 16 * 1024
CONTROL = re.compile(r"[\x00-\x1f\x7f]")


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


def encoded(content: bytes) -> str:
    """Base64url without padding (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(content).rstrip(b"=").decode()


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
