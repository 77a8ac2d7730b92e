"""Our calls of an answer in which the client's tools are called, too: carried to the client and back.

The client gets its own calls only. What ours were (names and arguments, no results) goes into the id of its
first call, the one field that every client must return: https://platform.openai.com/docs/guides/function-calling
When it returns, the ids are made plain again and our calls are put back where they were and run again, as
the caller of that request may run them. So nothing that comes back is trusted: what is forged is a call that
the caller could have asked for.
"""

from __future__ import annotations

import binascii
import hashlib
import json
import re
import zlib
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import TypeAdapter, ValidationError

from plugins.proxy.tool_calls import ToolCalls

MARK = "__ran_"
TRACED = re.compile(rf"(?s)(.*?){MARK}(.*)")
"""The provider's id, and what is carried."""
MAX_CHARS = 2_000
"""Of what is carried in an id."""
MAX_BYTES = 16_384
"""Of it, unpacked."""
MAX_CALLS = 64
MAX_TRACES = 16
"""Of one request: the answers since the last question."""

Called = tuple[str, str] | None
"""Name and arguments of a call that is not the client's; None is the place of one that is."""
ROUNDS = TypeAdapter(list[list[Called]])


@dataclass(frozen=True, slots=True)
class Trace:
    """Our calls of one answer that ended with the client's."""

    call_id: str
    """Of the client's call that carried it, as the model knows it."""
    rounds: list[list[Called]]
    """The last one is the one with the client's calls."""


def with_trace(call_id: str, rounds: Sequence[Sequence[Called]]) -> str:
    """The id under which the client gets its first call: `[A-Za-z0-9_-]` are added, at most `MAX_CHARS`.

    Where that is too little, the oldest calls are left out.
    """
    places = [
        (number, call)
        for number, calls in enumerate(rounds)
        for call in calls
        if call is None or len(call[0]) + len(call[1]) <= MAX_BYTES
    ]
    ours = [index for index, (_, call) in enumerate(places) if call is not None]
    for first in ours[-MAX_CALLS:]:
        kept: list[list[Called]] = [[] for _ in rounds]
        for index, (number, call) in enumerate(places):
            if call is None or index >= first:
                kept[number].append(call)
        packed = _packed([*(calls for calls in kept[:-1] if calls), kept[-1]])
        if packed is not None:
            return f"{call_id}{MARK}{packed}"
    return call_id


def take(data: dict[str, Any]) -> list[Trace]:
    """Make the ids in a request's messages plain again; what they carried since the last question, in order.

    Nothing is trusted: what cannot be read was not carried.
    """
    messages = data.get("messages")
    if not isinstance(messages, list):
        return []
    plain: list[Any] = []
    carried: list[tuple[str, str]] = []
    for message in messages:
        if isinstance(message, dict):
            if message.get("role") == "user":
                carried.clear()
            message = _plain(message, carried)
        plain.append(message)
    if any(old is not new for old, new in zip(messages, plain, strict=True)):
        data["messages"] = plain
    traces = [(call_id, _unpacked(packed)) for call_id, packed in carried[-MAX_TRACES:]]
    return [Trace(call_id, rounds) for call_id, rounds in traces if rounds]


async def restored(
    messages: Sequence[dict[str, Any]], traces: Sequence[Trace], tools: ToolCalls
) -> list[dict[str, Any]]:
    """The messages with our calls where the model made them, run again and answered.

    Args:
        messages: With plain ids.
        traces: From `take`.
        tools: Runs the calls, within the budget of this request.
    """
    left = list(traces)
    found: dict[int, list[list[dict[str, Any] | None]]] = {}
    for position, message in enumerate(messages):
        trace = next((trace for trace in left if trace.call_id in ids_of(message)), None)
        if trace is not None:
            left.remove(trace)
            found[position] = _identified(trace, position)
    ours = [call for rounds in found.values() for calls in rounds for call in calls if call is not None]
    told = {ran.id: ran.message for ran in await tools.repeat(ours)} if ours else {}
    whole: list[dict[str, Any]] = []
    for position, message in enumerate(messages):
        if position not in found:
            whole.append(message)
            continue
        *earlier, last = found[position]
        for calls in earlier:
            own = [call for call in calls if call is not None]
            whole += [{"role": "assistant", "content": None, "tool_calls": own}, *_answers(own, told)]
        whole += [{**message, "tool_calls": _merged(last, _calls(message))}, *_answers(last, told)]
    return whole


