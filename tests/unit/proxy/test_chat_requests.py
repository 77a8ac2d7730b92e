"""Who is offered our tools, what Open WebUI gets, and what guardrails see."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import litellm
import pytest
from fastapi import HTTPException
from litellm.integrations.custom_guardrail import CustomGuardrail
from litellm.integrations.custom_logger import CustomLogger
from litellm.proxy import proxy_server
from litellm.types.guardrails import GuardrailEventHooks

from crawler.errors import CredentialRefused
from plugins.core.identity import Principal
from plugins.proxy.auth import Refusal
from plugins.proxy.chat import ChatHooks
from tests.support.fake_proxy import ANSWER, CLIENT_TOOL, QUESTION, SEARCH, WHOLE, said
from tests.support.fake_router import Round, text

NARROWED = {"max_num_results": 4, "ranking_options": {"score_threshold": 0.3}}


class NoSecrets(CustomGuardrail):
    """Refuses answers that say SECRET, and remembers what it saw."""

    def __init__(self) -> None:
        super().__init__(
            guardrail_name="no-secrets", event_hook=GuardrailEventHooks.post_call, default_on=True
        )
        self.saw: list[Any] = []

    async def async_post_call_success_hook(self, data: Any, user_api_key_dict: Any, response: Any) -> Any:
        self.saw.append(response.choices[0].message.content)
        if "SECRET" in (self.saw[-1] or ""):
            raise HTTPException(status_code=400, detail="blocked")


# --- who is offered tools -----------------------------------------------------------------------------


async def test_a_request_that_asks_for_nothing_of_ours_is_not_changed(proxy_with: Any) -> None:
    proxy = proxy_with(Round([text("hi")]))
    body = {"model": "plain", "tools": [CLIENT_TOOL], "n": 2, "stream_options": {"x": 1}}
    before = copy.deepcopy(body)
    response = await proxy.begin(stream=True, **body)
    assert {key: proxy.data[key] for key in before} == before
    assert proxy.data["messages"] == QUESTION
    assert [c async for c in proxy.chunks(response)] == proxy.router.streams[0]._chunks
    assert await proxy.hooks.async_post_call_success_hook(proxy.data, proxy.auth, response) is None


@pytest.mark.parametrize(
    "body",
    [
        {"tools": [{"type": "file_search", "vector_store_ids": ["handbook"], **NARROWED}]},
        {"rag": {"collections": ["handbook"], **NARROWED}},
    ],
)
async def test_asked_for_by_the_body_tools_are_offered_and_the_asking_is_removed(
    proxy_with: Any, body: dict[str, Any]
) -> None:
    proxy = proxy_with(*ANSWER)
    await proxy.stream(model="plain", **body)
    assert [tool["type"] for tool in proxy.router.requests[0]["tools"]] == ["function"]
    assert "rag" not in proxy.router.requests[0]
    assert proxy.tool.calls[0].scope.collections == {"vs_h"}
    assert proxy.tool.calls[0].scope.max_num_results == 4
    assert proxy.tool.calls[0].scope.ranking_options.score_threshold == 0.3


async def test_asked_for_by_a_header_tools_are_offered(proxy_with: Any) -> None:
    proxy = proxy_with(*ANSWER)
    await proxy.stream(model="plain", proxy_server_request={"headers": {"X-RAG-Collections": "handbook"}})
    assert proxy.tool.calls[0].scope.collections == {"vs_h"}


async def test_a_profile_narrows_to_those_of_its_collections_that_the_caller_may_query(
    proxy_with: Any,
) -> None:
    proxy = proxy_with(*ANSWER)
    await proxy.stream(model="narrow")
    assert proxy.tool.calls[0].scope.collections == {"vs_h"}
    proxy = proxy_with(*ANSWER)
    await proxy.stream(model="shut")
    assert proxy.tool.calls[0].scope.collections == frozenset(), "none of them, and not all there are"
    proxy = proxy_with(*ANSWER)
    await proxy.stream()
    assert proxy.tool.calls[0].scope.collections is None


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"rag": {"collections": ["finance"]}}, 403, "rag.collections"),
        ({"rag": {"collections": ["nowhere"]}}, 404, "rag.collections"),
        ({"tools": [{"type": "file_search", "vector_store_ids": ["x"]}]}, 404, "tools.0.vector_store_ids"),
        ({"tools": [{"type": "file_search", "ranker": "x"}]}, 400, "tools.0.ranker"),
        ({"rag": {"colections": []}}, 400, "rag.colections"),
        ({"rag": "yes"}, 400, "rag"),
        ({"rag": {"max_num_results": 0}}, 400, "rag.max_num_results"),
        ({"rag": {"filters": {"type": "eq"}}}, 400, "rag.filters.key"),
        ({"rag": {"filters": {"type": "in", "key": "k", "value": [{}] * 6000}}}, 400, "rag"),
        ({"tools": [{"type": "file_search", "filters": [[[0] * 6000]]}]}, 400, "tools.0"),
        ({"proxy_server_request": {"headers": {"X-RAG-Collections": "a," * 33}}}, 400, "x-rag-collections"),
        ({"n": 2}, 400, "n"),
        ({"model": "rag-model,plain", "rag": {}}, 400, "model"),
        ({"tool_choice": {"type": "function", "function": {"name": "nosuch"}}}, 400, "tool_choice"),
        ({"messages": "hello"}, 400, "messages"),
        ({"messages": None}, 400, "messages"),
        ({"tools": "all"}, 400, "tools"),
        ({"stream_options": "usage"}, 400, "stream_options"),
        (
            {"tools": [{"type": "function", "function": {"name": "search_documents"}}]},
            400,
            "tools.0.function.name",
        ),
    ],
)
async def test_what_cannot_be_done_is_refused_before_the_model_is_called(
    proxy_with: Any, body: dict[str, Any], status: int, param: str
) -> None:
    proxy = proxy_with(Round([text("never")]))
    with pytest.raises(Refusal) as refused:
        await proxy.begin(**body)
    error = refused.value
    assert (int(error.code), error.to_dict()["param"]) == (status, param)
    assert proxy.router.requests == []


@pytest.mark.parametrize("model", ["rag-model", "narrow"])
async def test_a_store_that_refuses_the_caller_is_told_by_the_search_where_no_collection_was_named(
    proxy_with: Any, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    async def refused(principal: Principal, refs: Any) -> Any:
        raise CredentialRefused

    proxy = proxy_with(*ANSWER)
    parts = replace(proxy.hooks._parts(), queryable=refused)
    monkeypatch.setattr(proxy.hooks, "_parts", lambda: parts)
    await proxy.stream(model=model)
    wanted = frozenset({"handbook", "finance"}) if model == "narrow" else None
    assert proxy.tool.calls[0].scope.collections == wanted, "and each search says it"
    with pytest.raises(Refusal, match="credential"):
        await proxy.begin(rag={"collections": ["handbook"]})


async def test_who_may_run_no_tool_is_told_so_when_asking_and_left_alone_otherwise(proxy_with: Any) -> None:
    proxy = proxy_with(Round([text("hi")]), allowed=False)
    with pytest.raises(Refusal) as refused:
        await proxy.begin(rag={})
    assert refused.value.code == "403"
    assert said(await proxy.stream()) == "hi"
    assert "tools" not in proxy.router.requests[0]


async def test_a_connection_that_names_collections_gets_no_tools_for_its_background_tasks(
    proxy_with: Any,
) -> None:
    proxy = proxy_with(Round([text("A title")]))
    headers = {"X-RAG-Task": "title_generation", "X-RAG-Collections": "handbook"}
    await proxy.begin(proxy_server_request={"headers": headers})
    [request] = proxy.router.requests
    assert "tools" not in request
    assert request["messages"] == QUESTION


async def test_background_tasks_of_open_webui_get_no_tools(proxy_with: Any) -> None:
    proxy = proxy_with(Round([text("A title")]))
    await proxy.plain(messages=[{"role": "user", "content": "### Task:\nGenerate a title"}])
    assert "tools" not in proxy.router.requests[0]


async def test_tool_choice_none_means_none_of_ours_either(proxy_with: Any) -> None:
    proxy = proxy_with(Round([text("hi")]))
    await proxy.plain(tool_choice="none", rag={})
    assert "tools" not in proxy.router.requests[0]
    assert "rag" not in proxy.router.requests[0]


@pytest.mark.parametrize("content", ["Be brief.", [{"type": "text", "text": "Be brief."}]])
async def test_the_clients_system_message_stays_after_our_instructions(proxy_with: Any, content: Any) -> None:
    proxy = proxy_with(*ANSWER)
    await proxy.stream(messages=[{"role": "system", "content": content}, *QUESTION])
    system, question = proxy.router.requests[0]["messages"]
    told = str(system["content"])
    assert 0 <= told.index("Cite like [1].") < told.index("Be brief.")
    assert type(system["content"]) is type(content)
    assert question == QUESTION[0]


# --- Open WebUI ---------------------------------------------------------------------------------------


async def test_open_webui_gets_events_instead_of_annotations_and_numbers_that_match_them(
    proxy_with: Any,
) -> None:
    rounds = (Round([SEARCH]), Round([text("It is 28 ["), text("2], 30 [1] and [9] [2].")]))
    headers = {"x-openwebui-user-id": "u"}
    chunks = await proxy_with(*rounds).stream(proxy_server_request={"headers": headers})
    assert said(chunks) == "It is 28 [1], 30 [2] and [1]."
    assert not any(getattr(c.choices[0].delta, "annotations", None) for c in chunks if c.choices)
    events = [chunk.event for chunk in chunks if getattr(chunk, "event", None)]
    assert [event["type"] for event in events] == ["status", "status", "source", "source"]
    assert [event["data"] for event in events[:2]] == [
        {"description": "Searching: notice", "done": False},
        {"description": "Found 2 passages in 2 documents", "done": True},
    ]
    assert [event["data"]["document"] for event in events[2:]] == [
        ["Leave is 28 days."],
        ["The notice period is 30 days."],
    ]
    assert events[3]["data"]["metadata"][0]["page"] == 2, "pages count from 0 there"
    assert not events[3]["data"]["metadata"][0]["source"].startswith("http")


# --- guardrails ---------------------------------------------------------------------------------------


async def test_a_guardrail_sees_the_final_plain_answer_and_can_refuse_it(proxy_with: Any) -> None:
    guardrail = NoSecrets()
    proxy = proxy_with(Round([SEARCH]), Round([text("fine")]))
    litellm.callbacks.insert(0, guardrail)
    response = await proxy.plain()
    assert response.choices[0].message.content == "fine"
    assert guardrail.saw[-1] == "fine"
    proxy = proxy_with(Round([SEARCH]), Round([text("the SECRET")]))
    litellm.callbacks.insert(0, guardrail)
    with pytest.raises(HTTPException, match="blocked"):
        await proxy.plain()


async def test_a_guardrail_without_a_hook_for_streams_sees_the_final_streamed_answer(proxy_with: Any) -> None:
    guardrail = NoSecrets()
    proxy = proxy_with(*ANSWER)
    litellm.callbacks.append(guardrail)
    assert said(await proxy.stream()) == WHOLE
    assert guardrail.saw == [WHOLE]
    proxy = proxy_with(Round([SEARCH]), Round([text("the SECRET")]))
    litellm.callbacks.append(guardrail)
    with pytest.raises(HTTPException, match="blocked"):
        await proxy.stream()


async def test_the_hooks_stand_before_guardrails_so_that_these_see_the_final_stream(proxy_with: Any) -> None:
    proxy = proxy_with(Round([text("hi")]))
    litellm.callbacks.insert(0, NoSecrets())
    await proxy.stream()
    assert litellm.callbacks[0] is proxy.hooks
    assert len(litellm.callbacks) == 2


async def test_the_hooks_stand_behind_litellms_limiter_wherever_guardrails_are(
    proxy_with: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    proxy, guardrail, limiter, other = (
        proxy_with(Round([text("hi")])),
        NoSecrets(),
        CustomLogger(),
        CustomLogger(),
    )
    hooks = {"parallel_request_limiter": limiter}
    monkeypatch.setattr(proxy_server.proxy_logging_obj, "get_proxy_hook", hooks.get)
    litellm.callbacks[:] = [proxy.hooks, guardrail, limiter, other]
    await proxy.begin()
    assert litellm.callbacks == [limiter, proxy.hooks, guardrail, other]


def test_the_hooks_are_on_the_leaf_class_where_litellm_looks_for_them() -> None:
    hooks = ("async_pre_call_hook", "async_post_call_success_hook", "async_post_call_streaming_iterator_hook")
    assert all(hook in vars(ChatHooks) for hook in hooks)


async def test_an_answer_from_documents_is_neither_taken_from_litellms_cache_nor_put_there(
    proxy_with: Any,
) -> None:
    proxy = proxy_with(*ANSWER)
    await proxy.stream(cache={"no-cache": False, "ttl": 60})
    asked = [request["cache"] for request in proxy.router.requests]
    assert asked == [{"no-cache": True, "no-store": True}] * 2
