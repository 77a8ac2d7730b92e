"""Documents from upload to search through the real proxy: `make run`'s configuration, nothing replaced."""

from __future__ import annotations

import base64
import struct
from collections.abc import Iterator
from typing import Any

import httpx
import openai
import pytest

from tests.support.proxy import ROOT
from tests.support.quickstart import Quickstart, until

DOCUMENTS = ROOT / "examples" / "documents"
PDF = DOCUMENTS / "annual-report-2025.pdf"
STAGES = ["queued", "convert", "extract", "chunk", "embed", "store", "done"]


@pytest.fixture
def shelf(running: Quickstart, request: pytest.FixtureRequest) -> Iterator[str]:
    """An empty collection of alice's; bob may query it and carol add to it."""
    access = {"query": ["user:local/bob"], "add": ["user:local/carol"]}
    body = {"name": f"shelf of {request.node.name}", "access": access}
    created = running.http("alice").post("/v1/collections/new", json=body)
    assert created.status_code == 201, created.text
    yield created.json()["id"]
    running.http("alice").delete(f"/v1/collections/{created.json()['id']}").raise_for_status()


def add(client: httpx.Client, shelf: str, **document: Any) -> dict[str, Any]:
    """Upload one document as JSON and wait until it is done."""
    answer = client.post(f"/v1/collections/{shelf}/add?wait=true", json={"documents": [document]})
    assert answer.status_code == 200, answer.text
    [view] = answer.json()["data"]
    assert view["status"] == "completed", view
    return dict(view)


def search(client: httpx.Client, shelf: str, query: str, **options: Any) -> list[dict[str, Any]]:
    answer = client.post(f"/v1/collections/{shelf}/search", json={"query": query, **options})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


def texts(hits: list[dict[str, Any]]) -> str:
    return "\n".join(hit["content"][0]["text"] for hit in hits)


def test_files_of_every_format_are_uploaded_in_one_form_and_searchable_when_waited_for(
    running: Quickstart, shelf: str
) -> None:
    alice = running.http("alice")
    names = ["annual-report-2025.pdf", "travel-policy.docx", "onboarding.html", "employee-handbook.md"]
    files = [("files", (name, (DOCUMENTS / name).read_bytes())) for name in names]
    files.append(("files", ("minutes.txt", b"The lift is repaired on Thursday.")))
    data = {"metadata": '{"department": "people", "year": 2025}'}
    answer = alice.post(f"/v1/collections/{shelf}/add?wait=true", files=files, data=data)
    assert answer.status_code == 200
    done = answer.json()["data"]
    assert [(d["filename"], d["status"]) for d in done] == [(f[1][0], "completed") for f in files]
    assert all(d["chunks"] > 0 and d["attributes"] == {"department": "people", "year": 2025} for d in done)
    assert done[0]["pages"] > 1, "a PDF knows its pages"
    for question, found in [
        ("total revenue 2025", "87.6"),
        ("daily allowance for travel", "allowance"),
        ("badge and locker on day one", "Reception"),
        ("notice period after probation", "60 days"),
        ("when is the lift repaired", "Thursday"),
    ]:
        assert found in texts(search(alice, shelf, question, max_num_results=3)), question
    collection = alice.get(f"/v1/collections/{shelf}").json()
    assert collection["documents"] == 5
    assert collection["chunks"] == sum(d["chunks"] for d in done)


def test_an_upload_answers_at_once_with_a_job_that_goes_through_its_stages(
    running: Quickstart, shelf: str
) -> None:
    alice = running.http("alice")
    answer = alice.post(f"/v1/collections/{shelf}/add", files={"files": (PDF.name, PDF.read_bytes())})
    assert answer.status_code == 202
    [document] = answer.json()["data"]
    assert (document["status"], document["job"]["stage"]) == ("in_progress", "queued")
    seen: list[str] = []

    def job() -> Any:
        state = alice.get(f"/v1/jobs/{document['job']['id']}").json()
        if state["stage"] not in seen:
            seen.append(state["stage"])
        return state if state["status"] != "in_progress" else None

    ended = until(job, "the job ends")
    assert (ended["status"], ended["stage"], ended["document_id"]) == ("completed", "done", document["id"])
    assert ended["done"] == ended["total"] > 0
    assert seen == [stage for stage in STAGES if stage in seen], "the stages come in their order"


