"""Everything that is hostile or broken, dropped on a collection at once, and then a good document."""

from __future__ import annotations

from typing import Any

import httpx

from tests.support.hostile_files import SECRET, hostile_files
from tests.support.quickstart import Quickstart, until

BOMBS = {f"bomb.{kind}" for kind in ("pdf", "xlsx", "odt", "msg", "ipynb")}
COSTLY = {"line.txt", "nested.zip", "pages.pdf", *BOMBS}
"""Over this proxy's limit of one file, ten thousand documents, or as costly as another of their kind that is
here: tests/contract/test_hostile_files.py has them."""
WAIT_S = 300.0


def documents(client: httpx.Client, path: str) -> list[dict[str, Any]]:
    answer = client.get(f"{path}/documents", params={"limit": 100})
    assert answer.status_code == 200, answer.text
    return list(answer.json()["data"])


def test_hostile_files_cost_one_job_each_and_the_next_document_is_unharmed(running: Quickstart) -> None:
    alice = running.http("alice")
    made = alice.post("/v1/collections/new", json={"name": "hostile"})
    path = f"/v1/collections/{made.json()['id']}"
    files = [file for file in hostile_files() if file.name not in COSTLY and file.made]
    added = alice.post(
        f"{path}/add", files=[("files", (file.name, file.content)) for file in files], timeout=120
    )
    assert added.status_code == 202, added.text
    assert len(added.json()["data"]) == len(files)

    def ended() -> bool:
        return all(view["status"] != "in_progress" for view in documents(alice, path))

    until(ended, "every job has ended", WAIT_S)
    found = documents(alice, path)
    own = [view for view in found if view["parent_id"] is None]
    assert len(own) == len(files)
    for view in found:
        assert view["filename"].isprintable()
        assert len(view["filename"]) <= 255
        error = view["last_error"]
        assert (view["status"] == "failed") == (error is not None), view
        if error:
            assert error["code"] not in ("internal_error", "worker_died"), view
            assert "/" not in error["message"].replace("and/or", ""), view
    statuses = {view["filename"]: view["status"] for view in own}
    for file in files:
        if file.outcome != "either" and file.name in statuses:
            wanted = "completed" if file.outcome == "succeeds" else "failed"
            assert statuses[file.name] == wanted, file.name

    good = alice.post(f"{path}/add?wait=true", json={"documents": [{"text": "The lift is repaired again."}]})
    assert good.json()["data"][0]["status"] == "completed", good.text
    hits = alice.post(f"{path}/search", json={"query": "Is the lift repaired?", "max_num_results": 50}).json()
    texts = [hit["content"][0]["text"] for hit in hits["data"]]
    assert "The lift is repaired again." in texts
    assert not any(SECRET in text or "(javascript:" in text for text in texts)
    alice.delete(path).raise_for_status()
