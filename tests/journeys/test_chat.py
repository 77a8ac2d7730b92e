"""Chat over the sample documents with real retrieval, as any OpenAI client does it."""

from __future__ import annotations

from typing import Any

import openai
import pytest

from tests.support.quickstart import Quickstart

REVENUE = "What was the total revenue in 2025?"
LEAVE = "How many days of paid annual leave are there?"
CONNECT = "connect a language model"


def messages(question: str) -> Any:
    return [{"role": "user", "content": question}]


def ask(client: openai.OpenAI, question: str, model: str = "extractive", **options: Any) -> Any:
    return client.chat.completions.create(model=model, messages=messages(question), **options)


def text_of(chunks: list[Any]) -> str:
    return "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)


def sources(message: Any) -> set[str]:
    """The files whose passages the answer cites."""
    fields = getattr(message, "provider_specific_fields", None) or {}
    return {passage["filename"] for passage in fields.get("search_results", ())}


def test_an_answer_from_the_pdfs_table_cites_its_page_and_the_citation_opens_it(running: Quickstart) -> None:
    answer = ask(running.openai("alice"), REVENUE)
    message = answer.choices[0].message
    assert "2025: 87.6 [1]" in message.content
    for annotation in message.annotations:
        cited = annotation.url_citation
        assert message.content[cited.start_index : cited.end_index].startswith("[")
    first = message.annotations[0].url_citation
    assert first.url.endswith("#page=2")
    assert sources(message) == {"annual-report-2025.pdf"}
    opened = running.http("alice").get(first.url)
    assert (opened.status_code, opened.content[:5]) == (200, b"%PDF-")
    assert running.http("bob").get(first.url).status_code == 403


@pytest.mark.parametrize(
    ("question", "found", "filename"),
    [
        (LEAVE, "28 days", "employee-handbook.md"),
        ("How many days of notice are there after probation?", "60 days", "employee-handbook.md"),
        ("When are the core working hours?", "9:30 to 15:30", "employee-handbook.md"),
        ("Do I bring an identity card or a passport to reception?", "passport", "onboarding.html"),
    ],
)
def test_the_handbook_answers_everybody_also_streamed(
    running: Quickstart, question: str, found: str, filename: str
) -> None:
    bob = running.openai("bob")
    plain = ask(bob, question).choices[0].message
    assert found in plain.content
    assert filename in sources(plain)
    chunks = list(ask(bob, question, stream=True))
    assert text_of(chunks) == plain.content
    assert sum(bool(c.choices[0].delta.content) for c in chunks if c.choices) > 3, "token by token"
    streamed = [
        annotation
        for chunk in chunks
        if chunk.choices
        for annotation in getattr(chunk.choices[0].delta, "annotations", None) or []
    ]
    assert streamed == [annotation.model_dump() for annotation in plain.annotations]


def test_usage_is_the_sum_of_the_rounds_and_streamed_only_when_asked_for(running: Quickstart) -> None:
    alice = running.openai("alice")
    plain = ask(alice, LEAVE).usage
    assert plain.total_tokens == plain.prompt_tokens + plain.completion_tokens
    assert plain.prompt_tokens > len(LEAVE.split()), "the passages were read, too"
    chunks = list(ask(alice, LEAVE, stream=True, stream_options={"include_usage": True}))
    assert [c.usage.total_tokens for c in chunks if c.usage] == [plain.total_tokens]
    assert len({(c.id, c.model, c.object) for c in chunks}) == 1
    assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "stop"
    assert not [c for c in ask(alice, LEAVE, stream=True) if c.usage]


@pytest.mark.parametrize(
    "asked",
    [
        {"tools": [{"type": "file_search", "vector_store_ids": ["handbook"]}]},
        {"extra_body": {"rag": {"collections": ["handbook"]}}},
        {"extra_headers": {"X-RAG-Collections": "handbook"}},
    ],
    ids=["file_search", "rag", "header"],
)
def test_a_request_narrows_what_is_searched(running: Quickstart, asked: dict[str, Any]) -> None:
    alice = running.openai("alice")
    inside = ask(alice, LEAVE, **asked).choices[0].message
    assert "28 days" in inside.content
    assert sources(inside) == {"employee-handbook.md"}
    elsewhere = ask(alice, REVENUE, **asked).choices[0].message
    assert "87.6" not in elsewhere.content
    assert "annual-report-2025.pdf" not in sources(elsewhere)


