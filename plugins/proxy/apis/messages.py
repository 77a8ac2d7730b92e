"""Anthropic's Messages API (`/v1/messages`): a request as a chat completion's, and the answer back.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import aclosing
from typing import Any, cast

from litellm.litellm_core_utils.prompt_templates.factory import anthropic_messages_pt
from litellm.llms.anthropic.chat.handler import ModelResponseIterator
from litellm.llms.anthropic.pass_through.adapters.transformation import AnthropicAdapter
from litellm.types.utils import ModelResponseStream

from plugins.core.errors import InvalidRequest, ModelUnavailable
from plugins.proxy.apis.api import (
    added,
    offer_choice,
    served_by,
    simplified,
    understood,
    unwrapped,
    with_metadata,
)
from plugins.proxy.apis.message_events import MessageEvents, frame, new_id
from plugins.proxy.asked import is_file_search
from plugins.proxy.citations import Citations
from plugins.proxy.loop import Output
from plugins.proxy.upstream import fallback_of

PARAMS = frozenset(
    {
        "system",
        "tools",
        "tool_choice",
        "thinking",
        "output_format",
        "output_config",
        "stop_sequences",
        "temperature",
        "top_p",
        "top_k",
        "max_tokens",
    }
)
"""What LiteLLM translates, beside the messages."""
ANTHROPICS_ALONE = frozenset({"context_management", "container", "mcp_servers", "safeguards"})
"""What a chat completion has no form for."""


class Messages:
    """A request to `/v1/messages`.

    Args:
        data: LiteLLM's; what was for us alone has not been taken out yet.

    Raises:
        InvalidRequest: It is not a conversation.
    """

    def __init__(self, data: dict[str, Any]) -> None:
        self._data = data
        self._message: dict[str, Any] = {"id": new_id(), "model": data.get("model"), "usage": {}}
        self._events: MessageEvents | None = None
        self._names: dict[str, str] = {}
        with understood("messages"):
            self.chat: dict[str, Any] = self._as_chat()
        self._before = list(self.chat["messages"])
        self._choice = self.chat.get("tool_choice")

    def offer(self, offered: frozenset[str]) -> None:
        data, chat = self._data, self.chat
        functions = [tool["function"] for tool in chat.get("tools", ()) if "function" in tool]
        ours = [_tool(function) for function in functions if function["name"] in offered]
        data["tools"] = [*ours, *(tool for tool in data.get("tools") or () if not is_file_search(tool))]
        offer_choice(data, self._choice, chat.get("tool_choice"), lambda name: {"type": "tool", "name": name})
        if "response_format" not in chat:
            data.pop("output_format", None)
            if isinstance(data.get("output_config"), dict):
                data["output_config"] = {k: v for k, v in data["output_config"].items() if k != "format"}
        self._offer_messages()

    async def chunks(self, response: Any) -> AsyncIterator[ModelResponseStream]:
        """The first round, as chunks of a chat completion.

        Raises:
            ModelUnavailable: The model reported in the stream that it failed.
        """
        parser = ModelResponseIterator(response, sync_stream=False)
        model = fallback_of(response) or self._message["model"]
        given = {name: ours for ours, name in self._names.items()}
        async for event in _events(response):
            kind = event.get("type")
            if kind == "error":
                raise ModelUnavailable
            if kind == "message_start":
                self._message = {**self._message, **event["message"], "model": model}
                if not str(self._message["id"]).startswith("msg_"):
                    self._message["id"] = new_id()
            block = event.get("content_block") or {}
            if block.get("type") == "tool_use" and block.get("name") in given:
                event = {**event, "content_block": {**block, "name": given[block["name"]]}}
            chunk = parser.chunk_parser(event)
            chunk.id, chunk.model = self._message["id"], model
            yield chunk

    async def stream(
        self, outputs: AsyncGenerator[Output, None], citations: Citations
    ) -> AsyncGenerator[bytes, None]:
        self._events = events = MessageEvents(lambda: self._message, citations, self._names)
        async with aclosing(outputs):
            async for output in outputs:
                for event in events.of(output):
                    yield frame(event)

    def answer_at(self, sent: Sequence[Any], piece: Any) -> Any | None:
        return self._events.final if self._events is not None else None

    async def plain(self, outputs: AsyncGenerator[Output, None], citations: Citations, first: Any) -> Any:
        events = MessageEvents(lambda: self._message, citations, self._names)
        async with aclosing(outputs):
            async for output in outputs:
                for _ in events.of(output):
                    pass
        kept = {"_hidden_params": first["_hidden_params"]} if "_hidden_params" in first else {}
        return {**(events.final or {}), **kept}

    def _as_chat(self) -> dict[str, Any]:
        data = self._data
        given = data.get("messages")
        if not isinstance(given, list) or not given or not all(isinstance(item, dict) for item in given):
            raise InvalidRequest("`messages` must be a list of messages", param="messages")
        request = {key: data[key] for key in PARAMS & data.keys() if data[key] is not None}
        if "tools" in request:
            request["tools"] = [tool for tool in request["tools"] if not is_file_search(tool)]
            if not request["tools"]:
                del request["tools"]
        choice = request.get("tool_choice")
        if is_file_search(choice):
            del request["tool_choice"]
        request |= {"model": served_by(str(data["model"])), "messages": given}
        translated, self._names = AnthropicAdapter().translate_completion_input_params_with_tool_mapping(
            request
        )
        if is_file_search(choice):
            cast("dict[str, Any]", translated)["tool_choice"] = choice
        kept = {key: value for key, value in data.items() if key not in PARAMS | ANTHROPICS_ALONE}
        return {**with_metadata(kept), **cast("dict[str, Any]", translated), "model": data["model"]}

    def _offer_messages(self) -> None:
        lead, rest = unwrapped(self._before)
        new_lead, new_rest = unwrapped(self.chat["messages"])
        if rest != new_rest:
            given = anthropic_messages_pt(
                cast("list[Any]", new_rest), model=str(self._data["model"]), llm_provider="anthropic"
            )
            self._data["messages"] = [simplified(dict(message), ("text",)) for message in given]
        if text := added(lead, new_lead):
            own = self._data.get("system")
            blocks = own if isinstance(own, list) else [{"type": "text", "text": own}] if own else []
            self._data["system"] = [{"type": "text", "text": text}, *blocks]


def _tool(function: dict[str, Any]) -> dict[str, Any]:
    described = {"description": function["description"]} if function.get("description") else {}
    return {"name": function["name"], **described, "input_schema": function["parameters"]}


async def _events(response: Any) -> AsyncIterator[dict[str, Any]]:
    """The events of a stream; for a plain message those that a stream of it would have had."""
    if isinstance(response, dict):
        for event in _replayed(response):
            yield event
        return
    held = b""
    async for piece in response:
        # A frame may come in pieces, and a piece may hold several.
        held += piece.encode() if isinstance(piece, str) else piece
        *frames, held = held.replace(b"\r\n", b"\n").split(b"\n\n")
        for text in frames:
            for event in _parsed(text):
                yield event
    for event in _parsed(held):
        yield event


def _parsed(text: bytes) -> list[dict[str, Any]]:
    """The event of a frame; none where it is a comment or a ping."""
    lines = [line[len(b"data:") :] for line in text.split(b"\n") if line.startswith(b"data:")]
    event = json.loads(b"\n".join(lines)) if lines else None
    return [event] if isinstance(event, dict) and event.get("type") != "ping" else []


def _replayed(message: dict[str, Any]) -> Iterator[dict[str, Any]]:
    begun = {key: value for key, value in message.items() if key not in ("content", "_hidden_params")}
    yield {"type": "message_start", "message": begun}
    for index, block in enumerate(message.get("content") or ()):
        deltas: list[dict[str, Any]] = []
        if block["type"] == "tool_use":
            deltas = [{"type": "input_json_delta", "partial_json": json.dumps(block["input"])}]
            block = {**block, "input": {}}
        elif block["type"] == "thinking":
            signature = block.get("signature")
            deltas = [{"type": "thinking_delta", "thinking": block["thinking"]}]
            deltas += [{"type": "signature_delta", "signature": signature}] if signature else []
            block = {**block, "thinking": ""}
        yield {"type": "content_block_start", "index": index, "content_block": block}
        for delta in deltas:
            yield {"type": "content_block_delta", "index": index, "delta": delta}
        yield {"type": "content_block_stop", "index": index}
    ended = {"stop_reason": message.get("stop_reason"), "stop_sequence": message.get("stop_sequence")}
    yield {"type": "message_delta", "delta": ended, "usage": message.get("usage") or {}}
    yield {"type": "message_stop"}
