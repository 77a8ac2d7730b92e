"""Embeddings through the router: whose they are, and what is said when there are none."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from litellm.exceptions import APIConnectionError, BadRequestError, RateLimitError
from litellm.proxy import proxy_server
from litellm.types.utils import EmbeddingResponse
from prometheus_client import REGISTRY

from plugins.core.errors import BundleError, DeadlineExceeded, InvalidRequest, LimitReached, ModelUnavailable
from plugins.proxy.caches import Vectors
from plugins.proxy.models import RouterEmbed
from tests.support.services import ALICE


class FakeRouter:
    def __init__(
        self,
        error: Exception | None = None,
        hangs: bool = False,
        takes_chars: int = 10_000,
        info: dict[str, Any] | None = None,
    ) -> None:
        self.error = error
        self.hangs = hangs
        self.takes_chars = takes_chars
        self.info = info or {}
        self.asked = 0
        self.request: dict[str, Any] = {}
        self.params: dict[str, Any] = {"model": "openai/x"}
        self.headers: dict[str, Any] = {}

    def get_model_list(self, model_name: str) -> list[Any]:
        known = {"litellm_params": self.params, "model_info": self.info}
        return [known] if model_name == "known" else []

    async def aembedding(self, **request: Any) -> EmbeddingResponse:
        self.request = request
        self.asked += 1
        if any(len(text) > self.takes_chars for text in request["input"]):
            raise BadRequestError("too long", model="m", llm_provider="x")
        if self.hangs:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        data = [{"index": i, "embedding": [float(i)], "object": "embedding"} for i in (1, 0)]
        return EmbeddingResponse(data=data, hidden_params={"additional_headers": self.headers})


async def test_vectors_come_in_the_order_of_the_texts_at_the_users_expense(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    router = FakeRouter()
    monkeypatch.setattr(proxy_server, "llm_router", router)
    assert await RouterEmbed()("known", ["a", "b"], ALICE) == [[0.0], [1.0]]
    assert router.request["metadata"]["user_api_key_user_id"] == ALICE.user_id


async def test_a_question_that_is_too_long_is_asked_by_its_beginning(monkeypatch: pytest.MonkeyPatch) -> None:
    router = FakeRouter(takes_chars=300)
    monkeypatch.setattr(proxy_server, "llm_router", router)
    await RouterEmbed()("known", ["beginning " * 100, "short"], ALICE)
    assert router.request["input"] == [("beginning " * 100)[:250], "short"]


async def test_a_model_that_says_what_it_takes_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    router = FakeRouter(takes_chars=400, info={"max_input_tokens": 100})
    monkeypatch.setattr(proxy_server, "llm_router", router)
    await RouterEmbed()("known", ["x" * 8000], ALICE)
    assert (router.asked, len(router.request["input"][0])) == (1, 400)


async def test_a_model_that_is_not_configured_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_server, "llm_router", FakeRouter())
    with pytest.raises(ModelUnavailable, match="`gone` is not configured"):
        await RouterEmbed()("gone", ["a"], ALICE)


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (APIConnectionError("10.1.2.3", llm_provider="x", model="m"), ModelUnavailable),
        (RateLimitError("10.1.2.3", llm_provider="x", model="m"), LimitReached),
        (BadRequestError("10.1.2.3", model="m", llm_provider="x"), InvalidRequest),
        (RuntimeError("10.1.2.3"), ModelUnavailable),
    ],
)
async def test_a_failure_names_the_model_and_nothing_internal(
    monkeypatch: pytest.MonkeyPatch, error: Exception, told: type[BundleError]
) -> None:
    monkeypatch.setattr(proxy_server, "llm_router", FakeRouter(error))
    with pytest.raises(told) as raised:
        await RouterEmbed()("known", ["a"], ALICE)
    assert "`known`" in raised.value.message
    assert "10.1.2.3" not in raised.value.message


async def test_a_model_that_does_not_answer_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_server, "llm_router", FakeRouter(hangs=True))
    with pytest.raises(DeadlineExceeded):
        await RouterEmbed(timeout_s=0.01)("known", ["a"], ALICE)


def embedded(result: str) -> float:
    return REGISTRY.get_sample_value("collections_query_embeddings_total", {"result": result}) or 0.0


async def test_what_was_embedded_before_is_not_embedded_again(monkeypatch: pytest.MonkeyPatch) -> None:
    router = FakeRouter()
    monkeypatch.setattr(proxy_server, "llm_router", router)
    hits, misses = embedded("hit"), embedded("miss")
    embed = RouterEmbed(kept=Vectors(10_000))
    first = await embed("known", ["a", "b"], ALICE)
    assert await embed("known", ["b", "a"], ALICE) == [first[1], first[0]]
    assert router.asked == 1
    assert (embedded("hit") - hits, embedded("miss") - misses) == (2, 2)


async def test_another_deployment_of_the_name_is_asked_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    router = FakeRouter()
    monkeypatch.setattr(proxy_server, "llm_router", router)
    embed = RouterEmbed(kept=Vectors(10_000))
    await embed("known", ["a", "b"], ALICE)
    router.params = {"model": "openai/another"}
    await embed("known", ["a", "b"], ALICE)
    assert router.asked == 2
    assert router.request["cache"] != {}


async def test_what_a_fallback_embedded_is_not_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    router = FakeRouter()
    router.headers = {"x-litellm-attempted-fallbacks": 1, "x-litellm-model-group": "other"}
    monkeypatch.setattr(proxy_server, "llm_router", router)
    embed = RouterEmbed(kept=Vectors(10_000))
    for _ in range(2):
        await embed("known", ["a", "b"], ALICE)
    assert router.asked == 2


async def test_a_model_that_is_gone_is_named_although_the_question_was_embedded(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    embed = RouterEmbed(kept=Vectors(10_000))
    monkeypatch.setattr(proxy_server, "llm_router", FakeRouter())
    await embed("known", ["a", "b"], ALICE)
    monkeypatch.setattr(proxy_server, "llm_router", None)
    with pytest.raises(ModelUnavailable):
        await embed("known", ["a", "b"], ALICE)
