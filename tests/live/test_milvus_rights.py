"""Milvus's own enforcement, on a real server with authorization on and through the stock proxy."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.live.milvus import Server, milvus
from tests.live.milvus_proxy import CACHE_S, House, house

__all__ = ["milvus"]

LEAVE = "# Leave\n\nNotice of termination is thirty days, to the end of a month."


@pytest.fixture(scope="module")
def enforced(milvus: Server, tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """Rights are Milvus's: alice may do everything with what the tests make, bob has no role at all."""
    settings = {"rights": "milvus", "privileges_cache_s": CACHE_S}
    with house(tmp_path_factory.mktemp("enforced"), milvus, settings) as running:
        everything = ("Collection", "*", "*"), ("Global", "*", "*")
        running.credentials["alice"] = milvus.person("alice", *everything)
        running.credentials["bob"] = milvus.person("bob")
        yield running


@pytest.fixture(scope="module")
def handbook(enforced: House) -> str:
    """A collection of alice's with one document."""
    name = f"{enforced.server.prefix}handbook"
    made = enforced.ask("alice", "POST", "/v1/collections/new", json={"name": name})
    assert made.status_code == 201, made.text
    assert made.json()["retrieval"] == "dense"
    assert set(made.json()["permissions"]) == {"discover", "query", "add", "manage"}
    added = enforced.ask(
        "alice",
        "POST",
        f"/v1/collections/{name}/add?wait=true",
        json={"documents": [{"markdown": LEAVE, "filename": "leave.md", "id": "leave"}]},
    )
    assert added.status_code == 200, added.text
    return name


def test_upload_search_and_chat_on_the_server(enforced: House, handbook: str) -> None:
    found = enforced.ask(
        "alice", "POST", f"/v1/collections/{handbook}/search", json={"query": "How long is the notice?"}
    )
    assert found.status_code == 200, found.text
    assert "thirty days" in found.json()["data"][0]["content"][0]["text"]
    messages = [{"role": "user", "content": "How long is the notice of termination?"}]
    answered = enforced.ask(
        "alice", "POST", "/v1/chat/completions", json={"model": "extractive", "messages": messages}
    )
    assert answered.status_code == 200, answered.text
    assert "thirty days" in answered.json()["choices"][0]["message"]["content"]


def test_a_user_without_a_role_sees_the_collection_and_may_not_search_it(
    enforced: House, handbook: str
) -> None:
    assert handbook in enforced.names("bob")
    refused = enforced.ask("bob", "POST", f"/v1/collections/{handbook}/search", json={"query": "notice"})
    assert refused.status_code == 403, refused.text
    assert "`query`" in refused.json()["error"]["message"]
