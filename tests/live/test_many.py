"""Several processes of several proxies, and several workers, on one Postgres, Redis and Milvus."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import httpx
import pytest

from plugins.auth._attempts import PAIR, Attempts
from plugins.collections.database import Database
from plugins.core.errors import LimitReached
from tests.live.cluster import (
    CEMS_RPM,
    PROMPTS,
    STOCK,
    Cluster,
    add,
    bearer,
    cluster,
    collection,
    configuration,
    key,
    processes,
)
from tests.support.limits import Chats
from tests.support.proxy import MASTER_KEY, ROOT, START_S, STOP_S, free_port, proxy, variables
from tests.support.quickstart import STORE, WORKER, Quickstart, until

PROXIES, PROCESSES = 2, 2


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("many"), proxies=PROXIES, processes=PROCESSES, workers=2) as made:
        yield made


def asyncpg(running: Cluster, database: str = "postgres") -> str:
    url = running.postgres.url.replace("postgresql://", "postgresql+asyncpg://")
    return f"{url.rsplit('/', 1)[0]}/{database}"


def children(parent: int) -> list[int]:
    found = Path(f"/proc/{parent}/task/{parent}/children").read_text("ascii").split()
    return [int(pid) for pid in found]


def connections(pid: int, port: int) -> int:
    """How many TCP connections to a port of loopback a process has."""
    tables = [Path(f"/proc/net/{name}").read_text("ascii") for name in ("tcp", "tcp6")]  # gRPC's are of both
    lines = [line.split() for table in tables for line in table.splitlines()[1:]]
    open_ = {f"socket:[{line[9]}]" for line in lines if line[2].endswith(f":{port:04X}") and line[3] == "01"}
    return sum(1 for file in Path(f"/proc/{pid}/fd").iterdir() if str(file.readlink()) in open_)


def test_many_that_start_at_once_migrate_a_database_once(running: Cluster) -> None:
    running.rows("CREATE DATABASE empty")
    environment = variables(running.folder, running.folder / "config")
    program = f"from plugins.collections.database import migrate; migrate({asyncpg(running, 'empty')!r})"
    at_once = [subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, env=environment) for _ in range(4)]
    assert [process.wait(STOP_S) for process in at_once] == [0, 0, 0, 0]
    assert len(running.rows("SELECT version_num FROM alembic_version")) == 1


def test_a_configuration_is_taken_up_by_every_process_or_by_none(running: Cluster) -> None:
    file = running.folder / "config" / "audit.yaml"
    # every request has a connection of its own, so whichever process takes it
    http = httpx.Client(timeout=60, trust_env=False, limits=httpx.Limits(max_keepalive_connections=0))
    urls = [proxy.url for proxy in running.proxies for _ in range(4 * PROCESSES)]

    def reload() -> httpx.Response:
        admin = {"Authorization": f"Bearer {MASTER_KEY}"}
        return http.post(f"{urls[0]}/api/admin/reload", headers=admin)

    def bobs() -> set[int]:
        """What reading the audit log is answered."""
        return {http.get(f"{url}/v1/audit", headers=bearer("bob")).status_code for url in urls}

    assert bobs() == {403}
    try:
        file.write_text("audit: {readers: [user:local/bob]}", encoding="utf-8")
        answer = reload()
        assert answer.status_code == 200, answer.text
        states = Counter((process["kind"], process["state"]) for process in answer.json()["processes"])
        assert states == {("proxy", "applied"): PROXIES * PROCESSES, ("worker", "applied"): 2}
        assert bobs() == {200}
        file.write_text("audit: {readres: [user:local/bob]}", encoding="utf-8")
        assert reload().status_code == 400
        assert bobs() == {200}
    finally:
        file.unlink()
    assert reload().status_code == 200
    assert bobs() == {403}


def test_a_document_is_processed_by_one_worker_and_found_at_each_proxy(running: Cluster) -> None:
    alice = running.client("alice")
    collection(alice, "handbook")
    texts = [
        {"id": f"doc-{number}", "markdown": f"The code {number} opens the safe."} for number in range(40)
    ]
    add(alice, "handbook", texts)
    done = "SELECT count(*) FROM documents WHERE status = 'completed'"
    until(lambda: running.rows(done) == [[str(len(texts))]], "all are done")
    by_worker = [Counter(re.findall(r"Document (doc-\d+) of \S+ is ready", w.log)) for w in running.workers]
    assert sum(by_worker, Counter()) == Counter(text["id"] for text in texts)
    assert all(by_worker)
    for one in running.proxies:
        client = running.client("bob", one.url)
        found = client.post("/v1/collections/handbook/search", json={"query": "The code 7 opens the safe."})
        assert "The code 7 opens" in found.json()["data"][0]["content"][0]["text"]


def test_each_process_has_one_connection_to_the_store(running: Cluster) -> None:
    port = int(running.milvus.uri.rsplit(":", 1)[1])
    for one in running.proxies:
        for _ in range(4 * PROCESSES):  # whichever takes it
            Chats(one.url, key("bob")).post("/v1/collections/handbook/search", {"query": "the safe"})
        pids = [pid for pid in children(one.process.pid) if connections(pid, port)]
        assert [connections(pid, port) for pid in pids] == [1] * len(pids)
        assert pids
    assert [connections(worker.process.pid, port) for worker in running.workers] == [1, 1]


def test_requests_a_minute_are_counted_over_all_processes(running: Cluster) -> None:
    asked = [Chats(one.url, key("cem")) for one in running.proxies]
    answers = Counter(chats.ask("plain").status_code for _ in range(CEMS_RPM) for chats in asked)
    assert answers == {200: CEMS_RPM, 429: CEMS_RPM}


async def test_wrong_passwords_are_counted_over_all_processes(running: Cluster) -> None:
    databases = [Database(asyncpg(running)) for _ in range(4)]

    async def tried(attempts: Attempts) -> bool:
        try:
            await attempts.begin("alice", "192.0.2.7")
        except LimitReached:
            return False
        return True

    try:
        here = [Attempts(database) for database in databases]
        tries = await asyncio.gather(*(tried(attempts) for _ in range(5) for attempts in here))
    finally:
        for database in databases:
            await database.close()
    assert sum(tries) == PAIR.free


def test_what_the_leader_of_the_workers_does_is_done_by_another_when_it_is_killed(running: Cluster) -> None:
    alice = running.client("alice")
    assert len(running.rows("SELECT process_id FROM leaders WHERE duty = 'tidy'")) == 1
    for number in (0, 1):  # one of them leads
        collection(alice, f"dropped-{number}")
        running.workers[number].process.kill()
        running.workers[number].process.wait(STOP_S)
        assert alice.delete(f"/v1/collections/dropped-{number}").status_code == 200
        until(
            lambda: not running.rows("SELECT id FROM collections WHERE state = 'deleting'"),
            "it is cleared away",
        )
        running.start_worker()


def test_a_worker_that_is_told_to_stop_gives_its_work_back_at_once(running: Cluster) -> None:
    alice = running.client("alice")
    collection(alice, "long")
    for worker in running.workers:
        worker.process.kill()
    last = running.start_worker()
    chapters = "\n\n".join(f"# Chapter {number}\n\nIt says {number}." for number in range(5_000))
    add(alice, "long", [{"id": "book", "markdown": chapters}])
    row = "SELECT worker, lease_until, attempts, stage FROM documents WHERE id = 'book'"
    until(lambda: running.rows(row)[0][3] == "embed", "it is embedded")
    last.process.send_signal(signal.SIGTERM)
    assert last.process.wait(STOP_S) == 0
    holder, lease_until, *_ = running.rows(row)[0]
    assert (holder, float(lease_until)) == ("", 0.0)
    running.start_worker()
    until(lambda: running.rows(row)[0][0] != "", "another worker has it")
    assert alice.delete("/v1/collections/long").status_code == 200


@pytest.fixture(scope="module")
def embedded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Quickstart]:
    """Four processes of one proxy, with all that comes by default: SQLite, the embedded store and worker."""
    folder, port = tmp_path_factory.mktemp("embedded"), free_port()
    config = configuration(folder, {}) | {"worker": {}, "shutdown": {}}
    (folder / "config").mkdir()
    shutil.copytree(PROMPTS, folder / "config" / "prompts")
    with proxy(folder, STOCK, config, processes(4), port, 4 * START_S) as made:
        yield Quickstart(folder, port, made.log_file, made.process)


def searched(running: Quickstart) -> bool:
    """Whether whichever process takes it finds the code."""
    with suppress(httpx.HTTPError):
        answer = Chats(running.url, key("bob")).post("/v1/collections/handbook/search", {"query": "the safe"})
        return answer.status_code == 200 and "The code 7 opens" in answer.text
    return False


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text("utf-8").rsplit(")", 1)[1].split()[1])


def test_four_processes_share_one_embedded_store_and_one_worker(embedded: Quickstart) -> None:
    with httpx.Client(base_url=embedded.url, headers=bearer("alice"), timeout=60, trust_env=False) as alice:
        collection(alice, "handbook")
        add(alice, "handbook", [{"markdown": "The code 7 opens the safe."}], wait=True)
    assert all(searched(embedded) for _ in range(32))
    commands = list(embedded.processes().values())
    assert [sum(words in line for line in commands) for words in (STORE, WORKER)] == [1, 1]
    ours = embedded.folder / "data" / "collections.db"
    with closing(sqlite3.connect(f"file:{ours}?mode=ro", uri=True)) as database:
        pids = {pid for (pid,) in database.execute("SELECT pid FROM processes WHERE kind = 'proxy'")}
    assert len(pids) == 4
    assert pids <= set(children(embedded.process.pid))


def test_a_process_that_is_killed_with_the_store_is_replaced_and_another_runs_the_store(
    embedded: Quickstart,
) -> None:
    store = embedded.child(STORE)
    assert store is not None
    os.kill(parent_of(store), signal.SIGKILL)
    until(lambda: embedded.child(STORE) not in (None, store), "another process has started the store")
    until(
        lambda: embedded.log.count("Application startup complete") == 5, "there are four again", 4 * START_S
    )
    until(lambda: all(searched(embedded) for _ in range(8)), "all processes find it")


def test_sigterm_ends_all_of_them(embedded: Quickstart) -> None:
    embedded.process.send_signal(signal.SIGTERM)
    embedded.process.wait(60)
    until(lambda: not embedded.processes(), "no child is left")
