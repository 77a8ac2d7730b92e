"""Our calls go to the client and come back in the id of its own first call."""

from __future__ import annotations

import hashlib
import re
import zlib
from base64 import urlsafe_b64encode
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from plugins.core.chat_config import ChatConfig
from plugins.proxy.handover import MAX_CHARS, Called, take, with_trace
from tests.support.fake_proxy import CLIENT_TOOL, QUESTION, SEARCH, finishes, said, tool_deltas
from tests.support.fake_router import Round, call, text

WEATHER = call("weather", '{"city": "Bonn"}', "w", 1)
SUNNY = "It is sunny."


def handed_over(proxy: Any, chunks: list[Any]) -> list[dict[str, Any]]:
    """The conversation as a client sends it again, with the results of its own tools."""
    calls = [
        {"id": d.id, "type": "function", "function": d.function.model_dump(include={"name", "arguments"})}
        for d in tool_deltas(chunks)
    ]
    results = [{"role": "tool", "tool_call_id": d["id"], "content": SUNNY} for d in calls]
    return [*QUESTION, {"role": "assistant", "content": said(chunks) or None, "tool_calls": calls}, *results]


def seen(messages: list[dict[str, Any]]) -> list[Any]:
    """Who says what, and which calls, in short."""
    return [
        [c["function"]["name"] for c in m["tool_calls"]] if m.get("tool_calls") else m["role"]
        for m in messages
    ]


async def test_ours_of_a_mixed_round_are_put_back_where_they_were_and_run_when_the_client_returns(
    proxy_with: Any,
) -> None:
    leave = call("search_documents", '{"query": "leave"}', "s", 2)
    first = proxy_with(Round([SEARCH]), Round([text("And the weather."), SEARCH, WEATHER, leave]))
    chunks = await first.stream(tools=[CLIENT_TOOL])
    assert finishes(chunks) == ["tool_calls"]
    assert len(first.tool.calls) == 1, "what nobody can read before the client returns is not run"
    second = proxy_with(Round([text("30 days [1], sunny.")]))
    answer = await second.stream(tools=[CLIENT_TOOL], messages=handed_over(first, chunks))
    assert said(answer) == "30 days [1], sunny."
    [request] = second.router.requests
    search = "search_documents"
    assert seen(request["messages"][2:]) == [
        [search],
        "tool",
        [search, "weather", search],
        "tool",
        "tool",
        "tool",
    ]
    mixed = request["messages"][4]
    assert mixed["content"] == "And the weather."
    ids = [c["id"] for c in mixed["tool_calls"]]
    told = {m["tool_call_id"]: m["content"] for m in request["messages"] if m["role"] == "tool"}
    assert set(ids) < set(told)
    assert ids[1] == "w", "the provider gets its own id"
    assert told["w"] == SUNNY
    assert "The notice period is 30 days." in told[request["messages"][2]["tool_calls"][0]["id"]]
    assert "before" in told[ids[0]], "the same call is answered once"
    assert "[2] Handbook > Leave" in told[ids[2]]
    assert len(second.tool.calls) == 2


async def test_a_call_of_a_tool_that_there_is_not_is_answered_when_the_client_returns(
    proxy_with: Any,
) -> None:
    first = proxy_with(Round([call("delete_everything", "{}", "d"), WEATHER]))
    messages = handed_over(first, await first.stream(tools=[CLIENT_TOOL]))
    second = proxy_with(Round([text("Sunny.")]))
    await second.stream(tools=[CLIENT_TOOL], messages=messages)
    called, told, sunny = second.router.requests[0]["messages"][2:]
    assert [c["function"]["name"] for c in called["tool_calls"]] == ["delete_everything", "weather"]
    assert told["content"].startswith("There is no tool `delete_everything`")
    assert sunny["content"] == SUNNY


async def test_a_plain_answer_is_handed_over_as_a_streamed_one(proxy_with: Any) -> None:
    rounds = (Round([SEARCH]), Round([WEATHER]))
    plain = await proxy_with(*rounds).plain(tools=[CLIENT_TOOL])
    [streamed] = tool_deltas(await proxy_with(*rounds).stream(tools=[CLIENT_TOOL]))
    assert plain.choices[0].message.tool_calls[0].id == streamed.id != "w"