def test_texts_come_as_json_each_with_its_own_attributes(running: Quickstart, shelf: str) -> None:
    alice = running.http("alice")
    documents = [
        {
            "markdown": "# Pets\n\nDogs may come on Fridays.",
            "filename": "pets.md",
            "metadata": {"year": 2024},
        },
        {"text": "The canteen is closed in August.", "id": "canteen"},
    ]
    answer = alice.post(f"/v1/collections/{shelf}/add?wait=true", json={"documents": documents})
    pets, canteen = answer.json()["data"]
    assert (pets["filename"], pets["attributes"]) == ("pets.md", {"year": 2024})
    assert (canteen["id"], canteen["filename"]) == ("canteen", "document.txt")
    [hit] = search(alice, shelf, "dogs", max_num_results=1)
    assert (hit["file_id"], hit["attributes"]["title"]) == (pets["id"], "Pets")


def test_the_same_bytes_again_are_answered_with_the_same_document(running: Quickstart, shelf: str) -> None:
    alice = running.http("alice")
    upload = {"files": (PDF.name, PDF.read_bytes())}
    first = alice.post(f"/v1/collections/{shelf}/add?wait=true", files=upload).json()["data"][0]
    again = alice.post(f"/v1/collections/{shelf}/add", files=upload).json()["data"][0]
    assert (again["id"], again["status"], again["job"]["id"]) == (
        first["id"],
        "completed",
        first["job"]["id"],
    )
    # carol may not query: she is not told that it is there
    carols = running.http("carol").post(f"/v1/collections/{shelf}/add", files=upload).json()["data"][0]
    assert carols["id"] != first["id"]
    assert len(alice.get(f"/v1/collections/{shelf}/documents").json()["data"]) == 2


def test_a_replacement_is_found_instead_of_the_old_version_and_never_beside_it(
    running: Quickstart, shelf: str
) -> None:
    alice = running.http("alice")
    add(alice, shelf, id="rule", markdown="# Badge\n\nThe colour of the badge is green.")
    new = {"id": "rule", "markdown": "# Badge\n\nThe colour of the badge is yellow."}
    replaced = alice.post(f"/v1/collections/{shelf}/add", json={"documents": [new]})
    assert (replaced.status_code, replaced.json()["data"][0]["id"]) == (202, "rule")
    seen = []

    def is_new() -> bool:
        found = texts(search(alice, shelf, "colour of the badge"))
        seen.append((found.count("green"), found.count("yellow")))
        return seen[-1] == (0, 1)

    until(is_new, "the new version is found")
    assert set(seen) <= {(1, 0), (0, 1)}, "always exactly one of the two"
    assert len(alice.get(f"/v1/collections/{shelf}/documents").json()["data"]) == 1


def test_somebody_elses_document_is_not_replaced(running: Quickstart, shelf: str) -> None:
    add(running.http("alice"), shelf, id="rule", markdown="It is alice's.")
    mine = {"id": "rule", "markdown": "It is carol's."}
    answer = running.http("carol").post(f"/v1/collections/{shelf}/add", json={"documents": [mine]})
    assert (answer.status_code, answer.json()["error"]["param"]) == (409, "id")


def test_an_audience_that_is_narrowed_holds_at_once_and_metadata_follows(
    running: Quickstart, shelf: str
) -> None:
    alice, bob = running.http("alice"), running.http("bob")
    add(alice, shelf, id="plan", markdown="# Plan\n\nWe move to Lyon.", metadata={"year": 2024})
    assert "Lyon" in texts(search(bob, shelf, "where do we move"))
    path = f"/v1/collections/{shelf}/documents/plan"
    patch = {"acl": ["group:local/finance"], "metadata": {"year": 2025}}
    changed = alice.patch(path, json=patch).json()
    assert (changed["acl"], changed["attributes"]) == (["group:local/finance"], {"year": 2025})
    assert search(bob, shelf, "where do we move") == []
    assert bob.get(path).status_code == 404
    only = {"type": "eq", "key": "year", "value": 2025}
    until(lambda: search(alice, shelf, "move", filters=only), "the passages follow the attributes")
    assert alice.patch(path, json={"acl": []}).status_code == 400


