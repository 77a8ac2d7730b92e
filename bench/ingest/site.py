"""A data directory with its store and workers, without a proxy: what is measured is ingestion alone."""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from sqlalchemy import func, select

from bench.figures import MeasurementFailed
from crawler.embedders.minilm import MiniLM
from crawler.stores._embedded import LiteSupervisor
from plugins.collections import tables
from plugins.collections.documents import Upload
from plugins.collections.jobs import workers_alive
from plugins.collections.storage import open_store
from plugins.core.config import load
from tests.support.collections import DIMENSION, MODEL, World, make_tables
from tests.support.proxy import ROOT

LOCAL, REMOTE = "local/minilm", "an endpoint that waits"
"""Models of collections: computed in the worker, and asked for."""
LIMIT_S = 1800.0
STOP_S = 40.0


@dataclass(frozen=True)
class Site:
    world: World
    config: Path
    """The configuration folder that workers read."""

    @contextmanager
    def workers(self, count: int) -> Iterator[list[int]]:
        """So many workers as processes; their ids."""
        environment = os.environ | {"COLLECTIONS_CONFIG": str(self.config), "PYTHONPATH": str(ROOT)}
        processes = [
            subprocess.Popen(
                [sys.executable, "-m", "plugins.worker"],
                env=environment,
                stdin=subprocess.DEVNULL,
                stderr=(self.config / f"worker-{number}.log").open("wb"),
            )
            for number in range(count)
        ]
        try:
            yield [process.pid for process in processes]
        finally:
            for process in processes:
                process.terminate()
            for process in processes:
                process.wait(STOP_S)

    async def ready(self, count: int) -> None:
        """Until so many workers take jobs."""
        while await workers_alive(self.world.database, within_s=10.0) < count:  # noqa: ASYNC110 - processes
            await asyncio.sleep(0.1)

    async def upload(self, collection: str, files: Sequence[tuple[str, bytes]]) -> None:
        """Give the files in as if they had been uploaded."""
        uploads = []
        for number, (filename, content) in enumerate(files):
            path = self.world.documents.spool_dir / f"bench-{number}-{time.monotonic_ns()}"
            path.write_bytes(content)
            digest = hashlib.sha256(content).hexdigest()
            uploads.append(an_upload(filename, path, len(content), digest))
        await self.world.documents.add(self.world.alice, collection, uploads)

    async def done(self, collection_id: str, count: int) -> None:
        """Until so many documents of the collection are complete.

        Raises:
            MeasurementFailed: One has failed, or it takes too long.
        """
        table, deadline = tables.documents, time.monotonic() + LIMIT_S
        query = (
            select(table.c.status, func.count())
            .where(table.c.collection_id == collection_id)
            .group_by(table.c.status)
        )
        while True:
            async with self.world.database.read() as connection:
                found = {row[0]: row[1] for row in await connection.execute(query)}
            if found.get("completed", 0) >= count:
                return
            if found.get("failed") or time.monotonic() > deadline:
                raise MeasurementFailed(f"documents were not ingested: {found}")
            await asyncio.sleep(0.02)


def an_upload(filename: str, path: Path, size: int, sha256: str) -> Upload:
    return Upload(
        filename=filename,
        media_type=None,
        path=path,
        size=size,
        sha256=sha256,
        markdown=None,
        url=None,
        metadata={},
        acl=None,
        document_id=None,
    )


@asynccontextmanager
async def site(folder: Path, proxy_url: str, *, concurrency: int) -> AsyncIterator[Site]:
    """Made in the folder; the store is started and ended with it."""
    config = folder / "config"
    config.mkdir(parents=True)
    for name, content in settings(folder, proxy_url, concurrency).items():
        (config / f"{name}.yaml").write_text(yaml.safe_dump({name: content}), encoding="utf-8")
    loaded = load(config)
    await make_tables(loaded)
    (folder / "data").mkdir(exist_ok=True)
    supervisor = LiteSupervisor(folder / "data" / "store")
    supervisor.start()
    world = World(loaded, open_store(loaded.storage))
    world.model.names |= {LOCAL, REMOTE}
    try:
        yield Site(world, config)
    finally:
        await world.store.close()
        await world.database.close()
        supervisor.stop()


def settings(folder: Path, proxy_url: str, concurrency: int) -> dict[str, Any]:
    source = {"use": "oidc", "name": "kc", "issuer": "http://127.0.0.1:9/realms/bench", "audience": "bench"}
    return {
        "identity": {"sources": [source]},
        "collections": {"embedding_model": MODEL, "create": [{"subjects": ["user:kc/alice"]}]},
        "storage": {"data_dir": str(folder / "data")},
        "worker": {
            "embedded": False,
            "proxy_url": proxy_url,
            "api_key": "sk-bench",
            "concurrency": concurrency,
        },
    }


async def collection(world: World, name: str, model: str) -> str:
    """A new collection of the model; its id."""
    from plugins.core.shapes import NewCollection

    world.model.dimension = MiniLM.dimension if model == LOCAL else DIMENSION
    made = await world.catalogue.create(world.alice, NewCollection(name=name, embedding_model=model))
    return made.id
