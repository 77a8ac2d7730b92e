"""A model that searches, one that is given what was found, and one that has both; through the real proxy."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import openai
import pytest

from tests.support.library import CODE, COLLECTION, DEADLINE_S, QUESTION, Library, library, litellm_config
from tests.support.upstream import ANSWER, Upstream, upstream

EARLIER = [
    {"role": "user", "content": "Is there a notice period?"},
    {"role": "assistant", "content": "Yes."},
    {"role": "user", "content": "How long is it?"},
]


@dataclass
class House:
    library: Library
    upstream: Upstream

    def ask(self, person: str, model: str, **options: Any) -> Any:
        return self.library.ask(person, model, **options)


def model(name: str, address: str, **info: Any) -> dict[str, Any]:
    params = {"model": f"openai/{name}", "api_base": address, "api_key": "x", "num_retries": 0}
    return {
        "model_name": name,
        "litellm_params": params,
        "model_info": {"mode": "chat", "rag": True, **info},
    }


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    with upstream() as server:
        models = [
            model("weak", server.url, supports_function_calling=False),
            model("strong", server.url),
            model("small", server.url, rag=False),
            model("short", server.url, max_input_tokens=2000),
            {
                "model_name": "extractive",
                "litellm_params": {"model": "local/extractive"},
                "model_info": {"mode": "chat", "supports_function_calling": True, "rag": True},
            },
        ]
        profiles = {"default": {"condense_model": "small"}}
        chat = {"deadline_s": DEADLINE_S, "profiles": profiles}
        folder = tmp_path_factory.mktemp("modes")
        with library(folder, litellm_config(models), {"chat": {"chat": chat}}) as running:
            yield House(running, server)


@pytest.fixture
def house(made: House) -> House:
    made.upstream.reset()
    return made


def names(body: dict[str, Any]) -> list[str]:
    return [tool["function"]["name"] for tool in body.get("tools", ())]


def test_a_model_without_function_calling_answers_with_citations_from_what_was_found(house: House) -> None:
    answer = house.ask("alice", "weak")
    message = answer.choices[0].message
    assert message.content == "".join(ANSWER)
    [annotation] = message.annotations
    cited = annotation.url_citation
    assert message.content[cited.start_index : cited.end_index] == "[1]"
    [asked] = house.upstream.asked
    assert "tools" not in asked.body
    assert CODE in asked.body["messages"][-1]["content"]
    assert asked.body["messages"][-1]["content"].endswith(QUESTION)


def test_streamed_it_is_the_same(house: House) -> None:
    chunks = house.ask("alice", "weak", stream=True)
    said = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert said == "".join(ANSWER)
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == [
        "stop"
    ]


def test_who_may_not_query_the_collection_has_nothing_of_it_in_the_prompt(house: House) -> None:
    house.ask("bob", "weak")
    [asked] = house.upstream.asked
    assert CODE not in str(asked.body)
    assert "Nothing was found." in asked.body["messages"][-1]["content"]
    with pytest.raises(openai.PermissionDeniedError):
        house.ask("bob", "weak", extra_body={"rag": {"mode": "context", "collections": [COLLECTION]}})
    assert len(house.upstream.asked) == 1


def test_always_gives_the_passages_and_the_tools(house: House) -> None:
    message = house.ask("alice", "strong", extra_body={"rag": {"mode": "always"}}).choices[0].message
    assert message.content == "".join(ANSWER)
    first, second = (asked.body for asked in house.upstream.asked)
    assert "search_documents" in names(first)
    assert CODE in first["messages"][-1]["content"]
    assert CODE not in second["messages"][-1]["content"], "it was given before"
    assert CODE in str(second["messages"])


def test_the_searchs_description_lists_what_the_caller_may_query_and_no_more(house: House) -> None:
    for person, listed in (("alice", True), ("bob", False)):
        house.upstream.reset()
        house.ask(person, "strong")
        tools = house.upstream.asked[0].body["tools"]
        [search] = [t["function"] for t in tools if t["function"]["name"] == "search_documents"]
        assert (f"- {COLLECTION}" in search["description"].splitlines()) is listed
        assert "list_collections" not in names({"tools": tools}), "the description says it all"


def test_a_conversation_is_made_one_question_by_the_profiles_model(house: House) -> None:
    message = house.ask("alice", "weak", messages=EARLIER).choices[0].message
    assert message.content == "".join(ANSWER)
    condensed, answered = house.upstream.asked
    assert (condensed.model, answered.model) == ("small", "weak")
    assert condensed.body["messages"][-1]["content"].endswith("How long is it?")
    assert [m["role"] for m in answered.body["messages"]] == ["system", "user", "assistant", "user"]


def test_an_old_turn_that_does_not_fit_is_left_out_and_the_answer_is_the_same(house: House) -> None:
    old = [{"role": "user", "content": "old " * 3000}, {"role": "assistant", "content": "Yes."}]
    messages = [*old, {"role": "user", "content": QUESTION}]
    message = house.ask("alice", "short", messages=messages).choices[0].message
    assert message.content == "".join(ANSWER)
    assert all("old old" not in str(asked.body["messages"]) for asked in house.upstream.asked)
    assert len(house.upstream.asked) == 2


@pytest.mark.parametrize("mode", ["tool", "context", "always"])
def test_the_built_in_model_quotes_the_document_in_every_mode(house: House, mode: str) -> None:
    message = house.ask("alice", "extractive", extra_body={"rag": {"mode": mode}}).choices[0].message
    assert "ninety days" in message.content
    assert message.provider_specific_fields["search_results"][0]["filename"] == "notice.md"


def test_a_mode_that_there_is_not_is_refused_by_its_name(house: House) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        house.ask("alice", "strong", extra_body={"rag": {"mode": "sometimes"}})
    assert refused.value.param == "rag.mode"
    assert house.upstream.asked == []


@pytest.mark.parametrize("mode", ["tool", "context", "always"])
def test_the_other_apis_answer_in_every_mode_too(house: House, mode: str) -> None:
    asked = {"model": "extractive", "rag": {"mode": mode}}
    with house.library.http("alice") as http:
        responses = http.post("/v1/responses", json={**asked, "input": QUESTION})
        question = {"role": "user", "content": QUESTION}
        messages = http.post("/v1/messages", json={**asked, "max_tokens": 500, "messages": [question]})
    assert (responses.status_code, messages.status_code) == (200, 200), responses.text + messages.text
    items = {item["type"]: item for item in responses.json()["output"]}
    assert "ninety days" in items["message"]["content"][0]["text"]
    assert QUESTION in str(items["file_search_call"]["queries"])
    assert any("ninety days" in block.get("text", "") for block in messages.json()["content"])
