"""Embeddings by an OpenAI-compatible server: what is asked, and what each failure becomes."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from openai import AsyncOpenAI
from pydantic import SecretStr

from crawler.embedders.openai import OpenAIEmbedder, OpenAISettings
from crawler.errors import EmbeddingFailed

Handler = Callable[[dict[str, Any]], httpx.Response]


def embedder(handle: Handler, **settings: Any) -> OpenAIEmbedder:
    """The embedder on the real client, whose transport ends in ``handle``."""
    given = OpenAISettings.model_validate(
        {"base_url": "http://proxy/v1", "api_key": SecretStr("sk-internal"), "model": "m", **settings}
    )
    transport = httpx.MockTransport(lambda request: handle(json.loads(request.content)))
    client = AsyncOpenAI(
        base_url=given.base_url,
        api_key="sk-internal",
        max_retries=0,
        http_client=httpx.AsyncClient(transport=transport),
    )
    return OpenAIEmbedder(given, client=client)


def answer(vectors: list[list[float]]) -> httpx.Response:
    data = [{"object": "embedding", "index": i, "embedding": v} for i, v in enumerate(vectors)]
    usage = {"prompt_tokens": 1, "total_tokens": 1}
    return httpx.Response(200, json={"object": "list", "model": "m", "data": data[::-1], "usage": usage})


async def test_texts_are_sent_in_batches_and_vectors_come_back_in_order() -> None:
    asked: list[dict[str, Any]] = []

    def handle(body: dict[str, Any]) -> httpx.Response:
        asked.append(body)
        return answer([[float(text), 0.0] for text in body["input"]])

    made = embedder(handle, batch_size=2, dimension=2).for_user("alice")
    assert await made.embed(["1", "2", "3"]) == [[1.0, 0.0], [2.0, 0.0], [3.0, 0.0]]
    assert [body["input"] for body in asked] == [["1", "2"], ["3"]]
    assert {(body["model"], body["user"], body["encoding_format"]) for body in asked} == {
        ("m", "alice", "float")
    }


async def test_each_request_has_the_headers_of_its_moment() -> None:
    seen: list[str] = []

    def handle(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers["traceparent"])
        return answer([[1.0]])

    client = AsyncOpenAI(
        base_url="http://proxy/v1",
        api_key="sk-internal",
        http_client=httpx.AsyncClient(transport=httpx.MockTransport(handle)),
    )
    moments = iter("ab")
    settings = OpenAISettings(base_url="http://proxy/v1", api_key=SecretStr("x"), model="m")
    made = OpenAIEmbedder(settings, client=client, headers=lambda: {"traceparent": next(moments)})
    await made.for_user("alice").embed(["1"])
    await made.for_user("bob").embed(["2"])
    assert seen == ["a", "b"]


async def test_without_a_user_none_is_named() -> None:
    def handle(body: dict[str, Any]) -> httpx.Response:
        assert "user" not in body
        return answer([[1.0]])

    assert await embedder(handle).embed(["a"]) == [[1.0]]


@pytest.mark.parametrize(("status", "transient"), [(400, False), (401, False), (429, True), (500, True)])
async def test_a_refusal_tells_whether_to_try_again_and_nothing_else(status: int, transient: bool) -> None:
    made = embedder(lambda _: httpx.Response(status, json={"error": {"message": "host db7 sk-internal"}}))
    with pytest.raises(EmbeddingFailed, match=f"status {status}") as failed:
        await made.embed(["a"])
    assert failed.value.transient is transient
    assert "db7" not in failed.value.message


@pytest.mark.parametrize("problem", [httpx.ConnectError("refused"), httpx.ReadTimeout("slow")])
async def test_a_server_that_cannot_be_reached_is_tried_again_later(problem: Exception) -> None:
    def handle(_: dict[str, Any]) -> httpx.Response:
        raise problem

    with pytest.raises(EmbeddingFailed, match="could not be reached") as failed:
        await embedder(handle).embed(["a"])
    assert failed.value.transient


@pytest.mark.parametrize("vectors", [[[1.0, 2.0, 3.0]], [[1.0]]])
async def test_another_dimension_than_the_collections_is_refused_for_good(vectors: list[list[float]]) -> None:
    with pytest.raises(EmbeddingFailed, match="dimensions instead of 2") as failed:
        await embedder(lambda _: answer(vectors), dimension=2).embed(["a"])
    assert not failed.value.transient


async def test_a_missing_vector_is_noticed() -> None:
    with pytest.raises(EmbeddingFailed, match="1 of 2"):
        await embedder(lambda _: answer([[1.0]])).embed(["a", "b"])
