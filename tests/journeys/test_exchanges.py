"""What is kept of chats for audits: what was said, to whom, and from which passages; not what those say."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.support.observed import LEAVE, Observed
from tests.support.quickstart import until

CHATS = ("/v1/chat/completions", "/v1/responses", "/v1/messages")
PICTURE = "data:image/png;base64," + "iVBORw0K" * 100


def ask(on: Observed, route: str, text: str = LEAVE, **body: Any) -> httpx.Response:
    said = {"input": text} if route == "/v1/responses" else {"messages": [{"role": "user", "content": text}]}
    limit = {"max_tokens": 500} if route == "/v1/messages" else {}
    answer = on.running.http("alice").post(route, json={"model": "extractive", **said, **limit, **body})
    assert answer.status_code == 200, answer.text
    return answer


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", CHATS)
def test_question_answer_and_passages_places_are_kept(observed: Observed, route: str, stream: bool) -> None:
    answer = ask(observed, route, stream=stream)
    kept = observed.exchange(answer.headers["x-litellm-call-id"])
    assert (kept["user"], kept["route"], kept["model"]) == ("local/alice", route, "extractive")
    field = "input" if route == "/v1/responses" else "messages"
    assert LEAVE in json.dumps(kept["request"][field])
    said = kept["answer"]
    assert said["status"] == 200
    assert "cut" not in said
    assert said["text"].startswith("Every employee has [redacted] of paid annual leave")
    assert any(passage["cited"] for passage in said["passages"])
    assert {name for passage in said["passages"] for name in passage} == {
        "collection_id",
        "document_id",
        "page",
        "cited",
    }


@pytest.mark.parametrize("model", ["extractive", "plain"])
@pytest.mark.parametrize("route", CHATS)
def test_what_is_neither_streamed_nor_not_is_refused_and_kept(
    observed: Observed, route: str, model: str
) -> None:
    """LiteLLM's models would be told to stream, and its routes would take their answers for plain ones."""
    body = {"model": model, "input": LEAVE, "messages": [{"role": "user", "content": LEAVE}], "max_tokens": 9}
    answer = observed.running.http("alice").post(route, json={**body, "stream": 1})
    assert answer.status_code == 400, answer.text
    assert "`stream` must be true or false" in answer.text
    assert observed.exchange(answer.headers["x-litellm-call-id"])["answer"]["status"] == 400


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("route", CHATS)
def test_chats_without_our_tools_are_kept_too(observed: Observed, route: str, stream: bool) -> None:
    answer = ask(observed, route, "Is DE02120300000000202051 mine?", model="plain", stream=stream)
    kept = observed.exchange(answer.headers["x-litellm-call-id"])
    assert "Is [redacted] mine?" in json.dumps(kept["request"])
    assert kept["answer"]["text"].count("I am not a language model") == 1
    assert "passages" not in kept["answer"]


def test_a_picture_s_bytes_are_not_kept(observed: Observed) -> None:
    parts = [{"type": "text", "text": LEAVE}, {"type": "image_url", "image_url": {"url": PICTURE}}]
    answer = observed.running.http("alice").post(
        "/v1/chat/completions", json={"model": "plain", "messages": [{"role": "user", "content": parts}]}
    )
    kept = observed.exchange(answer.headers["x-litellm-call-id"])
    [message] = kept["request"]["messages"]
    assert message["content"][1]["image_url"]["url"] == f"(base64, {len(PICTURE)} characters)"


@pytest.mark.parametrize("route", CHATS)
def test_what_else_a_client_sends_is_kept_but_for_what_lets_it_in(observed: Observed, route: str) -> None:
    """LiteLLM reads numbers that are none in JSON, which Postgres refuses."""
    said = (
        {"input": LEAVE} if route == "/v1/responses" else {"messages": [{"role": "user", "content": LEAVE}]}
    )
    body = {"model": "plain", "max_tokens": 9, **said, "documents": [{"title": "Leave", "x": float("nan")}]}
    body |= {"user": "sk-not-this", "metadata": {"key": "sk-nor-this"}, "vendor_token": "sk-nor-that"}
    http = observed.running.http("alice")
    answer = http.post(route, content=json.dumps(body), headers={"content-type": "application/json"})
    kept = observed.exchange(answer.headers["x-litellm-call-id"])
    assert kept["request"].keys() == {*said, "documents"}
    assert kept["request"]["documents"] == [{"title": "Leave", "x": "nan"}]
    assert "sk-" not in json.dumps(kept)


def test_what_is_refused_is_kept_with_its_status(observed: Observed) -> None:
    messages = [{"role": "user", "content": LEAVE}]
    answer = observed.running.http("alice").post(
        "/v1/chat/completions",
        json={"model": "extractive", "messages": messages, "rag": {"collections": ["none-such"]}},
    )
    kept = observed.exchange(answer.headers["x-litellm-call-id"])
    assert (kept["answer"]["status"], kept["answer"]["text"]) == (404, "")


def test_only_auditors_read_it_and_that_they_did_is_in_the_audit_log(observed: Observed) -> None:
    refused = observed.running.http("alice").get("/v1/audit/exchanges")
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")
    ask(observed, "/v1/chat/completions")
    master = observed.running.http("master")

    def first() -> list[dict[str, Any]]:
        page = master.get("/v1/audit/exchanges", params={"user": "user:local/alice", "limit": 1}).json()
        return list(page["data"])

    [row] = until(first, "an exchange of alice's")
    after = master.get("/v1/audit/exchanges", params={"user": "local/nobody", "after": row["id"]}).json()
    assert after == {"object": "list", "data": [], "has_more": False}
    looks = master.get("/v1/audit", params={"action": "exchange.read"}).json()["data"]
    assert looks[-1]["user"] == "litellm/proxy_admin"
    assert looks[-1]["detail"] == {"user": "local/nobody", "after": row["id"], "entries": 0}
