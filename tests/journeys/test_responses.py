"""`/v1/responses` through the real proxy, with OpenAI's SDK."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import openai
import pytest
from pydantic import BaseModel
from websockets.sync.client import connect

from tests.support.apis_proxy import CITED, SEARCH, TEXT, WEATHER, Apis, until
from tests.support.native_upstream import ANSWER, PREFACE, THOUGHT

NOTICE = "How many days of notice are there?"
FUNCTION: Any = {"type": "function", "name": "weather", "parameters": {"type": "object"}, "strict": False}
MIXED = [{"calls": [SEARCH, WEATHER]}, {"text": ["Sunny; ", "30 days [", "1]."]}]


class Notice(BaseModel):
    days: int


def streamed(apis: Apis, question: Any, name: str = "scripted", **options: Any) -> tuple[list[Any], Any]:
    """The events, and what the SDK makes of them."""
    events = list(apis.respond(question, name, stream=True, **options))
    return events, events[-1].response


def shape(response: Any) -> Any:
    """A response without what differs from one to the next."""
    given = response.model_dump(exclude_none=True, exclude={"id", "created_at"})
    for item in given["output"]:
        del item["id"]
    for name in ("parallel_tool_calls", "temperature", "top_p", "reasoning", "text"):
        given.pop(name, None)  # LiteLLM's echo of defaults, not the same in a stream
    return given


@pytest.mark.parametrize("name", ["scripted", "extractive", "openai"])
def test_a_streamed_response_ends_in_the_plain_one(apis: Apis, name: str) -> None:
    question: Any = CITED if name == "scripted" else NOTICE
    plain = apis.respond(question, name)
    events, final = streamed(apis, question, name)
    assert shape(final) == shape(plain)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert text == plain.output_text
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert len({event.response.id for event in events if hasattr(event, "response")}) == 1
    with apis.client.responses.stream(
        model=name, input=question if isinstance(question, str) else json.dumps(question)
    ) as stream:
        for _ in stream:
            pass
        assert stream.get_final_response().output_text == plain.output_text


@pytest.mark.parametrize("query", ["", "?model=scripted"])
def test_a_websocket_whose_frames_nobody_would_see_is_refused(apis: Apis, query: str) -> None:
    address = f"{str(apis.http.base_url).replace('http', 'ws', 1).rstrip('/')}/v1/responses{query}"
    headers = {"Authorization": f"Bearer {apis.client.api_key}"}
    with connect(address, additional_headers=headers, proxy=None) as socket:
        socket.send(json.dumps({"type": "response.create", "model": "scripted", "input": NOTICE}))
        answer = json.loads(socket.recv(timeout=60))
    assert answer["type"] == "error"
    assert "send each request as POST" in answer["error"]["message"]


def test_what_was_searched_and_what_is_cited_are_items_of_the_output(apis: Apis) -> None:
    response = apis.respond(CITED)
    search, message = response.output
    assert (search.type, search.status, search.queries) == ("file_search_call", "completed", ["notice"])
    assert search.results is None
    assert response.output_text == TEXT
    [citation] = message.content[0].annotations
    assert (citation.type, citation.file_id, citation.filename) == ("file_citation", "doc_1", "handbook.pdf")
    assert TEXT[citation.index :].startswith("[1]")
    assert response.usage.total_tokens == 2 * 13
    assert response.status == "completed"


def test_the_results_of_a_search_are_there_when_included(apis: Apis) -> None:
    response = apis.respond(CITED, include=["file_search_call.results"])
    first = response.output[0].results[0]
    assert (first.file_id, first.filename, first.score) == ("doc_1", "handbook.pdf", 0.9)
    assert "30 days" in first.text
    assert first.attributes == {
        "collection": "handbook",
        "title": "Handbook",
        "headings": "Notice",
        "page": 3,
    }


def test_a_search_is_told_while_it_runs_and_the_citation_after_its_text(apis: Apis) -> None:
    events, final = streamed(apis, CITED)
    of_search = [e for e in events if getattr(e, "output_index", None) == 0]
    assert [event.type for event in of_search] == [
        "response.output_item.added",
        "response.file_search_call.in_progress",
        "response.file_search_call.searching",
        "response.file_search_call.completed",
        "response.output_item.done",
    ]
    assert {e.item_id for e in of_search if hasattr(e, "item_id")} == {final.output[0].id}
    kinds = [event.type for event in events]
    assert kinds[:2] == ["response.created", "response.in_progress"]
    assert kinds[-5:] == [
        "response.output_text.annotation.added",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]


def test_our_tools_and_instructions_are_not_shown_to_the_client(apis: Apis) -> None:
    tool: Any = {"type": "file_search", "vector_store_ids": ["handbook"]}
    events, _ = streamed(apis, CITED, "plain", tools=[tool], instructions="Be brief.")
    for event in events:
        if hasattr(event, "response"):
            assert event.response.instructions == "Be brief."
            assert [given.type for given in event.response.tools] == ["file_search"]
            assert "search_documents" not in event.model_dump_json()
    assert apis.upstream()["messages"][0]["content"].endswith("Be brief.")


def test_file_search_narrows_to_the_named_collections_and_checks_them(apis: Apis) -> None:
    tool: Any = {"type": "file_search", "vector_store_ids": ["finance"], "max_num_results": 3}
    response = apis.respond("What was the revenue in 2025?", "extractive", tools=[tool])
    assert response.output[-1].content[0].annotations[0].filename == "report.pdf"
    bob = apis.client.with_options(api_key="sk-bob")
    with pytest.raises(openai.PermissionDeniedError, match="query"):
        bob.responses.create(model="plain", input="x", tools=[tool])
    with pytest.raises(openai.NotFoundError) as unknown:
        apis.respond("x", extra_body={"rag": {"collections": ["nowhere"]}})
    assert unknown.value.param == "rag.collections"


@pytest.mark.parametrize("stream", [False, True])
def test_the_clients_call_is_handed_back_beside_ours_and_the_conversation_goes_on(
    apis: Apis, stream: bool
) -> None:
    question: list[Any] = [{"role": "user", "content": json.dumps(MIXED)}]
    options: Any = {"model": "scripted", "tools": [FUNCTION], "stream": stream}
    answer: Any = apis.client.responses.create(input=question, **options)
    first = list(answer)[-1].response if stream else answer
    [call] = first.output
    assert (call.type, call.name) == ("function_call", "weather"), "ours run when the client returns"
    assert json.loads(call.arguments) == {"city": "Bonn"}
    returned: Any = [item.model_dump(exclude_none=True) for item in first.output]
    result: Any = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    answer = apis.client.responses.create(input=[*question, *returned, result], **options)
    second = list(answer)[-1].response if stream else answer
    assert [item.type for item in second.output] == ["file_search_call", "message"], "and is shown now"
    assert second.output_text == "Sunny; 30 days [1]."
    seen = apis.upstream()["messages"]
    told = {message["content"] for message in seen if message["role"] == "tool"}
    assert "sunny" in told
    assert any("30 days" in text for text in told), "our search was run again"
    calls = [c["function"]["name"] for m in seen for c in m.get("tool_calls") or ()]
    assert calls == ["search_documents", "weather"]


def test_a_structured_answer_is_parsed_by_the_sdk(apis: Apis) -> None:
    rounds = [{"calls": [SEARCH]}, {"text": ['{"days":', " 30}"]}]
    parsed = apis.client.responses.parse(model="scripted", input=json.dumps(rounds), text_format=Notice)
    assert parsed.output_parsed == Notice(days=30)


def test_a_provider_that_speaks_the_api_itself_is_asked_again_as_a_chat(apis: Apis) -> None:
    apis.native.requests.clear()
    response = apis.respond(NOTICE, "openai", tools=[FUNCTION])
    assert response.output_text == f"{PREFACE}\n\n{ANSWER}"
    assert [item.type for item in response.output] == ["reasoning", "message", "file_search_call"]
    assert response.output[0].summary[0].text == THOUGHT
    [first] = apis.native.bodies("/responses")
    [second] = apis.native.bodies("/chat/completions")
    assert first["store"] is False, "it would keep our calls, unanswered"
    assert first["input"] == NOTICE
    assert [tool["name"] for tool in first["tools"]] == ["search_documents", "weather"]
    assert second["messages"][1] == {"role": "user", "content": NOTICE}
    assert "30 days" in second["messages"][-1]["content"]


@pytest.mark.parametrize("stream", [False, True])
def test_the_response_says_which_model_a_fallback_chose(apis: Apis, stream: bool) -> None:
    answer = apis.respond(NOTICE, "down", stream=stream)
    models = {e.response.model for e in answer if hasattr(e, "response")} if stream else {answer.model}
    assert models == {"extractive"}


def test_every_round_is_paid_by_who_asked(apis: Apis) -> None:
    dora = apis.client.with_options(api_key="sk-dora")
    plain: Any = dora.responses.create(model="scripted", input=json.dumps(CITED))
    assert plain.usage.total_tokens == 26
    list(dora.responses.create(model="scripted", input=json.dumps(CITED), stream=True))
    until(lambda: sum(line["user"] == "local/dora" for line in apis.spend()) == 4)


@pytest.mark.parametrize("stream", [False, True])
def test_a_blocking_guardrail_sees_the_final_answer(apis: Apis, stream: bool) -> None:
    rounds = [{"calls": [SEARCH]}, {"text": ["the SECRET"]}]
    with pytest.raises(openai.APIError, match="blocked by guardrail"):
        list(apis.respond(rounds, stream=stream))


def test_an_error_in_a_later_round_is_the_apis_and_names_nothing_internal(apis: Apis) -> None:
    rounds = [{"calls": [SEARCH]}, {"text": ["begun", "fail"]}]
    with pytest.raises(openai.InternalServerError) as plain:
        apis.respond(rounds)
    assert (plain.value.status_code, plain.value.code) == (503, "model_unavailable")
    events, _ = streamed(apis, rounds)
    assert events[-1].type == "response.failed"
    assert events[-1].response.error.code == "model_unavailable"
    assert events[-1].sequence_number == len(events) - 1
    assert "10.1.2.3" not in plain.value.response.text + events[-1].model_dump_json()


@pytest.mark.parametrize("name", ["previous_response_id", "background", "conversation"])
def test_what_later_rounds_would_not_know_of_is_refused(apis: Apis, name: str) -> None:
    given: Any = {name: True if name == "background" else "resp_1"}
    with pytest.raises(openai.BadRequestError, match=name) as refused:
        apis.respond("x", extra_body=given)
    assert refused.value.param == name


def test_tools_whose_calls_could_not_be_told_apart_are_refused(apis: Apis) -> None:
    tools: Any = [FUNCTION, {"type": "custom", "name": "patch"}]
    with pytest.raises(openai.BadRequestError, match="make it a function") as refused:
        apis.respond("x", tools=tools)
    assert refused.value.param == "tools.1.type"


def test_a_request_that_asks_for_nothing_reaches_the_model_as_it_was_sent(apis: Apis) -> None:
    rounds = [{"text": ["hi ["], "calls": []}, {"text": ["never"]}]
    response = apis.respond(rounds, "plain", temperature=0.5, tools=[FUNCTION])
    assert response.output_text == "hi ["
    seen = apis.upstream()
    assert [message["role"] for message in seen["messages"]] == ["user"]
    assert [tool["function"]["name"] for tool in seen["params"]["tools"]] == ["weather"]
    assert seen["params"]["temperature"] == 0.5


CHOICES: list[tuple[Any, str]] = [
    ("required", "required"),
    ({"type": "file_search"}, "search_documents"),
    ({"type": "function", "name": "weather"}, "weather"),
]


@pytest.mark.parametrize(("choice", "forced"), CHOICES)
def test_a_choice_of_tools_holds_for_the_first_round(apis: Apis, choice: Any, forced: str) -> None:
    apis.native.requests.clear()
    search: Any = {"type": "file_search"}
    apis.respond(NOTICE, "openai", tools=[search, FUNCTION], tool_choice=choice)
    [first] = apis.native.bodies("/responses")
    given = first["tool_choice"]
    assert given == forced if isinstance(given, str) else given == {"type": "function", "name": forced}
    [second] = apis.native.bodies("/chat/completions")
    assert "tool_choice" not in second


def test_no_tool_of_ours_is_offered_where_the_client_wants_none(apis: Apis) -> None:
    response = apis.respond([{"text": ["hi"]}], tools=[FUNCTION], tool_choice="none")
    assert response.output_text == "hi"
    assert [tool["function"]["name"] for tool in apis.upstream()["params"]["tools"]] == ["weather"]
    search: Any = {"type": "file_search"}
    apis.respond([{"text": ["hi"]}], "plain", tools=[search], tool_choice="none")
    assert not {"tools", "tool_choice"} & apis.upstream()["params"].keys()


def test_a_search_before_the_model_is_asked_is_an_item_too(apis: Apis) -> None:
    apis.native.requests.clear()
    rag: Any = {"rag": {"mode": "context"}}
    response = apis.respond(NOTICE, "openai", extra_body=rag)
    search = next(item for item in response.output if item.type == "file_search_call")
    assert search.queries == [NOTICE]
    assert response.output_text == ANSWER
    assert response.output[-1].content[0].annotations[0].file_id == "doc_1"
    [only] = apis.native.bodies("/responses")
    assert "tools" not in only
    assert "30 days" in json.dumps(only["input"])


MALFORMED: list[Any] = [
    {"input": 7},
    {"input": [7]},
    {"input": [{"type": "function_call_output"}], "tools": [7]},
]


@pytest.mark.parametrize("body", MALFORMED)
def test_what_cannot_be_read_is_refused_and_not_an_error_of_ours(apis: Apis, body: Any) -> None:
    answer = apis.http.post("/v1/responses", json={"model": "scripted", **body})
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_client_that_goes_away_ends_the_model(apis: Apis, tmp_path: Path) -> None:
    rounds = [{"calls": [SEARCH]}, {"text": ["first", f"pause:{tmp_path / 'never'}"]}]
    stream = apis.respond(rounds, stream=True)
    assert any(event.type == "response.output_text.delta" for event in stream)
    stream.close()
    until(apis.cancelled)
