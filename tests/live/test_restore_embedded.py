"""The whole installation is backed up while it runs, lost, and restored by the commands of docs/backup.md."""

from __future__ import annotations

import shutil
from pathlib import Path

from tests.support.quickstart import Quickstart, copy, quickstart, until
from tests.support.restoring import (
    LATER,
    add,
    back_up,
    check_restored,
    fill,
    found,
    run,
    start_building,
    wait_until_built,
)

STRAY = {"filename": "stray.md", "markdown": "# Stray\n\nThis note loses its file."}


def test_what_was_backed_up_while_it_ran_is_found_again_after_everything_was_lost(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    with quickstart(folder) as running:
        fill(running)
        first = back_up(running, "back up SQLite")
        add(running, STRAY)
        second = back_up(running, "back up SQLite")
        assert originals(first) < originals(second)
        add(running, LATER)
        assert "later.md" in found(running, "alice", "boiler replaced")
    run(running, "restore SQLite", {"B": str(second)})
    with quickstart(folder) as restored:
        early = restored.http("alice").post("/v1/collections/house/search", json={"query": "boiler"})
        assert (early.status_code, early.json()["error"]["code"]) == (502, "store_refused")
        stray = lose_the_file_of(restored, "stray.md")
        start_building(restored)
        until(lambda: missing(restored) == stray, "the document without its file is named")
        restored.http("alice").delete(f"/v1/collections/house/documents/{stray}").raise_for_status()
        wait_until_built(restored)
        check_restored(restored)


def originals(backup: Path) -> set[Path]:
    """The files of documents in it."""
    files = backup / "originals"
    return {path.relative_to(files) for path in files.rglob("*") if path.is_file()}


def lose_the_file_of(restored: Quickstart, filename: str) -> str:
    """As when a document was deleted between the copies of the database and of the files; its id."""
    listed = restored.http("alice").get("/v1/collections/house/documents").json()["data"]
    [document] = [document for document in listed if document["filename"] == filename]
    [folder] = (restored.folder / "data" / "originals").glob(f"*/{document['id']}")
    shutil.rmtree(folder)
    return str(document["id"])


def missing(restored: Quickstart) -> str | None:
    """The document that holds up the collection."""
    reindex = restored.http("alice").get("/v1/collections/house").json()["reindex"]
    error = (reindex or {}).get("last_error") or {}
    return error.get("document_id")
