"""The routes that ask for no sign-in, as docs/rights.md lists them, and a request to each."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import httpx

from tests.support.rights_table import tables

HEAD = ["method", "route", "takes", "nobody can sign in"]


@dataclass(frozen=True)
class OpenRoute:
    method: str
    route: str
    takes: str
    status: int
    """Where nobody can sign in."""

    def __str__(self) -> str:
        return f"{self.method} {self.route}"

    def ask(self, client: httpx.Client) -> httpx.Response:
        """With everything that it takes, and nothing of it good."""
        options: dict[str, Any] = {"json": {"refresh_token": "a.b.c"}}
        if self.method == "GET":
            options = {"params": {"state": "x", "code": "x"}}
        elif self.route.endswith(("/login", "/backchannel-logout")):
            options = {"data": {"username": "owner", "password": "password", "logout_token": "a.b.c"}}
        return client.request(self.method, self.route, **options)


def open_routes() -> list[OpenRoute]:
    return [
        OpenRoute(method, route.strip("`"), takes, int(status))
        for method, route, takes, status in tables(HEAD)
    ]
