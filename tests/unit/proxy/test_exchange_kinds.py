"""What is kept of a request beside its messages, and of an answer beside its text."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import Any

import pytest
from litellm.types.utils import Delta, ModelResponse, ModelResponseStream, StreamingChoices

from plugins.core.config import ExchangesConfig
from plugins.proxy.access_log import Answering
from plugins.proxy.auth import PrincipalAuth
from plugins.proxy.disconnect import arrived
from plugins.proxy.exchange import Said, asked_of
from tests.support.services import ALICE

QUESTION = [{"role": "user", "content": "What does Bob earn?"}]
SECRET = "sk-1234"


def said(*pieces: Any) -> dict[str, Any]:
    found = Said(1000)
    for piece in pieces:
        found.add(piece)
    return found.answer(())


def chunk(**delta: Any) -> ModelResponseStream:
    return ModelResponseStream(choices=[StreamingChoices(index=0, delta=Delta(**delta))])


def whole(**message: Any) -> ModelResponse:
    return ModelResponse(
        choices=[{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", **message}}]
    )


def block(kind: str, **delta: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": kind, **delta}}


def frame(event: dict[str, Any]) -> bytes:
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


SUMMARY = {
    "type": "reasoning",
    "summary": [{"type": "summary_text", "text": "Bob "}],
    "content": [{"type": "reasoning_text", "text": "earns 5."}],
}
THOUGHTS: dict[str, tuple[Any, ...]] = {
    "deltas": (chunk(reasoning_content="Bob "), chunk(reasoning_content="earns 5.")),
    "blocks of deltas": (
        chunk(thinking_blocks=[{"type": "thinking", "thinking": "Bob "}]),
        chunk(thinking_blocks=[{"type": "thinking", "thinking": "earns 5."}]),
    ),
    "a message": (whole(content=None, reasoning_content="Bob earns 5."),),
    "events of a response": (
        {"type": "response.reasoning_summary_text.delta", "output_index": 0, "delta": "Bob "},
        {"type": "response.reasoning_text.delta", "output_index": 0, "delta": "earns 5."},
        {"type": "response.output_item.done", "output_index": 0, "item": SUMMARY},
    ),
    "a response": ({"object": "response", "output": [SUMMARY]},),
    "frames of a message": (
        frame(block("thinking_delta", thinking="Bob ")),
        frame(block("thinking_delta", thinking="earns 5.")),
        frame(block("signature_delta", signature="c2ln")),
    ),
    "a plain message": ({"type": "message", "content": [{"type": "thinking", "thinking": "Bob earns 5."}]},),
}


@pytest.mark.parametrize("pieces", THOUGHTS.values(), ids=THOUGHTS)
def test_what_a_model_thinks_and_the_client_gets_is_kept(pieces: tuple[Any, ...]) -> None:
    assert said(*pieces) == {"text": "", "reasoning": "Bob earns 5."}


AUDIO = {"id": "a", "data": "aGk=", "expires_at": 1, "transcript": "I say: 5."}
REFUSED = {"type": "message", "content": [{"type": "refusal", "refusal": "I say: 5."}]}
SPOKEN: dict[str, tuple[Any, ...]] = {
    "a refusal": (whole(content=None, refusal="I say: 5."),),
    "a refusal's deltas": (chunk(refusal="I say"), chunk(refusal=": 5.")),
    "a refusal's events": ({"type": "response.refusal.delta", "output_index": 0, "delta": "I say: 5."},),
    "a refused response": ({"object": "response", "output": [REFUSED]},),
    "a sound": (whole(content=None, audio=AUDIO),),
    "a sound's deltas": (chunk(audio={"transcript": "I say"}), chunk(audio={"transcript": ": 5."})),
    "a sound's events": ({"type": "response.audio.transcript.delta", "delta": "I say: 5."},),
}


@pytest.mark.parametrize("pieces", SPOKEN.values(), ids=SPOKEN)
def test_refusals_and_what_sounds_say_are_texts(pieces: tuple[Any, ...]) -> None:
    assert said(*pieces) == {"text": "I say: 5."}


CUSTOM = {"type": "custom", "id": "c", "custom": {"name": "shell", "input": "ls"}}
CALLS: dict[str, Any] = {
    "a message's": whole(content=None, tool_calls=[CUSTOM]),
    "a delta's": chunk(tool_calls=[{**CUSTOM, "index": 0}]),
    "an event's": {
        "type": "response.output_item.done",
        "item": {"type": "custom_tool_call", "call_id": "c", "name": "shell", "input": "ls"},
    },
    "an MCP server's": {
        "object": "response",
        "output": [{"type": "mcp_call", "id": "c", "name": "shell", "arguments": "ls"}],
    },
}


@pytest.mark.parametrize("piece", CALLS.values(), ids=CALLS)
def test_calls_of_tools_without_a_schema_are_kept(piece: Any) -> None:
    assert said(piece) == {"text": "", "tool_calls": [{"name": "shell", "arguments": "ls"}]}


@pytest.mark.parametrize(
    "piece",
    [
        whole(content=None, images=[{"type": "image_url", "image_url": {"url": "data:,"}, "index": 0}]),
        chunk(poem="Roses are red"),
        {"type": "response.poem.delta", "delta": "Roses are red"},
        {"type": "response.output_item.done", "item": {"type": "image_generation_call", "result": "aGk="}},
        {"object": "response", "output": [{"type": "web_search_call"}]},
        block("poem_delta", poem="Roses are red"),
        {"type": "message", "content": [{"type": "web_search_tool_result", "content": []}]},
        {"poem": "Roses are red"},
        b"data: Roses are red\n\n",
        b'data: {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "Roses',
    ],
    ids=lambda piece: type(piece).__name__,
)
def test_kinds_of_content_that_are_not_known_count_as_cut(piece: Any) -> None:
    assert said(piece) == {"text": "", "cut": True}


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_frames_may_come_in_any_pieces(size: int) -> None:
    text = "One line\u2028or two?\u0085Or three é"
    sent = b"".join(frame(block("text_delta", text=part)) for part in (text, "."))
    pieces = [sent[at : at + size] for at in range(0, len(sent), size)]
    assert said(*pieces, sent.rstrip()) == {"text": f"{text}.{text}."}


def answering(body: dict[str, Any], data: dict[str, Any]) -> Any:
    """What is kept of a request whose body LiteLLM has read."""
    rows: list[Any] = []
    log: Any = SimpleNamespace(
        max_bytes=10_000, keeps=lambda route: route in ExchangesConfig().routes, note=rows.append
    )
    request: Any = SimpleNamespace(scope={"parsed_body": (tuple(body), {**body, "not_sent": SECRET})})
    arrived(request)
    Answering({**body, **data}, PrincipalAuth(principal=ALICE), "acompletion", log).end()
    return rows[0].request


@pytest.mark.parametrize(
    "more",
    [
        {"documents": [{"title": "Salaries", "key": "Bob earns 5."}]},
        {"suffix": "of what Bob earns"},
        {"chat_template": "{{ secret }}", "chat_template_kwargs": {"secret": "What does Bob earn?"}},
        {"stop": ["Bob"]},
        {"extra_body": {"suffix": "of what Bob earns"}},
        {"tools": [{"type": "file_search", "filters": {"type": "eq", "key": "year", "value": 2026}}]},
        {"tools": [{"name": "ask", "input_schema": {"properties": {"token": {"description": "Bob?"}}}}]},
    ],
    ids=lambda more: next(iter(more)),
)
async def test_what_else_a_client_tells_a_model_is_kept(more: dict[str, Any]) -> None:
    said = {"messages": QUESTION, **more}
    assert answering({"model": "chat", "temperature": 0.5, "stream": True, **said}, {}) == said


async def test_what_litellm_adds_and_what_lets_somebody_in_is_not_kept() -> None:
    tool = {"type": "mcp", "server_label": "wiki", "headers": {"X": SECRET}, "authorization": SECRET}
    body = {
        "messages": QUESTION,
        "api_key": SECRET,
        "apiKey": SECRET,
        "x-Auth-Token": SECRET,
        "extra_headers": {"X": SECRET},
        "vertex_credentials": SECRET,
        "metadata": {"user_api_key": SECRET},
        "user": SECRET,
        "api_base": f"https://{SECRET}@there",
        "secret_fields": {},
        "proxy_server_request": {},
        "litellm_params": {"api_key": SECRET},
        "fallbacks": [{"model": "other", "api_key": SECRET}],
        "mcp_servers": [{"name": "wiki", "authorization_token": SECRET}],
        "extra_body": {"api_key": SECRET, "aws_secret_access_key": SECRET},
        "tools": [tool],
    }
    added = {
        "secret_fields": {"raw_headers": {"authorization": SECRET}},
        "proxy_server_request": {"headers": {"authorization": SECRET}, "body": {"x": SECRET}},
        "provider_specific_header": {"extra_headers": {"x-api-key": SECRET}},
        "added": SECRET,
    }
    kept = answering(body, added)
    assert SECRET not in json.dumps(kept)
    assert kept["messages"] == QUESTION
    assert kept["mcp_servers"] == [{"name": "wiki", "authorization_token": "(not kept)"}]
    assert kept["tools"][0]["server_label"] == "wiki"


def test_where_the_body_is_not_known_only_known_fields_are_kept() -> None:
    assert asked_of({"messages": QUESTION, "documents": [], "added": SECRET}) == {"messages": QUESTION}
