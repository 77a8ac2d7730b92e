"""What LiteLLM's response cache is told of a request over documents, and which vectors a process keeps."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import litellm
import pytest
from litellm.caching.caching import Cache
from litellm.proxy import proxy_server
from litellm.router import Router
from prometheus_client import REGISTRY

from crawler.store import Comparison
from plugins.core.identity import Principal
from plugins.core.ports import Scope
from plugins.proxy.caches import UNCACHED, Vectors, control, count, fence, for_vectors
from tests.support.services import ALICE

DATA: dict[str, Any] = {"model": "chat", "messages": [{"role": "user", "content": "hello"}]}


async def state(principal: Principal, collections: frozenset[str] | None) -> str | None:
    return f"{principal.username} reads {sorted(collections or ())}"


async def unknown(principal: Principal, collections: frozenset[str] | None) -> str | None:
    return None


@pytest.fixture(autouse=True)
def cached(monkeypatch: pytest.MonkeyPatch) -> None:
    """LiteLLM has a response cache of its own process."""
    monkeypatch.setattr(litellm, "cache", SimpleNamespace(type="local"))
    monkeypatch.setattr(proxy_server, "master_key", "sk-master")
    monkeypatch.setattr(proxy_server, "llm_router", router("openai/small"))


def router(model: str) -> Router:
    """With one deployment of `chat`."""
    params = {"model": model, "api_key": "sk-of-an-example"}
    return Router(model_list=[{"model_name": "chat", "litellm_params": params}])


async def namespace(scope: Scope | None = None, principal: Principal = ALICE, **data: Any) -> str:
    told = await control(state, principal, scope or Scope(), {**DATA, **data}, [data.get("model", "chat")])
    return str(told["namespace"])


async def test_requests_of_the_same_rights_scope_and_model_share_a_namespace() -> None:
    assert await namespace() == await namespace(messages=[], stream=True, cache={"no-cache": True})
    assert (await namespace()).startswith("collections:")


@pytest.mark.parametrize(
    ("scope", "data"),
    [
        (Scope(collections=frozenset({"vs_1"})), {}),
        (Scope(filters=Comparison(type="eq", key="year", value=2025)), {}),
        (Scope(max_num_results=3), {}),
        (None, {"model": "other"}),
        (None, {"proxy_server_request": {"body": {**DATA, "num_ctx": 4096}}}),
    ],
)
async def test_what_changes_an_answer_and_is_not_in_litellms_key_is_in_the_namespace(
    scope: Scope | None, data: dict[str, Any]
) -> None:
    assert await namespace(scope, **data) != await namespace()


async def test_another_model_behind_the_name_has_another_namespace(monkeypatch: pytest.MonkeyPatch) -> None:
    before = await namespace()
    monkeypatch.setattr(proxy_server, "llm_router", router("openai/large"))
    assert await namespace() != before


async def test_who_may_read_something_else_has_another_namespace() -> None:
    bob = Principal(source="local", subject="bob", username="bob")
    assert await namespace(principal=bob) != await namespace()


async def test_nobody_who_knows_what_is_in_a_namespace_can_name_it(monkeypatch: pytest.MonkeyPatch) -> None:
    before = await namespace()
    monkeypatch.setattr(proxy_server, "master_key", "sk-another-master")
    assert await namespace() != before


@pytest.mark.parametrize("cache", ["redis-semantic", "qdrant-semantic", "valkey-semantic", None])
async def test_without_a_cache_that_answers_equal_requests_alone_nothing_is_cached(
    monkeypatch: pytest.MonkeyPatch, cache: str | None
) -> None:
    monkeypatch.setattr(litellm, "cache", SimpleNamespace(type=cache) if cache else None)
    assert await control(state, ALICE, Scope(), DATA, ["chat"]) == UNCACHED


async def test_where_nobody_can_tell_what_may_be_read_nothing_is_cached() -> None:
    assert await control(unknown, ALICE, Scope(), DATA, ["chat"]) == UNCACHED
    assert await control(None, ALICE, Scope(), DATA, ["chat"]) == UNCACHED


async def test_without_a_master_key_nothing_is_cached(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(proxy_server, "master_key", None)
    assert await control(state, ALICE, Scope(), DATA, ["chat"]) == UNCACHED


async def test_a_client_says_whether_the_cache_is_asked_but_not_where_or_how_long() -> None:
    said = {"no-cache": True, "no-store": False, "s-maxage": 60, "ttl": 10**9, "namespace": "own"}
    told = await control(state, ALICE, Scope(), {**DATA, "cache": said}, ["chat"])
    assert told == {"no-cache": True, "no-store": False, "s-maxage": 60, "namespace": await namespace()}
    assert (await control(state, ALICE, Scope(), {**DATA, "cache": "x"}, ["chat"])) == {
        "namespace": await namespace()
    }


async def test_the_namespace_is_in_litellms_key_whatever_else_the_request_says() -> None:
    cache = Cache()
    told = await control(state, ALICE, Scope(), DATA, ["chat"])
    key = cache.get_cache_key(**DATA, cache=told, metadata={"redis_namespace": "forged"})
    assert key.startswith(f"{told['namespace']}:")


def test_what_names_a_key_of_ours_is_taken_out_of_every_request() -> None:
    ours = "redis-prefix:collections:abc:def"
    data: dict[str, Any] = {
        "cache_key": ours,
        "cache": {"namespace": ours, "no-store": True},
        "metadata": {"redis_namespace": ours, "tags": ["x"]},
        "litellm_params": {"preset_cache_key": ours},
    }
    fence(data)
    assert data == {"cache": {"no-store": True}, "metadata": {"tags": ["x"]}, "litellm_params": {}}


def test_what_names_a_key_of_a_clients_own_is_left_where_the_answer_is_not_from_documents() -> None:
    data: dict[str, Any] = {"cache_key": "mine", "cache": {"namespace": "mine"}, "metadata": None}
    fence(data)
    assert data == {"cache_key": "mine", "cache": {"namespace": "mine"}, "metadata": None}
    fence(data, ours=True)
    assert data == {"cache": {}, "metadata": None}


def test_a_fallback_of_a_clients_own_names_no_key_of_ours() -> None:
    ours = "collections:abc"
    deeper = {"model": "b", "litellm_params": {"preset_cache_key": ours}}
    entry = {"model": "a", "cache_key": ours, "cache": {"namespace": ours}, "fallbacks": [deeper]}
    data: dict[str, Any] = {
        "fallbacks": [entry, "c"],
        "router_settings_override": {"context_window_fallbacks": [{"a": [dict(entry)]}]},
    }
    fence(data)
    assert ours not in repr(data)
    assert data["fallbacks"][0]["cache"] == {}
    fence(data, ours=True)
    clean = {"model": "a", "fallbacks": [{"model": "b", "litellm_params": {}}]}
    assert data["fallbacks"] == [clean, "c"]
    assert data["router_settings_override"] == {"context_window_fallbacks": [{"a": [clean]}]}


@pytest.mark.parametrize("name", ["mock_response", "mock_tool_calls"])
def test_what_a_client_has_the_model_say_is_kept_for_nobody(name: str) -> None:
    """LiteLLM's key leaves it out: all who ask the same would be told it."""
    said = {"model": "chat", name: ["forged"], "cache": {"ttl": 600}}
    data: dict[str, Any] = {**said, "fallbacks": [said]}
    fence(data)
    assert data["cache"] == data["fallbacks"][0]["cache"] == UNCACHED


