"""A registry of models on loopback, out of a folder that an Ollama keeps its models in.

https://github.com/ollama/ollama/blob/main/server/download.go says what Ollama asks of one.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

PART = 65536
DRIP_S = 0.02


@dataclass
class Registry:
    root: Path
    """Of the models: `manifests/`, `blobs/`."""
    host: str = ""
    """With its port, as models' names begin."""
    go_on: threading.Event = field(default_factory=threading.Event)
    """Until it is set, of each blob only a few bytes are sent."""
    left: threading.Event = field(default_factory=threading.Event)
    """Ollama went away in a blob."""

    def find(self, path: str) -> Path | None:
        found = re.fullmatch(r"/v2/library/([\w-]+)/(manifests|blobs)/([\w:.-]+)", path)
        if found is None:
            return None
        name, kind, reference = found.groups()
        manifests = self.root / "manifests" / "registry.ollama.ai" / "library" / name
        file = (
            manifests / reference
            if kind == "manifests"
            else self.root / "blobs" / reference.replace(":", "-")
        )
        return file if file.is_file() else None


def handler(registry: Registry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_HEAD(self) -> None:
            self.serve(with_body=False)

        def do_GET(self) -> None:
            self.serve(with_body=True)

        def serve(self, *, with_body: bool) -> None:
            file = registry.find(self.path)
            is_blob = "/blobs/" in self.path
            if file is None:
                self.answer(404, 0)
            elif with_body and is_blob and self.headers["Host"].startswith("127."):
                # Ollama insists on being sent to another host, as to a store of files
                self.answer(
                    307, 0, Location=f"http://localhost:{registry.host.rpartition(':')[2]}{self.path}"
                )
            else:
                self.send(file.read_bytes(), with_body=with_body, is_blob=is_blob)

        def send(self, content: bytes, *, with_body: bool, is_blob: bool) -> None:
            part = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range") or "")
            if part:
                first, last = int(part[1]), int(part[2] or len(content) - 1)
                whole, content = len(content), content[first : last + 1]
                self.answer(206, len(content), **{"Content-Range": f"bytes {first}-{last}/{whole}"})
            else:
                self.answer(200, len(content))
            if with_body:
                self.write(content, slowly=is_blob)

        def write(self, content: bytes, *, slowly: bool) -> None:
            at = 0
            try:
                while at < len(content):
                    held = slowly and not registry.go_on.wait(DRIP_S)
                    size = 1 if held else PART
                    self.wfile.write(content[at : at + size])
                    at += size
            except OSError:
                registry.left.set()

        def answer(self, status: int, length: int, **headers: str) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(length))
            self.end_headers()

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
            return

    return Handler


@contextmanager
def registry(root: Path) -> Iterator[Registry]:
    made = Registry(root)
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler(made))
    made.host = f"127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.go_on.set()
        server.shutdown()
        server.server_close()
        thread.join(5)