async def test_without_a_call_of_ours_the_clients_id_is_the_providers(proxy_with: Any) -> None:
    [delta] = tool_deltas(await proxy_with(Round([WEATHER])).stream(tools=[CLIENT_TOOL]))
    assert delta.id == "w"


async def test_a_second_handover_of_the_same_answer_brings_back_both(proxy_with: Any) -> None:
    first = proxy_with(Round([SEARCH]), Round([WEATHER]))
    messages = handed_over(first, await first.stream(tools=[CLIENT_TOOL]))
    leave = call("search_documents", '{"query": "leave"}')
    second = proxy_with(Round([leave, call("weather", "{}", "w2", 1)]))
    again = handed_over(second, await second.stream(tools=[CLIENT_TOOL], messages=messages))
    third = proxy_with(Round([text("done")]))
    await third.stream(tools=[CLIENT_TOOL], messages=[*messages, *again[1:]])
    search = "search_documents"
    assert seen(third.router.requests[0]["messages"][2:]) == [
        [search],
        "tool",
        ["weather"],
        "tool",
        [search, "weather"],
        "tool",
        "tool",
    ]
    assert len(third.tool.calls) == 2


async def test_what_an_earlier_turn_carried_is_only_made_plain(proxy_with: Any) -> None:
    first = proxy_with(Round([SEARCH, WEATHER]))
    messages = handed_over(first, await first.stream(tools=[CLIENT_TOOL]))
    later = [*messages, {"role": "assistant", "content": "Sunny."}, {"role": "user", "content": "Thanks."}]
    for body in ({}, {"model": "plain"}, {"tool_choice": "none"}):
        proxy = proxy_with(Round([text("Bye.")]))
        await proxy.stream(tools=[CLIENT_TOOL], messages=later, **body)
        [request] = proxy.router.requests
        assert "__ran_" not in str(request["messages"])
        assert [c["id"] for m in request["messages"] for c in m.get("tool_calls") or ()] == ["w"]
        assert proxy.tool.calls == []


async def test_ids_are_made_plain_where_our_tools_take_no_part(proxy_with: Any) -> None:
    first = proxy_with(Round([SEARCH, WEATHER]))
    messages = handed_over(first, await first.stream(tools=[CLIENT_TOOL]))
    proxy = proxy_with(Round([text("hi")]))
    await proxy.stream(model="plain", tools=[CLIENT_TOOL], messages=messages)
    assert [m.get("tool_call_id") for m in proxy.router.requests[0]["messages"]] == [None, None, "w"]


async def test_a_caller_who_may_no_longer_run_a_tool_is_told_so_and_gets_nothing(proxy_with: Any) -> None:
    forged = with_trace("w", [[("delete_everything", "{}"), ("search_documents", '{"query": "x"}'), None]])
    calls = [{"id": forged, "type": "function", "function": {"name": "weather", "arguments": "{}"}}]
    messages = [*QUESTION, {"role": "assistant", "content": None, "tool_calls": calls}]
    proxy = proxy_with(Round([text("hm")]), config=ChatConfig(max_tool_calls=1))
    await proxy.stream(tools=[CLIENT_TOOL], messages=messages)
    told = [m["content"] for m in proxy.router.requests[0]["messages"] if m["role"] == "tool"]
    assert told[0].startswith("There is no tool `delete_everything`")
    assert told[1].startswith("[1] Handbook")
    denied = proxy_with(Round([text("hm")]), allowed=False)
    await denied.stream(tools=[CLIENT_TOOL], messages=messages)
    assert denied.tool.calls == []
    assert seen(denied.router.requests[0]["messages"]) == ["user", ["weather"]]


async def test_of_what_comes_back_the_last_run_within_the_budget_and_new_calls_have_it_anew(
    proxy_with: Any,
) -> None:
    many = [("search_documents", f'{{"query": "{number}"}}') for number in range(8)]
    calls = [{"id": with_trace("w", [[*many, None]]), "type": "function", "function": {"name": "weather"}}]
    messages = [*QUESTION, {"role": "assistant", "content": None, "tool_calls": calls}]
    again = call("search_documents", '{"query": "new"}')
    proxy = proxy_with(Round([again]), Round([text("done")]), config=ChatConfig(max_tool_calls=3))
    await proxy.stream(tools=[CLIENT_TOOL], messages=messages)
    told = [m["content"] for m in proxy.router.requests[1]["messages"] if m["role"] == "tool"]
    assert ["Handbook" in text or "before" in text for text in told] == [False] * 5 + [True] * 4


