"""A stand-in for an OpenAI-compatible server (llama.cpp, vLLM, a provider) on loopback. It is no model: it
calls our search tool when it is offered, then says `ANSWER` if the passages reached it.

https://platform.openai.com/docs/api-reference/chat
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

from aiohttp import web

TOOL = "search_documents"
ANSWER = ("The notice", " period is", " ninety days", " [1]", ".")
IGNORANT = ("I found", " nothing.")
STRUCTURED = {"days": 90, "filename": "notice.md"}
SECRET = "10.1.2.3"
"""In its errors: what no client may see."""
START_S = 10.0

Failure = Literal["error", "busy", "empty", "cut"]
"""Status 500, status 429, or the connection ends before a stream's first word or call, or after it."""
CUT = {"empty": 1, "cut": 2}
"""How many chunks come before."""


@dataclass(frozen=True)
class Asked:
    model: str
    round: int
    """0 before any tool has run for the last question."""
    bearer: str
    body: dict[str, Any] = field(repr=False)


@dataclass
class Upstream:
    url: str = ""
    """With `/v1`."""
    asked: list[Asked] = field(default_factory=list)
    failures: dict[tuple[str, int], list[Failure]] = field(default_factory=dict)
    """By model and round: what goes wrong, each once and in this order."""
    pause_s: float = 0.0
    """Before each chunk of a stream."""

    def models(self) -> list[tuple[str, int]]:
        """Which model was asked in which round."""
        return [(one.model, one.round) for one in self.asked]

    def reset(self) -> None:
        self.asked.clear()
        self.failures.clear()

    async def chat(self, request: web.Request) -> web.StreamResponse:
        body: dict[str, Any] = await request.json()
        asked = Asked(body["model"], rounds(body), request.headers.get("authorization", ""), body)
        self.asked.append(asked)
        planned = self.failures.get((asked.model, asked.round))
        failure = planned.pop(0) if planned else None
        if failure in ("error", "busy"):
            error = {"message": f"{SECRET} cannot", "type": "server_error", "param": None, "code": None}
            return web.json_response({"error": error}, status=500 if failure == "error" else 429)
        if not body.get("stream"):
            return web.json_response(whole(body, asked.round))
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        for number, chunk in enumerate(chunks(body, asked.round)):
            if number == CUT.get(failure or ""):
                assert request.transport
                request.transport.abort()
                return response
            await asyncio.sleep(self.pause_s)
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response


def rounds(body: dict[str, Any]) -> int:
    """How often the model has already called tools for the last question."""
    messages = body["messages"]
    last = max(i for i, message in enumerate(messages) if message["role"] == "user")
    return sum(1 for message in messages[last:] if message.get("tool_calls"))


def decided(body: dict[str, Any], round: int) -> tuple[Sequence[str], list[dict[str, Any]]]:  # noqa: A002
    """The text in pieces, or the tool calls."""
    offered = [tool["function"]["name"] for tool in body.get("tools", ()) if tool["type"] == "function"]
    if TOOL in offered and round == 0 and body.get("tool_choice") != "none":
        arguments = json.dumps({"query": "notice period"})
        call = {"id": "call_1", "type": "function", "function": {"name": TOOL, "arguments": arguments}}
        return (), [call]
    if (body.get("response_format") or {}).get("type") == "json_schema":
        return (json.dumps(STRUCTURED),), []
    results = [message["content"] for message in body["messages"] if message["role"] in ("tool", "user")]
    return (ANSWER if any("ninety days" in str(result) for result in results) else IGNORANT), []


def whole(body: dict[str, Any], round: int) -> dict[str, Any]:  # noqa: A002
    pieces, calls = decided(body, round)
    message: dict[str, Any] = {"role": "assistant", "content": "".join(pieces) or None}
    if calls:
        message["tool_calls"] = calls
    choice = {"index": 0, "message": message, "finish_reason": "tool_calls" if calls else "stop"}
    return {**head(body, "chat.completion"), "choices": [choice], "usage": USAGE}


def chunks(body: dict[str, Any], round: int) -> Iterator[dict[str, Any]]:  # noqa: A002
    pieces, calls = decided(body, round)
    deltas: list[dict[str, Any]] = [{"role": "assistant", "content": ""}]
    deltas += [{"content": piece} for piece in pieces]
    for index, call in enumerate(calls):
        arguments = call["function"]["arguments"]
        begun = {**call, "index": index, "function": {**call["function"], "arguments": ""}}
        deltas.append({"tool_calls": [begun]})
        for part in (arguments[:5], arguments[5:]):
            deltas.append({"tool_calls": [{"index": index, "function": {"arguments": part}}]})
    shape = head(body, "chat.completion.chunk")
    for delta in deltas:
        yield {**shape, "choices": [{"index": 0, "delta": delta, "finish_reason": None}]}
    reason = "tool_calls" if calls else "stop"
    yield {**shape, "choices": [{"index": 0, "delta": {}, "finish_reason": reason}]}
    if (body.get("stream_options") or {}).get("include_usage"):
        yield {**shape, "choices": [], "usage": USAGE}


USAGE = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}


def head(body: dict[str, Any], kind: str) -> dict[str, Any]:
    return {"id": "chatcmpl-standin", "object": kind, "created": 1, "model": body["model"]}


@contextmanager
def upstream() -> Iterator[Upstream]:
    """One that runs in a thread of its own; ended in any case."""
    made, loop, ready = Upstream(), asyncio.new_event_loop(), threading.Event()
    app = web.Application()
    app.router.add_post("/v1/chat/completions", made.chat)
    runner = web.AppRunner(app, shutdown_timeout=0.1)

    async def start() -> None:
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
        ready.set()

    def run() -> None:
        loop.run_until_complete(start())
        loop.run_forever()
        loop.run_until_complete(runner.cleanup())
        loop.close()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    try:
        assert ready.wait(START_S)
        yield made
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(START_S)
