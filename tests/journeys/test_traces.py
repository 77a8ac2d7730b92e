"""One trace for each request, through LiteLLM's spans and ours, on into the worker; one line of the log."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

from tests.support.observed import LEAVE, Observed
from tests.support.quickstart import until

MESSAGES = [{"role": "user", "content": LEAVE}]
CHATS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES},
    "/v1/responses": {"input": LEAVE},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 500},
}


def ask(on: Observed, route: str, model: str = "extractive", **body: Any) -> httpx.Response:
    answer = on.running.http("alice").post(route, json={"model": model, **CHATS[route], **body})
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", CHATS)
def test_a_chat_is_one_trace_from_sign_in_to_store(observed: Observed, route: str, stream: bool) -> None:
    answer = ask(observed, route, stream=stream)
    spans = observed.trace(answer, "collections.chat", "litellm_request", "collections.store")
    paths = observed.paths(spans)
    assert ["auth"] in paths
    assert paths.count(["chat", "round"]) == 2
    for stage in ("rights", "embed", "store"):
        assert ["chat", "round", "tool", "search", stage] in paths
    [chat] = [span for span in spans if span.name == "collections.chat"]
    [request] = [span for span in spans if span.name == "Received Proxy Server Request"]
    assert chat.parent_id == request.span_id
    assert request.attributes["http.response.status_code"] == 200
    assert chat.attributes == {
        "collections.rounds": 2,
        "collections.tools": 1,
        "collections.passages": chat.attributes["collections.passages"],
    }
    assert chat.attributes["collections.passages"] > 0


@pytest.mark.parametrize("stream", [False, True])
def test_the_model_is_called_once_below_each_round(observed: Observed, stream: bool) -> None:
    answer = ask(observed, "/v1/chat/completions", stream=stream)

    def calls() -> list[int]:
        spans = observed.trace(answer, "collections.chat", "litellm_request")
        rounds = [span for span in spans if span.name == "collections.round"]
        numbers = {span.span_id: span.attributes["collections.round"] for span in rounds}
        called = [span.parent_id for span in spans if span.name == "litellm_request"]
        return sorted(numbers[parent] for parent in called if parent in numbers)

    until(lambda: calls() == [1, 2], "a call below each round")


def test_a_job_goes_on_in_the_trace_of_its_upload(observed: Observed) -> None:
    document = {"markdown": "# Parking\n\nThe garage opens at six."}
    answer = observed.running.http("alice").post(
        "/v1/collections/finance/add?wait=true", json={"documents": [document]}
    )
    assert answer.status_code == 200, answer.text
    spans = observed.trace(answer, "collections.job", "collections.store")
    [job] = [span for span in spans if span.name == "collections.job"]
    assert job.service == "litellm-collections-worker"
    within = {span.name.removeprefix("collections.") for span in spans if span.parent_id == job.span_id}
    assert within == {"extract", "chunk", "embed", "store"}


def test_a_model_that_the_worker_asks_is_in_the_trace_of_the_upload(observed: Observed) -> None:
    alice = observed.running.http("alice")
    made = alice.post("/v1/collections/new", json={"name": "traced", "embedding_model": "embedder"})
    assert made.status_code == 201, made.text
    note = {"documents": [{"text": "The lift is repaired."}]}
    answer = alice.post("/v1/collections/traced/add?wait=true", json=note)
    assert answer.json()["data"][0]["status"] == "completed", answer.text
    spans = observed.trace(answer, "collections.job", "litellm_request")
    [asked] = [span for span in spans if span.name == "litellm_request"]
    assert "collections.job" in observed.collector.above(asked)


def test_a_caller_s_own_trace_is_gone_on_with(observed: Observed) -> None:
    trace_id, caller = f"{7:032x}", f"{9:016x}"
    answer = observed.running.http("alice").get(
        "/v1/collections", headers={"traceparent": f"00-{trace_id}-{caller}-01"}
    )
    assert observed.line(answer.headers["x-litellm-call-id"])["trace_id"] == trace_id
    until(
        lambda: any(
            span.name == "Received Proxy Server Request" and span.parent_id == caller
            for span in observed.collector.trace(trace_id)
        ),
        "the request's span below the caller's",
    )


def test_our_spans_say_nothing_of_texts_people_and_keys(observed: Observed) -> None:
    answer = ask(observed, "/v1/chat/completions")
    observed.trace(answer, "collections.chat")
    ours = [span for span in observed.collector.spans if span.name.startswith("collections.")]
    said = " ".join(str(value) for span in ours for value in span.attributes.values())
    assert "search_documents" in said
    key = observed.running.key("alice")
    for word in (LEAVE, "leave", "28 days", "alice", "handbook", key):
        assert word not in said


def test_what_is_refused_is_marked_in_its_trace_and_in_its_line(observed: Observed) -> None:
    answer = observed.running.http("alice").post(
        "/v1/chat/completions",
        json={"model": "extractive", "messages": MESSAGES, "rag": {"collections": ["none-such"]}},
    )
    assert answer.status_code == 404
    line = observed.line(answer.headers["x-litellm-call-id"])
    assert (line["status"], line["error"]) == (404, "ChatRefusal")
    [chat] = [span for span in observed.trace(answer, "collections.chat") if span.name == "collections.chat"]
    assert not chat.ok


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_has_one_line_with_what_it_took(observed: Observed, stream: bool) -> None:
    line = observed.line(ask(observed, "/v1/messages", stream=stream).headers["x-litellm-call-id"])
    found = {
        name: line[name] for name in ("method", "route", "status", "user_id", "model", "rounds", "tools")
    }
    assert found == {
        "method": "POST",
        "route": "/v1/messages",
        "status": 200,
        "user_id": "local/alice",
        "model": "extractive",
        "rounds": 2,
        "tools": 1,
    }
    assert line["passages"] > 0
    assert isinstance(line["duration_ms"], int)


@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_without_our_tools_has_its_line_too(observed: Observed, stream: bool) -> None:
    answer = ask(observed, "/v1/chat/completions", "plain", stream=stream)
    line = observed.line(answer.headers["x-litellm-call-id"])
    assert (line["status"], line["model"], line["user_id"]) == (200, "plain", "local/alice")
    assert "rounds" not in line


def test_a_line_of_our_routes_names_the_route_and_not_what_stands_in_it(observed: Observed) -> None:
    answer = observed.running.http("alice").get("/v1/collections/secret-plans")
    line = observed.line(answer.headers["x-litellm-call-id"])
    assert (line["route"], line["status"]) == ("/v1/collections/{collection}", 404)
    assert "secret-plans" not in str(line)
