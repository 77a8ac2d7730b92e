"""Mails and archives through the real proxy: what is inside becomes documents of their own."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.quickstart import Quickstart, until
from tests.unit.crawler.samples import real


def upload(alice: httpx.Client, name: str) -> str:
    """A new collection with one file that is done, and everything in it."""
    made = alice.post("/v1/collections/new", json={"name": f"inside {name}"})
    assert made.status_code == 201, made.text
    path = f"/v1/collections/{made.json()['id']}"
    added = alice.post(f"{path}/add", files=[("files", (name, real(name)))])
    assert added.status_code == 202, added.text
    return path


def documents(alice: httpx.Client, path: str) -> dict[str, dict[str, Any]]:
    """By file name."""
    found = alice.get(f"{path}/documents", params={"limit": 100}).json()["data"]
    return {document["filename"]: document for document in found}


def all_done(alice: httpx.Client, path: str, names: set[str]) -> dict[str, dict[str, Any]]:
    def done() -> bool:
        found = documents(alice, path)
        return names <= set(found) and all(view["status"] != "in_progress" for view in found.values())

    until(done, "everything in the file is done")
    return documents(alice, path)


def hits(alice: httpx.Client, path: str, query: str) -> list[str]:
    answer = alice.post(f"{path}/search", json={"query": query})
    assert answer.status_code == 200, answer.text
    return [hit["filename"] for hit in answer.json()["data"]]


def test_attachments_and_forwarded_mails_are_documents_that_are_found(running: Quickstart) -> None:
    alice = running.http("alice")
    path = upload(alice, "mail.eml")
    names = {"mail.eml", "berths.csv", "Travel policy.docx", "Tide tables.eml", "tides.md"}
    found = all_done(alice, path, names)
    assert {view["status"] for view in found.values()} == {"completed"}, found
    assert set(found) == names
    mail, forwarded = found["mail.eml"], found["Tide tables.eml"]
    assert found["berths.csv"]["parent_id"] == mail["id"]
    assert found["tides.md"]["parent_id"] == forwarded["id"]
    assert {view["batch_id"] for view in found.values()} == {mail["batch_id"]}
    assert "tides.md" in hits(alice, path, "spring tide on 10 March")[:2]
    assert mail["properties"]["title"] == "Quay repairs: what pilots should know"


def test_members_of_an_archive_are_documents_and_go_with_it(running: Quickstart) -> None:
    alice = running.http("alice")
    path = upload(alice, "archive.zip")
    found = all_done(alice, path, {"archive.zip", "quay.md", "berths.csv", "Travel policy.docx"})
    assert {view["status"] for view in found.values()} == {"completed"}, found
    assert "archive.zip" in hits(alice, path, "archive with notices/berths.csv")
    assert alice.delete(f"{path}/documents/{found['archive.zip']['id']}").is_success
    until(lambda: not documents(alice, path), "the members are gone with the archive")
    assert hits(alice, path, "The north quay is closed") == []
