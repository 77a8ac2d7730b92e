"""The whole installation is backed up while it runs, lost, and restored by the commands of docs/backup.md."""

from __future__ import annotations

from pathlib import Path

from tests.support.quickstart import copy, quickstart
from tests.support.restoring import add, build_anew, check_restored, fill, found, run

LATER = {"filename": "later.md", "markdown": "# Later\n\nThe boiler was replaced after the backup."}


def test_what_was_backed_up_while_it_ran_is_found_again_after_everything_was_lost(tmp_path: Path) -> None:
    folder = copy(tmp_path)
    with quickstart(folder) as running:
        fill(running)
        run(running, "back up SQLite")
        add(running, LATER)
        assert "later.md" in found(running, "alice", "boiler replaced")
    run(running, "restore SQLite")
    with quickstart(folder) as restored:
        early = restored.http("alice").post("/v1/collections/house/search", json={"query": "boiler"})
        assert (early.status_code, early.json()["error"]["code"]) == (502, "store_refused")
        build_anew(restored)
        check_restored(restored)
