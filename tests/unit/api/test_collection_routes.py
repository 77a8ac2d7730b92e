"""`/v1/collections`: shapes, statuses and error bodies."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api_server import Server


def error_of(body: dict[str, Any]) -> dict[str, Any]:
    """The error, when it is in OpenAI's form and nothing else is there."""
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


async def test_a_created_collection_is_shown_and_listed_with_the_callers_rights(server: Server) -> None:
    created = await server.as_alice.post(
        "/v1/collections/new",
        json={"name": "handbook", "description": "Leave", "access": {"discover": ["*"]}},
    )
    assert created.status_code == 201
    view = created.json()
    assert view["object"] == "collection"
    assert view["permissions"] == ["discover", "query", "add", "manage"]
    assert view["access"]["discover"] == ["*"]
    by_id = await server.as_alice.get(f"/v1/collections/{view['id']}")
    by_name = await server.as_alice.get("/v1/collections/handbook")
    assert by_id.json() == by_name.json() == view
    listed = (await server.client("bob").get("/v1/collections")).json()
    assert [(v["name"], v["permissions"], v["access"]) for v in listed["data"]] == [
        ("handbook", ["discover"], None)
    ]
    assert (listed["object"], listed["has_more"]) == ("list", False)


async def test_lists_go_page_by_page(server: Server) -> None:
    ids = [await server.collection(name) for name in ("a", "b", "c")]
    first = (await server.as_alice.get("/v1/collections", params={"limit": 2})).json()
    assert ([v["id"] for v in first["data"]], first["has_more"]) == (ids[:2], True)
    rest = (await server.as_alice.get("/v1/collections", params={"limit": 2, "after": ids[1]})).json()
    assert ([v["id"] for v in rest["data"]], rest["has_more"]) == (ids[2:], False)


async def test_a_patch_changes_what_it_names_and_a_drop_is_for_good(server: Server) -> None:
    collection = await server.collection(query=["user:bob"])
    changed = await server.as_alice.patch(f"/v1/collections/{collection}", json={"description": "new"})
    assert changed.status_code == 200
    assert changed.json()["description"] == "new"
    assert changed.json()["access"]["query"] == ["user:local/bob"]
    dropped = await server.as_alice.delete("/v1/collections/handbook")
    assert dropped.json() == {"id": collection, "object": "collection.deleted", "deleted": True}
    assert (await server.as_alice.get(f"/v1/collections/{collection}")).status_code == 404


async def test_a_hidden_collection_and_a_missing_one_answer_alike(server: Server) -> None:
    collection = await server.collection()
    bob = server.client("bob")
    hidden = await bob.get(f"/v1/collections/{collection}")
    missing = await bob.get("/v1/collections/nothing")
    assert hidden.status_code == missing.status_code == 404
    assert hidden.json() == missing.json()
    assert error_of(hidden.json())["code"] == "collection_not_found"


async def test_a_missing_right_is_named(server: Server) -> None:
    collection = await server.collection(discover=["*"])
    answer = await server.client("bob").patch(f"/v1/collections/{collection}", json={"description": "x"})
    assert answer.status_code == 403
    assert "`manage`" in error_of(answer.json())["message"]


@pytest.mark.parametrize(
    ("name", "status"),
    [
        ("handbook", 409),
        ("", 400),
        ("x" * 256, 400),
        ("a\x00b", 400),
        ("vs_0123456789abcdef0123456789abcdef", 400),
    ],
)
async def test_a_name_that_cannot_be_is_refused(server: Server, name: str, status: int) -> None:
    await server.collection("handbook")
    answer = await server.as_alice.post("/v1/collections/new", json={"name": name})
    assert answer.status_code == status
    assert error_of(answer.json())["param"] == "name"


async def test_a_name_with_characters_that_need_encoding_works_in_a_path(server: Server) -> None:
    collection = await server.collection("Löhne & Gehälter 100%?")
    encoded = "L%C3%B6hne%20%26%20Geh%C3%A4lter%20100%25%3F"
    assert (await server.as_alice.get(f"/v1/collections/{encoded}")).json()["id"] == collection


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"name": 7}, "name"),
        ({}, "name"),
        ({"name": "a", "colour": "red"}, "colour"),
        ({"name": "a", "access": {"read": ["*"]}}, "access.read"),
        ({"name": "a", "access": {"query": "*"}}, "access.query"),
        ({"name": "a", "access": {"query": ["bob"]}}, "access.query"),
        ({"name": "a", "metadata": {"k": {"deep": 1}}}, "metadata.k"),
        ({"name": "a", "retrieval": "magic"}, "retrieval"),
    ],
)
async def test_a_wrong_field_is_400_and_named(server: Server, body: dict[str, Any], param: str) -> None:
    answer = await server.as_alice.post("/v1/collections/new", json=body)
    assert answer.status_code == 400
    error = error_of(answer.json())
    assert (error["param"], error["code"], error["type"]) == (
        param,
        "invalid_request",
        "invalid_request_error",
    )


@pytest.mark.parametrize("limit", ["0", "1001", "many"])
async def test_a_page_size_out_of_range_is_400(server: Server, limit: str) -> None:
    answer = await server.as_alice.get("/v1/collections", params={"limit": limit})
    assert answer.status_code == 400
    assert error_of(answer.json())["param"] == "limit"


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"{not json", "application/json"),
        (b"[1]", "application/json"),
        (b"", "application/json"),
        (b'{"name": "a"}', "text/plain"),
        (b"[" * 100_000, "application/json"),
        (b'"\\ud800"', "application/json"),
        (b'{"name": "\\ud800"}', "application/json"),
        (b'{"name": "a", "metadata": {"x": "\\ud800"}}', "application/json"),
        (b'{"name": "a", "description": "nul: \\u0000"}', "application/json"),
        (b'{"name": "a", "access": {"query": ["user:kc/\xed\xa0\x80"]}}', "application/json"),
        (b'{"name": "a", "\\udfff": 1}', "application/json"),
        (b'{"name": "a", "metadata": {"x": NaN}}', "application/json"),
        (b'{"name": "a", "metadata": {"x": 1e999}}', "application/json"),
        (b'{"name": "a", "metadata": {"x": ' + b"9" * 5000 + b"}}", "application/json"),
    ],
)
async def test_a_body_that_is_no_json_object_is_400(server: Server, content: bytes, media_type: str) -> None:
    answer = await server.as_alice.post(
        "/v1/collections/new", content=content, headers={"content-type": media_type}
    )
    assert answer.status_code == 400
    error_of(answer.json())


async def test_a_json_body_over_the_limit_is_413(server: Server) -> None:
    answer = await server.as_alice.post("/v1/collections/new", json={"name": "x" * 2**20})
    assert answer.status_code == 413
    assert error_of(answer.json())["code"] == "too_large"
