"""The gauges: measured while somebody can scrape them, and as things are now."""

from __future__ import annotations

import asyncio
import math
from pathlib import Path
from types import SimpleNamespace

import pytest
from fastapi import FastAPI
from prometheus_client import REGISTRY, make_asgi_app

from crawler.supervisor import Supervisor
from plugins.bundle.metrics import measure, show
from plugins.collections.backlog import Backlog

LIMIT_S = 10.0


class Health:
    """Ends the loop at the first look."""

    def __init__(self, error: Exception | None = None) -> None:
        self.looks = 0
        self.stopping = asyncio.Event()
        self._error = error

    async def check(self) -> None:
        self.looks += 1
        self.stopping.set()
        if self._error is not None:
            raise self._error


def value(name: str, **labels: str) -> float | None:
    return REGISTRY.get_sample_value(name, labels)


def with_metrics() -> FastAPI:
    app = FastAPI()
    app.mount("/metrics", make_asgi_app())
    return app


async def test_the_parts_are_asked_while_metrics_are_shown() -> None:
    health = Health()
    await asyncio.wait_for(measure(with_metrics(), lambda: health, health.stopping), LIMIT_S)
    assert health.looks == 1


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
async def test_memory_and_files_of_this_process_are_shown() -> None:
    health = Health()
    await asyncio.wait_for(measure(with_metrics(), lambda: health, health.stopping), LIMIT_S)
    assert (value("collections_proxy_memory_bytes") or 0) > 2**20
    assert (value("collections_proxy_open_fds") or 0) > 2


async def test_nobody_is_asked_where_no_metrics_are_shown() -> None:
    health = Health()
    asyncio.get_running_loop().call_soon(health.stopping.set)
    await asyncio.wait_for(measure(FastAPI(), lambda: health, health.stopping), LIMIT_S)
    assert health.looks == 0


async def test_a_surprise_is_logged_and_does_not_end_the_measuring(caplog: pytest.LogCaptureFixture) -> None:
    health = Health(ZeroDivisionError())
    await asyncio.wait_for(measure(with_metrics(), lambda: health, health.stopping), LIMIT_S)
    assert "tried again" in caplog.text


def test_what_does_not_wait_any_more_is_shown_as_none() -> None:
    labels = {"stage": "embed", "state": "waiting"}
    show({}, 1, Backlog({("embed", "waiting"): 3}, 3, 9.0), {})
    assert value("collections_queue_documents", **labels) == 3
    assert value("collections_queue_age_seconds") == 9
    show({}, 1, Backlog({}, 0, 0.0), {})
    assert value("collections_queue_documents", **labels) == 0


def test_what_is_unknown_stays_as_it_was() -> None:
    show({"database": object()}, 2, Backlog({}, 0, 5.0), {})
    show({"database": None}, None, None, {})
    assert value("collections_up", part="database") == 0
    assert (value("collections_workers"), value("collections_queue_age_seconds")) == (2, 5)


def test_a_source_that_the_configuration_has_no_more_is_neither_up_nor_down() -> None:
    show({"identity.old": None}, None, None, {})
    assert value("collections_up", part="identity.old") == 0
    show({"identity.new": object()}, None, None, {})
    assert math.isnan(value("collections_up", part="identity.old") or 0)
    assert value("collections_up", part="identity.new") == 1


def test_restarts_of_children_are_those_of_their_supervisor(tmp_path: Path) -> None:
    child = Supervisor(["true"], tmp_path / "lock", "a child")
    child.restarts = 3
    show({}, None, None, {"store": child})
    assert value("collections_child_restarts", child="store") == 3


def test_a_child_that_ended_says_nothing_any_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    child = Supervisor([], tmp_path / "lock", "worker")
    for pid in (1234567, 1234568):
        child._child = SimpleNamespace(pid=pid)  # type: ignore[assignment]
        (tmp_path / f"gauge_livemax_{pid}.db").touch()
        show({}, None, None, {"worker": child})
    assert [path.name for path in tmp_path.glob("*.db")] == ["gauge_livemax_1234568.db"]
