"""A proxy as the console commands see it: one collection in memory, over HTTP on a free port of loopback.

A document whose name begins with ``bad`` fails in its job, one with ``huge`` is refused at once, and one
with ``mail`` has another one inside. A job is seen once under way before it has ended.
"""

from __future__ import annotations

import email.policy
import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, urlsplit

KEY = "sk-test"
FAILURE = {"code": "unreadable_document", "message": "It is encrypted."}


class UploadServer(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.requests: list[tuple[str, str]] = []
        """Method and path with its query, as they came."""
        self.uploads: list[list[str]] = []
        """The names of each request's documents."""
        self.documents: dict[str, dict[str, Any]] = {}
        self.looked: set[str] = set()
        self.never_ends = False
        self.pauses = 0
        """So many of the next requests are answered 429."""

    def add(self, name: str, content: bytes, document_id: str | None, batch: str, **fields: Any) -> Any:
        number = len(self.documents)
        document = {
            "id": document_id or f"doc-{number}",
            "filename": name,
            "status": "in_progress",
            "sha256": hashlib.sha256(content).hexdigest(),
            "batch_id": batch,
            "chunks": 9,
            "parent_id": None,
            "job": {"id": f"job-{number}-{len(self.uploads)}", "stage": "queued"},
            **fields,
        }
        self.documents[document["id"]] = document
        return document

    def jobs(self, batch: str) -> list[dict[str, Any]]:
        """As they are; the next time they have ended."""
        found = []
        for document in [found for found in self.documents.values() if found["batch_id"] == batch]:
            job = {"id": document["job"]["id"], "document_id": document["id"], "total": 9, "done": 3}
            job |= {"filename": document["filename"], "status": document["status"], "stage": "embed"}
            if document["status"] == "failed":
                job["last_error"] = FAILURE
            elif document["status"] == "in_progress" and job["id"] in self.looked and not self.never_ends:
                self.end(document)
            self.looked.add(str(job["id"]))
            found.append(job)
        return found

    def end(self, document: dict[str, Any]) -> None:
        failed = document["filename"].startswith("bad")
        document["status"] = "failed" if failed else "completed"
        if document["filename"].startswith("mail"):
            inside = {"parent_id": document["id"]}
            self.add("attached.txt", b"x", f"{document['id']}-1", document["batch_id"], **inside)


class Handler(BaseHTTPRequestHandler):
    server: UploadServer
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self.admitted():
            return
        documents = self.sent(body)
        if any(name.startswith("huge") for name, _, _ in documents):
            self.answer(413, {"error": {"message": "The file is too large."}})
            return
        self.server.uploads.append([name for name, _, _ in documents])
        batch = f"batch_{len(self.server.uploads)}"
        data = [self.server.add(*document, batch) for document in documents]
        self.answer(202, {"object": "list", "data": data, "batch_id": batch})

    def sent(self, body: bytes) -> list[tuple[str, bytes, str | None]]:
        """Name, content and id of the documents of a request."""
        kind = self.headers["Content-Type"]
        if kind == "application/json":
            given = json.loads(body)["documents"]
            return [(one["url"], one["url"].encode(), one["id"]) for one in given]
        head = f"Content-Type: {kind}\r\n\r\n".encode()
        parts = list(BytesParser(policy=email.policy.HTTP).parsebytes(head + body).iter_parts())
        files = [part for part in parts if part.get_filename()]
        [*form] = [part for part in parts if not part.get_filename()]
        ids = json.loads(form[0].get_content()) if form else [None] * len(files)
        named = zip(files, ids, strict=True)
        return [(str(part.get_filename()), _content(part), one) for part, one in named]

    def do_GET(self) -> None:
        if not self.admitted():
            return
        url = urlsplit(self.path)
        asked = dict(parse_qsl(url.query))
        if url.path.endswith("/jobs"):
            entries = self.server.jobs(asked["batch"])
        else:
            entries = list(self.server.documents.values())
        ids = [entry["id"] for entry in entries]
        start = ids.index(asked["after"]) + 1 if "after" in asked else 0
        size = min(int(asked["limit"]), 3)
        page = entries[start : start + size]
        self.answer(200, {"object": "list", "data": page, "has_more": start + size < len(entries)})

    def do_DELETE(self) -> None:
        if not self.admitted():
            return
        document = self.path.rpartition("/")[2]
        if self.server.documents.pop(document, None) is None:
            self.answer(404, {"error": {"message": "There is no such document."}})
        else:
            self.answer(200, {"id": document, "deleted": True})

    def admitted(self) -> bool:
        self.server.requests.append((self.command, self.path))
        if self.headers["Authorization"] != f"Bearer {KEY}":
            self.answer(401, {"error": {"message": "The key is unknown.", "type": "t", "code": "c"}})
            return False
        if self.server.pauses:
            self.server.pauses -= 1
            self.answer(429, {"error": {"message": "Too many requests."}}, {"Retry-After": "0"})
            return False
        return True

    def answer(self, status: int, body: dict[str, Any], headers: dict[str, str] | None = None) -> None:
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Length": str(len(content)), **(headers or {})}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Keep the test's output clean."""


def _content(part: Any) -> bytes:
    content = part.get_payload(decode=True)
    assert isinstance(content, bytes)
    return content


@contextmanager
def upload_server() -> Iterator[UploadServer]:
    with UploadServer() as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join(timeout=10)