def test_a_deleted_document_is_gone_at_once(running: Quickstart, shelf: str) -> None:
    alice = running.http("alice")
    add(alice, shelf, id="old", markdown="# Old\n\nThe fax number is 4711.")
    path = f"/v1/collections/{shelf}/documents/old"
    deleted = alice.delete(path)
    assert deleted.json() == {"id": "old", "object": "collection.document.deleted", "deleted": True}
    assert search(alice, shelf, "fax number") == []
    assert [alice.get(p).status_code for p in (path, f"{path}/content")] == [404, 404]


@pytest.mark.parametrize(
    ("collection", "filename", "media_type", "disposition"),
    [
        ("finance", "annual-report-2025.pdf", "application/pdf", "inline"),
        ("handbook", "onboarding.html", "text/html; charset=utf-8", "attachment"),
        ("handbook", "travel-policy.docx", "application/vnd.openxml", "attachment"),
    ],
)
def test_an_original_is_handed_out_safely(
    running: Quickstart, collection: str, filename: str, media_type: str, disposition: str
) -> None:
    alice = running.http("master" if collection == "handbook" else "alice")
    listed = alice.get(f"/v1/collections/{collection}/documents").json()["data"]
    [document] = [d for d in listed if d["filename"] == filename]
    answer = alice.get(f"/v1/collections/{collection}/documents/{document['id']}/content")
    assert answer.content == (DOCUMENTS / filename).read_bytes()
    assert answer.headers["content-type"].startswith(media_type.partition(";")[0])
    assert answer.headers["content-disposition"].startswith(f'{disposition}; filename="{filename}"')
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox"


def test_a_search_answers_as_openais_vector_store_search(running: Quickstart) -> None:
    body: dict[str, Any] = {"query": "total revenue", "max_num_results": 2}
    page = running.http("alice").post("/v1/collections/finance/search", json=body).json()
    read = openai.types.VectorStoreSearchResponse.model_validate(page["data"][0])
    assert (page["object"], page["search_query"]) == ("vector_store.search_results.page", ["total revenue"])
    assert (page["has_more"], page["next_page"], len(page["data"])) == (False, None, 2)
    assert read.filename == "annual-report-2025.pdf"
    assert read.attributes is not None
    assert read.attributes["page"] == 2
    scores = [hit["score"] for hit in page["data"]]
    assert scores == sorted(scores, reverse=True)


def test_filters_narrow_by_built_in_and_declared_fields(running: Quickstart, shelf: str) -> None:
    alice = running.http("alice")
    for year, department in [(2023, "people"), (2024, "people"), (2025, "sales")]:
        metadata = {"year": year, "department": department}
        add(alice, shelf, id=str(year), markdown=f"Goals of {year}.", metadata=metadata)

    def found(filters: dict[str, Any]) -> set[str]:
        return {hit["file_id"] for hit in search(alice, shelf, "goals", filters=filters)}

    recent = {"type": "gte", "key": "year", "value": 2024}
    people = {"type": "eq", "key": "department", "value": "people"}
    assert found(recent) == {"2024", "2025"}
    assert found({"type": "and", "filters": [recent, people]}) == {"2024"}
    assert found({"type": "or", "filters": [recent, people]}) == {"2023", "2024", "2025"}
    assert found({"type": "in", "key": "year", "value": [2023, 1]}) == {"2023"}
    assert found({"type": "eq", "key": "filename", "value": "document.md"}) == {"2023", "2024", "2025"}
    assert found({"type": "eq", "key": "department", "value": '" or true or "'}) == set()


def test_collections_are_listed_page_by_page_each_with_ones_own_rights(running: Quickstart) -> None:
    bob = running.http("bob")
    seen, after = [], None
    while True:
        query = {"limit": 1} | ({"after": after} if after else {})
        page = bob.get("/v1/collections", params=query).json()
        seen += page["data"]
        if not page["has_more"]:
            break
        after = page["data"][-1]["id"]
    rights = {c["name"]: c["permissions"] for c in seen}
    assert rights["handbook"] == ["discover", "query"]
    assert rights["finance"] == ["discover"]
    carols = running.http("carol").get("/v1/collections").json()["data"]
    assert {c["name"]: c["permissions"] for c in carols}["finance"] == ["discover", "add"]


