"""Kill -9 of everything at random moments: nothing acknowledged is lost, doubled or half there.

``make test-crash KILLS=100``. The moments are drawn from SEED, which a failure prints.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, nullcontext
from pathlib import Path
from typing import Any

import pytest

from crawler.stores.milvus import Milvus, MilvusSettings
from tests.crash.authors import Author, Version, at_work
from tests.crash.postgres import Postgres, postgres
from tests.support.proxy import free_port
from tests.support.quickstart import STORE, WORKER, Quickstart, change, copy, quickstart, until

KILLS = int(os.environ.get("KILLS", "100"))
SEED = int(os.environ.get("SEED", "0")) or random.SystemRandom().randrange(1, 10**6)
CONVERSION = "crawler.conversion"
COLLECTION = "stormy"
AUTHORS = 3


class Installation:
    """One data directory, what runs on it, and ways to kill it."""

    def __init__(self, folder: Path, database: Postgres | None, stack: ExitStack) -> None:
        self._stack = stack
        self._database = database
        limits = {"lease_s": 4, "concurrency": 2}
        change(folder / "config" / "limits.yaml", lambda content: content["worker"].update(limits))
        if database is not None:
            url = database.url
            change(folder / "config" / "storage.yaml", lambda c: c["storage"].update(database=url))
        self.running = stack.enter_context(quickstart(folder, port=free_port()))

    def victims(self) -> dict[str, Callable[[], None]]:
        ways = {
            "store": lambda: self._kill_child(STORE),
            "worker": lambda: self._kill_child(WORKER),
            "conversion": lambda: self._kill_child(CONVERSION),
            "proxy": self._kill_proxy,
        }
        return ways | ({"database": self._kill_database} if self._database else {})

    def _kill_child(self, command: str) -> None:
        pid = self.running.child(command)
        if pid is not None:
            self._kill(pid)

    def _kill(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return

    def _kill_proxy(self) -> None:
        self._kill(self.running.process.pid)
        self.running.process.wait(10)
        self._stack.close()  # its children end by themselves
        self.running = self._stack.enter_context(quickstart(self.running.folder, port=self.running.port))

    def _kill_database(self) -> None:
        assert self._database is not None
        self._database.kill()
        self._database.restart()


@pytest.fixture(params=["sqlite", "postgres"])
def installation(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Installation]:
    with postgres() if request.param == "postgres" else nullcontext() as database, ExitStack() as stack:
        yield Installation(copy(tmp_path), database, stack)


def test_whatever_is_killed_no_acknowledged_document_is_lost_double_or_half(
    installation: Installation,
) -> None:
    chance = random.Random(SEED)  # noqa: S311 - not a secret
    running = installation.running
    made = running.http("alice").post("/v1/collections/new", json={"name": COLLECTION})
    assert made.status_code == 201, made.text
    authors = [Author(f"author{n}", COLLECTION, SEED + n) for n in range(AUTHORS)]
    killed: Counter[str] = Counter()
    with at_work(authors, running.url, running.key("alice")):
        for _ in range(KILLS // 2):  # the other half are those of the other database
            time.sleep(chance.uniform(0.1, 2.5))  # the random moment itself, not a wait for anything
            victims = installation.victims()
            name = chance.choice(sorted(victims))
            victims[name]()
            killed[name] += 1
    acknowledged = sum(author.acknowledged for author in authors)
    print(f"\nseed {SEED}: killed {dict(killed)}; {acknowledged} changes acknowledged")  # noqa: T201 - the figures
    running = installation.running
    until(lambda: at_rest(running), f"all jobs have ended (seed {SEED})", 300)
    assert_as_told(running, authors)


def at_rest(running: Quickstart) -> bool:
    answer = running.http("alice").get(f"/v1/collections/{COLLECTION}/documents?limit=1000")
    if answer.status_code != 200 or any(d["status"] == "in_progress" for d in answer.json()["data"]):
        return False
    health = running.http("master").get("/health/collections").json()
    return bool(health["status"] == "ok" and health["details"]["queue"] == 0)


def assert_as_told(running: Quickstart, authors: list[Author]) -> None:
    """Each document is in one of the states that its author may expect, whole and once."""
    alice = running.http("alice")
    listed = alice.get(f"/v1/collections/{COLLECTION}/documents?limit=1000").json()["data"]
    by_id = {document["id"]: document for document in listed}
    expected = 0
    for author in authors:
        for document, states in author.may_be.items():
            found = by_id.pop(document, None)
            if found is None:
                assert None in states, f"{document} is lost (seed {SEED})"
                continue
            assert found["status"] == "completed", found
            there = [v for v in states if v and passages(alice, v) == parts(v)]
            assert len(there) == 1, f"{document} is none of {states}, or not whole (seed {SEED}): {found}"
            assert found["chunks"] == there[0].sections
            expected += there[0].sections
    assert not by_id, f"nobody made these (seed {SEED}): {by_id}"
    assert stored(running) == expected, f"the store holds passages that no document has (seed {SEED})"


def parts(version: Version) -> list[str]:
    return sorted(f"{version.word} is in part {n}." for n in range(version.sections))


def passages(client: Any, version: Version) -> list[str]:
    """The last lines of the passages with the version's word."""
    body = {"query": version.word, "max_num_results": 50, "ranking_options": {"ranker": "bm25"}}
    answer = client.post(f"/v1/collections/{COLLECTION}/search", json=body)
    assert answer.status_code == 200, answer.text
    texts = [hit["content"][0]["text"] for hit in answer.json()["data"]]
    return sorted(text.rpartition("\n")[2] for text in texts if version.word in text)


def stored(running: Quickstart) -> int:
    """All passages that the store has of the collection, whoever may read them."""
    found = running.http("alice").get(f"/v1/collections/{COLLECTION}").json()

    async def count() -> int:
        store = Milvus(MilvusSettings(uri=str(running.folder / "data" / "store")))
        try:
            return await store.count(f"c_{found['id'].removeprefix('vs_')}")
        finally:
            await store.close()

    return asyncio.run(count())
