"""A stand-in OpenAI-compatible server on loopback: it does as it is told, and sees when its client leaves.

The last user message holds the rounds as JSON, one for each assistant message since, as for the scripted
model of `chat_entry`: ``[{"text": ["a"], "calls": [{"name": ..., "arguments": {...}}]}]``. A text ``hang``
waits until the connection is closed, ``die`` cuts it, ``wait:<seconds>`` is silence, ``until:<path>`` waits
for the file; ``<2>`` in a text becomes the number of the second passage that it was given, as ``[7]``. A
round's ``down`` names the models that answer it 500, ``cut`` those that are cut after the headers, before any
token.
"""

from __future__ import annotations

import json
import re
import select
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

KEY = "sk-upstream-secret-0123456789"
HANG_S = 20.0
PASSAGE = re.compile(r"^(\[\d+\]) .*\n`{3,}passage ", re.MULTILINE)
USAGE = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}


@dataclass
class Asked:
    """One request."""

    body: dict[str, Any]
    round: int
    """From 0."""
    hanging: threading.Event = field(default_factory=threading.Event)
    left: threading.Event = field(default_factory=threading.Event)
    """The client closed the connection while it was kept waiting."""

    @property
    def model(self) -> str:
        return str(self.body["model"])

    @property
    def messages(self) -> list[dict[str, Any]]:
        messages: list[dict[str, Any]] = self.body["messages"]
        return messages


class ScriptedUpstream(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, scripts: Mapping[str, Any]) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.scripts = scripts
        self.asked: list[Asked] = []
        self.url = f"http://127.0.0.1:{self.server_port}/v1"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """A client that leaves is what is tested here, not an error to print."""

    def of(self, marker: str) -> list[Asked]:
        """The requests whose last question holds ``marker``."""
        return [asked for asked in list(self.asked) if marker in _question(asked.body)[1]]


@contextmanager
def scripted_upstream(scripts: Mapping[str, Any] | None = None) -> Iterator[ScriptedUpstream]:
    """Serve; ``scripts`` holds the rounds by question, for questions that people are to read."""
    server = ScriptedUpstream(scripts or {})
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)


class Handler(BaseHTTPRequestHandler):
    server: ScriptedUpstream
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        index, question = _question(body)
        rounds = self.server.scripts.get(question) or json.loads(question)
        done = sum(1 for message in body["messages"][index:] if message["role"] == "assistant")
        asked = Asked(body, done)
        self.server.asked.append(asked)
        current = rounds[min(done, len(rounds) - 1)]
        if asked.model in current.get("down", ()):
            self._json({"error": {"message": f"{KEY} at {self.server.url} in /srv/x"}}, 500)
        elif body.get("stream"):
            self._stream(asked, current)
        else:
            self._plain(asked, current)

    def _stream(self, asked: Asked, current: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if asked.model in current.get("cut", ()):
            return self._cut()
        for text in current.get("text", ()):
            if text == "die":
                return self._cut()
            if not self._obeyed(asked, text):
                self._chunk(_chunk(asked, {"role": "assistant", "content": _cited(asked, text)}))
        calls = _calls(asked, current)
        for place, call in enumerate(calls):
            self._chunk(_chunk(asked, {"role": "assistant", "tool_calls": [{**call, "index": place}]}))
        self._chunk(_chunk(asked, {}, "tool_calls" if calls else "stop"))
        self._chunk({**_chunk(asked, None), "usage": USAGE})
        self._write(b"data: [DONE]\n\n")
        self.wfile.write(b"0\r\n\r\n")
        return None

    def _plain(self, asked: Asked, current: dict[str, Any]) -> None:
        if asked.model in current.get("cut", ()):
            return self._cut()
        texts = []
        for text in current.get("text", ()):
            if text == "die":
                return self._cut()
            if not self._obeyed(asked, text):
                texts.append(_cited(asked, text))
        calls = _calls(asked, current)
        message = {"role": "assistant", "content": "".join(texts) or None, "tool_calls": calls or None}
        choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
        answer = {**_chunk(asked, None), "object": "chat.completion", "choices": [choice], "usage": USAGE}
        return self._json(answer, 200)

    def _obeyed(self, asked: Asked, text: str) -> bool:
        """Whether the text was an order, now carried out."""
        order, _, value = text.partition(":")
        if order == "wait":
            time.sleep(float(value))
        elif order == "until":
            end = time.monotonic() + HANG_S
            while time.monotonic() < end and not Path(value).exists():
                time.sleep(0.02)
        elif text == "hang":
            asked.hanging.set()
            end = time.monotonic() + HANG_S
            while time.monotonic() < end and not asked.left.is_set():
                readable, _, _ = select.select([self.connection], [], [], 0.05)
                if readable and not self.connection.recv(1, socket.MSG_PEEK):
                    asked.left.set()
        return order in ("wait", "hang", "until")

    def _chunk(self, chunk: dict[str, Any]) -> None:
        self._write(f"data: {json.dumps(chunk)}\n\n".encode())

    def _write(self, content: bytes) -> None:
        self.wfile.write(f"{len(content):x}\r\n".encode() + content + b"\r\n")

    def _json(self, content: dict[str, Any], status: int) -> None:
        encoded = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def _cut(self) -> None:
        self.close_connection = True
        self.connection.shutdown(socket.SHUT_RDWR)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        return


def _question(body: dict[str, Any]) -> tuple[int, str]:
    """The last user message's place and its text; of several parts, the last that is text."""
    messages = body["messages"]
    index = max(i for i, message in enumerate(messages) if message["role"] == "user")
    content = messages[index]["content"]
    if isinstance(content, list):
        content = [part["text"] for part in content if part["type"] == "text"][-1]
    return index, content


def _cited(asked: Asked, text: str) -> str:
    results = [m["content"] for m in asked.messages if m["role"] == "tool"]
    for place, number in enumerate(PASSAGE.findall("\n\n".join(results)), 1):
        text = text.replace(f"<{place}>", number)
    return text


def _calls(asked: Asked, current: dict[str, Any]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"call_{asked.round}_{place}",
            "type": "function",
            "function": {"name": call["name"], "arguments": json.dumps(call["arguments"])},
        }
        for place, call in enumerate(current.get("calls", ()))
    ]


def _chunk(asked: Asked, delta: dict[str, Any] | None, finish: str | None = None) -> dict[str, Any]:
    choices = [] if delta is None else [{"index": 0, "delta": delta, "finish_reason": finish}]
    return {
        "id": f"up-{id(asked)}",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": asked.model,
        "choices": choices,
    }
