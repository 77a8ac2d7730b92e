"""Scans and pictures through the real proxy, with the Tesseract data of this machine."""

from __future__ import annotations

import pytest

from tests.support.quickstart import Quickstart
from tests.support.tesseract import need_tesseract
from tests.unit.crawler.samples import real


@pytest.fixture(autouse=True)
def tesseract() -> None:
    need_tesseract()


def test_scans_and_pictures_are_found_by_the_words_in_them(running: Quickstart) -> None:
    alice = running.http("alice")
    made = alice.post("/v1/collections/new", json={"name": "scans"})
    path = f"/v1/collections/{made.json()['id']}"
    names = ("scan.pdf", "half-scanned.pdf", "note.png", "pages.tiff")
    files = [("files", (name, real(name))) for name in names]
    answer = alice.post(f"{path}/add?wait=true", files=files)
    assert answer.status_code == 200, answer.text
    documents = answer.json()["data"]
    assert [document["status"] for document in documents] == ["completed"] * len(names), documents
    assert all("recognised (OCR)" in document["warnings"][0] for document in documents)

    def found(query: str) -> list[str]:
        hits = alice.post(f"{path}/search", json={"query": query}).json()["data"]
        return [hit["filename"] for hit in hits]

    assert found("Sentence three: daily rates depend on the city")[0] == "scan.pdf"
    assert set(found("The north quay is closed for repairs")[:3]) == {
        "half-scanned.pdf",
        "note.png",
        "pages.tiff",
    }
