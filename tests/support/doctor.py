"""Examinations by the doctor, and a server of any kind for it to ask."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import pytest

from plugins.bundle.doctor.findings import Examine, Finding, Redact, attempt

LIMIT_S = 20.0


async def found(examine: Examine, *secrets: str) -> list[Finding]:
    redact = Redact()
    redact.add(secrets)
    return await attempt("part", examine, redact, LIMIT_S)


def said(findings: list[Finding], level: str) -> str:
    return "\n".join(f"{f.found} -> {f.do}" for f in findings if f.level == level)


Answer = Callable[[str, dict[str, Any]], tuple[int, Any]]
"""Status and JSON, by the path and what was sent."""


class Server:
    """A server on loopback that answers what it is told, by path and what was sent."""

    def __init__(self, answer: Answer) -> None:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
                status, body = answer(self.path, json.loads(content) if content else {})
                encoded = json.dumps(body).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(encoded)))
                self.end_headers()
                self.wfile.write(encoded)

            do_POST = do_GET  # noqa: N815 - the library's name

            def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


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
