"""The proxy as its commands see it: one HTTP client, and every way it fails as a text."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import quote

import httpx

from crawler.errors import ConfigError

TIMEOUT = httpx.Timeout(30, read=120, write=300)
MAX_PAUSE_S = 60.0
"""A server that asks for a longer pause is not waited for."""
TRIES = 5
PAGE = 200


class Failed(Exception):
    """A request, an upload or a document's processing failed; the text says why."""


class Refused(Failed):
    """The server answered, and said no."""

    def __init__(self, message: str, status: int) -> None:
        super().__init__(f"{message} (status {status})")
        self.status = status


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of every command that talks to a proxy."""
    parser.add_argument("--collection", required=True, metavar="NAME", help="name or id of the collection")
    parser.add_argument("--url", default="http://127.0.0.1:4000", help="the proxy (default: %(default)s)")
    parser.add_argument(
        "--key-env",
        default="LITELLM_API_KEY",
        metavar="NAME",
        help="environment variable that holds the key or token (default: %(default)s)",
    )


class Collection:
    """A collection of a running proxy, and what one may ask of it."""

    def __init__(self, client: httpx.Client, name: str) -> None:
        self._client = client
        self._path = f"/v1/collections/{quote(name, safe='')}"

    def request(self, method: str, path: str, **content: Any) -> dict[str, Any]:
        """The JSON answer to a request of a path under the collection. A server that asks for a short pause
        gets it.

        Raises:
            Refused: The server said no.
            Failed: It cannot be reached, or is another kind of server.
        """
        for _ in range(TRIES):
            response = self._send(method, path, **content)
            pause = _pause(response)
            if pause is None:
                break
            time.sleep(pause)
        try:
            answer = response.json()
        except ValueError as error:
            raise Failed(
                f"the server answered status {response.status_code} without JSON; check --url"
            ) from error
        if not isinstance(answer, dict):
            raise Failed("the server's answer is not one of this API; check --url")
        if response.is_error:
            details = answer.get("error")
            message = details.get("message") if isinstance(details, dict) else None
            raise Refused(str(message or "refused"), response.status_code)
        return answer

    def _send(self, method: str, path: str, **content: Any) -> httpx.Response:
        try:
            return self._client.request(method, self._path + path, **content)
        except httpx.HTTPError as error:
            raise Failed(f"the server cannot be reached ({type(error).__name__}); check --url") from error

    def list(self, path: str, **parameters: str) -> Iterator[dict[str, Any]]:
        """All entries of a list, page by page."""
        after: dict[str, str] = {}
        while True:
            page = self.request("GET", path, params={**parameters, "limit": str(PAGE), **after})
            entries = page.get("data")
            if not isinstance(entries, list):
                raise Failed("the server's answer is not one of this API; check --url")
            yield from entries
            if not page.get("has_more") or not entries:
                return
            after = {"after": str(entries[-1]["id"])}


def _pause(response: httpx.Response) -> float | None:
    """How long the server wants to be left alone before it is asked again; None: it has answered."""
    asked = response.headers.get("Retry-After", "")
    if response.status_code not in (429, 503) or not asked.isdecimal() or int(asked) > MAX_PAUSE_S:
        return None
    return float(asked)


@contextmanager
def opened(options: argparse.Namespace) -> Iterator[Collection]:
    """The collection that the options name.

    Raises:
        ConfigError: There is no key.
    """
    key = os.environ.get(options.key_env)
    if not key:
        raise ConfigError([f"Set the environment variable {options.key_env} to your key or token."])
    headers = {"Authorization": f"Bearer {key}"}
    with httpx.Client(base_url=options.url.rstrip("/"), headers=headers, timeout=TIMEOUT) as client:
        yield Collection(client, options.collection)