def test_a_filter_of_file_search_holds_for_every_search(running: Quickstart) -> None:
    only = {"type": "eq", "key": "filename", "value": "onboarding.html"}
    tool = {"type": "file_search", "vector_store_ids": ["handbook"], "filters": only}
    answer = ask(running.openai("bob"), "What must I bring on the first day?", tools=[tool])
    assert sources(answer.choices[0].message) == {"onboarding.html"}


def test_a_filter_on_a_field_that_there_is_not_is_refused_naming_it(running: Quickstart) -> None:
    wrong = {"type": "eq", "key": "colour", "value": "red"}
    with pytest.raises(openai.BadRequestError, match="`colour` is not a field") as refused:
        ask(running.openai("bob"), LEAVE, extra_body={"rag": {"filters": wrong}})
    assert refused.value.param == "colour"


def test_chat_tells_nobody_what_search_refuses(running: Quickstart) -> None:
    for person in ("bob", "carol"):
        message = ask(running.openai(person), REVENUE).choices[0].message
        assert "87.6" not in (message.content or "")
        assert "annual-report-2025.pdf" not in sources(message)


@pytest.mark.parametrize("stream", [False, True])
def test_a_call_of_the_clients_own_tool_is_handed_back(running: Quickstart, stream: bool) -> None:
    parameters = {"type": "object", "properties": {"query": {"type": "string"}}}
    own = {"type": "function", "function": {"name": "look_up", "parameters": parameters}}
    choice: Any = {"type": "function", "function": {"name": "look_up"}}
    answer = ask(running.openai("alice"), REVENUE, tools=[own], tool_choice=choice, stream=stream)
    if stream:
        chunks = [chunk.choices[0] for chunk in answer if chunk.choices]
        calls = [call for chunk in chunks for call in chunk.delta.tool_calls or []]
        reason = chunks[-1].finish_reason
    else:
        calls, reason = answer.choices[0].message.tool_calls, answer.choices[0].finish_reason
    assert [call.function.name for call in calls] == ["look_up"]
    assert REVENUE in calls[0].function.arguments
    assert reason == "tool_calls"


def test_without_tools_the_extractive_model_says_how_to_connect_a_language_model(running: Quickstart) -> None:
    answer = ask(running.openai("alice"), REVENUE, tool_choice="none")
    assert CONNECT in answer.choices[0].message.content


@pytest.mark.parametrize("stream", [False, True])
def test_while_ollama_refuses_connections_extractive_answers_and_the_answer_says_so(
    running: Quickstart, stream: bool
) -> None:
    answer = ask(running.openai("bob"), LEAVE, model="chat", stream=stream)
    chunks = list(answer) if stream else []
    text = text_of(chunks) if stream else answer.choices[0].message.content
    assert "28 days" in text
    assert {c.model for c in chunks} == {"extractive"} if stream else answer.model == "extractive"


def test_the_other_apis_answer_from_the_same_documents(running: Quickstart) -> None:
    response = running.openai("bob").responses.create(model="extractive", input=LEAVE)
    assert "28 days" in response.output_text
    [search, message] = response.output
    assert search.type == "file_search_call"
    assert message.type == "message"
    cited: Any = message.content[0]
    assert {annotation.filename for annotation in cited.annotations} == {"employee-handbook.md"}
    body = {"model": "extractive", "max_tokens": 500, "messages": messages(LEAVE)}
    answer = running.http("bob").post("/v1/messages", json=body).json()
    assert answer["content"][0]["text"] == response.output_text
    opened = running.http("bob").get(answer["content"][0]["citations"][0]["source"])
    assert opened.status_code == 200


def test_a_question_that_nothing_answers_gets_no_citation(running: Quickstart) -> None:
    message = ask(running.openai("bob"), "xylophone zeppelin quux?").choices[0].message
    assert "nothing" in message.content
    assert not message.annotations
