"""OpenAI's parameters beside our tools, one by one: https://platform.openai.com/docs/api-reference/chat/create."""

from __future__ import annotations

import json
from typing import Any

import pytest

from plugins.core.chat_config import ChatConfig
from plugins.proxy.auth import Refusal
from tests.support.fake_proxy import ANSWER, CLIENT_TOOL, SEARCH, WHOLE, finishes, said, tool_deltas
from tests.support.fake_router import Round, call, text

NAMED = {"type": "function", "function": {"name": "search_documents"}}
SCHEMA = {"type": "json_schema", "json_schema": {"name": "days", "schema": {"type": "object"}}}


def offered(request: dict[str, Any]) -> list[str]:
    return [tool["function"]["name"] for tool in request.get("tools") or ()]


# --- tool_choice ---------------------------------------------------------------------------------------


async def test_tool_choice_none_calls_no_tool_of_ours(proxy_with: Any) -> None:
    proxy = proxy_with(Round([text("hi")]))
    await proxy.stream(tool_choice="none", tools=[CLIENT_TOOL])
    [request] = proxy.router.requests
    assert offered(request) == ["weather"]
    assert request["tool_choice"] == "none"


async def test_tool_choice_auto_is_kept_in_every_round(proxy_with: Any) -> None:
    proxy = proxy_with(*ANSWER)
    await proxy.stream(tool_choice="auto")
    assert [request["tool_choice"] for request in proxy.router.requests] == ["auto", "auto"]


@pytest.mark.parametrize("choice", ["required", NAMED])
async def test_a_tool_choice_that_forces_a_call_of_ours_counts_for_the_first_round(
    proxy_with: Any, choice: Any
) -> None:
    proxy = proxy_with(*ANSWER)
    assert said(await proxy.stream(tool_choice=choice)) == WHOLE
    assert [request.get("tool_choice") for request in proxy.router.requests] == [choice, None]


async def test_a_tool_choice_that_names_the_clients_tool_gives_its_call_to_the_client(
    proxy_with: Any,
) -> None:
    choice = {"type": "function", "function": {"name": "weather"}}
    proxy = proxy_with(Round([call("weather", "{}", "w")]))
    chunks = await proxy.stream(tool_choice=choice, tools=[CLIENT_TOOL])
    assert [delta.function.name for delta in tool_deltas(chunks)] == ["weather"]
    assert [request["tool_choice"] for request in proxy.router.requests] == [choice]


async def test_parallel_tool_calls_is_kept_as_long_as_tools_are_offered(proxy_with: Any) -> None:
    proxy = proxy_with(Round([SEARCH]), Round([text("done")]), config=ChatConfig(max_rounds=1))
    await proxy.stream(parallel_tool_calls=False)
    assert [r.get("parallel_tool_calls") for r in proxy.router.requests] == [False, None]


# --- what each round gets ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "parameter",
    [
        {"stop": ["END"]},
        {"max_tokens": 50},
        {"max_completion_tokens": 50},
        {"seed": 7},
        {"logprobs": True, "top_logprobs": 2},
        {"response_format": {"type": "text"}},
        {"temperature": 0.2, "top_p": 0.9},
    ],
)
async def test_a_parameter_of_the_text_holds_in_every_round(
    proxy_with: Any, parameter: dict[str, Any]
) -> None:
    proxy = proxy_with(*ANSWER)
    assert said(await proxy.stream(**parameter)) == WHOLE
    for request in proxy.router.requests:
        assert {name: request[name] for name in parameter} == parameter


@pytest.mark.parametrize("reason", ["length", "content_filter"])
async def test_an_answer_that_was_cut_says_why(proxy_with: Any, reason: str) -> None:
    proxy = proxy_with(Round([SEARCH]), Round([text("It is")], finish_reason=reason))
    assert finishes(await proxy.stream(max_tokens=2)) == [reason]


@pytest.mark.parametrize("stream", [True, False])
async def test_more_than_one_choice_is_refused_in_words(proxy_with: Any, stream: bool) -> None:
    proxy = proxy_with(Round([text("never")]))
    with pytest.raises(Refusal, match="`n` must be 1") as refused:
        await (proxy.stream(n=2) if stream else proxy.plain(n=2))
    assert (refused.value.code, refused.value.to_dict()["param"]) == ("400", "n")
    assert proxy.router.requests == []


