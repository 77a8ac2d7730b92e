"""The life of documents and of a collection through the real proxy: an end that was set, and a reindexing."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.support.quickstart import Quickstart, until

NOTES = [
    {"markdown": f"# Note {number}\n\nNote {number} is about leave.", "id": f"note-{number}"}
    for number in range(8)
]


@pytest.fixture
def shelf(running: Quickstart, request: pytest.FixtureRequest) -> Iterator[str]:
    """A collection of alice's with notes in it; bob may query it."""
    alice = running.http("alice")
    body = {"name": f"shelf of {request.node.name}", "access": {"query": ["user:local/bob"]}}
    created = alice.post("/v1/collections/new", json=body)
    assert created.status_code == 201, created.text
    shelf = str(created.json()["id"])
    added = alice.post(f"/v1/collections/{shelf}/add?wait=true", json={"documents": NOTES})
    assert added.status_code == 200, added.text
    yield shelf
    alice.delete(f"/v1/collections/{shelf}").raise_for_status()


def found(running: Quickstart, shelf: str, **options: Any) -> set[str]:
    """The ids of the documents that bob's search finds."""
    body = {"query": "leave", "max_num_results": 20, **options}
    answer = running.http("bob").post(f"/v1/collections/{shelf}/search", json=body)
    assert answer.status_code == 200, answer.text
    return {hit["file_id"] for hit in answer.json()["data"]}


def test_a_collection_is_built_anew_while_searches_go_on(running: Quickstart, shelf: str) -> None:
    alice, everything = running.http("alice"), {str(note["id"]) for note in NOTES}
    before = alice.get(f"/v1/collections/{shelf}").json()
    begun = alice.post(f"/v1/collections/{shelf}/reindex", json={"retrieval": "dense"})
    assert begun.status_code == 202, begun.text
    assert begun.json()["reindex"]["retrieval"] == "dense"
    assert begun.json()["retrieval"] == before["retrieval"] == "hybrid"
    refused = running.http("bob").post(f"/v1/collections/{shelf}/reindex", json={})
    assert (refused.status_code, refused.json()["error"]["code"]) == (403, "permission_denied")

    def done() -> bool:
        assert found(running, shelf) == everything
        return alice.get(f"/v1/collections/{shelf}").json()["reindex"] is None

    until(done, "the collection is built anew")
    after = alice.get(f"/v1/collections/{shelf}").json()
    assert (after["retrieval"], after["documents"], after["chunks"]) == ("dense", 8, before["chunks"])
    assert found(running, shelf) == everything
    unknown = alice.post(
        f"/v1/collections/{shelf}/search", json={"query": "x", "ranking_options": {"ranker": "bm25"}}
    )
    assert unknown.status_code == 400
    none = alice.post(f"/v1/collections/{shelf}/reindex/cancel")
    assert (none.status_code, none.json()["error"]["code"]) == (409, "conflict")


def test_an_unknown_model_or_pipeline_is_named(running: Quickstart, shelf: str) -> None:
    for field in ("embedding_model", "pipeline"):
        answer = running.http("alice").post(f"/v1/collections/{shelf}/reindex", json={field: "none-such"})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, field)


def test_a_document_ends_when_it_was_to(running: Quickstart, shelf: str) -> None:
    alice, path = running.http("alice"), f"/v1/collections/{shelf}/documents/note-0"
    past = alice.patch(path, json={"expires_at": "2001-01-01"})
    assert (past.status_code, past.json()["error"]["param"]) == (400, "expires_at")
    changed = alice.patch(path, json={"expires_at": time.time() + 5})
    assert changed.status_code == 200, changed.text
    assert changed.json()["status"] == "completed"
    until(lambda: alice.get(path).status_code == 404, "the document ends")
    assert "note-0" not in found(running, shelf)
    listed = alice.get(f"/v1/collections/{shelf}/documents").json()["data"]
    assert len(listed) == len(NOTES) - 1


def test_an_upload_may_bring_its_end(running: Quickstart, shelf: str) -> None:
    document = {"markdown": "Leave for a day.", "id": "short", "expires_at": "2100-01-01T00:00:00Z"}
    added = running.http("alice").post(f"/v1/collections/{shelf}/add", json={"documents": [document]})
    assert added.status_code == 202, added.text
    assert added.json()["data"][0]["expires_at"] == 4102444800
