"""What is wrong with a request is said, with its field, by the real proxy."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any

import openai
import pytest

from tests.conftest import MAX_UPLOAD_BYTES
from tests.support.quickstart import Quickstart
from tests.support.rights_open import OpenRoute, open_routes
from tests.unit.crawler.samples import encrypted_pdf, pdf

LIMIT_S = 30.0


@pytest.fixture(scope="module")
def box(running: Quickstart) -> Iterator[str]:
    """A collection of alice's."""
    created = running.http("alice").post("/v1/collections/new", json={"name": "box"})
    yield created.json()["id"]
    running.http("alice").delete("/v1/collections/box").raise_for_status()


def error_of(answer: Any, status: int, code: str = "invalid_request") -> dict[str, Any]:
    """The error, whose shape is OpenAI's."""
    assert answer.status_code == status, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["code"] == code
    return dict(error)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("", "1 to 255"),
        ("   ", "1 to 255"),
        ("x" * 256, "1 to 255"),
        ("line\nbreak", "control"),
        ("nul\0", "control"),
        ("report\u202efdp", "control"),
        ("paragraph\u2029end", "control"),
        ("vs_1", "begin like an id"),
        ("vs_0123456789abcdef0123456789abcdef", "begin like an id"),
    ],
)
def test_a_name_that_cannot_be_is_refused_with_the_reason(running: Quickstart, name: str, words: str) -> None:
    answer = running.http("alice").post("/v1/collections/new", json={"name": name})
    error = error_of(answer, 400)
    assert error["param"] == "name"
    assert words in error["message"]


def test_a_name_of_255_characters_is_taken_and_a_second_time_it_is_a_conflict(running: Quickstart) -> None:
    alice = running.http("alice")
    made = alice.post("/v1/collections/new", json={"name": "n" * 255})
    assert made.status_code == 201
    taken = error_of(alice.post("/v1/collections/new", json={"name": "n" * 255}), 409, "conflict")
    assert taken["param"] == "name"
    assert alice.delete(f"/v1/collections/{made.json()['id']}").status_code == 200


def test_who_may_not_create_is_told_the_right(running: Quickstart) -> None:
    answer = running.http("bob").post("/v1/collections/new", json={"name": "bobs"})
    assert "`create`" in error_of(answer, 403, "permission_denied")["message"]


@pytest.mark.parametrize("route", open_routes(), ids=str)
def test_where_nobody_can_sign_in_no_password_and_no_token_opens_anything(
    running: Quickstart, route: OpenRoute
) -> None:
    answer = route.ask(running.http("alice"))
    assert answer.status_code == route.status, answer.text
    assert "set-cookie" not in answer.headers


def test_an_unknown_collection_is_404_on_every_route_and_not_repeated(running: Quickstart) -> None:
    for ref in ("nowhere", "vs_ffffffffffffffffffffffff"):
        for method, path in (("GET", ""), ("GET", "/documents"), ("POST", "/search"), ("DELETE", "")):
            body = {"query": "x"} if method == "POST" else None
            answer = running.http("bob").request(method, f"/v1/collections/{ref}{path}", json=body)
            error = error_of(answer, 404, "collection_not_found")
            assert error["message"].startswith("There is no such collection, or you have no right to it.")
            assert ref not in error["message"]


@pytest.mark.parametrize(
    ("method", "path", "right"),
    [
        ("POST", "/search", "query"),
        ("GET", "/documents", "query"),
        ("POST", "/add", "add"),
        ("PATCH", "", "manage"),
        ("DELETE", "", "manage"),
    ],
)
def test_a_missing_right_is_named(running: Quickstart, method: str, path: str, right: str) -> None:
    bodies: dict[str, Any] = {"/search": {"query": "x"}, "/add": {"documents": [{"text": "x"}]}, "": {}}
    body = bodies.get(path) if method in ("POST", "PATCH") else None
    answer = running.http("bob").request(method, f"/v1/collections/finance{path}", json=body)
    assert f"`{right}`" in error_of(answer, 403, "permission_denied")["message"]


