"""The worker as a process: killed at any moment it loses nothing and leaves nothing half or twice."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
import yaml

from crawler.stores._embedded import LiteSupervisor
from crawler.stores.milvus import Milvus
from plugins.collections.jobs import workers_alive
from plugins.core.shapes import Reindex
from tests.support.collections import LIMIT_S, World, a_config, make_tables
from tests.support.gated_store import GATES

ROOT = Path(__file__).parents[3]


@dataclass
class Installation:
    """A world whose worker is a process of its own."""

    world: World
    folder: Path
    gates: Path

    @contextmanager
    def worker(self, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
        process = subprocess.Popen(
            [sys.executable, "-m", "plugins.worker", *arguments],
            cwd=ROOT,
            env={**os.environ, "COLLECTIONS_CONFIG": str(self.folder), GATES: str(self.gates)},
            stdin=subprocess.PIPE,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait(LIMIT_S)
            if process.stdin is not None:
                process.stdin.close()

    def close(self, gate: str) -> None:
        (self.gates / gate).touch()

    def open(self, gate: str) -> None:
        (self.gates / gate).unlink()

    async def reached(self, gate: str) -> None:
        async def condition() -> bool:
            return (self.gates / gate).with_suffix(".reached").exists()

        await self.world.until(condition)

    async def killed_at(self, gate: str) -> None:
        """A worker works until the gate and dies there; the next one does the rest."""
        self.close(gate)
        with self.worker() as process:
            await self.reached(gate)
            process.send_signal(signal.SIGKILL)
            assert process.wait(LIMIT_S) == -signal.SIGKILL
        assert not await self.world.idle()
        self.open(gate)
        with self.worker():
            await self.world.until(self.world.idle)


@pytest.fixture
async def installation(tmp_path: Path, store: Milvus, lite: LiteSupervisor) -> AsyncIterator[Installation]:
    config = a_config(tmp_path, embedding_model="local/minilm")
    await make_tables(config)
    database = config.storage.database
    settings = {
        "identity": {"sources": [{"use": "oidc", "name": "kc"}]},
        "worker": {"lease_s": 3},
        "storage": {
            "data_dir": str(config.storage.data_dir),
            "database": database.get_secret_value() if database else None,
            "store": {"use": "tests.support.gated_store", "uri": str(lite.path)},
        },
    }
    folder, gates = tmp_path / "config", tmp_path / "gates"
    folder.mkdir()
    gates.mkdir()
    (folder / "all.yaml").write_text(yaml.safe_dump(settings))
    world = World(config, store)
    world.model.dimension = 384
    world.model.names = {"local/minilm"}
    yield Installation(world, folder, gates)
    await world.database.close()


@pytest.mark.parametrize("gate", ["before-write", "after-write"])
async def test_an_upload_whose_worker_is_killed_is_completed_once(
    installation: Installation, gate: str
) -> None:
    world = installation.world
    await world.collection()
    document = await world.add("handbook", "# Leave\n\nThirty days of leave.\n\n# Hours\n\nNine to five.")
    await installation.killed_at(gate)
    done = await world.documents.get(world.alice, "handbook", document.id)
    assert (done.status, done.chunks) == ("completed", 2)
    assert await world.stored(document) == 2
    bm25 = {"ranker": "bm25"}
    assert len(await world.found(world.alice, "leave", "handbook", ranking_options=bm25)) == 2


@pytest.mark.parametrize("gate", ["before-remove", "after-remove"])
async def test_a_replacement_whose_worker_is_killed_leaves_only_the_new_version(
    installation: Installation, gate: str
) -> None:
    world = installation.world
    await world.collection()
    old = await world.add("handbook", "the old words", document_id="doc-1")
    await world.work()
    await world.add("handbook", "the new words", document_id="doc-1")
    await installation.killed_at(gate)
    bm25 = {"ranker": "bm25"}
    assert await world.found(world.alice, "words", "handbook", ranking_options=bm25) == ["the new words"]
    assert await world.stored(old) == 1
    kept = (world.config.storage.data_dir / "originals").rglob("*")
    originals = {path.stem for path in kept if path.is_file()}
    assert len(originals) == 1


async def test_a_deletion_whose_worker_is_killed_leaves_nothing(installation: Installation) -> None:
    world = installation.world
    await world.collection()
    document = await world.add("handbook", "the words")
    await world.work()
    await world.documents.delete(world.alice, "handbook", document.id)
    await installation.killed_at("after-remove")
    assert await world.row(document) is None
    assert await world.stored(document) == 0


@pytest.mark.parametrize("gate", ["before-write", "after-write"])
async def test_a_collection_whose_rebuilder_is_killed_answers_from_the_old_place_and_then_from_the_new(
    installation: Installation, gate: str
) -> None:
    world = installation.world
    await world.collection()
    documents = [await world.add("handbook", f"the words number {number}") for number in range(2)]
    await world.work()
    begun = await world.reindexing.start(world.alice, "handbook", Reindex(retrieval="dense"))
    assert begun.retrieval == "hybrid"
    installation.close(gate)
    with installation.worker() as process:
        await installation.reached(gate)
        process.send_signal(signal.SIGKILL)
        process.wait(LIMIT_S)
    expected = ["the words number 0", "the words number 1"]
    bm25 = {"ranker": "bm25"}
    assert sorted(await world.found(world.alice, "words", "handbook", ranking_options=bm25)) == expected
    installation.open(gate)

    async def swapped() -> bool:
        return (await world.catalogue.get(world.alice, "handbook")).reindex is None

    with installation.worker():
        await world.until(swapped)
    assert (await world.catalogue.get(world.alice, "handbook")).retrieval == "dense"
    assert sorted(await world.found(world.alice, "words", "handbook")) == expected
    assert [await world.stored(document) for document in documents] == [1, 1]


async def test_a_worker_ends_on_sigterm_and_gives_its_job_back(installation: Installation) -> None:
    world = installation.world
    await world.collection()
    document = await world.add("handbook", "the words")
    installation.close("before-write")
    with installation.worker() as process:
        await installation.reached("before-write")
        assert await workers_alive(world.database) == 1
        process.terminate()
        assert process.wait(LIMIT_S) == 0
    row = await world.row(document)
    assert (row.worker, row.attempts) == (None, 0)


async def test_a_worker_lets_everything_else_on_the_machine_go_first(installation: Installation) -> None:
    with installation.worker() as process:

        async def alive() -> bool:
            return await workers_alive(installation.world.database) == 1

        await installation.world.until(alive)
        ours = os.getpriority(os.PRIO_PROCESS, 0)
        assert os.getpriority(os.PRIO_PROCESS, process.pid) == min(ours + 10, 19)


async def test_a_child_worker_ends_when_its_parent_is_gone(installation: Installation) -> None:
    with installation.worker("--child") as process:

        async def alive() -> bool:
            return await workers_alive(installation.world.database) == 1

        await installation.world.until(alive)
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(LIMIT_S) == 0


async def test_only_one_embedded_worker_works_and_the_next_takes_its_place(
    installation: Installation,
) -> None:
    world = installation.world
    await world.collection()
    installation.close("before-write")
    with installation.worker() as first, installation.worker():
        await world.add("handbook", "the words")
        await installation.reached("before-write")
        assert await workers_alive(world.database) == 1
        installation.open("before-write")
        first.kill()
        await world.until(world.idle)
    assert len((await world.documents.list(world.alice, "handbook", status="completed")).data) == 1


WRONG = [
    ("identity: {sources: []}\nstorage: {unknown: 1}\n", ["identity.sources", "storage.unknown"]),
    (
        "identity: {sources: [{use: api_keys, keys: []}]}\npipelines: {default: {chunker: {use: none}}}\n",
        ["pipelines.default.chunker"],
    ),
]


@pytest.mark.parametrize(("content", "told"), WRONG, ids=["settings", "pipeline"])
def test_a_wrong_configuration_is_told_and_ends_the_worker_with_status_1(
    tmp_path: Path, content: str, told: list[str]
) -> None:
    (tmp_path / "all.yaml").write_text(content)
    environment = {**os.environ, "COLLECTIONS_CONFIG": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-m", "plugins.worker"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    assert ended.returncode == 1
    assert all(setting in ended.stderr for setting in told)
    assert "Traceback" not in ended.stderr
