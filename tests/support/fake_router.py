"""A fake of LiteLLM's router for chat: it plays given rounds, with the quirks of LiteLLM's chunks.

Every chunk has another id, as Ollama's have, and the usage comes in a chunk of its own that still has a
choice. What it was asked is kept in `requests`.
"""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count
from typing import Any

from litellm.types.utils import ChoiceLogprobs, ModelResponse, ModelResponseStream, Usage

from plugins.proxy.chunks import collected, make_chunk

Piece = dict[str, Any]
_ids = count(1)


def text(content: str) -> Piece:
    return {"content": content}


def call(name: str, arguments: str = "{}", call_id: str | None = None, index: int = 0) -> Piece:
    function = {"name": name, "arguments": arguments}
    call_id = call_id or f"call_{index}"
    return {"tool_calls": [{"index": index, "id": call_id, "type": "function", "function": function}]}


@dataclass
class Round:
    """What the model does when it is called: deltas, or an error after them."""

    pieces: Sequence[Piece] = ()
    finish_reason: str | None = None
    error: Exception | None = None
    waits_for: asyncio.Event | None = None
    """Before its last piece."""
    logprobs: bool = False
    """Each text is one token."""
    usage_apart: bool = True
    """In a chunk after the finish chunk."""

    def chunks(self) -> list[ModelResponseStream]:
        called = any("tool_calls" in piece for piece in self.pieces)
        finish = self.finish_reason or ("tool_calls" if called else "stop")
        usage = Usage(prompt_tokens=10, completion_tokens=2, total_tokens=12)
        deltas = [make_chunk(an_id(), 1, copy.deepcopy(piece), model="m") for piece in self.pieces]
        for delta in deltas if self.logprobs else ():
            token: dict[str, Any] = {
                "token": delta.choices[0].delta.content,
                "logprob": -0.1,
                "top_logprobs": [],
            }
            delta.choices[0].logprobs = ChoiceLogprobs.model_validate({"content": [token]})
        if not self.usage_apart:
            return [*deltas, make_chunk(an_id(), 1, {}, model="m", finish_reason=finish, usage=usage)]
        return [
            *deltas,
            make_chunk(an_id(), 1, {}, model="m", finish_reason=finish),
            make_chunk(an_id(), 1, {}, model="m", usage=usage),
        ]


def an_id() -> str:
    return f"chatcmpl-{next(_ids)}"


class Stream:
    """What LiteLLM's router gives: an async iterator that can be closed."""

    def __init__(self, played: Round, hidden: dict[str, Any]) -> None:
        self._hidden_params = hidden
        self.chunks: list[ModelResponseStream] = []
        """Nothing that LiteLLM would charge."""
        self._round = played
        self._chunks = played.chunks()
        self._taken = 0
        self.closed = False

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> ModelResponseStream:
        await asyncio.sleep(0)
        if self._taken == len(self._round.pieces):
            if self._round.error is not None:
                raise self._round.error
        elif self._taken == len(self._round.pieces) - 1 and self._round.waits_for is not None:
            await self._round.waits_for.wait()
        if self._taken == len(self._chunks):
            raise StopAsyncIteration
        self._taken += 1
        return self._chunks[self._taken - 1]

    async def aclose(self) -> None:
        self.closed = True


@dataclass
class FakeRouter:
    rounds: Sequence[Round]
    model_info: dict[str, dict[str, Any]] = field(default_factory=dict)
    """By model name."""
    fallback: str | None = None
    """The group that answers in place of the one asked."""
    requests: list[dict[str, Any]] = field(default_factory=list)
    streams: list[Stream] = field(default_factory=list)

    def get_model_list(self, model_name: str, team_id: str | None = None) -> list[dict[str, Any]]:
        if model_name not in self.model_info:
            return []
        return [{"model_name": model_name, "model_info": self.model_info[model_name]}]

    async def acompletion(self, **request: Any) -> Stream | ModelResponse:
        # Tools and messages as they are now: the caller may go on changing its own.
        self.requests.append({**request, "messages": copy.deepcopy(request["messages"])})
        played = self.rounds[min(len(self.requests), len(self.rounds)) - 1]
        headers = (
            {"x-litellm-attempted-fallbacks": 1, "x-litellm-model-group": self.fallback}
            if self.fallback and request["model"] != self.fallback
            else {}
        )
        if not request.get("stream"):
            if played.error is not None:
                raise played.error
            response = collected(played.chunks())
            response._hidden_params = {"additional_headers": headers}
            return response
        self.streams.append(Stream(played, {"additional_headers": headers}))
        return self.streams[-1]
