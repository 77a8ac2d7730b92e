"""Stand-ins on loopback for providers that speak `/v1/responses` and `/v1/messages` themselves.

Neither is a model: asked first, it thinks, says `PREFACE` and calls our search (and the client's `weather`
where that is offered and the question names it); with what was found it says `ANSWER`. LiteLLM asks OpenAI's
for the first round at `/responses` and for later ones at `/chat/completions`; Anthropic's always at
`/v1/messages`. A question that holds ``fail`` is answered with the API's own error in the stream.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from tests.support.loopback import Loopback, Request, Response, as_json

PREFACE = "Let me look."
THOUGHT = "They ask about notice."
SIGNATURE = "c2lnbmVk"
ANSWER = "It is 30 days [1]."
SEARCH = {"query": "notice"}
WEATHER = {"city": "Bonn"}


@dataclass
class Native:
    url: str = ""
    requests: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Path and body."""

    def bodies(self, path: str) -> list[dict[str, Any]]:
        return [body for asked, body in self.requests if asked == path]

    def answer(self, request: Request) -> Response:
        path = request.path.partition("?")[0]
        if not request.content:  # LiteLLM asks what models there are, and of which kind
            self.requests.append((path, {}))
            return as_json(404, {"error": {"message": "not found"}})
        body = json.loads(request.content)
        self.requests.append((path, body))
        found = "30 days" in json.dumps(body.get("input") or body["messages"])
        calls = [] if found else _calls(body)
        if path == "/responses":
            events = _responses(body, calls)
            if not body.get("stream"):
                return as_json(200, events[-1]["response"])
            return _sse(events, named=True)
        if path == "/chat/completions":
            return _sse(_chat(calls), named=False)
        events = _messages(calls, fails="fail" in json.dumps(body["messages"][-1]))
        return _sse(events, named=True) if body.get("stream") else as_json(200, _whole(events))


@contextmanager
def native_upstream() -> Iterator[Native]:
    native = Native()
    server = Loopback(native.answer)
    native.url = server.url
    try:
        yield native
    finally:
        server.close()


