"""Examinations by the doctor, and a server of any kind for it to ask."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from plugins.bundle.doctor.findings import Examine, Finding, Redact, attempt
from tests.support.loopback import Loopback, as_json

LIMIT_S = 20.0


async def found(examine: Examine, *secrets: str) -> list[Finding]:
    redact = Redact()
    redact.add(secrets)
    return await attempt("part", examine, redact, LIMIT_S)


def said(findings: list[Finding], level: str) -> str:
    return "\n".join(f"{f.found} -> {f.do}" for f in findings if f.level == level)


Answer = Callable[[str, dict[str, Any]], tuple[int, Any]]
"""Status and JSON, by the path and what was sent."""


class Server(Loopback):
    """A server on loopback that answers what it is told, by path and what was sent."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(lambda request: as_json(*answer(request.path, json.loads(request.content or b"{}"))))


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], Server]]:
    """Servers that end with the test."""
    running: list[Server] = []

    def start(answer: Answer) -> Server:
        running.append(Server(answer))
        return running[-1]

    yield start
    for server in running:
        server.close()
