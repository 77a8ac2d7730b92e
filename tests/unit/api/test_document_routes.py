"""`/v1/collections/{id}/documents` and `/v1/jobs`: shapes, statuses and the headers of originals."""

from __future__ import annotations

import pytest

from plugins.api.content import headers_of
from tests.support.api_server import Server


async def test_a_document_is_listed_shown_changed_and_deleted(server: Server) -> None:
    collection = await server.collection()
    document = await server.document(collection)
    path = f"/v1/collections/handbook/documents/{document['id']}"
    listed = (await server.as_alice.get("/v1/collections/handbook/documents")).json()
    assert ([view["id"] for view in listed["data"]], listed["has_more"]) == ([document["id"]], False)
    assert (await server.as_alice.get(path)).json()["filename"] == "leave.md"
    changed = await server.as_alice.patch(path, json={"metadata": {"year": 2026}})
    assert changed.json()["attributes"] == {"year": 2026}
    deleted = await server.as_alice.delete(path)
    assert deleted.json() == {
        "id": document["id"],
        "object": "collection.document.deleted",
        "deleted": True,
    }
    gone = await server.as_alice.get(path)
    assert gone.status_code == 404
    assert gone.json()["error"]["code"] == "document_not_found"


async def test_an_acl_that_is_left_out_stays_and_null_is_everyone(server: Server) -> None:
    collection = await server.collection()
    document = await server.document(collection, acl=["user:alice"])
    path = f"/v1/collections/{collection}/documents/{document['id']}"
    kept = await server.as_alice.patch(path, json={"metadata": {"a": 1}})
    assert kept.json()["acl"] == ["user:local/alice"]
    opened = await server.as_alice.patch(path, json={"acl": None})
    assert opened.json()["acl"] is None
    refused = await server.as_alice.patch(path, json={"acl": []})
    assert (refused.status_code, refused.json()["error"]["param"]) == (400, "acl")


async def test_documents_are_listed_by_status_and_page_by_page(server: Server) -> None:
    collection = await server.collection()
    ids = {(await server.document(collection, markdown=f"# {n}"))["id"] for n in range(3)}
    path = f"/v1/collections/{collection}/documents"
    first = (await server.as_alice.get(path, params={"limit": 2})).json()
    after = first["data"][-1]["id"]
    rest = (await server.as_alice.get(path, params={"limit": 2, "after": after})).json()
    assert {view["id"] for view in first["data"] + rest["data"]} == ids
    assert (first["has_more"], rest["has_more"]) == (True, False)
    await server.finish(collection, after)
    done = (await server.as_alice.get(path, params={"status": "completed"})).json()
    assert [view["id"] for view in done["data"]] == [after]
    wrong = await server.as_alice.get(path, params={"status": "sleeping"})
    assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "status")


async def test_a_job_tells_its_stage_to_who_may_see_the_document(server: Server) -> None:
    document = await server.document(await server.collection())
    path = f"/v1/jobs/{document['job']['id']}"
    job = (await server.as_alice.get(path)).json()
    assert (job["object"], job["stage"], job["status"]) == ("job", "queued", "in_progress")
    assert job["document_id"] == document["id"]
    hidden = await server.client("bob").get(path)
    missing = await server.client("bob").get("/v1/jobs/job_none")
    assert hidden.status_code == missing.status_code == 404
    assert hidden.json() == missing.json()


async def uploaded(server: Server, filename: str, content: bytes, media_type: str) -> str:
    collection = await server.collection()
    answer = await server.as_alice.post(
        f"/v1/collections/{collection}/add", files={"files": (filename, content, media_type)}
    )
    return f"/v1/collections/{collection}/documents/{answer.json()['data'][0]['id']}/content"


async def test_a_pdf_is_shown_in_a_sandbox_and_not_sniffed(server: Server) -> None:
    path = await uploaded(server, "a.pdf", b"%PDF-1.7 x", "application/pdf")
    answer = await server.as_alice.get(path)
    assert answer.content == b"%PDF-1.7 x"
    assert answer.headers["content-type"] == "application/pdf"
    assert answer.headers["content-disposition"].startswith("inline;")
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["content-security-policy"] == "sandbox"
    assert answer.headers["cache-control"] == "private, no-store"


async def test_a_web_page_is_saved_never_shown(server: Server) -> None:
    path = await uploaded(server, "page.html", b"<script>alert(1)</script>", "text/html")
    answer = await server.as_alice.get(path)
    assert answer.headers["content-disposition"].startswith("attachment;")
    assert answer.headers["content-security-policy"] == "sandbox"


async def test_a_part_of_an_original_can_be_fetched(server: Server) -> None:
    path = await uploaded(server, "a.txt", b"0123456789", "text/plain")
    answer = await server.as_alice.get(path, headers={"range": "bytes=2-4"})
    assert (answer.status_code, answer.content) == (206, b"234")


async def test_who_may_not_query_gets_no_original(server: Server) -> None:
    collection = await server.collection(add=["user:carol"])
    document = await server.document(collection)
    path = f"/v1/collections/{collection}/documents/{document['id']}/content"
    assert (await server.client("carol").get(path)).status_code in (403, 404)
    assert (await server.client("stranger").get(path)).status_code == 404


@pytest.mark.parametrize(
    ("filename", "media_type", "content_type", "shown"),
    [
        ("a.txt", "text/plain", "text/plain; charset=utf-8", True),
        ("a.pdf", None, "application/pdf", True),
        ("a.svg", "image/svg+xml", "image/svg+xml", False),
        ("a.html", None, "text/html", False),
        ("a", None, "application/octet-stream", False),
        ("a.pdf", "text/html\r\nX-Evil: 1", "application/octet-stream", False),
    ],
)
def test_only_pdf_and_plain_text_are_shown(
    filename: str, media_type: str | None, content_type: str, shown: bool
) -> None:
    kind, headers = headers_of(filename, media_type)
    assert kind == content_type
    assert headers["Content-Disposition"].startswith("inline" if shown else "attachment")


def test_file_names_are_given_in_ascii_and_in_utf_8() -> None:
    _, headers = headers_of('Löhne "2026"\r\n; x=y.txt', "text/plain")
    assert headers["Content-Disposition"] == (
        'inline; filename="L_hne _2026____ x_y.txt"; '
        "filename*=UTF-8''L%C3%B6hne%20%222026%22%0D%0A%3B%20x%3Dy.txt"
    )