@pytest.mark.parametrize(
    ("sent", "param", "words"),
    [
        ({"files": {"metadata": (None, "{}")}}, "files", "no file"),
        ({"files": {"files": ("empty.txt", b"")}}, "files", "`empty.txt` is empty"),
        ({"json": {"documents": []}}, "documents", "documents"),
        ({"json": {}}, "documents", "documents"),
        ({"json": {"documents": [{}]}}, "documents.0", "exactly one"),
        ({"json": {"documents": [{"text": " "}]}}, "documents.0.text", "empty"),
        ({"content": b""}, None, "multipart form"),
    ],
)
def test_an_upload_of_nothing_says_what_is_missing(
    running: Quickstart, box: str, sent: dict[str, Any], param: str | None, words: str
) -> None:
    error = error_of(running.http("alice").post(f"/v1/collections/{box}/add", **sent), 400)
    assert error["param"] == param
    assert words in error["message"]


@pytest.mark.parametrize(
    ("name", "content"),
    [("movie.mp4", b"\0\0\0\x18ftypmp42" + bytes(64)), ("tool.exe", b"MZ\x90\0" + bytes(64))],
)
def test_a_file_of_an_unknown_type_is_named_with_what_is_taken(
    running: Quickstart, box: str, name: str, content: bytes
) -> None:
    answer = running.http("alice").post(f"/v1/collections/{box}/add", files={"files": (name, content)})
    error = error_of(answer, 415, "unsupported_format")
    assert error["param"] == "files"
    assert name in error["message"]
    assert "pdf" in error["message"]


def test_an_upload_over_the_limit_is_refused_while_it_streams_in(running: Quickstart, box: str) -> None:
    boundary, part = "b0undary", b"x" * 16384
    head = (
        f"POST /v1/collections/{box}/add HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {running.key('alice')}\r\nTransfer-Encoding: chunked\r\n"
        f"Content-Type: multipart/form-data; boundary={boundary}\r\n\r\n"
    )
    form = f'--{boundary}\r\nContent-Disposition: form-data; name="files"; filename="a.txt"\r\n\r\n'.encode()
    with socket.create_connection(("127.0.0.1", running.port), LIMIT_S) as connection:
        connection.sendall(head.encode() + b"%x\r\n%s\r\n" % (len(form), form))
        for _ in range(MAX_UPLOAD_BYTES // len(part) + 1):
            connection.sendall(b"%x\r\n%s\r\n" % (len(part), part))
        # The form has not ended, and does not end: only who counts while reading can answer now.
        answer = HTTPResponse(connection)
        answer.begin()
        error = json.loads(answer.read())["error"]
    assert (answer.status, error["code"], error["param"]) == (413, "too_large", "files")
    assert f"`a.txt` is larger than {MAX_UPLOAD_BYTES} bytes" in error["message"]


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("broken.pdf", b"%PDF-1.7\n" + b"nonsense " * 50, "save it again"),
        ("encrypted.pdf", encrypted_pdf(), "password"),
        ("scan.pdf", pdf([[], []]), "OCR"),
    ],
)
def test_a_pdf_that_cannot_be_read_ends_as_failed_and_says_what_to_do(
    running: Quickstart, box: str, name: str, content: bytes, words: str
) -> None:
    alice = running.http("alice")
    answer = alice.post(f"/v1/collections/{box}/add?wait=true", files={"files": (name, content)})
    assert answer.status_code == 200, "waiting ends with the job, also when it failed"
    [document] = answer.json()["data"]
    assert document["status"] == "failed"
    assert document["last_error"]["code"] == "unreadable_document"
    assert words in document["last_error"]["message"]
    job = alice.get(f"/v1/jobs/{document['job']['id']}").json()
    assert (job["status"], job["last_error"]) == ("failed", document["last_error"])
    assert "Traceback" not in answer.text
    failed = alice.get(f"/v1/collections/{box}/documents", params={"status": "failed"}).json()["data"]
    assert document["id"] in [d["id"] for d in failed], "the owner sees which failed"


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "query", "invalid_request"),
        ({"query": ""}, "query", "invalid_request"),
        ({"query": "x", "max_num_results": 0}, "max_num_results", "invalid_request"),
        ({"query": "x", "max_num_results": 51}, "max_num_results", "invalid_request"),
        ({"query": "x", "max_num_results": "many"}, "max_num_results", "invalid_request"),
        ({"query": "x", "top_k": 3}, "top_k", "invalid_request"),
        (
            {"query": "x", "filters": {"type": "eq", "key": "colour", "value": "red"}},
            "colour",
            "invalid_filter",
        ),
        (
            {"query": "x", "filters": {"type": "like", "key": "year", "value": 1}},
            "filters",
            "invalid_request",
        ),
        ({"query": "x", "ranking_options": {"score_threshold": 2}}, "ranking_options", "invalid_request"),
    ],
)
def test_a_wrong_search_names_its_field(
    running: Quickstart, box: str, body: dict[str, Any], param: str, code: str
) -> None:
    answer = running.http("alice").post(f"/v1/collections/{box}/search", json=body)
    assert (error_of(answer, 400, code)["param"] or "").split(".")[0] == param


