"""LiteLLM's stream chunks: taking rounds apart and putting the client's stream together."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable
from typing import Any

from litellm import stream_chunk_builder
from litellm.types.utils import (
    Delta,
    Message,
    ModelResponse,
    ModelResponseStream,
    StreamingChoices,
    Usage,
)

HELD_BACK = frozenset({"tool_calls", "role"})


class Slot:
    """One tool call of a round, in the pieces that it came in."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.id = ""
        self.name = ""
        self.pieces: list[dict[str, Any]] = []
        self.sent = 0
        """How many of the pieces the client has."""
        self.client_index: int | None = None
        """Its place among the calls that the client gets; None = not the client's."""

    @property
    def arguments(self) -> str:
        return "".join((piece.get("function") or {}).get("arguments") or "" for piece in self.pieces)


class Round:
    """One call of the model: what the client may see of it, and what it asks to be run.

    Args:
        is_client: Whether a tool of this name is the client's own to run.
    """

    def __init__(self, is_client: Callable[[str], bool]) -> None:
        self._is_client = is_client
        self._chunks: list[ModelResponseStream] = []
        self._slots: list[Slot] = []
        self._clients = 0
        self.finish_reason: str | None = None
        self.usage: Usage | None = None

    def take(self, chunk: ModelResponseStream) -> dict[str, Any]:
        """The fields of the delta that the client gets for this chunk; may be empty."""
        self.usage = getattr(chunk, "usage", None) or self.usage
        if not chunk.choices:
            return {}
        choice = chunk.choices[0]
        self.finish_reason = choice.finish_reason or self.finish_reason
        given = {k: v for k, v in dict(choice.delta).items() if v is not None and k not in HELD_BACK}
        if given.get("content") == "":
            del given["content"]
        pieces = [as_dict(piece) for piece in choice.delta.tool_calls or ()]
        # The round is only put together when there is a tool call: the pieces' indexes made right.
        slots = [self._slot(piece) for piece in pieces]
        if given and not pieces:
            self._chunks.append(chunk)
        elif pieces:
            renumbered = [{**piece, "index": s.index} for piece, s in zip(pieces, slots, strict=True)]
            self._chunks.append(
                make_chunk(chunk.id, chunk.created, {**given, "tool_calls": renumbered or None})
            )
        passed = [piece for slot in dict.fromkeys(slots) for piece in self._released(slot)]
        return {**given, "tool_calls": passed} if passed else given

    @property
    def client_calls(self) -> bool:
        """Whether the client has tools to run."""
        return self._clients > 0

    @property
    def own_calls(self) -> bool:
        """Whether there are calls that the client must not see."""
        return len(self._slots) > self._clients

    @property
    def calls(self) -> list[tuple[str, str]]:
        """Name and arguments of each call, as they came."""
        return [(slot.name, slot.arguments) for slot in self._slots]

    def message(self) -> Message:
        """The assistant's message of this round, with every tool call whole and identified."""
        for slot in self._slots:
            if not slot.id:
                slot.id = f"call_{uuid.uuid4().hex[:24]}"
                piece = {
                    "index": slot.index,
                    "id": slot.id,
                    "type": "function",
                    "function": {"arguments": ""},
                }
                self._chunks.append(make_chunk("", 0, {"tool_calls": [piece]}))
        return collected(self._chunks).choices[0].message

    def _slot(self, piece: dict[str, Any]) -> Slot:
        """The call that a piece belongs to. Some providers give several calls one index, with other ids."""
        upstream = piece.get("index") or 0
        slot = next((s for s in reversed(self._slots) if (s.pieces[0].get("index") or 0) == upstream), None)
        if slot is None or (piece.get("id") and slot.id and piece["id"] != slot.id):
            slot = Slot(len(self._slots))
            self._slots.append(slot)
        function = piece.get("function") or piece.get("custom") or {}
        slot.id = slot.id or piece.get("id") or ""
        slot.name = slot.name or function.get("name") or ""
        slot.pieces.append(piece)
        return slot

    def _released(self, slot: Slot) -> list[dict[str, Any]]:
        """The pieces of a client's call that can go out: all since its name is known."""
        if slot.client_index is None:
            if not slot.name or not self._is_client(slot.name):
                return []
            slot.client_index = self._clients
            self._clients += 1
        released = [{**piece, "index": slot.client_index} for piece in slot.pieces[slot.sent :]]
        slot.sent = len(slot.pieces)
        return released


def as_dict(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, dict) else value.model_dump(exclude_none=True)


def make_chunk(
    chunk_id: str,
    created: int,
    delta: dict[str, Any] | None,
    *,
    model: str | None = None,
    finish_reason: str | None = None,
    usage: Usage | None = None,
) -> ModelResponseStream:
    """A chunk of one choice, or of none where ``delta`` is None."""
    choices = (
        []
        if delta is None
        else [StreamingChoices(finish_reason=finish_reason, index=0, delta=Delta(**delta))]
    )
    chunk = ModelResponseStream(id=chunk_id, created=created, model=model, choices=choices)
    if usage is not None:
        chunk.usage = usage
    return chunk


def with_delta(chunk: ModelResponseStream, delta: dict[str, Any]) -> ModelResponseStream:
    """A chunk of the same answer with this delta."""
    filled = make_chunk(chunk.id, chunk.created, delta, model=chunk.model)
    filled._hidden_params = chunk._hidden_params
    return filled


def with_event(chunk: ModelResponseStream, content: dict[str, Any]) -> ModelResponseStream:
    """An event for Open WebUI's page: a chunk of the same answer without choices.

    LiteLLM drops chunks that carry nothing that it knows, unless they have provider fields; and raw bytes
    of ours would break the guardrails that read the stream.
    """
    return ModelResponseStream(
        id=chunk.id,
        created=chunk.created,
        model=chunk.model,
        choices=[],
        provider_specific_fields={},
        event=content,
    )


def collected(chunks: list[ModelResponseStream]) -> ModelResponse:
    """The plain answer that the chunks are."""
    response = stream_chunk_builder(list(chunks) or [make_chunk("", 0, {"content": ""})])
    if not isinstance(response, ModelResponse):
        raise TypeError("these are not the chunks of a chat completion")
    return response


async def as_stream(response: ModelResponse) -> AsyncIterator[ModelResponseStream]:
    """A plain answer as the stream that it could have been, in one piece."""
    choice: Any = response.choices[0]
    message = {k: v for k, v in choice.message.model_dump(exclude_none=True).items() if k != "function_call"}
    for index, call in enumerate(message.get("tool_calls") or ()):
        call["index"] = index
    yield make_chunk(
        response.id,
        response.created,
        message,
        model=response.model,
        finish_reason=choice.finish_reason,
        usage=getattr(response, "usage", None),
    )


def total(first: Usage | None, second: Usage | None) -> Usage | None:
    """Both together, with the details that either has."""
    if first is None or second is None:
        return first or second
    return Usage(**_sum(first.model_dump(exclude_none=True), second.model_dump(exclude_none=True)))


def _sum(first: dict[str, Any], second: dict[str, Any]) -> dict[str, Any]:
    summed = {**first, **second}
    for key in first.keys() & second.keys():
        if isinstance(first[key], dict) and isinstance(second[key], dict):
            summed[key] = _sum(first[key], second[key])
        elif isinstance(first[key], int | float) and isinstance(second[key], int | float):
            summed[key] = first[key] + second[key]
    return summed


async def close(stream: AsyncIterable[Any]) -> None:
    """End a stream that may have been left in the middle, and with it the provider's connection."""
    aclose = getattr(stream, "aclose", None)
    if aclose is not None:
        await aclose()
