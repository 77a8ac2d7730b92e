"""Many reloads leave nothing behind, and what limits attackers goes on counting."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from fastapi import FastAPI

from plugins.bundle.bundle import Bundle
from plugins.bundle.process import Process
from plugins.core.config import Config, StorageConfig, WorkerConfig
from plugins.core.identity_config import IdentityConfig, Source
from plugins.core.plugin import Plugin
from tests.support.counted_source import Counted
from tests.support.migrated import migrated

KEY = {"key": "sk-a-key-of-the-tests-0123456789", "user": "alice"}
KEPT = Source(use="api_keys", name="local", keys=[KEY])
LIMIT_S = 20.0
RELOADS = 25


def configuration(folder: Path, number: int) -> Config:
    counted = Source(use="tests.support.counted_source", name="counted", number=number)
    store = Plugin(use="milvus", uri="http://127.0.0.1:1")  # it is never asked
    return Config(
        folder=folder,
        identity=IdentityConfig(sources=[KEPT, counted]),
        storage=StorageConfig(data_dir=folder / "data", store=store),
        worker=WorkerConfig(embedded=False),
    )


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    (tmp_path / "prompts").mkdir()
    (tmp_path / "prompts" / "answer.md").write_text("Answer.", encoding="utf-8")
    config = configuration(tmp_path, 0)
    migrated(config.storage)
    before = signal.getsignal(signal.SIGHUP)
    made = Process(FastAPI(), config, "digest", retire_s=0.0)
    yield made
    made.resources.stopping.set()
    async with asyncio.timeout(LIMIT_S):
        await asyncio.gather(*made._tasks)
    await made.resources.database.close()
    asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
    signal.signal(signal.SIGHUP, before)


def generations() -> int:
    gc.collect()
    return sum(isinstance(one, Bundle) for one in gc.get_objects())


async def test_reloads_leave_no_parts_open_sources_tasks_routes_or_files_behind(
    process: Process, tmp_path: Path
) -> None:
    Counted.closed.clear()
    before = generations()
    await process.take_up(configuration(tmp_path, 1))
    tasks, routes = len(asyncio.all_tasks()), len(process._app.router.routes)
    files = len(os.listdir("/proc/self/fd"))
    for number in range(2, 2 + RELOADS):
        await process.take_up(configuration(tmp_path, number))
    async with asyncio.timeout(LIMIT_S):
        while len(Counted.closed) < 1 + RELOADS:  # noqa: ASYNC110 - the source tells nobody
            await asyncio.sleep(0.01)
    assert sorted(Counted.closed) == list(range(1 + RELOADS))
    assert generations() <= before
    assert len(asyncio.all_tasks()) <= tasks
    assert len(process._app.router.routes) == routes
    assert len(os.listdir("/proc/self/fd")) <= files + 1


async def test_sources_with_the_same_settings_stay_and_guesses_of_credentials_are_not_forgotten(
    process: Process, tmp_path: Path
) -> None:
    before = process.bundle
    await process.take_up(configuration(tmp_path, 7))
    kept, counted = process.bundle.sources
    assert kept is before.sources[0]
    assert counted is not before.sources[1]
    assert process.bundle.rights._standings is before.rights._standings