@pytest.mark.parametrize("path", ["/v1/collections/new", "/v1/collections/finance/search", "/v1/tools"])
def test_invalid_json_is_said_to_be_that(running: Quickstart, path: str) -> None:
    headers = {"Content-Type": "application/json"}
    answer = running.http("alice").post(path, content=b'{"name": ', headers=headers)
    assert error_of(answer, 400)["message"] == "The body is not valid JSON."


def test_an_unknown_tool_is_404(running: Quickstart) -> None:
    answer = running.http("alice").post("/v1/tools", json={"name": "rm", "arguments": {}})
    assert "GET /v1/tools" in error_of(answer, 404, "tool_not_found")["message"]


@pytest.mark.parametrize(
    ("arguments", "param"),
    [
        ({}, "arguments.query"),
        ({"query": "x", "limit": 3}, "arguments.limit"),
        ({"query": "x", "max_num_results": 99}, "arguments.max_num_results"),
        ('{"query": ', "arguments"),
    ],
)
def test_wrong_arguments_of_a_tool_name_their_field(running: Quickstart, arguments: Any, param: str) -> None:
    call = {"name": "search_documents", "arguments": arguments}
    assert error_of(running.http("alice").post("/v1/tools", json=call), 400)["param"] == param


def test_an_unknown_model_is_refused_in_chat_in_embeddings_and_for_a_collection(running: Quickstart) -> None:
    alice = running.openai("alice")
    messages: Any = [{"role": "user", "content": "hello"}]
    with pytest.raises(openai.BadRequestError, match="gpt-99"):
        alice.chat.completions.create(model="gpt-99", messages=messages)
    with pytest.raises(openai.BadRequestError, match="gpt-99"):
        alice.embeddings.create(model="gpt-99", input="hello")
    body = {"name": "odd", "embedding_model": "gpt-99"}
    error = error_of(running.http("alice").post("/v1/collections/new", json=body), 400)
    assert error["param"] == "embedding_model"
    # ... and a wrong name does not lock the next one out
    assert alice.chat.completions.create(model="extractive", messages=messages).choices[0].message.content


def test_a_model_of_another_kind_is_refused_with_the_route_that_it_is_for(running: Quickstart) -> None:
    bob = running.openai("bob")
    messages: Any = [{"role": "user", "content": "hello"}]
    for stream in (False, True):
        with pytest.raises(openai.BadRequestError, match="it is one for /v1/embeddings"):
            bob.chat.completions.create(model="local/minilm", messages=messages, stream=stream)
    body = {"model": "extractive", "input": "hello"}
    answer = running.http("bob").post("/v1/embeddings", json=body)
    assert answer.status_code == 400
    assert "it is one for /v1/chat/completions" in answer.json()["error"]["message"]


@pytest.mark.parametrize(
    "body",
    [
        '{"name": "a", "metadata": {"k": "\\ud800"}}',
        '{"name": "a", "access": {"query": ["user:local/\\ud800"]}}',
        '{"name": "a", "embedding_model": "\\ud800"}',
        '{"name": "a", "\\ud800": 1}',
    ],
)
def test_half_a_character_is_refused_and_harms_no_list(running: Quickstart, body: str) -> None:
    alice = running.http("alice")
    headers = {"Content-Type": "application/json"}
    error_of(alice.post("/v1/collections/new", content=body, headers=headers), 400)
    assert alice.get("/v1/collections").status_code == 200


@pytest.mark.parametrize(
    ("options", "status", "param"),
    [
        ({"rag": {"collections": ["nowhere"]}}, 404, "rag.collections"),
        ({"rag": {"collections": ["finance"]}}, 403, "rag.collections"),
        ({"rag": {"max_num_results": 99}}, 400, "rag.max_num_results"),
        ({"tools": [{"type": "file_search", "vector_store_ids": []}]}, 400, "tools.0.vector_store_ids"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_a_chat_that_asks_for_what_it_may_not_have_is_refused_before_it_begins(
    running: Quickstart, options: dict[str, Any], status: int, param: str, stream: bool
) -> None:
    body = {"model": "extractive", "stream": stream, "messages": [{"role": "user", "content": "x"}]}
    answer = running.http("bob").post("/v1/chat/completions", json=body | options)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"] == param
