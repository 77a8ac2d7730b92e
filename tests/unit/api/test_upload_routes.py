"""`/v1/collections/{id}/add`: streamed, capped, and nothing left behind when it fails."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

from tests.support.api_server import LIMITS, Server

BOUNDARY = "frontier"
MULTIPART = {"content-type": f"multipart/form-data; boundary={BOUNDARY}"}


def part(filename: str, field: str = "files") -> bytes:
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="{filename}"\r\n\r\n'
    return head.encode()


async def test_files_are_taken_in_with_their_order_hash_and_attributes(server: Server) -> None:
    collection = await server.collection()
    content = b"line\n" * 30_000
    answer = await server.as_alice.post(
        "/v1/collections/handbook/add",
        files=[("files", ("a.txt", content, "text/plain")), ("files", ("b.pdf", b"%PDF-1.7 x", None))],
        data={"metadata": '{"department": "people"}', "acl": '["user:alice"]'},
    )
    assert answer.status_code == 202
    body = answer.json()
    assert body["object"] == "list"
    first, second = body["data"]
    assert (first["filename"], first["media_type"], first["usage_bytes"]) == ("a.txt", "text/plain", 150_000)
    assert (second["filename"], second["usage_bytes"]) == ("b.pdf", 10)
    assert first["attributes"] == second["attributes"] == {"department": "people"}
    assert first["acl"] == ["user:local/alice"]
    assert first["status"] == "in_progress"
    assert first["job"]["stage"] == "queued"
    assert server.spooled() == []
    kept = await server.as_alice.get(f"/v1/collections/{collection}/documents/{first['id']}/content")
    assert hashlib.sha256(kept.content).digest() == hashlib.sha256(content).digest()


async def test_the_same_bytes_again_are_the_same_document(server: Server) -> None:
    await server.collection()
    files = {"files": ("a.txt", b"text", "text/plain")}
    first = await server.as_alice.post("/v1/collections/handbook/add", files=files)
    again = await server.as_alice.post("/v1/collections/handbook/add", files=files)
    assert again.json()["data"][0]["id"] == first.json()["data"][0]["id"]
    assert server.spooled() == []


async def test_markdown_text_and_addresses_are_taken_as_json(server: Server) -> None:
    await server.collection()
    answer = await server.as_alice.post(
        "/v1/collections/handbook/add",
        json={
            "documents": [
                {"markdown": "# Ä", "filename": "a.md", "id": "mine", "metadata": {"n": 1}},
                {"text": "plain"},
                {"url": "https://example.com/docs/guide.html?x=1"},
            ]
        },
    )
    assert answer.status_code == 202
    markdown, text, url = answer.json()["data"]
    assert (markdown["id"], markdown["usage_bytes"], markdown["attributes"]) == ("mine", 4, {"n": 1})
    assert (text["filename"], text["media_type"], text["usage_bytes"]) == ("document.txt", "text/plain", 5)
    assert url["filename"] == "guide.html"
    assert server.spooled() == []


async def test_waiting_ends_with_202_while_work_is_left_and_200_when_none_is(server: Server) -> None:
    collection = await server.collection()
    path = f"/v1/collections/{collection}/add?wait=true"
    body = {"documents": [{"markdown": "# A", "id": "a"}]}
    assert (await server.as_alice.post(path, json=body)).status_code == 202
    await server.finish(collection, "a")
    done = await server.as_alice.post(path, json=body)
    assert done.status_code == 200
    assert done.json()["data"][0]["status"] == "completed"


async def endless(first: bytes, consumed: list[int], chunk: int = 2**16) -> AsyncIterator[bytes]:
    """``first`` and then a gigabyte, counting what is taken."""
    consumed[0] += len(first)
    yield first
    for _ in range(2**30 // chunk):
        consumed[0] += chunk
        yield b"x" * chunk


async def test_a_file_over_the_limit_is_stopped_while_it_streams_in(server: Server) -> None:
    await server.collection()
    consumed = [0]
    answer = await server.as_alice.post(
        "/v1/collections/handbook/add", content=endless(part("big.txt"), consumed), headers=MULTIPART
    )
    assert answer.status_code == 413
    error = answer.json()["error"]
    assert "`big.txt`" in error["message"]
    assert error["param"] == "files"
    assert consumed[0] <= LIMITS.max_upload_bytes + 3 * 2**16
    assert server.spooled() == []


async def test_an_endless_json_body_is_stopped(server: Server) -> None:
    await server.collection()
    consumed = [0]
    answer = await server.as_alice.post(
        "/v1/collections/handbook/add",
        content=endless(b'{"documents": [{"text": "', consumed),
        headers={"content-type": "application/json"},
    )
    assert answer.status_code == 413
    assert consumed[0] <= LIMITS.max_upload_bytes + 3 * 2**16


async def test_an_endless_text_field_is_stopped(server: Server) -> None:
    await server.collection()
    consumed = [0]
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="metadata"\r\n\r\n'.encode()
    answer = await server.as_alice.post(
        "/v1/collections/handbook/add", content=endless(head, consumed), headers=MULTIPART
    )
    assert answer.status_code == 413
    assert consumed[0] <= 2**18


async def test_bytes_after_the_form_are_not_read_forever(server: Server) -> None:
    await server.collection()
    consumed = [0]
    whole = part("a.txt") + b"text" + f"\r\n--{BOUNDARY}--\r\n".encode()
    answer = await server.as_alice.post(
        "/v1/collections/handbook/add", content=endless(whole, consumed), headers=MULTIPART
    )
    assert answer.status_code in (400, 413)
    assert consumed[0] < 2**21
    assert server.spooled() == []


async def test_a_length_over_all_limits_is_refused_before_reading(server: Server) -> None:
    await server.collection()
    consumed = [0]
    answer = await server.as_alice.post(
        "/v1/collections/handbook/add",
        content=endless(part("big.txt"), consumed),
        headers={**MULTIPART, "content-length": str(2**30)},
    )
    assert answer.status_code == 413
    assert consumed[0] == 0


@pytest.mark.parametrize(("user", "status"), [(None, 401), ("stranger", 404), ("bob", 403)])
async def test_who_may_not_add_is_told_before_a_byte_is_read(
    server: Server, user: str | None, status: int
) -> None:
    await server.collection(discover=["user:bob"])
    consumed = [0]
    answer = await server.client(user).post(
        "/v1/collections/handbook/add", content=endless(part("big.txt"), consumed), headers=MULTIPART
    )
    assert answer.status_code == status
    assert consumed[0] == 0


async def test_too_many_files_are_413(server: Server) -> None:
    await server.collection()
    files = [("files", (f"{n}.txt", b"text", "text/plain")) for n in range(LIMITS.max_files + 1)]
    answer = await server.as_alice.post("/v1/collections/handbook/add", files=files)
    assert answer.status_code == 413
    assert server.spooled() == []


async def test_one_file_that_cannot_be_read_does_not_refuse_the_others_and_is_a_document_of_its_own(
    server: Server,
) -> None:
    await server.collection()
    names = ("a.txt", "nil.txt", "tool.exe")
    files = [("files", (name, content)) for name, content in zip(names, (b"text", b"", b"MZ"), strict=True)]
    answer = await server.as_alice.post("/v1/collections/handbook/add", files=files)
    assert answer.status_code == 202, answer.text
    assert [document["filename"] for document in answer.json()["data"]] == list(names)


async def test_an_empty_file_is_named_and_nothing_of_the_upload_is_kept(server: Server) -> None:
    await server.collection()
    files = [("files", (name, b"", "text/plain")) for name in ("nil.txt", "none.txt")]
    answer = await server.as_alice.post("/v1/collections/handbook/add", files=files)
    assert answer.status_code == 400
    assert "`nil.txt`" in answer.json()["error"]["message"]
    assert server.spooled() == []
    assert (await server.as_alice.get("/v1/collections/handbook/documents")).json()["data"] == []


async def test_a_file_of_an_unknown_type_is_415_and_named(server: Server) -> None:
    await server.collection()
    answer = await server.as_alice.post(
        "/v1/collections/handbook/add", files={"files": ("tool.exe", b"MZ", "application/pdf")}
    )
    assert answer.status_code == 415
    error = answer.json()["error"]
    assert "`tool.exe`" in error["message"]
    assert error["code"] == "unsupported_format"
    assert server.spooled() == []


@pytest.mark.parametrize(
    ("data", "param"),
    [
        ({"metadata": "{"}, "metadata"),
        ({"metadata": '["a"]'}, "metadata"),
        ({"metadata": '{"a": {"b": 1}}'}, "metadata.a"),
        ({"acl": '"*"'}, "acl"),
        ({"acl": "[]"}, "acl"),
        ({"acl": '["nobody"]'}, "acl"),
        ({"colour": "red"}, "colour"),
        ({"metadata": ["{}", "{}"]}, "metadata"),
    ],
)
async def test_a_wrong_form_field_is_400_and_named(server: Server, data: dict[str, Any], param: str) -> None:
    await server.collection()
    answer = await server.as_alice.post(
        "/v1/collections/handbook/add", files={"files": ("a.txt", b"text", "text/plain")}, data=data
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert server.spooled() == []


@pytest.mark.parametrize(
    ("document", "param"),
    [
        ({}, "documents.0"),
        ({"markdown": "a", "text": "b"}, "documents.0"),
        ({"markdown": " \n"}, "documents.0.markdown"),
        ({"url": "file:///etc/passwd"}, "documents.0.url"),
        ({"url": "https://[broken"}, "documents.0.url"),
        ({"text": "a", "acl": "*"}, "documents.0.acl"),
        ({"text": "a", "title": "b"}, "documents.0.title"),
        ({"text": 1}, "documents.0.text"),
    ],
)
async def test_a_wrong_document_in_json_is_400_and_named(
    server: Server, document: dict[str, Any], param: str
) -> None:
    await server.collection()
    answer = await server.as_alice.post(
        "/v1/collections/handbook/add", json={"documents": [{"text": "good"}, document][::-1]}
    )
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == param
    assert server.spooled() == []


@pytest.mark.parametrize(
    ("content", "media_type"),
    [
        (b"", MULTIPART["content-type"]),
        (f"--{BOUNDARY}--\r\n".encode(), MULTIPART["content-type"]),
        (b"no form", MULTIPART["content-type"]),
        (part("a.txt") + b"cut off", MULTIPART["content-type"]),
        (part("a.txt") + b"cut off\r\n", MULTIPART["content-type"]),
        (part("a.txt", "upload") + b"x", MULTIPART["content-type"]),
        (b"x", "multipart/form-data"),
        (b"{", "application/json"),
        (b"{}", "application/json"),
        (b'{"documents": []}', "application/json"),
        (b"\xff\xfe{", "application/json"),
        (b'{"documents": [{"text": "half a pair: \\ud800"}]}', "application/json"),
        (b'{"documents": [{"text": "a", "metadata": {"k": "\\ud800"}}]}', "application/json"),
        (b"text", "text/plain"),
    ],
)
async def test_an_upload_of_nothing_or_of_nonsense_is_400(
    server: Server, content: bytes, media_type: str
) -> None:
    await server.collection()
    answer = await server.as_alice.post(
        "/v1/collections/handbook/add", content=content, headers={"content-type": media_type}
    )
    assert answer.status_code == 400, answer.text
    assert answer.json()["error"]["code"] == "invalid_request"
    assert server.spooled() == []


async def test_a_client_that_goes_away_leaves_no_spool_file(server: Server) -> None:
    await server.collection()
    messages: Iterator[dict[str, Any]] = iter(
        [
            {"type": "http.request", "body": part("a.txt") + b"x" * 150_000, "more_body": True},
            {"type": "http.request", "body": b"x" * 10_000, "more_body": True},
            {"type": "http.disconnect"},
        ]
    )

    async def receive() -> dict[str, Any]:
        return next(messages)

    async def send(message: Any) -> None: ...

    await server.app(scope_of("/v1/collections/handbook/add"), receive, send)
    assert server.spooled() == []


async def test_a_request_that_is_cancelled_leaves_no_spool_file(server: Server) -> None:
    await server.collection()
    written = asyncio.Event()
    blocks = iter([part("a.txt"), b"x" * 2**16, b"x" * 2**16])

    async def receive() -> dict[str, Any]:
        block = next(blocks, None)
        if block is None:
            written.set()
            await asyncio.Event().wait()
        return {"type": "http.request", "body": block, "more_body": True}

    async def send(message: Any) -> None: ...

    task = asyncio.create_task(server.app(scope_of("/v1/collections/handbook/add"), receive, send))
    await asyncio.wait_for(written.wait(), 10)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert server.spooled() == []


def scope_of(path: str) -> dict[str, Any]:
    headers = {**MULTIPART, "x-user": "alice"}
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "query_string": b"",
        "root_path": "",
        "headers": [(k.encode(), v.encode()) for k, v in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("../../etc/passwd.txt", "passwd.txt"),
        ("C:\\Users\\me\\Übung.txt", "Übung.txt"),
        ("bell\x07.txt", "bell.txt"),
        ("in\u202evoice.txt", "invoice.txt"),
        (("x" * 300) + ".txt", "x" * 196 + ".txt"),
    ],
)
async def test_a_file_name_is_only_a_name(server: Server, given: str, kept: str) -> None:
    await server.collection()
    content = part(given) + b"text" + f"\r\n--{BOUNDARY}--\r\n".encode()
    answer = await server.as_alice.post("/v1/collections/handbook/add", content=content, headers=MULTIPART)
    assert answer.json()["data"][0]["filename"] == kept
