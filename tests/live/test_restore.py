"""The same with Postgres and a Milvus server: a dump and a copy of the files bring the installation back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pymilvus import MilvusClient  # type: ignore[import-untyped]

from tests.crash.postgres import Postgres, postgres
from tests.live.milvus import Server, milvus
from tests.support.quickstart import change, copy, quickstart
from tests.support.restoring import add, check_restored, fill, found, run, start_building, wait_until_built

__all__ = ["milvus"]

LATER = {"filename": "later.md", "markdown": "# Later\n\nThe boiler was replaced after the backup."}


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


def installation(folder: Path, database: Postgres, milvus: Server) -> Path:
    """The sample installation on both servers."""
    store = {"use": "milvus", "uri": milvus.uri, "user": milvus.user, "password": milvus.password}
    url = database.url.replace("postgresql:", "postgresql+asyncpg:")

    def edit(content: dict[str, Any]) -> None:
        content["storage"].update(database=url, store=store)

    change(copy(folder) / "config" / "storage.yaml", edit)
    return folder


def lose(milvus: Server, before: set[str]) -> None:
    """All that the vector store holds of it."""
    ours = collections_of(milvus) - before
    assert ours
    drop(milvus, ours)


def test_a_dump_and_the_files_bring_everything_back(
    database: Postgres, milvus: Server, tmp_path: Path
) -> None:
    before = collections_of(milvus)
    folder = installation(tmp_path, database, milvus)
    try:
        with quickstart(folder) as running:
            fill(running)
            run(running, "back up Postgres", {"PG": database.url})
            add(running, LATER)
            assert "later.md" in found(running, "alice", "boiler replaced")
        lose(milvus, before)
        run(running, "restore Postgres", {"PG": database.url})
        with quickstart(folder) as restored:
            start_building(restored)
            wait_until_built(restored)
            check_restored(restored)
    finally:
        drop(milvus, collections_of(milvus) - before)
