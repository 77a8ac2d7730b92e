"""An HTTP server of this process, on loopback and a free port."""

from __future__ import annotations

import json
import ssl
import threading
from collections.abc import Callable, Mapping
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple


class Request(NamedTuple):
    path: str
    """With its query."""
    headers: Message
    content: bytes

    @property
    def bearer(self) -> str:
        return self.headers.get("Authorization", "").removeprefix("Bearer ")


class Response(NamedTuple):
    status: int
    content: bytes = b""
    headers: Mapping[str, str] = {}


def as_json(status: int, value: Any) -> Response:
    return Response(status, json.dumps(value).encode(), {"Content-Type": "application/json"})


class Server(ThreadingHTTPServer):
    request_queue_size = 256
    """Connections that wait to be taken: tests open many at once."""


class Loopback:
    """Answers GET and POST, each request in a thread of its own; with a PEM file of a certificate and its key
    it speaks TLS."""

    def __init__(self, answer: Callable[[Request], Response], certificate: Path | None = None) -> None:
        self._server = Server(("127.0.0.1", 0), _handler(answer))
        if certificate:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificate)
            self._server.socket = context.wrap_socket(self._server.socket, server_side=True)
        scheme = "https" if certificate else "http"
        self.url = f"{scheme}://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


def _handler(answer: Callable[[Request], Response]) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            response = answer(Request(self.path, self.headers, content))
            self.send_response(response.status)
            for name, value in response.headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(response.content)))
            self.end_headers()
            self.wfile.write(response.content)

        do_POST = do_GET  # noqa: N815 - the library's name

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            return

    return Handler
