"""Collections that others made in Milvus, listed and searched through the stock proxy; on a real server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from pymilvus import DataType, MilvusClient  # type: ignore[import-untyped]

from crawler.embedders.minilm import MiniLM
from tests.live.milvus import Server, milvus
from tests.live.milvus_proxy import House, house
from tests.support.quickstart import until

__all__ = ["milvus"]

LIMIT_S = 60.0
PASSAGES = [
    ("The canteen opens at noon.", "https://intranet.example/canteen", {"floor": 2}),
    ("Bicycles are parked in the yard.", "yard.pdf", {"floor": 0}),
]


def make(client: MilvusClient, name: str, embedded: list[list[float]]) -> None:
    """A collection as another program would have made it."""
    schema = client.create_schema(auto_id=True, enable_dynamic_field=False)
    schema.add_field("pk", DataType.INT64, is_primary=True)
    schema.add_field("body", DataType.VARCHAR, max_length=2000)
    schema.add_field("link", DataType.VARCHAR, max_length=500)
    schema.add_field("sheet", DataType.INT64)
    schema.add_field("extra", DataType.JSON)
    schema.add_field("embedding", DataType.FLOAT_VECTOR, dim=len(embedded[0]))
    index = client.prepare_index_params()
    index.add_index("embedding", index_type="FLAT", metric_type="COSINE")
    client.create_collection(name, schema=schema, index_params=index, consistency_level="Strong")
    client.insert(
        name,
        [
            {"body": text, "link": link, "sheet": number + 1, "extra": extra, "embedding": vector}
            for number, ((text, link, extra), vector) in enumerate(zip(PASSAGES, embedded, strict=True))
        ],
    )


@pytest.fixture(scope="module")
def embedded() -> list[list[float]]:
    """The passages by the model that the YAML names."""
    return MiniLM().embed_batch([text for text, _, _ in PASSAGES])


@pytest.fixture(scope="module")
def place(
    milvus: Server, embedded: list[list[float]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[House]:
    """Rights to `old_*` are the policy's, to `guarded_*` Milvus's; `wrong_*` is not as the YAML says."""
    fields = {
        "text": "body",
        "vector": "embedding",
        "source": "link",
        "page": "sheet",
        "metadata": "extra",
        "id": "pk",
    }
    entry = {"embedding_model": "local/minilm", "fields": fields}
    prefix = milvus.prefix
    settings = {
        "policy": [
            {"names": f"{prefix}old_*", "discover": ["*"], "query": ["user:local/alice"]},
            {"names": "*", "manage": ["role:litellm/proxy_admin"]},
        ],
        "create": [{"names": "*", "subjects": ["role:litellm/proxy_admin"]}],
        "adopt": [
            {"names": f"{prefix}old_*", **entry},
            {"names": f"{prefix}guarded_*", "rights": "milvus", **entry},
            {"names": f"{prefix}wrong_*", **entry, "fields": {**fields, "text": "content"}},
            {"names": "c_*", **entry},
        ],
        "privileges_cache_s": 1,
    }
    client = milvus.client()
    for name in ("old_wiki", "guarded_wiki", "wrong_wiki"):
        make(client, f"{prefix}{name}", embedded)
    with house(tmp_path_factory.mktemp("adopting"), milvus, settings) as running:
        running.credentials["carol"] = milvus.person(
            "reader",
            ("Collection", f"{prefix}guarded_wiki", "Search"),
            ("Collection", f"{prefix}guarded_wiki", "Query"),
        )
        running.credentials["bob"] = milvus.person("nobody")
        yield running


def test_they_are_listed_and_searched_by_the_policy(place: House) -> None:
    name = f"{place.server.prefix}old_wiki"
    assert name in place.names("alice")
    view = place.ask("alice", "GET", f"/v1/collections/{name}").json()
    assert (view["permissions"], view["retrieval"], view["dimension"]) == (
        ["discover", "query"],
        "dense",
        384,
    )
    found = place.ask(
        "alice", "POST", f"/v1/collections/{view['id']}/search", json={"query": "When can I eat?"}
    )
    assert found.status_code == 200, found.text
    best = found.json()["data"][0]
    assert best["content"][0]["text"] == "The canteen opens at noon."
    assert best["filename"] == "https://intranet.example/canteen"
    assert (best["attributes"]["page"], best["attributes"]["floor"]) == (1, 2)
    assert 0 < best["score"] <= 1
    refused = place.ask("dave", "POST", f"/v1/collections/{name}/search", json={"query": "food"})
    assert refused.status_code == 403


def test_where_milvus_judges_its_roles_decide(place: House) -> None:
    name = f"{place.server.prefix}guarded_wiki"
    statuses = {
        person: place.ask(
            person, "POST", f"/v1/collections/{name}/search", json={"query": "food"}
        ).status_code
        for person in ("carol", "bob", "alice", "master")
    }
    assert statuses == {"carol": 200, "bob": place.refusal("bob", name), "alice": 404, "master": 404}


def test_chat_cites_their_source(place: House) -> None:
    question = {"role": "user", "content": "When does the canteen open?"}
    answer = place.ask(
        "alice", "POST", "/v1/chat/completions", json={"model": "extractive", "messages": [question]}
    ).json()["choices"][0]["message"]
    assert "noon" in answer["content"]
    [citation] = answer["annotations"]
    assert citation["url_citation"]["url"] == "https://intranet.example/canteen"
    [result] = answer["provider_specific_fields"]["search_results"]
    assert result["filename"] == "https://intranet.example/canteen"


def test_they_cannot_be_changed_or_dropped_from_here(place: House) -> None:
    name = f"{place.server.prefix}old_wiki"
    added = place.ask("master", "POST", f"/v1/collections/{name}/add", json={"documents": [{"text": "mine"}]})
    dropped = place.ask("master", "DELETE", f"/v1/collections/{name}")
    deleted = place.ask("master", "DELETE", f"/v1/collections/{name}/documents/1")
    assert [added.status_code, dropped.status_code, deleted.status_code] == [409, 409, 409]
    assert "outside" in added.json()["error"]["message"]
    assert place.server.client().has_collection(name)
    refused = place.ask(
        "alice",
        "POST",
        f"/v1/collections/{name}/search",
        json={"query": "x", "filters": {"type": "eq", "key": "floor", "value": 2}},
    )
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "filters")


def test_one_that_is_not_as_the_yaml_says_is_named_to_the_operator_only(place: House) -> None:
    name = f"{place.server.prefix}wrong_wiki"
    assert name not in place.names("master")
    health = place.ask("master", "GET", "/health/collections").json()
    assert "no field `content`" in health["details"]["messages"][f"collections.adopt.{name}"]
    assert "no field `content`" in place.proxy.log
    assert "no field" not in place.ask("alice", "GET", "/health/collections").text


def test_one_of_ours_is_never_adopted(place: House) -> None:
    """Else its documents' audiences would not count."""
    made = place.ask("master", "POST", "/v1/collections/new", json={"name": "ours"})
    assert made.status_code == 201, made.text
    physical = f"c_{made.json()['id'].removeprefix('vs_')}"
    seen: set[str] = set()

    def looked_at() -> bool:
        seen.update(place.names("master"))
        return physical in place.proxy.log

    until(looked_at, "it was looked at", LIMIT_S)
    assert "ours" in seen
    assert physical not in seen


def test_what_is_gone_from_milvus_is_gone_here_and_keeps_its_id_when_it_is_back(
    place: House, embedded: list[list[float]]
) -> None:
    name = f"{place.server.prefix}old_news"
    path, client = f"/v1/collections/{name}", place.server.client()

    def status() -> int:
        return place.ask("alice", "GET", path).status_code

    make(client, name, embedded)
    until(lambda: status() == 200, "it is there", LIMIT_S)
    first = place.ask("alice", "GET", path).json()["id"]
    client.drop_collection(name)
    until(lambda: status() == 404, "it is gone", LIMIT_S)
    make(client, name, embedded)
    until(lambda: status() == 200, "it is back", LIMIT_S)
    assert place.ask("alice", "GET", path).json()["id"] == first