def rounds(result: str) -> float:
    return REGISTRY.get_sample_value("collections_cached_rounds_total", {"result": result}) or 0.0


def test_hits_and_misses_are_counted_where_the_cache_is_asked() -> None:
    hits, misses = rounds("hit"), rounds("miss")
    count(SimpleNamespace(_hidden_params={"cache_hit": True}), {"namespace": "x"})
    count(SimpleNamespace(_hidden_params={}), {"namespace": "x"})
    for cache in (UNCACHED, {"namespace": "x", "no-cache": True}):
        count(SimpleNamespace(_hidden_params={}), cache)
    assert (rounds("hit") - hits, rounds("miss") - misses) == (1, 1)


def test_embeddings_of_other_deployments_are_in_another_part_of_litellms_cache() -> None:
    assert for_vectors("one") == for_vectors("one") != for_vectors("two")


def test_a_semantic_cache_is_not_asked_for_embeddings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(litellm, "cache", SimpleNamespace(type="redis-semantic"))
    assert for_vectors("one") == UNCACHED


def test_a_vector_is_found_by_its_deployments_and_its_text_alone() -> None:
    kept = Vectors(10_000)
    kept.put("model", "text", [0.1, -2.5])
    assert kept.get("model", "text") == [0.1, -2.5]
    assert kept.get("model", "other") is None
    assert kept.get("other", "text") is None


def test_the_vectors_that_were_used_least_recently_make_room() -> None:
    kept = Vectors(2 * (Vectors.ENTRY_BYTES + 8))
    kept.put("m", "a", [1.0])
    kept.put("m", "b", [2.0])
    assert kept.get("m", "a") == [1.0]
    kept.put("m", "c", [3.0])
    assert [kept.get("m", text) for text in "abc"] == [[1.0], None, [3.0]]


def test_a_vector_that_is_put_twice_takes_its_room_once() -> None:
    kept = Vectors(2 * (Vectors.ENTRY_BYTES + 8))
    for number in range(5):
        kept.put("m", "a", [float(number)])
    kept.put("m", "b", [9.0])
    assert [kept.get("m", text) for text in "ab"] == [[4.0], [9.0]]


def test_without_room_none_are_kept() -> None:
    kept = Vectors(0)
    kept.put("m", "a", [1.0])
    assert kept.get("m", "a") is None