async def test_logprobs_of_the_answer_reach_the_client_also_where_text_is_held_back(proxy_with: Any) -> None:
    tokens = ["30", " days", " [", "1", "]", "."]
    rounds = (Round([SEARCH]), Round([text(token) for token in tokens], logprobs=True))
    chunks = await proxy_with(*rounds).stream(logprobs=True)
    found = [c.choices[0].logprobs for c in chunks if c.choices and getattr(c.choices[0], "logprobs", None)]
    assert [entry.token for logprobs in found for entry in logprobs.content] == tokens
    choice = (await proxy_with(*rounds).plain(logprobs=True)).choices[0]
    assert [entry.token for entry in choice.logprobs.content] == tokens
    assert choice.message.content == said(chunks)


# --- response_format -----------------------------------------------------------------------------------

JSON = '{"days": 30, "from": [1, 2]}'
STRUCTURED = (
    Round([text("Let me look."), SEARCH]),
    Round([text("It is 30 days [1].")]),
    Round([text(JSON[:20]), text(JSON[20:])]),
)


async def test_structured_output_is_the_final_answer_alone_as_the_model_wrote_it(proxy_with: Any) -> None:
    proxy = proxy_with(*STRUCTURED)
    chunks = await proxy.stream(response_format=SCHEMA)
    assert json.loads(said(chunks)) == {"days": 30, "from": [1, 2]}
    assert finishes(chunks) == ["stop"]
    first, second, last = proxy.router.requests
    assert "response_format" not in first
    assert "response_format" not in second
    assert last["response_format"] == SCHEMA
    assert "tools" not in last
    assert not any("It is 30" in str(m["content"]) for m in last["messages"]), "what nobody saw is not said"


async def test_structured_output_lists_every_passage_that_was_given_by_the_number_that_the_model_saw(
    proxy_with: Any,
) -> None:
    message = (await proxy_with(*STRUCTURED).plain(response_format=SCHEMA)).choices[0].message
    assert message.content == JSON
    assert not getattr(message, "annotations", None)
    results = message.provider_specific_fields["search_results"]
    assert [(result["number"], result["text"]) for result in results] == [
        (1, "The notice period is 30 days."),
        (2, "Leave is 28 days."),
    ]


@pytest.mark.parametrize("stream", [True, False])
async def test_structured_output_without_a_search_is_asked_for_as_well(proxy_with: Any, stream: bool) -> None:
    proxy = proxy_with(Round([text("Hello!")]), Round([text("{}")]))
    asked: dict[str, Any] = {"response_format": {"type": "json_object"}}
    answer = said(await proxy.stream(**asked)) if stream else None
    if not stream:
        answer = (await proxy.plain(**asked)).choices[0].message.content
    assert answer == "{}"


async def test_structured_output_at_a_limit_is_still_structured(proxy_with: Any) -> None:
    proxy = proxy_with(Round([SEARCH]), Round([text("{}")]), config=ChatConfig(max_rounds=1))
    assert said(await proxy.stream(response_format=SCHEMA)) == "{}"
    assert proxy.router.requests[-1]["response_format"] == SCHEMA


async def test_with_structured_output_the_clients_calls_are_handed_back_as_always(proxy_with: Any) -> None:
    proxy = proxy_with(Round([text("Well."), call("weather", "{}", "w")]))
    chunks = await proxy.stream(response_format=SCHEMA, tools=[CLIENT_TOOL])
    assert (said(chunks), finishes(chunks)) == ("", ["tool_calls"])
    assert [delta.function.name for delta in tool_deltas(chunks)] == ["weather"]


async def test_without_our_tools_a_response_format_is_the_models_alone(proxy_with: Any) -> None:
    proxy = proxy_with(Round([text("{}")]))
    await proxy.stream(model="plain", response_format=SCHEMA)
    assert [request["response_format"] for request in proxy.router.requests] == [SCHEMA]


# --- tools ---------------------------------------------------------------------------------------------


async def test_a_thousand_tools_of_the_client_are_offered_beside_ours(proxy_with: Any) -> None:
    tools = [{"type": "function", "function": {"name": f"tool_{n}"}} for n in range(1000)]
    mixed = Round([SEARCH, *(call(f"tool_{n}", "{}", f"c{n}", n + 1) for n in range(1000))])
    proxy = proxy_with(Round([SEARCH]), mixed)
    chunks = await proxy.stream(tools=tools)
    assert len(proxy.router.requests[1]["tools"]) == 1001
    assert [delta.index for delta in tool_deltas(chunks)] == list(range(1000))
