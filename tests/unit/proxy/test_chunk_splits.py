"""However the model's stream is cut into chunks, the client gets the same answer, and the model the same
prompt in the next round."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import litellm
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from litellm.proxy import proxy_server

from plugins.core.chat_config import ChatConfig
from tests.support.fake_proxy import CLIENT_TOOL, Proxy, finishes, said, tool_deltas
from tests.support.fake_router import Piece, Round, call, text

ARGUMENTS = '{"city": "Köln, [1] & \\"more\\""}'
TEXT = "Notice is 30 days [1], leave 28 [2][1] and [1, 2]; an invented one[7] is left out, [x] not."
SHOWN = "Notice is 30 days [1], leave 28 [2][1] and [1][2]; an invented one is left out, [x] not."
THOUGHT = "They ask [1] about notice."
OPEN_WEBUI = {"x-openwebui-user-id": "u"}


@dataclass(frozen=True)
class Cuts:
    """Where texts, thoughts and arguments are cut, and what is joined."""

    text: Sequence[int] = ()
    thought: Sequence[int] = ()
    arguments: Sequence[int] = ()
    joins: Sequence[bool] = ()
    usage_apart: bool = True


WHOLE = Cuts()
positions = st.lists(st.integers(0, 500), max_size=20)
cuts = st.builds(Cuts, positions, positions, positions, st.lists(st.booleans(), max_size=40), st.booleans())


def cut(whole: str, at: Sequence[int]) -> list[str]:
    edges = sorted({0, len(whole), *(position % (len(whole) + 1) for position in at)})
    return [whole[a:b] for a, b in pairwise(edges)]


def call_in_pieces(name: str, arguments: str, at: Sequence[int], index: int) -> list[Piece]:
    begin = call(name, "", f"call_{index}", index)
    rest = [
        {"index": index, "type": "function", "function": {"arguments": part}} for part in cut(arguments, at)
    ]
    return [begin, *({"tool_calls": [piece]} for piece in rest)]


def together(pieces: Sequence[Piece], joins: Sequence[bool]) -> list[Piece]:
    """Some neighbours in one chunk: a text and the beginning of a call, or pieces of two calls."""
    result: list[Piece] = []
    for piece, join in zip(pieces, [False, *joins, *[False] * len(pieces)], strict=False):
        last = result[-1] if result else {}
        if join and "tool_calls" in piece:
            result[-1] = {**last, "tool_calls": [*last.get("tool_calls", ()), *piece["tool_calls"]]}
        else:
            result.append(piece)
    return result


def a_round(cuts: Cuts, thought: str, says: str, *calls: tuple[str, str]) -> Round:
    pieces = [{"reasoning_content": part} for part in cut(thought, cuts.thought)]
    pieces += [text(part) for part in cut(says, cuts.text)]
    for index, (name, arguments) in enumerate(calls):
        pieces += call_in_pieces(name, arguments, cuts.arguments, index)
    return Round(together(pieces, cuts.joins), usage_apart=cuts.usage_apart)


async def outcome(
    rounds: Sequence[Round], config: ChatConfig | None = None, headers: Any = None, **body: Any
) -> dict[str, Any]:
    """All that the client gets, however it is cut, and the last round's prompt."""
    proxy = Proxy(rounds, config=config)
    router, callbacks = proxy_server.llm_router, litellm.callbacks
    proxy_server.llm_router, litellm.callbacks = proxy.router, [proxy.hooks]  # type: ignore[assignment]
    body["stream_options"] = {"include_usage": True}
    try:
        chunks = await proxy.stream(
            tools=[CLIENT_TOOL], proxy_server_request={"headers": headers or {}}, **body
        )
    finally:
        proxy_server.llm_router, litellm.callbacks = router, callbacks
    deltas = [chunk.choices[0].delta for chunk in chunks if chunk.choices]
    fields = [getattr(delta, "provider_specific_fields", None) for delta in deltas]
    return {
        "text": said(chunks),
        "reasoning": "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas),
        "calls": [(d.index, d.id, d.function.name, d.function.arguments) for d in tool_deltas(chunks)],
        "finish": finishes(chunks),
        "usage": [chunk.usage.model_dump() for chunk in chunks if getattr(chunk, "usage", None)],
        "annotations": [a for delta in deltas for a in getattr(delta, "annotations", None) or ()],
        "fields": [found for found in fields if found],
        "events": [chunk.event for chunk in chunks if getattr(chunk, "event", None)],
        "prompt": proxy.router.requests[-1]["messages"],
    }


def mixed(cuts: Cuts) -> list[Round]:
    ours, theirs = ("search_documents", '{"query": "notice"}'), ("weather", ARGUMENTS)
    return [
        a_round(cuts, THOUGHT, "Let me look.", ours),
        a_round(cuts, THOUGHT, TEXT, ours, theirs, ("weather", "{}")),
    ]


def limited(cuts: Cuts) -> list[Round]:
    return [
        a_round(cuts, THOUGHT, "Let me look.", ("search_documents", '{"query": "notice"}')),
        a_round(cuts, THOUGHT, TEXT),
    ]


async def test_uncut_the_answers_are_what_the_model_said() -> None:
    answer = await outcome(mixed(WHOLE))
    assert answer["text"] == f"Let me look.\n\n{SHOWN}"
    assert answer["reasoning"] == f"{THOUGHT}\n\n{THOUGHT}"
    assert [(index, name, arguments) for index, _, name, arguments in answer["calls"]] == [
        (0, "weather", ARGUMENTS),
        (1, "weather", "{}"),
    ]
    assert answer["finish"] == ["tool_calls"]
    assert [usage["total_tokens"] for usage in answer["usage"]] == [24]
    answer = await outcome(limited(WHOLE), ChatConfig(max_rounds=1))
    assert (answer["finish"], answer["fields"][0]["limit_reached"]) == (["stop"], "max_rounds")
    spans = [a["url_citation"] for a in answer["annotations"]]
    shown = [answer["text"][span["start_index"] : span["end_index"]] for span in spans]
    assert shown == ["[1]", "[2]", "[1]", "[1]", "[2]"]


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cuts)
async def test_a_cut_changes_nothing_of_a_round_with_calls_of_ours_and_the_clients(cuts: Cuts) -> None:
    assert await outcome(mixed(cuts)) == await outcome(mixed(WHOLE))


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cuts)
async def test_a_cut_changes_nothing_of_a_limited_answer_with_its_sources(cuts: Cuts) -> None:
    config = ChatConfig(max_rounds=1, public_base_url="https://proxy.example")
    assert await outcome(limited(cuts), config) == await outcome(limited(WHOLE), config)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cuts)
async def test_a_cut_changes_nothing_of_a_structured_answer(cuts: Cuts) -> None:
    asked: dict[str, Any] = {"response_format": {"type": "json_object"}}
    whole = await outcome([*limited(WHOLE), a_round(WHOLE, THOUGHT, '{"from": [1, 2]}')], **asked)
    assert whole["text"] == '{"from": [1, 2]}'
    assert await outcome([*limited(cuts), a_round(cuts, THOUGHT, '{"from": [1, 2]}')], **asked) == whole


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(cuts)
async def test_a_cut_changes_nothing_of_what_open_webui_shows(cuts: Cuts) -> None:
    whole = await outcome(limited(WHOLE), headers=OPEN_WEBUI)
    assert whole["events"]
    assert await outcome(limited(cuts), headers=OPEN_WEBUI) == whole
