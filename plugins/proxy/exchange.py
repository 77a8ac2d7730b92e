"""What was asked and what was answered, as it is kept for audits: the same form for all chat APIs."""

from __future__ import annotations

import binascii
import json
import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from litellm.types.utils import ModelResponse, ModelResponseStream
from pydantic import BaseModel

from plugins.collections.bounded import SLACK, Unfinished
from plugins.core.ports import Passage
from plugins.proxy.chunks import as_dict

log = logging.getLogger(__name__)

WORDS = ("extra_body", "response_format", "text", "prediction", "prompt", "functions", "tools")
"""Of a request: where else a model may be told something."""
KEPT = (*WORDS, "rag", "system", "instructions", "messages", "input")
"""Of a request: what was said in it, and what searches were narrowed to. Of a long one the last stay."""
TOLD = ("suffix", "documents", "chat_template", "chat_template_kwargs")
"""Of what else a client sends: what models read, whatever the names in it."""
NO_CONTENT = frozenset({"model", "user", "safety_identifier", "metadata", "api_base", "base_url"})
"""Of what else a client sends: what no model reads. LiteLLM notes in the same `metadata` whose key it was."""
SHOWN = ("function", "custom", "namespace", "file_search", None)
"""Types of tools that are kept whole: they have no addresses to sign in at."""
BINARY = ("data", "file_data", "b64_json", "bytes")
"""Fields that hold files' bytes, as base64."""
SHORT = 256
"""A text of so few characters is no file, whatever its field."""
DEEP = 64
"""What is nested deeper is not kept."""
LONGEST_LINE = 2**20
"""Of a stream of events, in bytes."""
SPOKEN = frozenset(
    f"response.{name}.delta"
    for name in (
        "output_text",
        "refusal",
        "audio.transcript",
        "audio_transcript",
        "output_audio_transcript",
    )
)
THOUGHT = frozenset({"response.reasoning_summary_text.delta", "response.reasoning_text.delta"})
LATER = frozenset(
    f"response.{name}.delta"
    for name in ("function_call_arguments", "custom_tool_call_input", "mcp_call_arguments", "audio")
)
"""Events whose texts come once more, whole, and those of sounds."""
CALLS = {"function_call": "arguments", "custom_tool_call": "input", "mcp_call": "arguments"}
"""Items of a response that are calls, with the field that holds what the tool is given."""
USES = ("tool_use", "server_tool_use", "mcp_tool_use")
"""Blocks of a message that are calls."""
KNOWN = frozenset({"role", "content", "refusal", "audio", "function_call", "tool_calls"})
"""Fields of a chat completion's message that are kept."""
AGAIN = frozenset({"annotations", "reasoning_items", "provider_specific_fields"})
"""Those that say the same again."""
REASONS = frozenset({"reasoning", "reasoning_content", "thinking_blocks"})
_INLINE = re.compile(r"data:[\w.+/;=-]{0,100};base64,", re.ASCII)
_WORD = re.compile(r"[A-Z]?[a-z]+|[A-Z]+")
_SECRET = re.compile(
    "(api)?keys?|auth|authorization|bearer|certificate|cookies?|credentials?|headers?|jwt|passphrase|passwd"
    "|password|private|proxy|pwd|secrets?|signature|token",
    re.IGNORECASE,
)
"""Words of which one in a field's name says that its value lets somebody in."""
Call = dict[str, str]


