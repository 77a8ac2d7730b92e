"""How a model comes to passages: by its own calls, by a search before it is asked, or both."""

from __future__ import annotations

import asyncio
import json
import time
from typing import Any

import pytest
from litellm.proxy import proxy_server

from plugins.core.chat_config import ChatConfig, Profile
from plugins.core.identity import Decision
from plugins.core.toolbox import Toolbox
from plugins.proxy.auth import Refusal
from plugins.proxy.chat import BEGUN, ChatHooks
from plugins.proxy.retrieval import question_of
from plugins.proxy.turns import ChatParts
from tests.support.fake_proxy import (
    ANSWER,
    CLIENT_TOOL,
    FOUND,
    QUESTION,
    SEARCH,
    SearchDocuments,
    queryable,
    said,
)
from tests.support.fake_router import Round, call, text

SAID = Round([text("It is 30 days [1].")])
CONTEXT = {"rag": {"mode": "context"}}
CHOSEN = {"type": "function", "function": {"name": "search_documents"}}
EARLIER = [
    {"role": "user", "content": "Tell me about notice."},
    {"role": "assistant", "content": "It is in the handbook."},
    {"role": "user", "content": "How long is it?"},
]


def a_config(**profile: Any) -> ChatConfig:
    return ChatConfig(public_base_url="https://proxy.example/", profiles={"default": Profile(**profile)})


def cannot_call_functions(proxy: Any) -> None:
    proxy.router.model_info["rag-model"]["supports_function_calling"] = False


async def test_without_function_calling_the_passages_stand_before_the_question(proxy_with: Any) -> None:
    proxy = proxy_with(SAID)
    cannot_call_functions(proxy)
    chunks = await proxy.stream()
    [request] = proxy.router.requests
    assert "tools" not in request
    system, user = request["messages"]
    assert system == {"role": "system", "content": "Answer from the documents."}
    assert user["content"].endswith(f"</documents>\n\n{QUESTION[0]['content']}")
    assert user["content"].index("[1]") < user["content"].index(FOUND[0].text)
    assert user["content"].index("[2]") < user["content"].index(FOUND[1].text)
    assert said(chunks) == "It is 30 days [1]."
    [results] = [
        fields["search_results"]
        for chunk in chunks
        if chunk.choices and (fields := getattr(chunk.choices[0].delta, "provider_specific_fields", None))
    ]
    assert [result["text"] for result in results] == [FOUND[0].text]


async def test_the_plain_answer_is_the_same(proxy_with: Any) -> None:
    proxy = proxy_with(SAID)
    response = await proxy.plain(**CONTEXT)
    message = response.choices[0].message
    assert message.content == "It is 30 days [1]."
    assert [a["url_citation"]["start_index"] for a in message.annotations] == [14]
    assert len(proxy.router.requests) == 1


async def test_where_the_model_calls_functions_it_searches_by_itself(proxy_with: Any) -> None:
    proxy = proxy_with(*ANSWER)
    proxy.router.model_info["rag-model"]["supports_function_calling"] = True
    await proxy.begin()
    assert proxy.tool.calls == []
    assert [tool["function"]["name"] for tool in proxy.router.requests[0]["tools"]] == ["search_documents"]


@pytest.mark.parametrize("mode", ["tool", "context", "always"])
@pytest.mark.parametrize("by", ["profile", "request"])
async def test_the_mode_is_the_profiles_or_the_requests(proxy_with: Any, mode: Any, by: str) -> None:
    other = "context" if mode == "tool" else "tool"
    proxy = proxy_with(SAID, config=a_config(mode=mode if by == "profile" else other))
    await proxy.begin(**({"rag": {"mode": mode}} if by == "request" else {}))
    [request] = proxy.router.requests
    assert ("tools" in request) == (mode != "context")
    assert len(proxy.tool.calls) == (mode != "tool")
    assert ("<documents>" in request["messages"][-1]["content"]) == (mode != "tool")


