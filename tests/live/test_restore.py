"""The same with Postgres and a Milvus server: a dump and a copy of the files bring the installation back, by
hand and by the commands of the stack."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from pymilvus import MilvusClient  # type: ignore[import-untyped]

from tests.crash.postgres import Postgres, postgres
from tests.live.milvus import Server, milvus
from tests.support.quickstart import Quickstart, change, copy, quickstart
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

__all__ = ["milvus"]

NEWER = """
CREATE TABLE made_by_a_newer_version (id integer);
UPDATE alembic_version SET version_num = 'newer';
"""
KEYCLOAK = """
CREATE ROLE keycloak LOGIN;
CREATE DATABASE keycloak OWNER keycloak;
"""
PEOPLE = """
SET ROLE keycloak;
CREATE TABLE people (name text);
INSERT INTO people VALUES ('alice');
"""
COMPOSE = """
# Where no container can run: `$DC` as it would run commands in the containers, whose /data is $DATA_DIR here.
case "$1" in
  stop) exit ;;
  exec | run) shift ;;
esac
while [[ "$1" == -* ]]; do shift; done
shift
exec "${@//\\/data/$DATA_DIR}"
"""
QUESTION = {"query": "days of annual leave"}


@pytest.fixture
def database() -> Iterator[Postgres]:
    with postgres() as started:
        yield started


def collections_of(milvus: Server) -> set[str]:
    client = MilvusClient(milvus.uri, token=f"{milvus.user}:{milvus.password}")
    try:
        return set(client.list_collections())
    finally:
        client.close()


def drop(milvus: Server, names: set[str]) -> None:
    client = MilvusClient(milvus.uri, token=f"{milvus.user}:{milvus.password}")
    try:
        for name in names:
            client.drop_collection(name)
    finally:
        client.close()


def sql(url: str, *statements: str) -> str:
    """What the last of them answers."""
    commands = [f"--command={statement}" for statement in statements]
    command = ["psql", "--quiet", "--no-align", "--tuples-only", "--set=ON_ERROR_STOP=1", *commands, url]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=60).stdout.strip()


def installation(folder: Path, database: str, milvus: Server) -> Path:
    """The sample installation on both servers."""
    store = {"use": "milvus", "uri": milvus.uri, "user": milvus.user, "password": milvus.password}
    url = database.replace("postgresql:", "postgresql+asyncpg:")

    def edit(content: dict[str, Any]) -> None:
        content["storage"].update(database=url, store=store)

    change(copy(folder) / "config" / "storage.yaml", edit)
    return folder


def stack(folder: Path, database: Postgres) -> dict[str, str]:
    """The environment in which `$DC` does without containers."""
    script = folder / "compose.sh"
    script.write_text(COMPOSE)
    address = urlsplit(database.url)
    return {"DC": f"bash {script}", "PGHOST": str(address.hostname), "PGPORT": str(address.port)}


def move_the_handbook(restored: Quickstart, environment: Mapping[str, str]) -> None:
    """Out of the installation and into it again."""
    search = "/v1/collections/handbook/search"
    before = restored.http("bob").post(search, json=QUESTION).json()["data"]
    assert before
    run(restored, "one collection out of the stack", environment)
    restored.http("master").delete("/v1/collections/handbook").raise_for_status()
    assert restored.http("bob").post(search, json=QUESTION).status_code == 404
    run(restored, "one collection into the stack", environment)
    after = restored.http("bob").post(search, json=QUESTION).json()["data"]
    assert [hit["content"] for hit in after] == [hit["content"] for hit in before]
    assert not (restored.folder / "data" / "export").exists()


def lose(milvus: Server, before: set[str]) -> None:
    """All that the vector store holds of it."""
    ours = collections_of(milvus) - before
    assert ours
    drop(milvus, ours)


def test_a_dump_and_the_files_bring_everything_back(
    database: Postgres, milvus: Server, tmp_path: Path
) -> None:
    before = collections_of(milvus)
    folder = installation(tmp_path, database.url, milvus)
    environment = {"PG": database.url}
    try:
        with quickstart(folder) as running:
            fill(running)
            backup = back_up(running, "back up Postgres", environment)
            add(running, LATER)
            assert "later.md" in found(running, "alice", "boiler replaced")
        lose(milvus, before)
        sql(database.url, NEWER)
        run(running, "restore Postgres", environment | {"B": str(backup)})
        assert sql(database.url, "SELECT to_regclass('made_by_a_newer_version')") == ""
        with quickstart(folder) as restored:
            start_building(restored)
            wait_until_built(restored)
            check_restored(restored)
    finally:
        drop(milvus, collections_of(milvus) - before)


def test_the_commands_of_the_stack_bring_everything_back_and_its_people(
    database: Postgres, milvus: Server, tmp_path: Path
) -> None:
    before = collections_of(milvus)
    ours, people = (database.url.replace("/postgres", f"/{name}") for name in ("collections", "keycloak"))
    sql(database.url, "CREATE DATABASE collections", *KEYCLOAK.strip().splitlines())
    sql(people, PEOPLE)
    folder = installation(tmp_path, ours, milvus)
    (folder / ".env.prod").write_text("IMAGE=ours\n")
    (folder / ".secrets" / "prod").mkdir(parents=True)
    (folder / ".secrets" / "prod" / "redis_password").write_text("of-redis")
    (folder / ".secrets" / "prod" / "redis_password").chmod(0o444)
    environment = stack(folder, database)
    try:
        with quickstart(folder) as running:
            fill(running)
            first = back_up(running, "back up the stack", environment)
            second = back_up(running, "back up the stack", environment)
            assert (first / ".secrets" / "prod" / "redis_password").read_text() == "of-redis"
            add(running, LATER)
        lose(milvus, before)
        sql(ours, NEWER)
        sql(people, "DROP TABLE people")
        run(running, "restore the stack", environment | {"B": str(second)})
        assert sql(ours, "SELECT to_regclass('made_by_a_newer_version')") == ""
        owned = "SELECT tableowner, (SELECT name FROM people) FROM pg_tables WHERE tablename = 'people'"
        assert sql(people, owned) == "keycloak|alice"
        with quickstart(folder) as restored:
            start_building(restored)
            wait_until_built(restored)
            check_restored(restored)
            move_the_handbook(restored, environment)
    finally:
        drop(milvus, collections_of(milvus) - before)
