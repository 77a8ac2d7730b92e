"""LiteLLM's stream chunks: taking rounds apart and putting the client's stream together."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterable, AsyncIterator, Callable, Collection
from typing import Any

from litellm import stream_chunk_builder
from litellm.types.utils import (
    ChoiceLogprobs,
    Delta,
    ModelResponse,
    ModelResponseStream,
    StreamingChoices,
    Usage,
)

HELD_BACK = frozenset({"tool_calls", "role"})
NOT_RETURNED = frozenset({"reasoning_content", "reasoning", "thinking_blocks", "refusal"})
"""Of the provider's fields: strict endpoints refuse a prompt that has them."""


class Slot:
    """One tool call of a round, in the pieces that it came in."""

    def __init__(self) -> None:
        self.id = ""
        self.name = ""
        self.pieces: list[dict[str, Any]] = []

    def whole(self) -> dict[str, Any]:
        """The call in one piece, with whatever a provider put beside it (Gemini's thought signatures)."""
        call: dict[str, Any] = {}
        details: dict[str, Any] = {}
        kind = "custom" if any(piece.get("custom") for piece in self.pieces) else "function"
        for piece in self.pieces:
            call.update(piece)
            details.update(piece.get(kind) or {})
        text = "input" if kind == "custom" else "arguments"
        parts = [(piece.get(kind) or {}).get(text) or "" for piece in self.pieces]
        details |= {"name": self.name, text: "".join(parts)}
        call.pop("index", None)
        return {**call, "id": self.id, "type": kind, kind: details}


class Round:
    """One call of the model: what the client may see of it, and what it asks to be run.

    Calls are held back to its end: which of them are the client's is known by their names, and what the
    first of these carries only then.

    Args:
        is_client: Whether a tool of this name is the client's own to run.
    """

    def __init__(self, is_client: Callable[[str], bool]) -> None:
        self._is_client = is_client
        self._chunks: list[ModelResponseStream] = []
        self._slots: list[Slot] = []
        self._latest: dict[int, Slot] = {}
        """By the index that the provider gives."""
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
        if given:
            self._chunks.append(make_chunk(chunk.id, chunk.created, given))
        for piece in choice.delta.tool_calls or ():
            self._add(as_dict(piece))
        return given

    @property
    def client_calls(self) -> bool:
        """Whether the client has tools to run."""
        return any(self._is_client(slot.name) for slot in self._slots)

    @property
    def own_calls(self) -> bool:
        """Whether there are calls that the client must not see."""
        return any(not self._is_client(slot.name) for slot in self._slots)

    def calls(self, taken: Collection[str] = ()) -> list[dict[str, Any]]:
        """All calls whole, in the order in which the model made them.

        Args:
            taken: Ids of earlier calls: some providers count from 0 in every round.
        """
        seen = set(taken)
        for slot in self._slots:
            if not slot.id or slot.id in seen:
                slot.id = f"call_{uuid.uuid4().hex[:24]}"
            seen.add(slot.id)
        return [slot.whole() for slot in self._slots]

    def message(self, taken: Collection[str] = ()) -> dict[str, Any]:
        """The assistant's message of this round for the next one's prompt; ``taken`` as for `calls`.

        Its reasoning is left out, apart from thinking blocks with their signatures, which their provider
        asks for: https://docs.litellm.ai/docs/reasoning_content
        """
        message = collected(self._chunks).choices[0].message.model_dump(exclude_none=True)
        message.pop("reasoning_content", None)
        fields = {
            key: value
            for key, value in (message.pop("provider_specific_fields", None) or {}).items()
            if value is not None and key not in NOT_RETURNED
        }
        if fields:
            message["provider_specific_fields"] = fields
        return {**message, "content": message.get("content") or None, "tool_calls": self.calls(taken)}

    def _add(self, piece: dict[str, Any]) -> None:
        """To the call that it belongs to. Some providers give several calls one index, with other ids."""
        index = piece.get("index") or 0
        slot = self._latest.get(index)
        if slot is None or (piece.get("id") and slot.id and piece["id"] != slot.id):
            slot = self._latest[index] = Slot()
            self._slots.append(slot)
        details = piece.get("function") or piece.get("custom") or {}
        slot.id = slot.id or piece.get("id") or ""
        slot.name = slot.name or details.get("name") or ""
        slot.pieces.append(piece)


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
    parts = [part for chunk in chunks if chunk.choices and (part := logprobs_of(chunk.choices[0]))]
    if parts:  # LiteLLM's builder loses them
        choice: Any = response.choices[0]
        choice.logprobs = ChoiceLogprobs.model_validate(
            {
                kind: [token for part in parts for token in part.get(kind) or ()] or None
                for kind in ("content", "refusal")
            }
        )
    return response


def copy_logprobs(choice: Any, chunk: ModelResponseStream) -> None:
    """The logprobs of a choice, if it has any, to a chunk."""
    if found := logprobs_of(choice):
        chunk.choices[0].logprobs = ChoiceLogprobs.model_validate(found)


def logprobs_of(choice: Any) -> dict[str, Any]:
    """A choice's ``{"content": [...], "refusal": [...]}``; empty where there are none."""
    found = getattr(choice, "logprobs", None)
    return {} if found is None else as_dict(found)


async def as_stream(response: ModelResponse) -> AsyncIterator[ModelResponseStream]:
    """A plain answer as the stream that it could have been, in one piece."""
    choice: Any = response.choices[0]
    message = {k: v for k, v in choice.message.model_dump(exclude_none=True).items() if k != "function_call"}
    for index, call in enumerate(message.get("tool_calls") or ()):
        call["index"] = index
    chunk = make_chunk(
        response.id,
        response.created,
        message,
        model=response.model,
        finish_reason=choice.finish_reason,
        usage=getattr(response, "usage", None),
    )
    copy_logprobs(choice, chunk)
    yield chunk


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
