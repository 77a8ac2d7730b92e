"""A folder that a collection follows, its export and its return, with the real proxy and while it runs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.quickstart import Quickstart, variables


@pytest.fixture
def collection(running: Quickstart) -> Iterator[str]:
    """A collection of its own; it and its copies are gone afterwards."""
    alice = running.http("alice")
    made = alice.post("/v1/collections/new", json={"name": "notes"})
    assert made.status_code == 201, made.text
    yield "notes"
    for found in alice.get("/v1/collections").json()["data"]:
        if found["name"].startswith("notes"):
            alice.delete(f"/v1/collections/{found['id']}").raise_for_status()


def crawler(running: Quickstart, *arguments: str) -> str:
    """The command's output; it runs in the installation's folder, with alice's key."""
    done = subprocess.run(
        [sys.executable, "-m", "crawler", *arguments],
        cwd=running.folder,
        env=variables(running.folder) | {"LITELLM_API_KEY": running.key("alice"), "NO_PROXY": "127.0.0.1"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def texts(running: Quickstart, collection: str, query: str) -> list[str]:
    asked = {"query": query}
    answer = running.http("alice").post(f"/v1/collections/{collection}/search", json=asked)
    assert answer.status_code == 200, answer.text
    return [part["text"] for hit in answer.json()["data"] for part in hit["content"]]


def test_a_folder_is_followed_exported_and_brought_back(
    running: Quickstart, collection: str, tmp_path: Path
) -> None:
    folder = tmp_path / "folder"
    (folder / "deep").mkdir(parents=True)
    (folder / "one.md").write_text("# Canteen\n\nThe canteen opens at noon.")
    (folder / "deep" / "one.md").write_text("# Parking\n\nParking is free on Sundays.")
    sync = ("sync", str(folder), "--collection", collection, "--url", running.url)
    assert "would add 2, change 0, delete 0; 0 unchanged" in crawler(running, *sync, "--dry-run")
    assert texts(running, collection, "canteen") == []
    assert "2 added, 0 changed, 0 deleted, 0 unchanged; 0 failed" in crawler(running, *sync)
    assert "opens at noon" in texts(running, collection, "canteen")[0]

    (folder / "one.md").write_text("# Canteen\n\nThe canteen opens at eleven.")
    (folder / "deep" / "one.md").unlink()
    (folder / "two.md").write_text("# Bicycles\n\nBicycles stand behind the house.")
    assert "1 added, 1 changed, 1 deleted, 0 unchanged; 0 failed" in crawler(running, *sync)
    assert "0 added, 0 changed, 0 deleted, 2 unchanged; 0 failed" in crawler(running, *sync)
    assert "opens at eleven" in texts(running, collection, "canteen")[0]
    assert not any("Sundays" in text for text in texts(running, collection, "parking sundays"))

    backup = str(tmp_path / "backup")
    assert "2 documents, 2 passages" in crawler(running, "export", collection, backup)
    assert "read back and equal" in crawler(running, "import", backup, "--collection", "notes-restored")
    for query in ("canteen", "bicycles"):
        restored = texts(running, "notes-restored", query)
        assert sorted(restored) == sorted(texts(running, collection, query))
    copies = running.http("alice").get("/v1/collections/notes-restored/documents").json()["data"]
    [copy] = [document["id"] for document in copies if document["filename"] == "two.md"]
    content = running.http("alice").get(f"/v1/collections/notes-restored/documents/{copy}/content")
    assert content.text == "# Bicycles\n\nBicycles stand behind the house."