def packed(text: str) -> str:
    return urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")


NOISE = "".join(hashlib.sha256(bytes([number])).hexdigest() for number in range(100))
"""Packed, it is longer than an id may be; unpacked, it is not too long."""


@pytest.mark.parametrize(
    "carried",
    [
        "",
        "not-base64!",
        "AAAA",
        "A" * 100_000,
        packed("nothing"),
        packed('{"search_documents": {}}'),
        packed('[[["search_documents", {"query": 1}], null]]'),
        packed("[[null]]"),
        packed("[" * 16_000),
        packed("[[" + ", ".join(['["x", ""]'] * 500) + "]]"),
        packed('[[["search_documents", "' + "0" * 1_000_000 + '"]]]'),
        packed('[[["search_documents", "{}"]]]')[:-8],
        packed(f'[[["search_documents", "{NOISE}"], null]]'),
    ],
)
def test_what_cannot_be_read_was_not_carried(carried: str) -> None:
    assistant = {"role": "assistant", "tool_calls": [{"id": f"w__ran_{carried}", "type": "function"}]}
    data: dict[str, Any] = {"messages": [*QUESTION, assistant]}
    assert take(data) == []
    assert data["messages"][1]["tool_calls"][0]["id"] == "w"


@pytest.mark.parametrize(
    "messages",
    [
        None,
        "text",
        [None, 1, {"role": "assistant", "tool_calls": "x"}],
        [{"role": "assistant", "tool_calls": [None, {"id": ["__ran_"]}, {"id": {}}]}],
        [{"role": "tool", "tool_call_id": {"__ran_": 1}}],
    ],
)
def test_messages_of_any_shape_are_left_to_those_who_check_them(messages: Any) -> None:
    data = {"messages": messages}
    assert take(data) == []
    assert data["messages"] is messages


def carrying(*ids: str) -> dict[str, Any]:
    messages = [{"role": "assistant", "tool_calls": [{"id": call_id}]} for call_id in ids]
    return {"messages": [*QUESTION, *messages]}


def test_of_many_answers_since_the_question_the_last_sixteen_are_brought_back() -> None:
    ids = [with_trace(f"w{number}", [[("search_documents", "{}"), None]]) for number in range(20)]
    assert [trace.call_id for trace in take(carrying(*ids))] == [f"w{number}" for number in range(4, 20)]


def test_calls_that_would_be_too_long_unpacked_leave_the_oldest_behind() -> None:
    made: list[Called] = [("search_documents", str(number) * 8000) for number in range(3)]
    [trace] = take(carrying(with_trace("w", [[*made, None]])))
    assert trace.rounds == [[*made[1:], None]]


calls = st.tuples(st.text(max_size=20), st.text(max_size=400))
rounds = st.lists(st.lists(calls, max_size=6), max_size=6)


@settings(max_examples=100, deadline=None)
@given(
    rounds,
    st.lists(st.one_of(st.none(), calls), max_size=8),
    st.from_regex(r"[A-Za-z0-9-]{0,40}", fullmatch=True),
)
def test_what_is_carried_comes_back_as_far_as_it_fits_in_an_id_that_every_client_takes(
    earlier: list[list[Called]], last: list[Called], call_id: str
) -> None:
    made = [*earlier, last]
    carried = with_trace(call_id, made)
    assert re.fullmatch(r"[A-Za-z0-9_-]*", carried)
    assert len(carried) <= len(call_id) + len("__ran_") + MAX_CHARS
    assistant = {"role": "assistant", "tool_calls": [{"id": carried}]}
    data: dict[str, Any] = {
        "messages": [{"role": "user"}, assistant, {"role": "tool", "tool_call_id": carried}]
    }
    traces = take(data)
    assert data["messages"][1]["tool_calls"] == [{"id": call_id}]
    assert data["messages"][2]["tool_call_id"] == call_id
    ours = [called for calls in made for called in calls if called is not None]
    back = [called for trace in traces for calls in trace.rounds for called in calls if called is not None]
    assert back == ours[len(ours) - len(back) :], "the newest, in order"
    if sum(len(name) + len(arguments) for name, arguments in ours) < 200:
        assert back == ours
        assert not ours or traces[0].rounds[-1] == last
