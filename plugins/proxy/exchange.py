"""What was asked and what was answered, as it is kept for audits: the same form for all chat APIs."""

from __future__ import annotations

import binascii
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from litellm.types.utils import ChatCompletionDeltaToolCall, ModelResponse, ModelResponseStream
from pydantic import BaseModel

from plugins.core.ports import Passage

log = logging.getLogger(__name__)

WORDS = ("extra_body", "response_format", "text", "prediction", "prompt", "functions", "tools")
"""Of a request: where else a model may be told something."""
KEPT = (*WORDS, "messages", "input", "system", "instructions", "rag")
"""Of a request: what was said in it, and what searches were narrowed to."""
BINARY = ("data", "file_data", "b64_json", "bytes")
"""Fields that hold files' bytes, as base64."""
SHORT = 256
"""A text of so few characters is no file, whatever its field."""
DEEP = 64
"""What is nested deeper is not kept."""
_INLINE = re.compile(r"data:[\w.+/;=-]{0,100};base64,", re.ASCII)
Call = dict[str, str]


def asked_of(data: Mapping[str, Any]) -> dict[str, Any]:
    """What a request says, without the bytes of its pictures and files."""
    return {name: without_bytes(data[name]) for name in KEPT if data.get(name) is not None}


def without_bytes(value: Any, field: str = "", depth: int = 0) -> Any:
    """A copy with a note in the place of base64."""
    if depth > DEEP:
        return "(nested too deep)"
    if isinstance(value, Mapping):
        return {str(key): without_bytes(part, str(key), depth + 1) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [without_bytes(part, field, depth + 1) for part in value]
    if not isinstance(value, str) or len(value) <= SHORT:
        return value if isinstance(value, str | int | float | bool | None) else str(value)
    inline = _INLINE.match(value)
    is_file = (inline or field in BINARY) and _is_base64(value[inline.end() :] if inline else value)
    return f"(base64, {len(value)} characters)" if is_file else value


def _is_base64(text: str) -> bool:
    """What only says that it is would be a way around the log: a model reads it as any other text."""
    try:
        binascii.a2b_base64(text, strict_mode=True)
    except ValueError:
        return False
    return True


class Said:
    """Collects an answer from its pieces, or from the whole.

    Args:
        max_characters: What is beyond is left out.
    """

    def __init__(self, max_characters: int) -> None:
        self.cited: tuple[Passage, ...] = ()
        self._left = max_characters
        self._texts: list[str] = []
        self._calls: dict[Any, Call] = {}
        self._cut = False

    def add(self, piece: Any) -> None:
        """A chunk of a chat completion, an event of a response, frames of a message, or an answer whole. One
        that is not as its API says counts as cut: the client gets it nevertheless."""
        try:
            self._add(piece)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            log.warning("A piece of an answer could not be read and is not kept (%s)", type(error).__name__)
            self._cut = True

    def _add(self, piece: Any) -> None:
        if isinstance(piece, ModelResponseStream):
            self._delta(piece)
        elif isinstance(piece, ModelResponse):
            if not piece.choices:
                raise ValueError
            for choice in piece.choices:
                self._message(choice.index, choice.message)
        elif isinstance(piece, list):  # of several models, which one request may name
            for one in piece:
                self._add(one)
        elif isinstance(piece, bytes | str):
            for event in _events(piece):
                self._event(event)
        elif isinstance(piece, BaseModel):
            self._event(piece.model_dump(exclude_none=True))
        elif isinstance(piece, Mapping):
            self._event(piece)
        else:
            raise TypeError

    def answer(self, given: Iterable[Passage]) -> dict[str, Any]:
        """`text`, `tool_calls` for the client, and which passages the model was given and cited: where they
        are, not what they say. `cut` where there was more."""
        found: dict[str, Any] = {"text": "".join(self._texts)}
        if self._calls:
            found["tool_calls"] = list(self._calls.values())
        if passages := [_reference(passage, passage in self.cited) for passage in given]:
            found["passages"] = passages
        return found | ({"cut": True} if self._cut else {})

    def _text(self, text: Any) -> None:
        if not isinstance(text, str) or not text:
            return
        self._cut = self._cut or len(text) > self._left
        self._texts.append(text[: self._left])
        self._left -= len(self._texts[-1])

    def _call(self, key: Any, name: str | None, arguments: str | None) -> None:
        call = self._calls.setdefault(key, {"name": "", "arguments": ""})
        call["name"] += name or ""
        said = (arguments or "")[: self._left]
        self._cut = self._cut or len(said) < len(arguments or "")
        call["arguments"] += said
        self._left -= len(said)

    def _delta(self, chunk: ModelResponseStream) -> None:
        for choice in chunk.choices:
            self._text(choice.delta.content)
            if called := choice.delta.function_call:
                self._call(choice.index, called.name, called.arguments)
            for call in choice.delta.tool_calls or ():
                if isinstance(call, ChatCompletionDeltaToolCall):
                    self._call((choice.index, call.index), call.function.name, call.function.arguments)

    def _message(self, choice: int, message: Any) -> None:
        self._text(message.content)
        for call in message.tool_calls or ():
            self._call((choice, call.id), call.function.name, call.function.arguments)
        if called := getattr(message, "function_call", None):
            self._call(choice, called.name, called.arguments)

    def _event(self, event: Mapping[str, Any]) -> None:
        """Of `/v1/responses` (https://platform.openai.com/docs/api-reference/responses-streaming) or
        `/v1/messages` (https://docs.claude.com/en/docs/build-with-claude/streaming)."""
        kind = event.get("type")
        if kind == "response.output_text.delta":
            self._text(event.get("delta"))
        elif kind == "response.output_item.done":
            self._item(event.get("item") or {}, calls_only=True)
        elif kind == "content_block_start":
            block = event.get("content_block") or {}
            if block.get("type") == "tool_use":
                self._call(event.get("index"), block.get("name"), "")
        elif kind == "content_block_delta":
            delta = event.get("delta") or {}
            self._text(delta.get("text"))
            if delta.get("type") == "input_json_delta":
                self._call(event.get("index"), "", delta.get("partial_json"))
        elif event.get("object") == "response":
            for item in event.get("output") or ():
                self._item(item)
        elif kind == "message":
            for index, block in enumerate(event.get("content") or ()):
                self._text(block.get("text"))
                if block.get("type") == "tool_use":
                    self._call(index, block.get("name"), json.dumps(block.get("input"), ensure_ascii=False))

    def _item(self, item: Mapping[str, Any], *, calls_only: bool = False) -> None:
        if item.get("type") == "function_call":
            self._call(item.get("call_id"), item.get("name"), item.get("arguments"))
        elif not calls_only:
            for part in item.get("content") or ():
                self._text(part.get("text"))


def _events(frames: bytes | str) -> Iterator[Mapping[str, Any]]:
    """The JSON objects of server-sent events."""
    text = frames.decode("utf-8", "replace") if isinstance(frames, bytes) else frames
    for line in text.splitlines():
        if line.startswith("data:"):
            try:
                event = json.loads(line.removeprefix("data:"))
            except ValueError:
                continue
            if isinstance(event, dict):
                yield event


def _reference(passage: Passage, cited: bool) -> dict[str, Any]:
    return {
        "collection_id": passage.collection_id,
        "document_id": passage.document_id,
        "page": passage.page_first,
        "cited": cited,
    }
