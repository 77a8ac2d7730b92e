"""Chat models of the proxy, over a real client and a server that answers as it is told."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI

from crawler.completions import HEADERS, Completions
from crawler.errors import ModelFailed

Answer = Callable[[httpx.Request], httpx.Response]
MESSAGES = [{"role": "user", "content": "What kind of document is this?"}]


def model(answer: Answer) -> Completions:
    http = httpx.AsyncClient(transport=httpx.MockTransport(answer))
    client = AsyncOpenAI(
        base_url="http://proxy/v1",
        api_key="sk-secret",
        max_retries=0,
        http_client=http,
        default_headers=HEADERS,
    )
    return Completions("http://proxy/v1", "sk-secret", client=client)


def says(content: str | None) -> httpx.Response:
    message = {"role": "assistant", "content": content}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    return httpx.Response(
        200,
        json={"id": "1", "object": "chat.completion", "created": 1, "model": "m", "choices": [choice]},
    )


async def test_the_uploader_is_named_and_the_proxy_is_told_not_to_search() -> None:
    seen: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request)
        return says("a letter")

    complete = model(answer).for_user("keycloak/alice")
    assert await complete("m", MESSAGES, {"type": "json_object"}) == "a letter"
    [request] = seen
    body: dict[str, Any] = json.loads(request.content)
    assert body == {
        "model": "m",
        "messages": MESSAGES,
        "user": "keycloak/alice",
        "response_format": {"type": "json_object"},
    }
    assert request.headers["x-rag-task"]
    assert request.url == "http://proxy/v1/chat/completions"


@pytest.mark.parametrize(
    ("status", "transient"), [(400, False), (401, False), (404, False), (429, True), (500, True), (503, True)]
)
async def test_a_refusal_says_whether_trying_again_is_of_use_and_nothing_of_the_servers_words(
    status: int, transient: bool
) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(status, json={"error": {"message": "at http://10.0.0.1 with sk-secret"}})

    with pytest.raises(ModelFailed) as caught:
        await model(answer)("m", MESSAGES)
    assert caught.value.transient is transient
    assert caught.value.message == f"The model `m` refused (status {status})."


@pytest.mark.parametrize("error", [httpx.ReadTimeout("slow"), httpx.ConnectError("down")])
async def test_a_model_that_is_slow_or_down_may_be_asked_again(error: Exception) -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise error

    with pytest.raises(ModelFailed, match="could not be reached") as caught:
        await model(answer)("m", MESSAGES)
    assert caught.value.transient


async def test_an_answer_without_text_is_not_asked_for_again() -> None:
    with pytest.raises(ModelFailed, match="answered nothing") as caught:
        await model(lambda request: says(None))("m", MESSAGES)
    assert not caught.value.transient


async def test_what_is_no_answer_of_a_chat_model_may_be_asked_for_again() -> None:
    with pytest.raises(ModelFailed) as caught:
        await model(lambda request: httpx.Response(200, text="<html>a gateway</html>"))("m", MESSAGES)
    assert caught.value.transient
