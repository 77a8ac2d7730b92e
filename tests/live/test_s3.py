"""Uploaded files in a bucket of a real S3 server: the contract, and a worker whose server goes away."""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from crawler.stores.milvus import Milvus
from plugins.collections.documents import Upload
from plugins.core.errors import Upstream
from plugins.core.plugin import Plugin
from tests.live.s3 import CannotRun, Gateway, gateway
from tests.support.collections import World, a_config, an_upload, lite, make_tables, store
from tests.support.proxy import ROOT

__all__ = ["lite", "store"]

TIMEOUT_S = 600


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    try:
        with gateway(tmp_path_factory.mktemp("s3")) as running:
            yield running
    except CannotRun as error:
        pytest.skip(str(error))


@pytest.fixture
def bucket(server: Gateway) -> Iterator[Any]:
    with server.endpoint.bucket() as made:
        yield made


@pytest.fixture
async def world(tmp_path: Path, store: Milvus, server: Gateway, bucket: Any) -> AsyncIterator[World]:
    """One whose files are in the bucket."""
    endpoint = server.endpoint
    originals = {
        "use": "s3",
        "bucket": bucket.name,
        "endpoint_url": endpoint.url,
        "access_key_id": endpoint.access_key_id,
        "secret_access_key": endpoint.secret_access_key,
        "timeout_s": 2,
    }
    config = a_config(tmp_path)
    storage = config.storage.model_copy(update={"originals": Plugin.model_validate(originals)})
    config = config.model_copy(update={"storage": storage})
    await make_tables(config)
    made = World(config, store)
    yield made
    await made.originals.close()
    await made.database.close()


def a_file(world: World, text: str) -> Upload:
    spooled = world.documents.spool_dir / "upload"
    spooled.write_bytes(text.encode())
    return an_upload(text, markdown=None, path=spooled)


def test_the_server_keeps_the_contract_of_the_storage_of_files(server: Gateway) -> None:
    endpoint = server.endpoint
    environment = {
        "S3_ENDPOINT_URL": endpoint.url,
        "S3_ACCESS_KEY_ID": endpoint.access_key_id,
        "S3_SECRET_ACCESS_KEY": endpoint.secret_access_key,
    }
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "tests/contract/test_originals.py", "-q", "-n0", "--tb=short"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
    )
    assert done.returncode == 0, done.stdout[-4000:]
    assert not re.search(r"failed|error", done.stdout.splitlines()[-1]), done.stdout[-1000:]


async def test_a_document_lives_in_the_bucket_and_leaves_nothing_there(world: World, bucket: Any) -> None:
    await world.collection()
    [document] = await world.documents.add(world.alice, "handbook", [a_file(world, "# Leave\n\nthe words")])
    await world.work()
    prefix = f"{document.collection_id}/{document.id}/"
    assert [found.key.startswith(prefix) for found in bucket.objects.all()] == [True, True]
    async with world.documents.content(world.alice, "handbook", document.id) as original:
        assert original.path.read_text(encoding="utf-8") == "# Leave\n\nthe words"
    await world.documents.delete(world.alice, "handbook", document.id)
    await world.work()
    assert list(bucket.objects.all()) == []
    assert list(world.documents.spool_dir.iterdir()) == []


async def test_while_the_server_is_away_jobs_wait_and_uploads_say_so(world: World, server: Gateway) -> None:
    await world.collection()
    [document] = await world.documents.add(world.alice, "handbook", [a_file(world, "the words")])
    server.kill()

    async def waits() -> bool:
        return bool((await world.row(document)).stage == "waiting")

    try:
        with pytest.raises(Upstream, match="storage of uploaded files"):
            await world.documents.add(world.alice, "handbook", [a_file(world, "more words")])
        async with world.working():
            await asyncio.wait_for(world.until(waits), 60)
            server.start()
            await world.until(world.idle)
    finally:
        server.stop()
        server.start()
    assert (await world.documents.get(world.alice, "handbook", document.id)).status == "completed"
    assert await world.found(world.alice, "words", "handbook") == ["the words"]