def _calls(body: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    """(id, name, arguments) of what is called."""
    offered = {tool.get("name") or tool["function"]["name"] for tool in body.get("tools") or ()}
    question = json.dumps(body.get("input") or body["messages"])
    calls = [("call_search_1", "search_documents", SEARCH)] if "search_documents" in offered else []
    if "weather" in offered and "weather" in question:
        calls.append(("call_weather_1", "weather", WEATHER))
    return calls


def _sse(events: list[dict[str, Any]], *, named: bool) -> Response:
    frames = [
        (f"event: {event['type']}\n" if named else "") + f"data: {json.dumps(event)}\n\n" for event in events
    ]
    if not named:
        frames.append("data: [DONE]\n\n")
    return Response(200, "".join(frames).encode(), {"Content-Type": "text/event-stream"})


def _responses(body: dict[str, Any], calls: list[tuple[str, str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """https://platform.openai.com/docs/api-reference/responses-streaming"""
    text = PREFACE if calls else ANSWER
    part = {"type": "output_text", "text": text, "annotations": []}
    summary = {"type": "summary_text", "text": THOUGHT}
    items: list[dict[str, Any]] = [
        {"type": "reasoning", "id": "rs_1", "summary": [summary]},
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [part]},
    ]
    for call_id, name, arguments in calls:
        call = {"call_id": call_id, "name": name, "arguments": json.dumps(arguments), "status": "completed"}
        items.append({"type": "function_call", "id": f"fc_{call_id}", **call})
    response = {"id": "resp_1", "object": "response", "created_at": 1, "model": body["model"], "error": None}
    response |= {
        "status": "in_progress",
        "output": [],
        "tools": body.get("tools") or [],
        "tool_choice": "auto",
    }
    response |= {"parallel_tool_calls": True, "instructions": body.get("instructions"), "metadata": {}}
    events: list[dict[str, Any]] = [{"type": "response.created", "response": response}]
    for index, item in enumerate(items):
        at = {"output_index": index}
        begun = {key: value for key, value in item.items() if key not in ("content", "arguments")}
        begun |= {"content": []} if item["type"] == "message" else {}
        begun |= {"arguments": ""} if item["type"] == "function_call" else {}
        events.append({"type": "response.output_item.added", "item": begun, **at})
        of = {"item_id": item["id"], **at}
        if item["type"] == "reasoning":
            kind = "response.reasoning_summary_text.delta"
            events.append({"type": kind, "summary_index": 0, "delta": THOUGHT, **of})
        elif item["type"] == "message":
            kind = "response.output_text.delta"
            events += [{"type": kind, "content_index": 0, "delta": word, **of} for word in _words(text)]
        else:
            kind = "response.function_call_arguments.delta"
            events += [{"type": kind, "delta": piece, **of} for piece in _words(item["arguments"])]
        events.append({"type": "response.output_item.done", "item": item, **at})
    usage: dict[str, Any] = {"input_tokens": 10, "output_tokens": 3, "total_tokens": 13}
    usage |= {"input_tokens_details": {"cached_tokens": 0}, "output_tokens_details": {"reasoning_tokens": 1}}
    whole = {**response, "status": "completed", "output": items, "usage": usage}
    events.append({"type": "response.completed", "response": whole})
    return [{**event, "sequence_number": number} for number, event in enumerate(events)]


def _chat(calls: list[tuple[str, str, dict[str, Any]]]) -> list[dict[str, Any]]:
    """https://platform.openai.com/docs/api-reference/chat-streaming"""
    deltas: list[dict[str, Any]] = [{"content": word} for word in _words(PREFACE if calls else ANSWER)]
    for index, (call_id, name, arguments) in enumerate(calls):
        function = {"name": name, "arguments": json.dumps(arguments)}
        call: Any = {"index": index, "id": call_id, "type": "function", "function": function}
        deltas.append({"tool_calls": [call]})
    chunk: dict[str, Any] = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "m",
    }
    choices: list[Any] = [[{"index": 0, "delta": delta, "finish_reason": None}] for delta in deltas]
    choices.append([{"index": 0, "delta": {}, "finish_reason": "tool_calls" if calls else "stop"}])
    usage: Any = {"prompt_tokens": 10, "completion_tokens": 3, "total_tokens": 13}
    return [*({**chunk, "choices": choice} for choice in choices), {**chunk, "choices": [], "usage": usage}]


def _messages(calls: list[tuple[str, str, dict[str, Any]]], *, fails: bool) -> list[dict[str, Any]]:
    """https://docs.anthropic.com/en/docs/build-with-claude/streaming"""
    message: dict[str, Any] = {"id": "msg_native", "type": "message", "role": "assistant", "model": "claude"}
    message["content"] = []
    message |= {"stop_reason": None, "stop_sequence": None, "usage": {"input_tokens": 10, "output_tokens": 1}}
    thinking = [
        {"type": "thinking_delta", "thinking": THOUGHT},
        {"type": "signature_delta", "signature": SIGNATURE},
    ]
    said = [{"type": "text_delta", "text": word} for word in _words(PREFACE if calls else ANSWER)]
    blocks: list[tuple[dict[str, Any], list[dict[str, Any]]]] = [
        ({"type": "thinking", "thinking": "", "signature": ""}, thinking),
        ({"type": "text", "text": ""}, said),
    ]
    for call_id, name, arguments in calls:
        pieces = _words(json.dumps(arguments))
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
        blocks.append(({"type": "tool_use", "id": call_id, "name": name, "input": {}}, deltas))
    events: list[dict[str, Any]] = [{"type": "message_start", "message": message}, {"type": "ping"}]
    for index, (block, deltas) in enumerate(blocks):
        events.append({"type": "content_block_start", "index": index, "content_block": block})
        events += [{"type": "content_block_delta", "index": index, "delta": delta} for delta in deltas]
        events.append({"type": "content_block_stop", "index": index})
    if fails:
        return [*events[:4], {"type": "error", "error": {"type": "overloaded_error", "message": "10.1.2.3"}}]
    end = {"stop_reason": "tool_use" if calls else "end_turn", "stop_sequence": None}
    return [
        *events,
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 3}},
        {"type": "message_stop"},
    ]


def _whole(events: list[dict[str, Any]]) -> dict[str, Any]:
    message: dict[str, Any] = {**events[0]["message"], "content": []}
    for event in events[1:]:
        if event["type"] == "content_block_start":
            message["content"].append({**event["content_block"], "json": ""})
        elif event["type"] == "content_block_delta":
            block, delta = message["content"][-1], event["delta"]
            for name in ("text", "thinking", "signature"):
                block[name] = block.get(name, "") + delta[name] if name in delta else block.get(name)
            block["json"] += delta.get("partial_json", "")
        elif event["type"] == "message_delta":
            message |= event["delta"]
            message["usage"] = {**message["usage"], **event["usage"]}
    for block in message["content"]:
        arguments = block.pop("json")
        block |= {"input": json.loads(arguments)} if arguments else {}
        for name in [name for name, value in block.items() if value is None]:
            del block[name]
    return message


def _words(text: str) -> list[str]:
    return [f"{word} " for word in text.split(" ")[:-1]] + [text.split(" ")[-1]]
