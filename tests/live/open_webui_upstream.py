"""A model behind the proxy, at an OpenAI-compatible endpoint: it searches first, and stops in the middle of
its answer until it is told to go on."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

NAME = "assistant"
QUESTION = "What was our revenue in 2025, and what is expected for 2026?"
STATEMENTS = (
    ("14.5 percent", "Revenue grew by 14.5 percent to **87.6 million euros** in 2025"),
    ("93 and 97", "For 2026 the board expects between 93 and 97 million euros"),
)
"""Words of a passage, and what the model makes of it."""
CLOCK = "get_current_timestamp"
"""A tool of Open WebUI's own, which it runs itself."""
WITH_CLOCK = f"{QUESTION} And what time is it?"
NOTHING = "I found nothing about this in the documents that you may query."
TITLE, TAG, FOLLOW_UP = "Revenue and outlook", "revenue", "What does the board expect of earnings?"
TASK = "### Task:"
"""How Open WebUI's requests beside the question begin."""
HELD_S = 120.0
BEAT_S = 0.05


class Upstream:
    """Remembers what it was asked; the threads of its requests end with it."""

    def __init__(self) -> None:
        self.requests: list[dict[str, Any]] = []
        """Bodies, in the order of their arrival."""
        self.go_on = threading.Event()
        """Its answers are held back in the middle until this is set."""
        self.left = threading.Event()
        """Somebody went away in the middle of an answer."""
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Own", (Handler,), {"upstream": self}))
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}/v1"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True)
        self._thread.start()

    @property
    def background(self) -> list[dict[str, Any]]:
        """Requests for titles, tags and follow-up questions."""
        return [body for body in self.requests if is_background(body)]

    @property
    def questions(self) -> list[dict[str, Any]]:
        """The rounds of what a person asked."""
        return [body for body in self.requests if not is_background(body)]

    def reset(self) -> None:
        self.requests.clear()
        self.go_on.clear()
        self.left.clear()

    def close(self) -> None:
        self.go_on.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


@contextmanager
def upstream() -> Iterator[Upstream]:
    running = Upstream()
    try:
        yield running
    finally:
        running.close()


def is_background(body: dict[str, Any]) -> bool:
    return text_of(body["messages"][-1]).startswith(TASK)


def tool_names(body: dict[str, Any]) -> set[str]:
    return {tool["function"]["name"] for tool in body.get("tools") or ()}


def text_of(message: dict[str, Any]) -> str:
    content = message.get("content") or ""
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def answer(messages: Sequence[dict[str, Any]]) -> list[str]:
    """The statements that the passages of the last round allow, each with the passage's number."""
    found = "\n".join(text_of(message) for message in messages if message["role"] == "tool")
    numbers = [
        (text, match[1])
        for words, text in STATEMENTS
        if (match := re.search(rf"\[(\d+)\](?:(?!\n\[\d+\]).)*?{re.escape(words)}", found, re.DOTALL))
    ]
    return [f"{text} [{number}]. " for text, number in numbers] or [NOTHING[:20], NOTHING[20:]]


def calls(question: str) -> list[dict[str, Any]]:
    """What the model wants to know first."""
    wanted = {"search_documents": {"query": question}, **({CLOCK: {}} if question == WITH_CLOCK else {})}
    return [
        {
            "index": index,
            "id": f"call_{index}",
            "type": "function",
            "function": {"name": name, "arguments": json.dumps(arguments)},
        }
        for index, (name, arguments) in enumerate(wanted.items())
    ]


class Handler(BaseHTTPRequestHandler):
    upstream: Upstream

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.upstream.requests.append(body)
        if is_background(body):
            self._plain(json.dumps({"title": TITLE, "tags": [TAG], "follow_ups": [FOLLOW_UP]}))
            return
        try:
            self._stream(body)
        except (BrokenPipeError, ConnectionResetError):
            self.upstream.left.set()

    def _plain(self, text: str) -> None:
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "finish_reason": "stop", "message": message}
        usage = {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}
        content = json.dumps({**head("chat.completion"), "choices": [choice], "usage": usage}).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, body: dict[str, Any]) -> None:
        self.send_response(200)
        self.send_header("Content-Type", "text/event-stream")
        self.end_headers()
        question = text_of(body["messages"][-1])
        if body["messages"][-1]["role"] == "user" and "search_documents" in tool_names(body):
            self._chunk({"role": "assistant", "tool_calls": calls(question)})
            self._chunk({}, "tool_calls")
        else:
            self._answer(answer(body["messages"]))
        self._send("data: [DONE]")

    def _answer(self, statements: list[str]) -> None:
        for index, statement in enumerate(statements):
            if index:
                self._hold()
            for word in re.findall(r"\S+\s*", statement):
                self._chunk({"content": word})
        self._chunk({}, "stop")

    def _hold(self) -> None:
        """To write now and then is how one notices that the other side went away."""
        for _ in range(int(HELD_S / BEAT_S)):
            if self.upstream.go_on.wait(BEAT_S):
                return
            self._send(": still here")

    def _chunk(self, delta: dict[str, Any], finish: str | None = None) -> None:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        self._send(f"data: {json.dumps({**head('chat.completion.chunk'), 'choices': [choice]})}")

    def _send(self, line: str) -> None:
        self.wfile.write(f"{line}\n\n".encode())

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the library's name
        return


def head(kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-1", "object": kind, "created": 1, "model": NAME}
