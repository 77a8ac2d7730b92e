"""`/v1/audit`: changes and refusals, for auditors; nothing of what documents say."""

from __future__ import annotations

import itertools
import json
from typing import Any

import pytest

from plugins.core.errors import Forbidden, UnknownCollection
from tests.support.api_server import Server


async def entries(server: Server, **params: Any) -> list[dict[str, Any]]:
    answer = await server.client("auditor").get("/v1/audit", params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["data"]
    return found


async def test_every_kind_of_change_is_written_down_with_who_and_from_where(server: Server) -> None:
    collection = await server.collection()
    path = f"/v1/collections/{collection}"
    alice = server.as_alice
    await alice.patch(path, json={"description": "new"})
    await alice.put(f"{path}/access", json={"discover": ["*"], "manage": ["user:alice"]})
    document = await server.document(collection)
    replacement = {"documents": [{"id": document["id"], "markdown": "# New"}]}
    await alice.post(f"{path}/add", json=replacement)
    of_it = f"{path}/documents/{document['id']}"
    await alice.patch(of_it, json={"metadata": {"year": 2025}})
    await alice.patch(of_it, json={"acl": ["user:bob"]})
    await alice.delete(of_it)
    await alice.delete(path, headers={"x-litellm-call-id": "the-last"})
    found = await entries(server)
    assert [entry["action"] for entry in found] == [
        "collection.create",
        "collection.change",
        "access.change",
        "document.add",
        "document.replace",
        "document.change",
        "document.change",
        "document.delete",
        "collection.drop",
    ]
    for entry in found:
        assert (entry["user"], entry["peer"], entry["result"]) == ("local/alice", "127.0.0.1", "allowed")
        assert entry["collection_id"] == collection
        assert entry["document_id"] == (document["id"] if "document" in entry["action"] else None)
        assert entry["request_id"]
    assert found[-1]["request_id"] == "the-last"
    grants = found[2]["detail"]
    assert (grants["before"]["discover"], grants["after"]["discover"]) == ([], ["*"])
    assert found[6]["detail"] == {"fields": ["acl"], "before": None, "after": ["user:local/bob"]}


async def test_what_changed_nothing_is_not_written_down(server: Server) -> None:
    collection = await server.collection()
    await server.document(collection)
    before = await entries(server)
    await server.document(collection)  # the same bytes
    await server.as_alice.get(f"/v1/collections/{collection}")
    await server.as_alice.put(f"/v1/collections/{collection}/access", json={"manage": []})
    await server.as_alice.patch(f"/v1/collections/{collection}", json={"metadata": {"a": [1]}})
    assert await entries(server) == before


async def test_no_text_no_file_name_and_no_attribute_is_in_it(server: Server) -> None:
    collection = await server.collection()
    secret = {"markdown": "SECRETTEXT", "filename": "SECRETNAME.md", "metadata": {"a": "SECRETVALUE"}}
    document = await server.document(collection, **secret)
    path = f"/v1/collections/{collection}/documents/{document['id']}"
    await server.as_alice.patch(path, json={"metadata": {"b": "SECRETVALUE"}})
    await server.client("bob").get(path)
    assert "SECRET" not in json.dumps(await entries(server))


async def test_refusals_are_written_down_with_the_route_and_what_was_asked_for(server: Server) -> None:
    collection = await server.collection(query=["user:bob"])
    document = await server.document(collection)
    bob, mallory = server.client("bob"), server.client("mallory")
    assert (await bob.delete(f"/v1/collections/{collection}")).status_code == 403
    assert (await mallory.get(f"/v1/collections/handbook/documents/{document['id']}")).status_code == 404
    assert (await mallory.get("/v1/collections/no-such-thing")).status_code == 404
    assert (await mallory.get("/v1/audit")).status_code == 403
    refused = await entries(server, result="refused")
    one = "/v1/collections/{collection}"
    assert [(e["user"], e["action"], e["collection_id"], e["document_id"]) for e in refused] == [
        ("local/bob", f"DELETE {one}", collection, None),
        ("local/mallory", f"GET {one}/documents/{{document}}", collection, document["id"]),
        ("local/mallory", f"GET {one}", None, None),
        ("local/mallory", "GET /v1/audit", None, None),
    ]
    assert [entry["detail"]["status"] for entry in refused] == [403, 404, 404, 403]
    assert "no-such-thing" not in json.dumps(refused)


async def test_who_is_refused_by_many_tool_calls_at_once_is_written_down_too(server: Server) -> None:
    for error in (UnknownCollection(), Forbidden()):
        server.search.error = error
        function = {"name": "search_documents", "arguments": '{"query": "a", "collections": ["handbook"]}'}
        calls = [{"id": f"call_{number}", "type": "function", "function": function} for number in range(3)]
        answer = await server.client("alice").post("/v1/tools", json={"tool_calls": calls})
        assert answer.status_code == 200
    refused = await entries(server, result="refused")
    assert [(e["user"], e["action"], e["detail"]["status"]) for e in refused] == [
        ("local/alice", "POST /v1/tools", 404),
        ("local/alice", "POST /v1/tools", 403),
    ]


async def test_who_did_not_sign_in_fills_no_log(server: Server) -> None:
    await server.client(None).get("/v1/collections")
    assert await entries(server) == []


async def test_filters_choose_and_pages_go_on_after_the_last_id(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = itertools.count(1795264344.8614216, 0.25)
    monkeypatch.setattr("plugins.collections.audit.now", lambda: next(clock))
    first, second = [await server.collection(name) for name in ("first", "second")]
    await server.client("bob").get("/v1/collections/first")
    every = await entries(server)
    assert [entry["id"] for entry in every] == sorted(entry["id"] for entry in every)
    for params, wanted in (
        ({"collection": first}, [every[0], every[2]]),
        ({"collection": "second"}, [every[1]]),
        ({"user": "user:local/bob"}, [every[2]]),
        ({"user": "local/alice"}, every[:2]),
        ({"action": "collection.create"}, every[:2]),
        ({"result": "allowed", "collection": second}, [every[1]]),
        ({"after": every[0]["id"]}, every[1:]),
        ({"since": every[1]["at"]}, every[1:]),
        ({"until": every[1]["at"]}, every[:1]),
        ({"since": "2100-01-01T00:00:00Z"}, []),
        ({"until": "2000-01-01T00:00:00"}, []),
        ({"collection": "nothing"}, []),
    ):
        assert await entries(server, **params) == wanted, params
    page = (await server.client("auditor").get("/v1/audit", params={"limit": 2})).json()
    assert (page["data"], page["has_more"]) == (every[:2], True)


async def test_the_export_is_json_lines_in_order(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("plugins.collections.audit.PAGE", 2)
    for number in range(5):
        await server.collection(f"c{number}")
    answer = await server.client("auditor").get("/v1/audit/export")
    assert answer.headers["content-type"] == "application/jsonl"
    assert [json.loads(line) for line in answer.text.splitlines()] == await entries(server)
    rest = await server.client("auditor").get("/v1/audit/export", params={"after": 4, "user": "local/alice"})
    assert [json.loads(line)["id"] for line in rest.text.splitlines()] == [5]


async def test_only_auditors_read_it(server: Server) -> None:
    for path in ("/v1/audit", "/v1/audit/export"):
        refused = await server.as_alice.get(path)
        assert refused.status_code == 403
        assert "`audit`" in refused.json()["error"]["message"]


@pytest.mark.parametrize("params", [{"since": "soon"}, {"result": "maybe"}, {"limit": 0}, {"after": -1}])
async def test_filters_that_cannot_be_are_refused_by_name(server: Server, params: dict[str, Any]) -> None:
    answer = await server.client("auditor").get("/v1/audit", params=params)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, next(iter(params)))
