"""The events of a streamed answer of Anthropic's Messages API, made of the loop's output.

https://docs.anthropic.com/en/docs/build-with-claude/streaming
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from litellm.llms.anthropic.pass_through.adapters.transformation import LiteLLMAnthropicMessagesAdapter
from litellm.types.utils import ModelResponseStream, Usage

from plugins.core.ports import Passage
from plugins.proxy.chunks import as_dict
from plugins.proxy.citations import Citations
from plugins.proxy.loop import Activity, Output, Sources

STOP_REASONS = {"length": "max_tokens", "tool_calls": "tool_use", "content_filter": "refusal"}
"""Of other finish reasons it is ``end_turn``."""

Event = dict[str, Any]


class MessageEvents:
    """The state of one streamed answer.

    One block is open at a time. The client's calls come last: a text's citations are known when it ends, and
    they belong into the text's block.

    Args:
        message: The message as it was begun, without content; asked for with the first event.
        citations: Knows the addresses of passages.
        names: The names of the client's tools by those that the model was given.
    """

    def __init__(
        self, message: Callable[[], dict[str, Any]], citations: Citations, names: Mapping[str, str]
    ) -> None:
        self._message = message
        self._citations = citations
        self._names = names
        self._content: list[dict[str, Any]] = []
        self._begun = False
        self._open = False
        self._calls: dict[int, dict[str, str]] = {}
        self._finish: str | None = None
        self._notes: dict[str, Any] = {}
        self.final: dict[str, Any] | None = None
        """The whole message, from the last event on."""

    def of(self, output: Output) -> Iterator[Event]:
        """The events that an output becomes."""
        if isinstance(output, Activity):
            return
        if not self._begun:
            self._begun = True
            yield {"type": "message_start", "message": {**self._message(), **EMPTY}}
        if isinstance(output, Sources):
            yield from self._cited(output)
        elif output.choices:
            yield from self._said(output)
        else:
            yield from self._ends(getattr(output, "usage", None) or Usage())

    def _said(self, chunk: ModelResponseStream) -> Iterator[Event]:
        delta: Any = chunk.choices[0].delta
        self._finish = chunk.choices[0].finish_reason or self._finish
        yield from self._thought(delta)
        if delta.content:
            if not self._is_open("text"):
                yield from self._begin({"type": "text", "text": ""})
            self._content[-1]["text"] += delta.content
            yield self._delta({"type": "text_delta", "text": delta.content})
        for piece in (as_dict(piece) for piece in delta.tool_calls or ()):
            function = piece.get("function") or {}
            call = self._calls.setdefault(piece.get("index") or 0, {"id": "", "name": "", "arguments": ""})
            call["id"] = call["id"] or piece.get("id") or ""
            call["name"] = call["name"] or function.get("name") or ""
            call["arguments"] += function.get("arguments") or ""

    def _thought(self, delta: Any) -> Iterator[Event]:
        blocks = [as_dict(block) for block in getattr(delta, "thinking_blocks", None) or ()]
        thoughts = [block for block in blocks if block.get("type") == "thinking"]
        if not thoughts and (text := getattr(delta, "reasoning_content", None)):
            thoughts = [{"thinking": text}]
        for block in thoughts:
            if not self._is_open("thinking"):
                yield from self._begin({"type": "thinking", "thinking": "", "signature": ""})
            if text := block.get("thinking"):
                self._content[-1]["thinking"] += text
                yield self._delta({"type": "thinking_delta", "thinking": text})
            if signature := block.get("signature"):
                self._content[-1]["signature"] = signature
                yield self._delta({"type": "signature_delta", "signature": signature})
        for block in blocks:
            if block.get("type") == "redacted_thinking":
                yield from self._begin(block)

    def _cited(self, sources: Sources) -> Iterator[Event]:
        """The citations of the text. Its block may be closed where thoughts came after it: then the last one
        that is a text has them in the whole message, and none goes out."""
        if sources.limit_reached is not None:
            self._notes = {"provider_specific_fields": {"limit_reached": sources.limit_reached}}
        found = [location(number, p, self._citations) for number, p in enumerate(sources.cited)]
        text = next((block for block in reversed(self._content) if block["type"] == "text"), None)
        if text is None or not found:
            return
        text["citations"] = found
        if self._is_open("text"):
            for citation in found:
                yield self._delta({"type": "citations_delta", "citation": citation})

    def _ends(self, usage: Usage) -> Iterator[Event]:
        for call in self._calls.values():
            shown = {
                "type": "tool_use",
                "id": call["id"],
                "name": self._names.get(call["name"], call["name"]),
                "input": {},
            }
            yield from self._begin(shown)
            if call["arguments"]:
                yield self._delta({"type": "input_json_delta", "partial_json": call["arguments"]})
            self._content[-1]["input"] = _object(call["arguments"])
        yield from self._close()
        reason = STOP_REASONS.get(self._finish or "", "end_turn")
        counted: Any = LiteLLMAnthropicMessagesAdapter.translate_openai_usage_to_anthropic_usage_delta(usage)
        end = {"stop_reason": reason, "stop_sequence": None}
        self.final = {
            **self._message(),
            **EMPTY,
            **end,
            "content": self._content,
            "usage": dict(counted),
        } | self._notes
        yield {"type": "message_delta", "delta": end, "usage": dict(counted)} | self._notes
        yield {"type": "message_stop"}

    def _is_open(self, kind: str) -> bool:
        return self._open and self._content[-1]["type"] == kind

    def _begin(self, block: dict[str, Any]) -> Iterator[Event]:
        yield from self._close()
        self._content.append(dict(block))
        self._open = True
        yield {"type": "content_block_start", "index": len(self._content) - 1, "content_block": block}

    def _delta(self, delta: dict[str, Any]) -> Event:
        return {"type": "content_block_delta", "index": len(self._content) - 1, "delta": delta}

    def _close(self) -> Iterator[Event]:
        if self._open:
            self._open = False
            yield {"type": "content_block_stop", "index": len(self._content) - 1}


EMPTY: dict[str, Any] = {
    "type": "message",
    "role": "assistant",
    "content": [],
    "stop_reason": None,
    "stop_sequence": None,
}


def new_id() -> str:
    return f"msg_{uuid.uuid4().hex}"


def frame(event: Event) -> bytes:
    """The event as it goes over the wire."""
    return f"event: {event['type']}\ndata: {json.dumps(event, ensure_ascii=False)}\n\n".encode()


def location(index: int, passage: Passage, citations: Citations) -> dict[str, Any]:
    """A cited passage as a citation of a search result; ``search_result_index`` + 1 is its number.

    https://docs.anthropic.com/en/docs/build-with-claude/search-results
    """
    return {
        "type": "search_result_location",
        "cited_text": passage.text,
        "search_result_index": index,
        "source": citations.url(passage) or passage.document_id,
        "title": passage.title or passage.filename,
        "start_block_index": 0,
        "end_block_index": 1,
    }


def _object(arguments: str) -> dict[str, Any]:
    try:
        given = json.loads(arguments or "{}")
    except ValueError:
        return {}
    return given if isinstance(given, dict) else {}
