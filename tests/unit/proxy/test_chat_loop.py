"""The loop of model and tools, as the client sees it, over a fake of LiteLLM's router."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import pytest
from litellm.exceptions import APIConnectionError, RateLimitError

from plugins.core.chat_config import ChatConfig
from plugins.proxy.auth import Refusal
from plugins.proxy.upstream import fallback_of
from tests.support.fake_proxy import ANSWER, CLIENT_TOOL, SEARCH, WHOLE, finishes, said, tool_deltas
from tests.support.fake_router import Round, call, text


async def test_the_stream_of_all_rounds_has_one_id_one_finish_reason_and_no_tool_call_of_ours(
    proxy_with: Any,
) -> None:
    chunks = await proxy_with(*ANSWER).stream()
    assert said(chunks) == WHOLE
    assert len({chunk.id for chunk in chunks}) == 1
    assert finishes(chunks) == ["stop"]
    assert tool_deltas(chunks) == []
    assert [c.choices[0].delta.role for c in chunks if c.choices and c.choices[0].delta.role] == ["assistant"]


async def test_usage_is_one_chunk_with_the_sum_and_only_for_clients_that_asked(proxy_with: Any) -> None:
    asked = await proxy_with(*ANSWER).stream(stream_options={"include_usage": True})
    assert [chunk.usage.total_tokens for chunk in asked if getattr(chunk, "usage", None)] == [24]
    assert asked[-1].choices == []
    proxy = proxy_with(*ANSWER)
    unasked = await proxy.stream()
    assert not any(getattr(chunk, "usage", None) for chunk in unasked)
    assert [r["stream_options"] for r in proxy.router.requests] == [{"include_usage": True}] * 2


async def test_a_plain_answer_is_the_stream_collected(proxy_with: Any) -> None:
    response = await proxy_with(*ANSWER).plain()
    choice = response.choices[0]
    assert choice.message.content == WHOLE
    assert choice.finish_reason == "stop"
    assert response.usage.total_tokens == 24
    streamed = [c for c in await proxy_with(*ANSWER).stream() if c.choices]
    deltas = [chunk.choices[0].delta for chunk in streamed]
    annotations = next(delta.annotations for delta in deltas if getattr(delta, "annotations", None))
    assert choice.message.annotations == annotations
    start, end = (annotations[0]["url_citation"][key] for key in ("start_index", "end_index"))
    assert WHOLE[start:end] == "[1]"
    assert annotations[0]["url_citation"]["url"] == (
        "https://proxy.example/v1/collections/vs_h/documents/d1/content#page=3"
    )
    [result] = choice.message.provider_specific_fields["search_results"]
    assert (result["number"], result["text"]) == (1, "The notice period is 30 days.")


async def test_the_model_gets_numbered_passages_and_the_request_of_round_one_again(proxy_with: Any) -> None:
    proxy = proxy_with(*ANSWER)
    await proxy.stream(temperature=0.1, tool_choice="required", user="u")
    first, second = proxy.router.requests
    assert first["messages"][0] == {"role": "system", "content": "Cite like [1]."}
    assert [tool["function"]["name"] for tool in first["tools"]] == ["search_documents"]
    assistant, told = second["messages"][-2:]
    assert assistant["tool_calls"][0]["function"]["name"] == "search_documents"
    assert told["tool_call_id"] == assistant["tool_calls"][0]["id"]
    beginning = "[1] Handbook > Leave (page 3)\n```passage document_id=d1\nThe notice period"
    assert told["content"].startswith(beginning)
    assert "[2] Handbook > Leave\n" in told["content"]
    kept = ("model", "temperature", "user", "tools", "metadata")
    assert {key: second[key] for key in kept} == {key: first[key] for key in kept}
    assert "tool_choice" not in second, "a forced call would be forced for ever"
    assert "litellm_logging_obj" not in second


async def test_tokens_are_passed_on_before_the_model_has_spoken_the_last(proxy_with: Any) -> None:
    gate = asyncio.Event()
    proxy = proxy_with(Round([SEARCH]), Round([text("first"), text(" last")], waits_for=gate))
    chunks = proxy.chunks(await proxy.begin(stream=True))
    assert (await anext(chunks)).choices[0].delta.content == "first"
    gate.set()
    assert said([chunk async for chunk in chunks]) == " last"


async def test_a_client_that_goes_away_ends_the_model_and_the_tools(proxy_with: Any) -> None:
    proxy = proxy_with(Round([SEARCH]), Round([text("first"), text(" last")]))
    chunks = proxy.chunks(await proxy.begin(stream=True))
    await anext(chunks)
    await chunks.aclose()
    assert proxy.router.streams[1].closed

    proxy = proxy_with(Round([SEARCH]))
    proxy.tool.hold = asyncio.Event()
    chunks = proxy.chunks(await proxy.begin(stream=True))
    step = asyncio.ensure_future(anext(chunks))
    await asyncio.wait_for(proxy.tool.started.wait(), 5)
    step.cancel()
    await asyncio.gather(step, return_exceptions=True)
    assert proxy.tool.cancelled


async def test_calls_of_one_round_run_at_once_up_to_the_limit_and_are_answered_in_order(
    proxy_with: Any,
) -> None:
    calls = [call("search_documents", f'{{"query": "{i}"}}', f"c{i}", i) for i in range(5)]
    config = ChatConfig(max_parallel_tools=2)
    proxy = proxy_with(Round(calls), Round([text("done")]), config=config)
    await proxy.stream()
    assert proxy.tool.most == 2
    told = [m["tool_call_id"] for m in proxy.router.requests[1]["messages"] if m["role"] == "tool"]
    assert told == ["c0", "c1", "c2", "c3", "c4"]


async def test_two_calls_that_a_provider_gives_one_index_are_two_calls(proxy_with: Any) -> None:
    calls = [call("search_documents", f'{{"query": "{i}"}}', f"c{i}", 0) for i in range(2)]
    proxy = proxy_with(Round(calls), Round([text("done")]))
    await proxy.stream()
    [assistant] = [m for m in proxy.router.requests[1]["messages"] if m["role"] == "assistant"]
    assert [(c["id"], c["function"]["arguments"]) for c in assistant["tool_calls"]] == [
        ("c0", '{"query": "0"}'),
        ("c1", '{"query": "1"}'),
    ]


async def test_a_call_without_an_id_gets_one(proxy_with: Any) -> None:
    function = {"name": "search_documents", "arguments": '{"query": "x"}'}
    nameless = {"tool_calls": [{"index": 0, "type": "function", "function": function}]}
    proxy = proxy_with(Round([nameless]), Round([text("done")]))
    await proxy.stream()
    assistant, told = proxy.router.requests[1]["messages"][-2:]
    assert told["tool_call_id"] == assistant["tool_calls"][0]["id"] != ""


@pytest.mark.parametrize(
    ("piece", "words"),
    [
        (call("search_documents", '{"query": "broken"}'), "the store is away"),
        (call("search_documents", '{"qery": "x"}'), "query"),
        (call("search_documents", '{"query": '), "JSON"),
        (call("delete_everything"), "There is no tool `delete_everything`; there are: search_documents."),
    ],
)
async def test_a_tool_that_fails_is_told_to_the_model(proxy_with: Any, piece: Any, words: str) -> None:
    proxy = proxy_with(Round([piece]), Round([text("I could not look.")]))
    assert said(await proxy.stream()) == "I could not look."
    assert words in proxy.router.requests[1]["messages"][-1]["content"]


async def test_at_the_round_limit_the_model_is_asked_once_more_without_tools(proxy_with: Any) -> None:
    proxy = proxy_with(Round([SEARCH]), Round([SEARCH]), Round([SEARCH]), Round([text("Enough.")]))
    chunks = await proxy.stream()
    assert said(chunks) == "Enough."
    assert ["tools" in request for request in proxy.router.requests] == [True, True, True, False]
    stubborn = proxy_with(Round([SEARCH]))
    chunks = await stubborn.stream()
    assert len(stubborn.router.requests) == 4
    assert (finishes(chunks), tool_deltas(chunks)) == (["stop"], [])


async def test_the_same_passage_keeps_its_number_over_rounds(proxy_with: Any) -> None:
    leave = call("search_documents", '{"query": "leave"}')
    proxy = proxy_with(Round([SEARCH]), Round([leave]), Round([text("[2]")]))
    await proxy.stream()
    told = [m["content"] for m in proxy.router.requests[2]["messages"] if m["role"] == "tool"]
    assert all("[2] Handbook" in content and "[3]" not in content for content in told)


async def test_calls_that_a_provider_counts_from_0_in_every_round_are_told_apart(proxy_with: Any) -> None:
    leave = call("search_documents", '{"query": "leave"}')
    proxy = proxy_with(Round([SEARCH]), Round([leave]), Round([text("done")]))
    await proxy.stream()
    messages = proxy.router.requests[2]["messages"]
    called = [c["id"] for m in messages for c in m.get("tool_calls") or ()]
    assert len(set(called)) == 2
    assert [m["tool_call_id"] for m in messages if m["role"] == "tool"] == called


async def test_the_clients_own_calls_are_handed_back_whole_and_ours_of_that_round_are_not(
    proxy_with: Any,
) -> None:
    mixed = Round([SEARCH, call("weather", '{"city": ', "w", 1), {"tool_calls": [piece_of(1, '"Bonn"}')]}])
    proxy = proxy_with(mixed)
    chunks = await proxy.stream(tools=[CLIENT_TOOL])
    assert finishes(chunks) == ["tool_calls"]
    [delta] = tool_deltas(chunks)
    assert (delta.index, delta.type, delta.function.name) == (0, "function", "weather")
    assert delta.function.arguments == '{"city": "Bonn"}'
    assert len(proxy.router.requests) == 1
    response = await proxy_with(mixed).plain(tools=[CLIENT_TOOL])
    [tool_call] = response.choices[0].message.tool_calls
    assert (tool_call.id, tool_call.function.name) == (delta.id, "weather")
    assert response.choices[0].finish_reason == "tool_calls"


def piece_of(index: int, arguments: str) -> dict[str, Any]:
    return {"index": index, "type": "function", "function": {"arguments": arguments}}


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (APIConnectionError("host 10.1.2.3", llm_provider="x", model="m"), "503"),
        (RateLimitError("key sk-123", llm_provider="x", model="m"), "429"),
        (RuntimeError("/srv/secret"), "503"),
    ],
)
async def test_an_error_of_a_later_round_names_nothing_internal(
    proxy_with: Any, stream: bool, error: Exception, status: str
) -> None:
    proxy = proxy_with(Round([SEARCH]), Round(error=error))
    with pytest.raises(Refusal) as refused:
        await (proxy.stream() if stream else proxy.plain())
    assert refused.value.code == status
    body = str(refused.value.to_dict())
    assert not any(word in body for word in ("10.1.2.3", "sk-123", "/srv"))


async def test_the_deadline_ends_a_model_that_does_not_go_on(proxy_with: Any) -> None:
    never = asyncio.Event()
    slow = Round([text("a")], waits_for=never)
    proxy = proxy_with(Round([SEARCH]), slow, config=ChatConfig(deadline_s=0.05))
    with pytest.raises(Refusal) as refused:
        await proxy.stream()
    assert refused.value.code == "504"
    assert proxy.router.streams[1].closed


@pytest.mark.parametrize("stream", [True, False])
async def test_the_answer_names_the_model_that_a_fallback_chose_and_goes_on_with_it(
    proxy_with: Any, stream: bool
) -> None:
    proxy = proxy_with(*ANSWER)
    proxy.router.fallback = "extractive"
    if stream:
        chunks = await proxy.stream()
        group = chunks[0]._hidden_params["additional_headers"]["x-litellm-model-group"]
    else:
        group = (await proxy.plain()).model
    assert group == "extractive"
    assert proxy.router.requests[1]["model"] == "extractive"


async def test_a_fallback_of_a_later_round_is_named_where_nothing_was_said_before(proxy_with: Any) -> None:
    async def models(*rounds: Round) -> set[str]:
        proxy = proxy_with(*rounds)
        first = await proxy.begin(stream=True)
        proxy.router.fallback = "extractive"
        return {chunk.model for chunk in [chunk async for chunk in proxy.chunks(first)]}

    assert await models(Round([SEARCH]), ANSWER[1]) == {"extractive"}
    assert await models(*ANSWER) == {"m"}, "an answer has one model"
    proxy = proxy_with(Round([SEARCH]), ANSWER[1])
    first = await proxy.begin()
    proxy.router.fallback = "extractive"
    plain = await proxy.hooks.async_post_call_success_hook(proxy.data, proxy.auth, first)
    assert plain.model == "extractive"
    assert fallback_of(plain) == "extractive", "LiteLLM names what stands here"


@pytest.mark.parametrize("ends", ["answered", "given up", "never answered"])
async def test_nothing_is_kept_of_a_request_that_has_ended(proxy_with: Any, ends: str) -> None:
    proxy = proxy_with(*ANSWER)
    response = await proxy.begin(stream=True)
    if ends != "never answered":
        chunks = proxy.chunks(response)
        async for _ in chunks:
            if ends == "given up":
                break
        await chunks.aclose()
        del chunks
    request = weakref.ref(proxy.data["litellm_logging_obj"])
    proxy.data, response = {}, None
    proxy.router.requests.clear()
    gc.collect()
    assert request() is None


async def test_reasoning_of_every_round_reaches_the_client_and_no_later_prompt(proxy_with: Any) -> None:
    rounds = (
        Round([{"reasoning_content": "They ask about notice."}, SEARCH]),
        Round([{"reasoning_content": "It is"}, {"reasoning_content": " there."}, text("30 days")]),
    )
    proxy = proxy_with(*rounds)
    chunks = await proxy.stream()
    thoughts = [
        c.choices[0].delta.reasoning_content
        for c in chunks
        if c.choices and getattr(c.choices[0].delta, "reasoning_content", None)
    ]
    assert thoughts == ["They ask about notice.", "\n\nIt is", " there."], "rounds are told apart"
    assert "They ask about" not in str(proxy.router.requests[1]["messages"][1:])
    assert said(chunks) == "30 days"
    message = (await proxy_with(*rounds).plain()).choices[0].message
    assert message.reasoning_content == "They ask about notice.\n\nIt is there."


async def test_the_first_reasoning_begins_with_no_blank_line_in_whichever_round_it_comes(
    proxy_with: Any,
) -> None:
    leave = call("search_documents", '{"query": "leave"}')
    proxy = proxy_with(
        Round([SEARCH]),
        Round([{"reasoning_content": "One."}, leave]),
        Round([{"reasoning_content": "Two."}, text("30 days")]),
    )
    assert (await proxy.plain()).choices[0].message.reasoning_content == "One.\n\nTwo."


@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"refusal": None}, None),
        ({"refusal": "no", "citation": None, "state": "s"}, {"state": "s"}),
        ({"reasoning_content": "hm", "state": "s"}, {"state": "s"}),
        ({"reasoning": "hm", "state": "s"}, {"state": "s"}),
        ({"thinking_blocks": [{"type": "thinking", "thinking": "hm"}], "state": "s"}, {"state": "s"}),
    ],
)
async def test_of_a_providers_own_fields_the_next_prompt_has_what_is_filled_no_refusal_and_no_reasoning(
    proxy_with: Any, fields: dict[str, Any], kept: dict[str, Any] | None
) -> None:
    proxy = proxy_with(
        Round([{"content": "Let me look.", "provider_specific_fields": fields}, SEARCH]),
        Round([text("done")]),
    )
    await proxy.stream()
    [assistant] = [m for m in proxy.router.requests[1]["messages"] if m["role"] == "assistant"]
    assert assistant.get("provider_specific_fields") == kept
    assert ("provider_specific_fields" in assistant) == (kept is not None)


async def test_thinking_blocks_with_a_signature_stay_in_the_prompt_and_others_do_not(proxy_with: Any) -> None:
    def thinking(**block: Any) -> dict[str, Any]:
        return {"reasoning_content": block["thinking"], "thinking_blocks": [{"type": "thinking", **block}]}

    signed = Round([thinking(thinking="hm", signature=""), thinking(thinking="", signature="s1"), SEARCH])
    proxy = proxy_with(signed, Round([text("done")]))
    await proxy.stream()
    [assistant] = [m for m in proxy.router.requests[1]["messages"] if m["role"] == "assistant"]
    assert assistant["thinking_blocks"] == [{"type": "thinking", "thinking": "hm", "signature": "s1"}]
    assert "reasoning_content" not in assistant
    proxy = proxy_with(Round([thinking(thinking="hm"), SEARCH]), Round([text("done")]))
    await proxy.stream()
    [assistant] = [m for m in proxy.router.requests[1]["messages"] if m["role"] == "assistant"]
    assert not assistant.get("thinking_blocks")


async def test_a_plain_answer_without_a_tool_call_is_the_models_own_whole(proxy_with: Any) -> None:
    proxy = proxy_with(Round([text("hi")]))
    response = await proxy.begin()
    response.choices[0].logprobs = {"content": []}
    assert await proxy.hooks.async_post_call_success_hook(proxy.data, proxy.auth, response) is None
    assert len(proxy.router.requests) == 1


async def test_a_finish_reason_of_the_model_is_kept(proxy_with: Any) -> None:
    chunks = await proxy_with(Round([text("cut o")], finish_reason="length")).stream()
    assert finishes(chunks) == ["length"]


async def test_beside_tools_whose_names_are_unknown_what_is_not_ours_is_the_clients_call(
    proxy_with: Any,
) -> None:
    server = {"type": "mcp", "server_label": "wiki"}
    proxy = proxy_with(Round([SEARCH]), Round([call("read_page", '{"page": 1}', "p")]))
    chunks = await proxy.stream(tools=[server])
    assert len(proxy.tool.calls) == 1
    assert finishes(chunks) == ["tool_calls"]
    assert [delta.function.name for delta in tool_deltas(chunks)] == ["read_page"]


async def test_the_providers_fingerprint_stands_in_the_chunks_that_it_came_with(proxy_with: Any) -> None:
    proxy = proxy_with(Round([text("30"), text(" days")]))
    response = await proxy.begin(stream=True)
    response._chunks[1].system_fingerprint = "fp_1"
    chunks = [chunk async for chunk in proxy.chunks(response) if said([chunk])]
    assert [(said([chunk]), chunk.system_fingerprint) for chunk in chunks] == [
        ("30", None),
        (" days", "fp_1"),
    ]