def _packed(rounds: list[list[Called]]) -> str | None:
    """None where it is too long."""
    text = json.dumps(rounds, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    if len(text) > MAX_BYTES:
        return None
    packed = urlsafe_b64encode(zlib.compress(text, 9)).decode().rstrip("=")
    return packed if len(packed) <= MAX_CHARS else None


def _unpacked(packed: str) -> list[list[Called]] | None:
    if len(packed) > MAX_CHARS:
        return None
    try:
        unpacking = zlib.decompressobj()
        text = unpacking.decompress(urlsafe_b64decode(packed + "=" * (-len(packed) % 4)), MAX_BYTES)
        rounds = ROUNDS.validate_json(text) if unpacking.eof else []
    except (ValueError, zlib.error, binascii.Error, ValidationError):
        return None
    calls = sum(len(round_) for round_ in rounds)
    return rounds if any(call for round_ in rounds for call in round_) and calls <= 2 * MAX_CALLS else None


def _plain(message: dict[str, Any], carried: list[tuple[str, str]]) -> dict[str, Any]:
    """The message with the ids that the model knows; what its calls carried is added to ``carried``."""
    answered = message.get("tool_call_id")
    if isinstance(answered, str) and MARK in answered:
        message = {**message, "tool_call_id": answered.partition(MARK)[0]}
    calls = _calls(message)
    if not any(isinstance(call.get("id"), str) and MARK in call["id"] for call in calls):
        return message
    plain = []
    for call in calls:
        if isinstance(call.get("id"), str) and (traced := TRACED.fullmatch(call["id"])):
            carried.append((traced[1], traced[2]))
            call = {**call, "id": traced[1]}
        plain.append(call)
    return {**message, "tool_calls": plain}


def ids_of(message: dict[str, Any]) -> list[str]:
    """Of the tool calls of a message."""
    return [call["id"] for call in _calls(message) if isinstance(call.get("id"), str)]


def _calls(message: dict[str, Any]) -> list[dict[str, Any]]:
    calls = message.get("tool_calls") if message.get("role") == "assistant" else None
    return [call for call in calls if isinstance(call, dict)] if isinstance(calls, list) else []


def _identified(trace: Trace, position: int) -> list[list[dict[str, Any] | None]]:
    """Its calls as a message has them. Their ids are the same each time, for the provider's prompt cache."""
    rounds: list[list[dict[str, Any] | None]] = []
    for number, calls in enumerate(trace.rounds):
        rounds.append([])
        for place, call in enumerate(calls):
            if call is None:
                rounds[-1].append(None)
                continue
            seed = f"{position} {number} {place} {trace.call_id}".encode("utf-8", "replace")
            call_id = f"call_{hashlib.sha256(seed).hexdigest()[:24]}"
            function = {"name": call[0], "arguments": call[1]}
            rounds[-1].append({"id": call_id, "type": "function", "function": function})
    return [calls for calls in rounds[:-1] if any(calls)] + rounds[-1:]


def _merged(
    places: Sequence[dict[str, Any] | None], clients: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Ours and the client's calls in the order in which the model made them."""
    left = iter(clients)
    merged = [call or next(left, None) for call in places]
    return [call for call in [*merged, *left] if call is not None]


def _answers(calls: Sequence[dict[str, Any] | None], told: dict[str, dict[str, Any]]) -> list[dict[str, Any]]:
    return [told[call["id"]] for call in calls if call is not None]