def test_tools_run_alone_and_several_at_once(running: Quickstart) -> None:
    alice = running.http("alice")
    names = {t["function"]["name"] for t in alice.get("/v1/tools").json()["data"]}
    assert {"search_documents", "list_collections", "read_document"} <= names
    call = {"name": "search_documents", "arguments": '{"query": "dividend", "max_num_results": 1}'}
    one = alice.post("/v1/tools", json=call).json()
    assert one["isError"] is False
    [hit] = one["structuredContent"]["results"]
    assert "0.85" in hit["text"]
    calls = [
        {"id": "a", "type": "function", "function": {"name": "list_collections", "arguments": "{}"}},
        {
            "id": "b",
            "type": "function",
            "function": {
                "name": "read_document",
                "arguments": f'{{"document_id": "{hit["document_id"]}", "pages": "2"}}',
            },
        },
        {"id": "c", "type": "function", "function": {"name": "read_document", "arguments": "{}"}},
    ]
    many = alice.post("/v1/tools", json={"tool_calls": calls}).json()["data"]
    assert [(m["tool_call_id"], m["isError"]) for m in many] == [("a", False), ("b", False), ("c", True)]
    assert "finance" in many[0]["content"][0]["text"]
    assert "87.6" in many[1]["content"][0]["text"]
    assert "document_id" in many[2]["content"][0]["text"]


def test_the_proxys_openapi_shows_our_routes_with_schemas_and_examples(running: Quickstart) -> None:
    paths = running.http("master").get("/openapi.json").json()["paths"]
    for path in ("", "/new", "/{collection}", "/{collection}/add", "/{collection}/search"):
        assert f"/v1/collections{path}" in paths
    search_body = paths["/v1/collections/{collection}/search"]["post"]["requestBody"]["content"]
    assert search_body["application/json"]["example"]["query"]
    assert search_body["application/json"]["schema"]
    form = paths["/v1/collections/{collection}/add"]["post"]["requestBody"]["content"]["multipart/form-data"]
    assert form["schema"]["properties"]["files"]["items"]["format"] == "binary"
    assert paths["/v1/tools"]["post"]["requestBody"]["content"]["application/json"]["examples"]


def test_embeddings_come_as_the_openai_sdk_asks_for_them(running: Quickstart) -> None:
    bob = running.openai("bob")
    given = ["a dog", "a puppy", "the revenue of a company"]
    default = bob.embeddings.create(model="local/minilm", input=given)  # the SDK asks for base64
    floats = bob.embeddings.create(model="local/minilm", input=given, encoding_format="float")
    for one, other in zip(default.data, floats.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)
    assert {len(d.embedding) for d in floats.data} == {384}
    assert default.usage.prompt_tokens > 0
    dog, puppy, revenue = (d.embedding for d in floats.data)

    def likeness(a: list[float], b: list[float]) -> float:
        return sum(x * y for x, y in zip(a, b, strict=True))

    assert likeness(dog, puppy) > likeness(dog, revenue)
    body = {"model": "local/minilm", "input": "a dog", "encoding_format": "base64"}
    raw = running.http("bob").post("/v1/embeddings", json=body).json()["data"][0]["embedding"]
    assert struct.unpack("<384f", base64.b64decode(raw)) == pytest.approx(dog, abs=1e-6)


def test_a_text_that_is_too_long_to_embed_is_an_error_that_says_so(running: Quickstart) -> None:
    with pytest.raises(openai.BadRequestError, match=r"256") as refused:
        running.openai("bob").embeddings.create(model="local/minilm", input=["short", "word " * 300])
    assert "token" in str(refused.value)


def test_the_built_in_chat_model_says_that_it_is_no_language_model(running: Quickstart) -> None:
    models = running.http("bob").get("/v1/model/info").json()["data"]
    [info] = [m["model_info"] for m in models if m["model_name"] == "extractive"]
    assert "not a language model" in info["description"]
