"""What may come with an upload: ids, an end, any JSON beside Markdown."""

from __future__ import annotations

from typing import Any

import pytest

from tests.support.api_server import Server


async def test_files_may_bring_their_ids_and_their_end_and_have_the_batch_in_common(server: Server) -> None:
    await server.collection()
    answer = await server.as_alice.post(
        "/v1/collections/handbook/add",
        files=[("files", ("a.txt", b"a")), ("files", ("b.txt", b"b"))],
        data={"ids": '["first", "second"]', "expires_at": "2999-01-01T00:00:00Z"},
    )
    assert answer.status_code == 202, answer.text
    body = answer.json()
    assert [document["id"] for document in body["data"]] == ["first", "second"]
    assert body["batch_id"].startswith("batch_")


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"ids": '["one"]'}, "ids"),
        ({"ids": '["one", "one"]'}, "ids"),
        ({"ids": "one"}, "ids"),
        ({"ids": '["a/b", "c"]'}, "id"),
        ({"expires_at": "2001-01-01"}, "expires_at"),
        ({"expires_at": "soon"}, "expires_at"),
        ({"expires_at": "[1]"}, "expires_at"),
    ],
)
async def test_ids_and_ends_that_cannot_be_are_refused_with_the_field(
    server: Server, fields: dict[str, str], param: str
) -> None:
    await server.collection()
    files = [("files", ("a.txt", b"a")), ("files", ("b.txt", b"b"))]
    answer = await server.as_alice.post("/v1/collections/handbook/add", files=files, data=fields)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    assert server.spooled() == []


async def test_metadata_beside_markdown_may_be_any_json_and_beside_text_only_scalars(server: Server) -> None:
    await server.collection()
    metadata = {"title": "Edited", "parties": ["x"], "amount": 7}
    body: dict[str, Any] = {"documents": [{"markdown": "# A", "metadata": metadata}]}
    answer = await server.as_alice.post("/v1/collections/handbook/add", json=body)
    assert answer.status_code == 202, answer.text
    assert answer.json()["data"][0]["attributes"] == {"amount": 7}
    body = {"documents": [{"text": "A", "metadata": {"parties": ["x"]}}]}
    refused = await server.as_alice.post("/v1/collections/handbook/add", json=body)
    assert refused.status_code == 400
    assert refused.json()["error"]["param"].startswith("documents.0.metadata")
