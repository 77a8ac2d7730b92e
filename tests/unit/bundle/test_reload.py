"""Taking up a changed configuration: all processes or none, the old one stays where there are mistakes."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import yaml
from prometheus_client import REGISTRY

from crawler.errors import ConfigError
from plugins.bundle import reload
from plugins.bundle.check import check_config
from plugins.bundle.effective import effective
from plugins.bundle.reload import Reloads, digest_of, files
from plugins.collections.database import Database
from plugins.collections.processes import Kind, Processes
from plugins.core.config import Config, StorageConfig, load
from plugins.core.errors import Upstream
from plugins.core.identity import Principal
from tests.support.migrated import migrated

ROOT = Principal(source="local", subject="root", username="root")
LIMIT_S = 10.0


@dataclass
class Running:
    """A process of the product, as far as reloads are concerned."""

    reloads: Reloads
    taken: list[Config] = field(default_factory=list)

    @property
    def rounds(self) -> int:
        return self.reloads.loaded.config.chat.max_rounds


@dataclass
class Site:
    folder: Path
    database: Database
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    tasks: list[asyncio.Task[None]] = field(default_factory=list)

    def write(self, **chat: Any) -> None:
        key = {"key": "sk-a-key-of-the-tests-0123456789", "user": "alice"}
        content = {
            "identity": {"sources": [{"use": "api_keys", "name": "local", "keys": [key]}]},
            "storage": {"data_dir": str(self.folder.parent / "data")},
            "chat": {"max_rounds": 5, **chat},
        }
        (self.folder / "all.yaml").write_text(yaml.safe_dump(content), encoding="utf-8")

    def edit(self, **keys: Any) -> None:
        path = self.folder / "all.yaml"
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        path.write_text(yaml.safe_dump(content | keys), encoding="utf-8")

    def process(
        self,
        kind: Kind = "proxy",
        folder: Path | None = None,
        *,
        listens: bool = True,
        between: Callable[[], object] | None = None,
        **options: Any,
    ) -> Running:
        """`between`: what happens between its reading of the files and its first look."""
        folder = folder or self.folder
        digest = digest_of(files(folder))
        config = load(folder)
        if between:
            between()
        taken: list[Config] = []

        async def take_up(config: Config) -> None:
            taken.append(config)

        processes = Processes(self.database, kind)
        running = Running(
            Reloads(processes, config, digest, take_up, check_config, effective, **options), taken
        )
        if listens:
            self.tasks.append(asyncio.create_task(running.reloads.run(self.stop)))
        return running

    async def there(self, number: int) -> None:
        """So many processes have said what they run."""
        processes = Processes(self.database, "proxy")
        await until(lambda: processes.alive(), lambda found: len(found) == number)


async def until(look: Callable[[], Any], good: Callable[[Any], bool] = bool) -> Any:
    async with asyncio.timeout(LIMIT_S):
        while True:
            found = look()
            found = await found if asyncio.iscoroutine(found) else found
            if good(found):
                return found
            await asyncio.sleep(0.01)


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    for name in ("LOOK_S", "WATCH_S"):
        monkeypatch.setattr(reload, name, 0.02)
    folder = tmp_path / "config"
    (folder / "prompts").mkdir(parents=True)
    (folder / "prompts" / "answer.md").write_text("Answer.", encoding="utf-8")
    made = Site(folder, Database(migrated(StorageConfig(data_dir=tmp_path / "data"))))
    made.write()
    yield made
    made.stop.set()
    await asyncio.gather(*made.tasks)
    await made.database.close()


def metric(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_all_processes_take_it_up_whoever_was_asked(site: Site) -> None:
    first, second, worker = site.process(), site.process(), site.process("worker")
    await site.there(3)
    site.write(max_rounds=7)
    answer = await first.reloads.reload(ROOT)
    assert [(one.kind, one.state) for one in answer.processes] == [
        ("proxy", "applied"),
        ("proxy", "applied"),
        ("worker", "applied"),
    ]
    assert [one.rounds for one in (first, second, worker)] == [7, 7, 7]
    assert [len(one.taken) for one in (first, second, worker)] == [1, 1, 1]


async def test_with_mistakes_nobody_takes_it_up_and_the_mistakes_are_told_logged_and_measured(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload.log, "propagate", True)
    first, second = site.process(), site.process()
    await site.there(2)
    refused = metric("collections_reloads_total", result="refused")
    site.write(max_rounds="many", surprise=1)
    with pytest.raises(ConfigError) as error:
        await first.reloads.reload(ROOT)
    assert [line.partition(": ")[0] for line in error.value.mistakes] == ["all.yaml", "all.yaml"]
    assert (first.rounds, second.rounds, first.taken, second.taken) == (5, 5, [], [])
    assert metric("collections_reloads_total", result="refused") == refused + 1
    assert metric("collections_configuration_mistakes") == 2
    assert "chat.surprise: unknown setting" in caplog.text

    site.write(max_rounds=6)
    assert {one.state for one in (await first.reloads.reload(ROOT)).processes} == {"applied"}
    assert metric("collections_configuration_mistakes") == 0


async def test_a_process_whose_own_folder_is_wrong_keeps_what_it_has_and_says_why(
    site: Site, tmp_path: Path
) -> None:
    other = tmp_path / "other"
    (other / "prompts").mkdir(parents=True)
    (other / "all.yaml").write_bytes((site.folder / "all.yaml").read_bytes())
    first, second = site.process(), site.process(folder=other)
    await site.there(2)
    site.write(max_rounds=7)
    found = {one.state: one.mistakes for one in (await first.reloads.reload(ROOT)).processes}
    assert found["applied"] == []
    assert found["refused"] == ["all.yaml: chat.prompt: there is no file prompts/answer.md"]
    assert (first.rounds, second.rounds) == (7, 5)


async def test_a_process_that_does_not_answer_is_told_of(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reload, "ANSWER_S", 0.2)
    first = site.process()
    await Processes(site.database, "worker").note(0, "", None)  # and then no more
    await site.there(2)
    states = {one.kind: one.state for one in (await first.reloads.reload(ROOT)).processes}
    assert states == {"proxy": "applied", "worker": "no_answer"}


async def test_what_was_told_to_all_while_a_process_started_is_taken_up(site: Site) -> None:
    first = site.process()
    await site.there(1)
    late = site.process("worker", listens=False)
    site.write(max_rounds=8)
    await first.reloads.ask()
    await until(lambda: first.rounds == 8)
    site.tasks.append(asyncio.create_task(late.reloads.run(site.stop)))
    await until(lambda: late.rounds == 8)


async def test_what_is_changed_while_a_process_starts_is_taken_up(site: Site) -> None:
    first = site.process()
    await site.there(1)

    def meanwhile() -> None:
        site.write(max_rounds=8)
        (site.folder / "prompts" / "de").mkdir()
        (site.folder / "prompts" / "de" / "answer.txt").write_text("Antworte.", encoding="utf-8")

    late = site.process("worker", between=meanwhile)
    await until(lambda: late.rounds == 8)
    answer = await first.reloads.reload(ROOT)
    assert {one.state for one in answer.processes} == {"applied"}


async def test_a_prompt_is_a_part_of_the_configuration_wherever_it_lies(site: Site) -> None:
    before = digest_of(files(site.folder))
    (site.folder / "prompts" / "de").mkdir()
    (site.folder / "prompts" / "de" / "answer.txt").write_text("Antworte.", encoding="utf-8")
    assert digest_of(files(site.folder)) != before


@pytest.mark.parametrize("by", ["signal", "watch"])
async def test_a_change_that_meets_a_database_that_is_gone_is_taken_up_later(site: Site, by: str) -> None:
    site.edit(reload={"watch": by == "watch"})
    running, other = site.process(), site.process()
    await site.there(2)
    tries = [0]
    real = running.reloads._processes.ask

    async def ask(principal: Any = None) -> int:
        tries[0] += 1
        if tries[0] < 3:
            raise Upstream
        return await real(principal)

    for one in (running, other):
        one.reloads._processes.ask = ask  # type: ignore[method-assign]
    site.edit(chat={"max_rounds": 9})
    running.reloads._signalled = by == "signal"
    await until(lambda: (running.rounds, other.rounds) == (9, 9))


async def test_a_reload_that_was_begun_is_answered_though_nobody_can_say_how_far_it_is(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reload, "ANSWER_S", 0.0)
    running = site.process()
    await site.there(1)

    async def alive() -> list[Any]:
        raise Upstream

    running.reloads._processes.alive = alive  # type: ignore[method-assign]
    site.write(max_rounds=7)
    answer = await running.reloads.reload(ROOT)
    assert (answer.number, answer.processes) == (1, [])
    await until(lambda: running.rounds == 7)


async def test_what_takes_a_restart_is_named_and_stays_as_it_was(site: Site, tmp_path: Path) -> None:
    beside = tmp_path / "litellm_config.yaml"
    beside.write_text("model_list: []\n", encoding="utf-8")
    running = site.process(beside=beside)
    await site.there(1)
    site.edit(
        storage={"data_dir": str(tmp_path / "elsewhere")},
        worker={"embedded": False, "max_attempts": 9},
        chat={"max_rounds": 3},
    )
    beside.write_text("model_list: [] # changed\n", encoding="utf-8")
    answer = await running.reloads.reload(ROOT)
    assert answer.not_reloaded == [
        "storage.data_dir",
        "worker.embedded",
        "worker.max_attempts",
        "litellm_config.yaml",
    ]
    config = running.taken[0]
    assert (config.storage.data_dir, config.worker.embedded) == (tmp_path / "data", True)
    assert config.chat.max_rounds == 3


async def test_what_would_be_right_only_after_a_restart_is_refused(site: Site) -> None:
    running = site.process()
    await site.there(1)
    store = {"use": "milvus", "uri": "http://127.0.0.1:1"}
    data_dir = str(site.folder.parent / "data")
    site.edit(storage={"data_dir": data_dir, "store": store}, collections={"rights": "milvus"})
    with pytest.raises(ConfigError) as error:
        await running.reloads.reload(ROOT)
    assert "needs a Milvus server" in error.value.mistakes[0]
    assert running.taken == []


async def test_sighup_is_followed_by_all_processes(site: Site) -> None:
    before = signal.getsignal(signal.SIGHUP)
    first, second = site.process(), site.process()
    await site.there(2)
    first.reloads.follow_signal()
    try:
        site.write(max_rounds=4)
        os.kill(os.getpid(), signal.SIGHUP)
        await until(lambda: (first.rounds, second.rounds) == (4, 4))
    finally:
        asyncio.get_running_loop().remove_signal_handler(signal.SIGHUP)
        signal.signal(signal.SIGHUP, before)


async def test_changed_files_are_taken_up_only_where_that_is_switched_on(site: Site) -> None:
    running = site.process()
    await site.there(1)
    site.edit(chat={"max_rounds": 6}, reload={"watch": True})
    looks = [0]
    real = running.reloads._processes.asked

    async def asked() -> int:
        looks[0] += 1
        return await real()

    running.reloads._processes.asked = asked  # type: ignore[method-assign]
    await until(lambda: looks[0] > 5)
    assert running.taken == []
    await running.reloads.reload(ROOT)
    site.edit(chat={"max_rounds": 9})
    await until(lambda: running.rounds == 9)
    (site.folder / "prompts" / "answer.md").write_text("Answer otherwise.", encoding="utf-8")
    await until(lambda: len(running.taken) == 3)


async def test_a_mistake_in_a_watched_file_is_told_once_and_over_when_it_is_mended(site: Site) -> None:
    site.edit(reload={"watch": True})
    running = site.process()
    await site.there(1)
    refused = metric("collections_reloads_total", result="refused")
    right = (site.folder / "all.yaml").read_bytes()
    site.edit(chat={"max_rounds": "many"})
    await until(lambda: metric("collections_configuration_mistakes") == 1)
    site.edit(chat={"max_rounds": "few"})
    await until(lambda: metric("collections_reloads_total", result="refused") == refused + 2)
    (site.folder / "all.yaml").write_bytes(right)
    await until(lambda: metric("collections_configuration_mistakes") == 0)
    assert metric("collections_reloads_total", result="refused") == refused + 2
    assert running.rounds == 5


async def test_a_config_map_that_is_swapped_under_its_links_is_seen(site: Site, tmp_path: Path) -> None:
    """Kubernetes mounts `all.yaml -> ..data/all.yaml`, and replaces the link `..data -> ..<time>`."""
    site.edit(reload={"watch": True})
    mount = tmp_path / "mounted"
    for name, rounds in (("..one", 5), ("..two", 12)):
        site.edit(chat={"max_rounds": rounds})
        (mount / name).mkdir(parents=True)
        (mount / name / "all.yaml").write_bytes((site.folder / "all.yaml").read_bytes())
    (mount / "..data").symlink_to("..one")
    (mount / "all.yaml").symlink_to("..data/all.yaml")
    (mount / "prompts").symlink_to(site.folder / "prompts")
    running = site.process(folder=mount)
    await site.there(1)
    (mount / "..new").symlink_to("..two")
    (mount / "..new").rename(mount / "..data")
    await until(lambda: running.rounds == 12)


async def test_a_part_that_fails_unforeseen_leaves_the_old_configuration(site: Site) -> None:
    async def fail(config: Config) -> None:
        raise RuntimeError("secret")

    running = site.process()
    await site.there(1)
    running.reloads._take_up = fail
    site.write(max_rounds=2)
    (found,) = (await running.reloads.reload(ROOT)).processes
    assert (found.state, found.mistakes) == ("refused", [reload.SURPRISE])
    assert running.rounds == 5


async def test_a_process_that_ends_is_not_waited_for(site: Site) -> None:
    running = site.process()
    await site.there(1)
    site.stop.set()
    await asyncio.gather(*site.tasks)
    assert await Processes(site.database, "proxy").alive() == []
    assert running.taken == []
