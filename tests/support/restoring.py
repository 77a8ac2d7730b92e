"""The commands of docs/backup.md, done on an installation."""

from __future__ import annotations

import re
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path

from tests.support.proxy import ROOT
from tests.support.quickstart import Quickstart, until, variables

NOTE = {"filename": "boiler.md", "markdown": "# Boiler\n\nThe boiler is serviced in October."}
SECRET = {
    "filename": "code.md",
    "markdown": "# Code\n\nThe code of the safe is 4711.",
    "acl": ["user:local/alice"],
}
LATER = {"filename": "later.md", "markdown": "# Later\n\nThe boiler was replaced after the backup."}
"""Comes after a backup: it is gone when that is restored."""
BUILT_S = 120.0


def example(name: str) -> str:
    """The commands that follow this mark."""
    page = (ROOT / "docs" / "backup.md").read_text(encoding="utf-8")
    [found] = re.findall(rf"<!-- example: {re.escape(name)} -->\n```sh\n(.*?)```", page, re.DOTALL)
    return str(found)


def run(running: Quickstart, name: str, environment: Mapping[str, str] | None = None) -> None:
    """As a person would paste them into a shell of the installation's folder.

    Raises:
        AssertionError: One of them failed.
    """
    done = subprocess.run(
        ["bash", "-e", "-c", example(name)],
        cwd=running.folder,
        env=variables(running.folder) | {"NO_PROXY": "127.0.0.1"} | dict(environment or {}),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def back_up(running: Quickstart, name: str, environment: Mapping[str, str] | None = None) -> Path:
    """The folder that the commands made; they call it by the second."""
    backups = running.folder / "backup"
    until(lambda: not (backups / time.strftime("%Y-%m-%d-%H%M%S")).exists(), "a second is over")
    before = set(backups.glob("*"))
    run(running, name, environment)
    [made] = set(backups.glob("*")) - before
    assert made.stat().st_mode & 0o077 == 0
    return made


def fill(running: Quickstart) -> None:
    """A collection that bob may query, with a note, and one that is for alice alone."""
    alice = running.http("alice")
    body = {"name": "house", "access": {"query": ["user:local/bob"]}}
    alice.post("/v1/collections/new", json=body).raise_for_status()
    for document in (NOTE, SECRET):
        add(running, document)


def add(running: Quickstart, document: Mapping[str, object]) -> None:
    answer = running.http("alice").post("/v1/collections/house/add?wait=true", json={"documents": [document]})
    assert answer.status_code == 200, answer.text
    assert answer.json()["data"][0]["status"] == "completed", answer.text


def found(running: Quickstart, person: str, query: str) -> set[str]:
    """The names of the files in which somebody finds passages."""
    asked = {"query": query}
    answer = running.http(person).post("/v1/collections/house/search", json=asked)
    assert answer.status_code == 200, answer.text
    return {hit["filename"] for hit in answer.json()["data"]}


def names(running: Quickstart) -> list[str]:
    """All collections."""
    listed = running.http("master").get("/v1/collections").json()["data"]
    return [view["name"] for view in listed]


def start_building(running: Quickstart) -> None:
    """All collections anew."""
    assert {"house", "handbook", "finance"} <= set(names(running))
    run(running, "build anew", {"URL": running.url, "KEY": running.key("master")})


def wait_until_built(running: Quickstart) -> None:
    master = running.http("master")

    def built() -> bool:
        views = [master.get(f"/v1/collections/{name}").json() for name in names(running)]
        return all(view["reindex"] is None for view in views)

    until(built, "all collections are built", BUILT_S)


def check_restored(running: Quickstart) -> None:
    """What was there is found by whom it was found before, and what came after the backup is not."""
    assert found(running, "alice", "boiler serviced code of the safe") == {"boiler.md", "code.md"}
    assert found(running, "bob", "boiler serviced code of the safe") == {"boiler.md"}
    assert running.http("carol").post("/v1/collections/house/search", json={"query": "x"}).status_code == 403
    listed = running.http("alice").get("/v1/collections/house/documents").json()["data"]
    [note] = [document["id"] for document in listed if document["filename"] == "boiler.md"]
    content = running.http("bob").get(f"/v1/collections/house/documents/{note}/content")
    assert content.text == NOTE["markdown"]
    entries = running.http("master").get("/v1/collections/house").json()
    assert entries["documents"] == 2