async def test_always_searches_first_and_gives_no_passage_twice(proxy_with: Any) -> None:
    proxy = proxy_with(Round([SEARCH]), SAID)
    chunks = await proxy.stream(rag={"mode": "always"})
    question, _, result = proxy.router.requests[1]["messages"][-3:]
    assert FOUND[0].text in question["content"]
    assert FOUND[0].text not in result["content"]
    assert result["content"].startswith("[1] Handbook > Leave (page 3): given above.")
    assert said(chunks) == "It is 30 days [1]."


async def test_the_search_beforehand_is_not_run_again_and_counts_as_a_call(proxy_with: Any) -> None:
    same = call("search_documents", json.dumps({"query": QUESTION[0]["content"]}), "a")
    other = call("search_documents", '{"query": "leave"}', "b", 1)
    another = call("search_documents", '{"query": "pay"}', "c", 2)
    rounds = Round([same, other, another]), SAID
    proxy = proxy_with(*rounds, config=ChatConfig(max_tool_calls=2))
    await proxy.stream(rag={"mode": "always"})
    assert len(proxy.tool.calls) == 2
    told = [m["content"] for m in proxy.router.requests[1]["messages"] if m["role"] == "tool"]
    assert (
        told[0]
        == "You called `search_documents` with these arguments before. It found [1], [2], which you have."
    )
    assert told[2].startswith("Not run: ")


async def test_always_is_context_for_a_model_that_cannot_call_functions(proxy_with: Any) -> None:
    proxy = proxy_with(SAID)
    cannot_call_functions(proxy)
    await proxy.begin(rag={"mode": "always"})
    assert "tools" not in proxy.router.requests[0]


async def test_the_search_beforehand_has_the_requests_scope(proxy_with: Any) -> None:
    proxy = proxy_with(SAID)
    await proxy.begin(rag={"mode": "context", "collections": ["handbook"], "max_num_results": 2})
    [made] = proxy.tool.calls
    assert (made.scope.collections, made.scope.max_num_results) == ({"vs_h"}, 2)


@pytest.mark.parametrize(("name", "status"), [("finance", "403"), ("nowhere", "404")])
async def test_a_collection_that_may_not_be_queried_is_refused_in_context_mode_too(
    proxy_with: Any, name: str, status: str
) -> None:
    proxy = proxy_with(SAID)
    with pytest.raises(Refusal) as refused:
        await proxy.begin(rag={"mode": "context", "collections": [name]})
    assert refused.value.code == status
    assert proxy.tool.calls == []


async def test_who_may_not_search_is_refused_in_context_mode_too(proxy_with: Any) -> None:
    proxy = proxy_with(SAID, allowed=False)
    with pytest.raises(Refusal) as refused:
        await proxy.begin(**CONTEXT)
    assert refused.value.code == "403"


@pytest.mark.parametrize("mode", ["context", "always"])
async def test_who_may_run_other_tools_but_not_search_is_offered_these_and_nothing_is_searched(
    proxy_with: Any, mode: str
) -> None:
    other = SearchDocuments()
    toolbox = Toolbox({"other": other}, lambda p, n: Decision(allowed=True, rule="test"))
    proxy = proxy_with(SAID)
    proxy.hooks = ChatHooks(lambda: ChatParts(toolbox, queryable, ChatConfig(), "Cite like [1]."))
    await proxy.begin(rag={"mode": mode})
    [request] = proxy.router.requests
    assert [tool["function"]["name"] for tool in request["tools"]] == ["other"]
    assert "<documents>" not in request["messages"][-1]["content"]
    assert other.calls == []


async def test_the_clients_tools_pass_and_are_called_in_context_mode(proxy_with: Any) -> None:
    proxy = proxy_with(Round([call("weather", '{"city": "Paris"}')]))
    chunks = await proxy.stream(**CONTEXT, tools=[CLIENT_TOOL], tool_choice="required")
    assert proxy.router.requests[0]["tools"] == [CLIENT_TOOL]
    assert proxy.router.requests[0]["tool_choice"] == "required"
    [made] = [d for c in chunks if c.choices for d in c.choices[0].delta.tool_calls or ()]
    assert made.function.name == "weather"