def asked_of(data: Mapping[str, Any], sent: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a request says, without the bytes of its pictures and files.

    Args:
        data: LiteLLM's, with what it added: only `KEPT` is taken of it.
        sent: The body as the client sent it, for what else is in it; None = not known.
    """
    others = {name: value for name, value in (sent or {}).items() if name not in KEPT}
    told = {name: data[name] for name in KEPT if data.get(name) is not None}
    return _content(others | told)


def _content(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Without numbers and switches, fields that no model reads, and what lets somebody in."""
    kept: dict[str, Any] = {}
    for name, value in fields.items():
        if name in NO_CONTENT or name.startswith("litellm_") or is_secret(name):
            continue
        if name not in KEPT and (value is None or isinstance(value, bool | int | float)):
            continue
        if name == "extra_body" and isinstance(value, Mapping):
            kept[name] = _content(value)
        elif name == "tools" and isinstance(value, list):
            kept[name] = [without_bytes(tool, secrets=_tool_type(tool) in SHOWN) for tool in value]
        else:
            kept[name] = without_bytes(value, secrets=name in KEPT or name in TOLD)
    return kept


def _tool_type(tool: Any) -> Any:
    return tool.get("type") if isinstance(tool, Mapping) else None


def is_secret(name: str) -> bool:
    """Whether a field of this name holds what lets somebody in: a key, a token, headers."""
    return any(_SECRET.fullmatch(word) for word in _WORD.findall(name))


def without_bytes(value: Any, field: str = "", depth: int = 0, *, secrets: bool = True) -> Any:
    """A copy with a note in the place of base64.

    Args:
        value: What was sent.
        field: Its name.
        depth: How deep it lies.
        secrets: Whether fields are kept that `is_secret` says to hold some: a model is told what is in them.
    """
    if depth > DEEP:
        return "(nested too deep)"
    if not secrets and is_secret(field):
        return "(not kept)"
    if isinstance(value, Mapping):
        return {
            str(key): without_bytes(part, str(key), depth + 1, secrets=secrets) for key, part in value.items()
        }
    if isinstance(value, list | tuple):
        return [without_bytes(part, field, depth + 1, secrets=secrets) for part in value]
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


class Texts:
    """What was said, by choices: pieces of several may come in turns.

    Args:
        max_characters: Of all together; what is beyond is left out.
    """

    def __init__(self, max_characters: int) -> None:
        self.cut = False
        self._left = max_characters + SLACK
        self._found: dict[Any, list[str]] = {}

    def add(self, choice: Any, text: str) -> None:
        self._found.setdefault(choice, []).append(self.fitting(text))

    def fitting(self, text: str) -> str:
        """As much of it as there is room for."""
        kept = text[: self._left]
        self._left -= len(kept)
        if len(kept) == len(text):
            return text
        full, self.cut = self.cut, True
        return kept if full else Unfinished(kept)

    def __str__(self) -> str:
        whole = [joined(pieces) for pieces in self._found.values()]
        whole.sort(key=lambda text: isinstance(text, Unfinished))  # at the end it is shown as what it is
        return joined(whole, "\n\n")


def joined(texts: list[str], between: str = "") -> str:
    """Unfinished, where one of them is."""
    text = between.join(filter(None, texts))
    return Unfinished(text) if any(isinstance(one, Unfinished) for one in texts) else text


class Said:
    """Collects an answer from its pieces, or from the whole.

    Args:
        max_characters: Of the text and the calls, and of the reasoning; what is beyond is left out.
    """

    def __init__(self, max_characters: int) -> None:
        self.cited: tuple[Passage, ...] = ()
        self._text = Texts(max_characters)
        self._reasoning = Texts(max_characters)
        self._calls: dict[Any, Call] = {}
        self._line = b""
        self._cut = False

    def add(self, piece: Any) -> None:
        """A chunk of a chat completion, an event of a response, frames of a message, or an answer whole. One
        that is not as its API says counts as cut: the client gets it nevertheless."""
        try:
            self._add(piece)
        except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
            log.warning("A piece of an answer could not be read and is not kept (%s)", type(error).__name__)
            self._cut = True

    def _add(self, piece: Any, model: int = 0) -> None:
        if isinstance(piece, ModelResponseStream):
            for choice in piece.choices:
                self._message((model, choice.index), dict(choice.delta))
        elif isinstance(piece, ModelResponse):
            if not piece.choices:
                raise ValueError
            for whole in piece.choices:
                self._message((model, whole.index), dict(whole.message))
        elif isinstance(piece, list):  # of several models, which one request may name
            for number, one in enumerate(piece):
                self._add(one, number)
        elif isinstance(piece, bytes | str):
            for event in self._events(piece.encode() if isinstance(piece, str) else piece):
                self._event(event)
        elif isinstance(piece, BaseModel):
            self._event(piece.model_dump(exclude_none=True))
        elif isinstance(piece, Mapping):
            self._event(piece)
        else:
            raise TypeError

    def answer(self, given: Iterable[Passage]) -> dict[str, Any]:
        """`text`, `reasoning`, `tool_calls` for the client, and which passages the model was given and cited:
        where they are, not what they say. `cut` where there was more."""
        if self._line:
            self.add(b"\n")
        found: dict[str, Any] = {"text": str(self._text)}
        if reasoning := str(self._reasoning):
            found["reasoning"] = reasoning
        if self._calls:
            found["tool_calls"] = list(self._calls.values())
        if passages := [_reference(passage, passage in self.cited) for passage in given]:
            found["passages"] = passages
        return found | ({"cut": True} if self._cut or self._text.cut or self._reasoning.cut else {})

    def _say(self, choice: Any, text: Any) -> None:
        if text:
            self._text.add(choice, _string(text))

    def _think(self, choice: Any, text: Any) -> None:
        if text:
            self._reasoning.add(choice, _string(text))

    def _call(self, key: Any, name: Any, given: Any) -> None:
        call = self._calls.setdefault(key, {"name": "", "arguments": ""})
        for field, text in (("name", name), ("arguments", given)):
            if text:
                call[field] = joined([call[field], self._text.fitting(_string(text))])

    def _message(self, choice: Any, message: Mapping[str, Any]) -> None:
        """Of a chat completion, or what a chunk adds to it."""
        fields = {name: value for name, value in message.items() if value}
        others = fields.get("provider_specific_fields") or {}
        blocks = [as_dict(block) for block in fields.get("thinking_blocks") or ()]
        thought = "".join(block.get("thinking") or "" for block in blocks)
        self._think(choice, fields.get("reasoning_content") or fields.get("reasoning") or thought)
        self._say(choice, fields.get("content"))
        self._say(choice, fields.get("refusal") or others.get("refusal"))
        if audio := fields.get("audio"):
            self._say(choice, as_dict(audio).get("transcript"))
        if called := fields.get("function_call"):
            self._call(choice, called.name, called.arguments)
        for call in map(as_dict, fields.get("tool_calls") or ()):
            function, custom = call.get("function") or {}, call.get("custom") or {}
            key = (choice, call["index"] if call.get("index") is not None else call.get("id"))
            self._call(key, function.get("name") or custom.get("name"), None)
            self._call(key, None, function.get("arguments") or custom.get("input"))
        self._cut = self._cut or not fields.keys() <= KNOWN | REASONS | AGAIN

    def _event(self, event: Mapping[str, Any]) -> None:
        """Of `/v1/responses` (https://platform.openai.com/docs/api-reference/responses-streaming) or
        `/v1/messages` (https://docs.claude.com/en/docs/build-with-claude/streaming)."""
        kind = event.get("type")
        kind = getattr(kind, "value", kind)
        place = event.get("output_index")
        if kind in SPOKEN:
            self._say(place, event.get("delta"))
        elif kind in THOUGHT:
            self._think(place, event.get("delta"))
        elif kind == "response.output_item.done":
            self._item(place, event["item"], streamed=True)
        elif kind == "content_block_start":
            self._block(event.get("index"), event["content_block"], begins=True)
        elif kind == "content_block_delta":
            self._block_delta(event.get("index"), event["delta"])
        elif event.get("object") == "response":
            for number, item in enumerate(event.get("output") or ()):
                self._item(number, item)
        elif kind == "message":
            for number, block in enumerate(event.get("content") or ()):
                self._block(number, block)
        elif kind is None or (kind.endswith(".delta") and kind not in LATER):
            self._cut = True

    def _item(self, place: Any, item: Mapping[str, Any], *, streamed: bool = False) -> None:
        """Of a response. Of one that was streamed the texts have come."""
        kind = item.get("type")
        if kind in CALLS:
            self._call(item.get("call_id") or item.get("id"), item.get("name"), item.get(CALLS[kind]))
            self._cut = self._cut or bool(item.get("output"))
        elif kind == "reasoning" and not streamed:
            for part in (*(item.get("summary") or ()), *(item.get("content") or ())):
                self._think(place, part.get("text"))
        elif kind == "message" and not streamed:
            for part in item.get("content") or ():
                self._say(place, part.get("text") or part.get("refusal") or part.get("transcript"))
        elif kind not in ("message", "reasoning", "file_search_call"):
            self._cut = True

    def _block(self, place: Any, block: Mapping[str, Any], *, begins: bool = False) -> None:
        """Of a message: whole, or as it begins."""
        kind = block.get("type")
        if kind == "text":
            self._say(0, block.get("text"))
        elif kind == "thinking":
            self._think(0, block.get("thinking"))
        elif kind in USES:
            given = block.get("input")
            empty = begins and not given
            self._call(place, block.get("name"), None if empty else json.dumps(given, ensure_ascii=False))
        elif kind != "redacted_thinking":
            self._cut = True

    def _block_delta(self, place: Any, delta: Mapping[str, Any]) -> None:
        kind = delta.get("type")
        if kind == "text_delta":
            self._say(0, delta.get("text"))
        elif kind == "thinking_delta":
            self._think(0, delta.get("thinking"))
        elif kind == "input_json_delta":
            self._call(place, None, delta.get("partial_json"))
        elif kind not in ("signature_delta", "citations_delta"):
            self._cut = True

    def _events(self, frames: bytes) -> Iterator[Mapping[str, Any]]:
        """The JSON objects of server-sent events, whose lines may come in pieces."""
        *lines, self._line = (self._line + frames).split(b"\n")
        if len(self._line) > LONGEST_LINE:
            self._line, self._cut = b"", True
        for line in lines:
            data = line.removeprefix(b"data:").strip()
            if data == line.strip() or data == b"[DONE]":
                continue
            try:
                event = json.loads(data)
            except ValueError:
                event = None
            if isinstance(event, dict):
                yield event
            else:
                self._cut = True


def _string(text: Any) -> str:
    """
    Raises:
        TypeError: It is none.
    """
    if not isinstance(text, str):
        raise TypeError
    return text


def _reference(passage: Passage, cited: bool) -> dict[str, Any]:
    return {
        "collection_id": passage.collection_id,
        "document_id": passage.document_id,
        "page": passage.page_first,
        "cited": cited,
    }
