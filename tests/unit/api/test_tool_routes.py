"""`/v1/tools`: list and run tools without a model."""

from __future__ import annotations

import json
from typing import Any

import pytest

from crawler.errors import StoreUnavailable
from plugins.core.errors import Forbidden, ToolFailed
from tests.support.api_server import Server
from tests.support.services import a_passage


def tool_call(call_id: str, name: str, arguments: str) -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}


async def test_the_tools_that_one_may_run_are_listed_as_functions(server: Server) -> None:
    body = (await server.as_alice.get("/v1/tools")).json()
    assert body["object"] == "list"
    assert [tool["function"]["name"] for tool in body["data"]] == ["search_documents", "list_collections"]
    assert body["data"][0]["type"] == "function"
    assert body["data"][0]["function"]["parameters"]["required"] == ["query"]
    bobs = (await server.client("bob").get("/v1/tools")).json()
    assert [tool["function"]["name"] for tool in bobs["data"]] == ["search_documents"]


@pytest.mark.parametrize("arguments", [{"query": "leave"}, '{"query": "leave"}'])
async def test_a_tool_answers_as_mcp_does(server: Server, arguments: Any) -> None:
    server.search.passages = [a_passage("30 days of leave", page=None)]
    answer = await server.as_alice.post(
        "/v1/tools", json={"name": "search_documents", "arguments": arguments}
    )
    assert answer.status_code == 200
    body = answer.json()
    assert set(body) == {"content", "structuredContent", "isError"}
    assert body["isError"] is False
    assert body["content"][0]["type"] == "text"
    assert body["content"][0]["text"].startswith("[1] Handbook > Leave")
    assert body["structuredContent"]["results"][0]["text"] == "30 days of leave"
    assert body["structuredContent"]["results"][0]["page_first"] is None


@pytest.mark.parametrize(("user", "name"), [("alice", "nothing"), ("bob", "list_collections")])
async def test_an_unknown_tool_and_one_that_is_not_allowed_answer_alike(
    server: Server, user: str, name: str
) -> None:
    answer = await server.client(user).post("/v1/tools", json={"name": name, "arguments": {}})
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "tool_not_found"
    unknown = await server.client(user).post("/v1/tools", json={"name": "nothing2", "arguments": {}})
    assert unknown.json() == answer.json()


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({}, "arguments.query"),
        (None, "arguments.query"),
        ({"query": "a", "colour": 1}, "arguments.colour"),
        ({"query": "a", "max_num_results": 51}, "arguments.max_num_results"),
        ({"query": "a", "collections": ["a", 2]}, "arguments.collections.1"),
        ("{", "arguments"),
        ("[]", "arguments"),
        ('{"query": "a", "collections": ["\\ud800"]}', "arguments"),
    ],
)
async def test_wrong_arguments_are_400_and_the_field_is_named(
    server: Server, arguments: Any, param: str
) -> None:
    answer = await server.as_alice.post(
        "/v1/tools", json={"name": "search_documents", "arguments": arguments}
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


@pytest.mark.parametrize(("error", "status"), [(Forbidden(), 403), (StoreUnavailable(), 503)])
async def test_for_one_tool_what_its_services_refuse_stays_an_http_error(
    server: Server, error: Exception, status: int
) -> None:
    server.search.error = error
    answer = await server.as_alice.post(
        "/v1/tools", json={"name": "search_documents", "arguments": {"query": "a"}}
    )
    assert answer.status_code == status


async def test_a_tool_that_fails_is_an_answer_that_says_so(server: Server) -> None:
    server.search.error = ToolFailed("the index is being rebuilt")
    answer = await server.as_alice.post(
        "/v1/tools", json={"name": "search_documents", "arguments": {"query": "a"}}
    )
    assert answer.status_code == 200
    assert answer.json() == {
        "content": [{"type": "text", "text": "the index is being rebuilt"}],
        "structuredContent": {},
        "isError": True,
    }


async def test_many_calls_are_answered_in_order_each_with_its_own_error(server: Server) -> None:
    calls = [
        tool_call("c1", "search_documents", '{"query": "leave"}'),
        tool_call("c2", "nothing", "{}"),
        tool_call("c3", "search_documents", '{"max_num_results": 0}'),
        tool_call("c4", "list_collections", "{}"),
    ]
    answer = await server.as_alice.post("/v1/tools", json={"tool_calls": calls})
    assert answer.status_code == 200
    data = answer.json()["data"]
    assert [(item["tool_call_id"], item["isError"]) for item in data] == [
        ("c1", False),
        ("c2", True),
        ("c3", True),
        ("c4", False),
    ]
    assert "arguments." in data[2]["content"][0]["text"]


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"name": "search_documents", "tool_calls": [tool_call("c", "search_documents", "{}")]},
        {"tool_calls": []},
        {"tool_calls": [tool_call("c", "search_documents", "{}")] * 33},
    ],
)
async def test_neither_nothing_nor_both_nor_too_many_calls_are_run(
    server: Server, body: dict[str, Any]
) -> None:
    answer = await server.as_alice.post("/v1/tools", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] in ("name", "tool_calls")
    assert server.search.searches == 0


async def test_who_is_asking_never_comes_from_metadata(server: Server) -> None:
    body = {"name": "list_collections", "arguments": {}, "metadata": {"user": "alice", "x-user": "alice"}}
    assert (await server.client("bob").post("/v1/tools", json=body)).status_code == 404


async def test_the_schemas_are_plain_json(server: Server) -> None:
    text = (await server.as_alice.get("/v1/tools")).text
    assert "$ref" not in text
    assert all('"title"' not in json.dumps(tool) for tool in json.loads(text)["data"])