async def test_a_tool_choice_goes_where_no_tool_is_left(proxy_with: Any) -> None:
    proxy = proxy_with(SAID)
    await proxy.begin(**CONTEXT, tool_choice="auto", parallel_tool_calls=False)
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & proxy.router.requests[0].keys()


async def test_structured_answers_are_asked_for_in_the_one_round_of_context_mode(proxy_with: Any) -> None:
    wanted = {"type": "json_object"}
    proxy = proxy_with(Round([text('{"days": [1, 2]}')]))
    chunks = await proxy.stream(**CONTEXT, response_format=wanted)
    [request] = proxy.router.requests
    assert request["response_format"] == wanted
    assert said(chunks) == '{"days": [1, 2]}'


# --- the question -------------------------------------------------------------------------------------


async def test_a_question_with_earlier_turns_is_made_one_at_the_callers_expense(proxy_with: Any) -> None:
    proxy = proxy_with(Round([text("How long is the notice period?")]), SAID)
    chunks = await proxy.stream(
        **CONTEXT, messages=EARLIER, proxy_server_request={"headers": {"x-openwebui-user-id": "u"}}
    )
    condensing, answering = proxy.router.requests
    assert condensing["messages"][0]["content"] == "Make one question of it."
    assert "Tell me about notice." in condensing["messages"][1]["content"]
    assert condensing["messages"][1]["content"].endswith("How long is it?")
    assert condensing["metadata"] == {"user_api_key": "hash"}
    assert condensing["model"] == "rag-model"
    assert answering["messages"][-1]["content"].endswith("How long is it?")
    events = [chunk.event for chunk in chunks if getattr(chunk, "event", None)]
    assert events[0]["data"]["description"] == "Searching: How long is the notice period?"


async def test_what_is_condensed_is_short_is_not_cached_and_leaves_the_requests_metadata_alone(
    proxy_with: Any,
) -> None:
    proxy = proxy_with(Round([text("q")]), SAID)
    await proxy.begin(**CONTEXT, messages=EARLIER, litellm_metadata={"team": "t"})
    condensing = proxy.router.requests[0]
    assert condensing["max_tokens"] == 300
    assert condensing["cache"] == {"no-cache": True, "no-store": True}
    for name in ("metadata", "litellm_metadata"):
        condensing[name]["model_group"] = "noted by the router"
        assert "model_group" not in proxy.data[name]


async def test_of_what_was_said_before_a_question_is_made_from_the_words_of_both_sides_each_cut(
    proxy_with: Any,
) -> None:
    made = {"id": "w", "type": "function", "function": {"name": "weather", "arguments": "{}"}}
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "a" * 3000},
        {"role": "assistant", "content": None, "tool_calls": [made]},
        {"role": "tool", "tool_call_id": "w", "content": "It is sunny."},
        {"role": "assistant", "content": "b" * 3000},
        {"role": "user", "content": "How long is it?"},
    ]
    proxy = proxy_with(Round([text("q")]), SAID)
    await proxy.begin(**CONTEXT, messages=messages)
    assert proxy.router.requests[0]["messages"][1]["content"] == (
        f"User: {'a' * 2000}\n\nAssistant: {'b' * 2000}\n\nThe last question:\nHow long is it?"
    )


async def test_the_profile_names_the_model_that_condenses(proxy_with: Any) -> None:
    proxy = proxy_with(Round([text("q")]), SAID, config=a_config(condense_model="small", mode="context"))
    await proxy.begin(messages=EARLIER)
    assert [request["model"] for request in proxy.router.requests] == ["small", "rag-model"]


@pytest.mark.parametrize("failing", [Round(error=RuntimeError("host 10.1.2.3")), Round([text(" ")])])
async def test_where_condensing_fails_the_question_itself_is_searched(
    proxy_with: Any, failing: Round
) -> None:
    proxy = proxy_with(failing, SAID)
    await proxy.begin(**CONTEXT, messages=EARLIER)
    assert len(proxy.router.requests) == 2
    assert query_of(proxy) == "How long is it?"


