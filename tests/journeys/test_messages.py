"""`/v1/messages` through the real proxy: the wire as Anthropic describes it."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.apis_proxy import CITED, SEARCH, TEXT, WEATHER, Apis, events, until
from tests.support.native_upstream import ANSWER, PREFACE, SIGNATURE, THOUGHT

NOTICE = "How many days of notice are there?"
TOOL = {"name": "weather", "input_schema": {"type": "object"}}
MIXED = [{"calls": [SEARCH, WEATHER]}, {"text": ["Sunny; ", "30 days [", "1]."]}]
THINKING = {"thinking": {"type": "enabled", "budget_tokens": 1024}, "max_tokens": 2000}


def collected(response: httpx.Response) -> dict[str, Any]:
    """The message that a stream is, put together as a client does it."""
    assert response.status_code == 200, response.text
    message: dict[str, Any] = {}
    for event in events(response):
        if event["type"] == "message_start":
            message = event["message"]
        elif event["type"] == "content_block_start":
            assert event["index"] == len(message["content"])
            message["content"].append(event["content_block"] | {"json": ""})
        elif event["type"] == "content_block_delta":
            block, delta = message["content"][event["index"]], event["delta"]
            if delta["type"] == "citations_delta":
                block.setdefault("citations", []).append(delta["citation"])
            elif delta["type"] == "input_json_delta":
                block["json"] += delta["partial_json"]
            else:
                [name] = delta.keys() - {"type"}
                block[name] += delta[name]
        elif event["type"] == "message_delta":
            message |= event["delta"] | {"usage": event["usage"]}
    for block in message["content"]:
        given = block.pop("json")
        block |= {"input": json.loads(given)} if given else {}
    return message


def shape(message: dict[str, Any]) -> Any:
    """A message without what differs from one to the next."""
    names = ("role", "type", "model", "content", "stop_reason", "stop_sequence", "usage")
    return {name: message[name] for name in names}


@pytest.mark.parametrize("name", ["scripted", "extractive", "anthropic"])
def test_a_streamed_message_is_the_plain_one(apis: Apis, name: str) -> None:
    question: Any = CITED if name == "scripted" else NOTICE
    plain = apis.message(question, name)
    assert plain.status_code == 200, plain.text
    streamed = collected(apis.message(question, name, stream=True))
    assert shape(streamed) == shape(plain.json())
    assert {str(message["id"])[:4] for message in (streamed, plain.json())} == {"msg_"}


def test_the_texts_block_has_the_citations(apis: Apis) -> None:
    message = apis.message(CITED).json()
    [text] = message["content"]
    assert text["text"] == TEXT
    [citation] = text["citations"]
    assert citation["cited_text"].startswith("The notice period is 30 days.")
    address = "https://proxy.example/v1/collections/vs_1/documents/doc_1/content#page=3"
    expected = {"source": address, "title": "Handbook", "search_result_index": 0}
    assert {key: citation[key] for key in expected} == expected
    assert citation["type"] == "search_result_location"
    assert (message["stop_reason"], message["usage"]) == (
        "end_turn",
        {"input_tokens": 20, "output_tokens": 6},
    )


def test_a_stream_has_one_start_one_stop_and_one_block_open_at_a_time(apis: Apis) -> None:
    seen = events(apis.message(CITED, stream=True))
    kinds = [event["type"] for event in seen]
    assert (kinds[0], kinds.count("message_start")) == ("message_start", 1)
    assert kinds[-2:] == ["message_delta", "message_stop"]
    assert (kinds.count("message_delta"), kinds.count("message_stop")) == (1, 1)
    blocks = [event for event in seen if event["type"].startswith("content_block_")]
    for before, after in pairwise(blocks):
        opened = before["type"] == "content_block_stop"
        assert (after["type"] == "content_block_start") == opened
        assert after["index"] == before["index"] + opened


@pytest.mark.parametrize("stream", [False, True])
def test_the_clients_call_is_handed_back_beside_ours_and_the_conversation_goes_on(
    apis: Apis, stream: bool
) -> None:
    question = {"role": "user", "content": json.dumps(MIXED)}
    body = {"model": "scripted", "max_tokens": 500, "tools": [TOOL], "stream": stream}
    answer = apis.http.post("/v1/messages", json={**body, "messages": [question]})
    first = collected(answer) if stream else answer.json()
    [call] = first["content"]
    assert (call["type"], call["name"], call["input"]) == ("tool_use", "weather", {"city": "Bonn"})
    assert first["stop_reason"] == "tool_use"
    result = {"type": "tool_result", "tool_use_id": call["id"], "content": "sunny"}
    conversation = [
        question,
        {"role": "assistant", "content": first["content"]},
        {"role": "user", "content": [result]},
    ]
    answer = apis.http.post("/v1/messages", json={**body, "messages": conversation})
    second = collected(answer) if stream else answer.json()
    assert [block["text"] for block in second["content"]] == ["Sunny; 30 days [1]."]
    seen = apis.upstream()["messages"]
    told = [message["content"] for message in seen if message["role"] == "tool"]
    assert any("sunny" in str(text) for text in told)
    assert any("30 days" in str(text) for text in told), "our search was run again"
    calls = [call["function"]["name"] for m in seen for call in m.get("tool_calls") or ()]
    assert calls == ["search_documents", "weather"]


def test_a_request_may_name_collections(apis: Apis) -> None:
    asked = {"rag": {"collections": ["finance"]}}
    message = apis.message("What was the revenue in 2025?", "extractive", **asked).json()
    assert [citation["title"] for citation in message["content"][0]["citations"]] == ["Report"]
    hidden = apis.message("x", rag={"collections": ["nowhere"]})
    assert (hidden.status_code, hidden.json()["error"]["type"]) == (404, "not_found_error")
    wrong = apis.message("x", rag={"collections": 7})
    assert (wrong.status_code, wrong.json()["error"]["type"]) == (400, "invalid_request_error")
    bob = httpx.post(
        f"{apis.proxy.url}/v1/messages",
        json={"model": "scripted", "max_tokens": 9, "messages": [{"role": "user", "content": "x"}], **asked},
        headers={"x-api-key": "sk-bob"},
        trust_env=False,
    )
    assert (bob.status_code, bob.json()["error"]["type"]) == (403, "permission_error")


@pytest.mark.parametrize("stream", [False, True])
def test_signed_thoughts_are_shown_and_go_back_to_the_provider_that_signed_them(
    apis: Apis, stream: bool
) -> None:
    apis.native.requests.clear()
    answer = apis.message(NOTICE, "anthropic", stream=stream, system="Be brief.", **THINKING)
    message = collected(answer) if stream else answer.json()
    signed = {"type": "thinking", "thinking": THOUGHT, "signature": SIGNATURE}
    assert message["content"][0] == message["content"][2] == signed
    assert [block["text"] for block in message["content"][1::2]] == [PREFACE, f"\n\n{ANSWER}"]
    first, second = apis.native.bodies("/v1/messages")
    assert first["system"][-1]["text"] == "Be brief."
    assert first["thinking"] == second["thinking"]
    said, found = second["messages"][1:]
    assert [block["type"] for block in said["content"]] == ["thinking", "text", "tool_use"]
    assert said["content"][0] == signed
    assert "30 days" in json.dumps(found["content"])


def test_an_error_is_the_apis_and_names_nothing_internal(apis: Apis) -> None:
    rounds = [{"calls": [SEARCH]}, {"text": ["begun", "fail"]}]
    plain = apis.message(rounds)
    assert (plain.status_code, plain.json()["type"]) == (503, "error")
    for streamed in (apis.message(rounds, stream=True), apis.message("fail", "anthropic", stream=True)):
        last = events(streamed)[-1]
        assert (last["type"], last["error"]["type"]) == ("error", "api_error")
        assert "10.1.2.3" not in plain.text + streamed.text


@pytest.mark.parametrize("stream", [False, True])
def test_a_blocking_guardrail_sees_the_final_answer(apis: Apis, stream: bool) -> None:
    answer = apis.message([{"calls": [SEARCH]}, {"text": ["the SECRET"]}], stream=stream)
    assert "blocked by guardrail" in answer.text
    assert "message_stop" not in answer.text


def test_every_round_is_paid_by_who_asked(apis: Apis) -> None:
    erin = {"x-api-key": "sk-erin"}
    messages = [{"role": "user", "content": json.dumps(CITED)}]
    for stream in (False, True):
        body = {"model": "scripted", "max_tokens": 500, "messages": messages, "stream": stream}
        assert apis.http.post("/v1/messages", json=body, headers=erin).status_code == 200
    until(lambda: sum(line["user"] == "local/erin" for line in apis.spend()) == 4)


def test_a_request_that_asks_for_nothing_reaches_the_model_as_it_was_sent(apis: Apis) -> None:
    message = apis.message([{"text": ["hi ["]}], "plain", tools=[TOOL], temperature=0.5).json()
    assert message["content"][0]["text"] == "hi ["
    seen = apis.upstream()
    assert [given["role"] for given in seen["messages"]] == ["user"]
    assert [tool["function"]["name"] for tool in seen["params"]["tools"]] == ["weather"]
    assert seen["params"]["temperature"] == 0.5


@pytest.mark.parametrize("messages", [[], "x", [7]])
def test_what_is_no_conversation_is_refused(apis: Apis, messages: Any) -> None:
    answer = apis.http.post("/v1/messages", json={"model": "scripted", "max_tokens": 9, "messages": messages})
    assert (answer.status_code, answer.json()["error"]["type"]) == (400, "invalid_request_error")


CHOICES: list[tuple[Any, Any]] = [
    ({"type": "any"}, {"type": "any"}),
    ({"type": "file_search"}, {"type": "tool", "name": "search_documents"}),
    ({"type": "tool", "name": "weather"}, {"type": "tool", "name": "weather"}),
]


@pytest.mark.parametrize(("choice", "forced"), CHOICES)
def test_a_choice_of_tools_holds_for_the_first_round(apis: Apis, choice: Any, forced: Any) -> None:
    apis.native.requests.clear()
    assert apis.message(NOTICE, "anthropic", tools=[TOOL], tool_choice=choice).status_code == 200
    first, second = apis.native.bodies("/v1/messages")
    assert first["tool_choice"] == forced
    assert "tool_choice" not in second


def test_passages_found_before_the_model_is_asked_are_cited_too(apis: Apis) -> None:
    apis.native.requests.clear()
    message = apis.message(NOTICE, "anthropic", rag={"mode": "context"}).json()
    assert message["content"][-1]["text"] == ANSWER
    assert message["content"][-1]["citations"][0]["title"] == "Handbook"
    [only] = apis.native.bodies("/v1/messages")
    assert "tools" not in only
    assert "30 days" in json.dumps(only["messages"])


MALFORMED: list[Any] = [
    {"tools": [7]},
    {"tool_choice": {"type": "other"}},
    {"messages": [{"role": "user", "content": [7]}]},
]


@pytest.mark.parametrize("body", MALFORMED)
def test_what_cannot_be_read_is_refused_and_not_an_error_of_ours(apis: Apis, body: Any) -> None:
    answer = apis.message("x", **body)
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["type"] == "invalid_request_error"


def test_a_client_that_goes_away_ends_the_model(apis: Apis, tmp_path: Path) -> None:
    rounds = [{"calls": [SEARCH]}, {"text": ["first", f"pause:{tmp_path / 'never'}"]}]
    messages = [{"role": "user", "content": json.dumps(rounds)}]
    body = {"model": "scripted", "max_tokens": 500, "messages": messages, "stream": True}
    with apis.http.stream("POST", "/v1/messages", json=body) as stream:
        assert any("first" in line for line in stream.iter_lines())
    until(apis.cancelled)