async def test_where_condensing_takes_too_long_the_question_itself_is_searched(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Slow:
        async def acompletion(self, **_: Any) -> None:
            await asyncio.Event().wait()

    monkeypatch.setattr(proxy_server, "llm_router", Slow())
    question = await question_of({"messages": EARLIER}, "slow", "Make one question.", time.monotonic())
    assert question == "How long is it?"


async def test_a_single_question_is_searched_as_it_is(proxy_with: Any) -> None:
    proxy = proxy_with(SAID)
    await proxy.begin(**CONTEXT)
    assert len(proxy.router.requests) == 1
    assert query_of(proxy) == QUESTION[0]["content"]


async def test_a_very_long_question_is_searched_as_far_as_the_tool_takes_it(proxy_with: Any) -> None:
    proxy = proxy_with(SAID)
    await proxy.begin(**CONTEXT, messages=[{"role": "user", "content": "long " * 5000}])
    assert len(query_of(proxy)) == 8000


async def test_the_words_beside_an_image_are_searched_and_the_image_stays(proxy_with: Any) -> None:
    image = {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}
    content = [image, {"type": "text", "text": "What does it show?"}]
    proxy = proxy_with(SAID)
    await proxy.begin(**CONTEXT, messages=[{"role": "user", "content": content}])
    assert query_of(proxy) == "What does it show?"
    first, second = proxy.router.requests[0]["messages"][-1]["content"]
    assert first == image
    assert second["text"].endswith("</documents>\n\nWhat does it show?")


@pytest.mark.parametrize(
    "messages",
    [
        [{"role": "assistant", "content": "Hello."}],
        [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "data:,"}}]}],
        [{"role": "user", "content": "  "}],
        [{"role": "user", "content": None}],
    ],
)
async def test_without_a_question_in_words_nothing_is_searched(proxy_with: Any, messages: Any) -> None:
    proxy = proxy_with(SAID)
    await proxy.begin(**CONTEXT, messages=messages)
    assert proxy.tool.calls == []
    assert proxy.router.requests[0]["messages"][1:] == messages


async def test_a_search_that_fails_is_told_to_the_model(proxy_with: Any) -> None:
    proxy = proxy_with(Round([text("I could not search.")]))
    chunks = await proxy.stream(**CONTEXT, messages=[{"role": "user", "content": "broken"}])
    assert "Error: the store is away" in proxy.router.requests[0]["messages"][-1]["content"]
    assert said(chunks) == "I could not search."


async def test_open_webui_is_told_what_was_searched_before_the_answer(proxy_with: Any) -> None:
    headers = {"x-openwebui-user-id": "u"}
    chunks = await proxy_with(SAID).stream(**CONTEXT, proxy_server_request={"headers": headers})
    kinds = [
        chunk.event["type"] if getattr(chunk, "event", None) else "text"
        for chunk in chunks
        if getattr(chunk, "event", None) or (chunk.choices and chunk.choices[0].delta.content)
    ]
    assert kinds == ["status", "status", "text", "source"]


def query_of(proxy: Any) -> str:
    """What the search was asked."""
    begun = vars(proxy.data["litellm_logging_obj"])[BEGUN]
    [ran] = begun.turn.searched
    query: str = json.loads(ran.arguments)["query"]
    return query


@pytest.mark.parametrize("choice", [{"type": "file_search"}, CHOSEN])
async def test_to_choose_the_search_is_to_call_it_or_to_be_given_what_it_finds(
    proxy_with: Any, choice: Any
) -> None:
    proxy = proxy_with(*ANSWER)
    await proxy.begin(tool_choice=choice)
    assert proxy.router.requests[0]["tool_choice"] == CHOSEN
    proxy = proxy_with(SAID)
    await proxy.begin(**CONTEXT, tool_choice=choice, tools=[CLIENT_TOOL])
    assert "tool_choice" not in proxy.router.requests[0]
    assert len(proxy.tool.calls) == 1
