"""The gauges: how things are at the moment, asked at regular times for those who scrape `/metrics`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from fastapi import FastAPI
from prometheus_client import ProcessCollector
from prometheus_client.multiprocess import mark_process_dead

from crawler.supervisor import Supervisor
from plugins.collections.backlog import STAGES, STATES, Backlog
from plugins.core import metrics

log = logging.getLogger(__name__)

PAUSE_S = 15.0
"""As often as Prometheus scrapes by default in `deploy/monitoring/prometheus.yaml`."""
PATH = "/metrics"
_process = ProcessCollector(registry=None)
_shown: set[str] = set()
"""The parts that there were."""
_pids: dict[str, int | None] = {}
"""Of the children that there were."""
FOLDER = "PROMETHEUS_MULTIPROC_DIR"


class Health(Protocol):
    async def check(self) -> object: ...


async def measure(app: FastAPI, health: Callable[[], Health], stopping: asyncio.Event) -> None:
    """Check the health of the parts in force until the process stops, while LiteLLM shows metrics.

    A collector that asks when it is scraped is not possible: it could not await, and where several processes
    share a folder `prometheus_client` calls none.
    """
    while not stopping.is_set():
        if any(getattr(route, "path", None) == PATH for route in app.routes):
            show_process()
            try:
                await health().check()
            except Exception:  # without this loop the gauges would stay as they were, and nobody would know
                log.exception("The gauges could not be measured; they are tried again")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopping.wait(), PAUSE_S)


def show_process() -> None:
    """Set the gauges of this process; not where there is no /proc.

    `prometheus_client` leaves out its own where several processes share a folder.
    """
    found = {metric.name: metric.samples[0].value for metric in _process.collect()}
    for name, gauge in (
        ("process_resident_memory_bytes", metrics.MEMORY_BYTES),
        ("process_open_fds", metrics.OPEN_FILES),
    ):
        if name in found:
            gauge.set(found[name])


def forget(pid: int | None) -> None:
    """What a child that has ended said of itself is no longer so, where processes share a folder."""
    if pid is not None and FOLDER in os.environ:
        mark_process_dead(pid)  # type: ignore[no-untyped-call]


def show(
    parts: Mapping[str, Any], workers: int | None, queue: Backlog | None, children: Mapping[str, Supervisor]
) -> None:
    """Set the gauges.

    Args:
        parts: What each part answered; None = it did not.
        workers: How many gave a sign of life; None = unknown, the gauge stays.
        queue: What waits; None = unknown, the gauges stay.
        children: The processes that live and die with this one.
    """
    for part in _shown - parts.keys():  # of a configuration before; series cannot be removed from a folder
        metrics.UP.labels(part).set(math.nan)
    for part, answer in parts.items():
        metrics.UP.labels(part).set(answer is not None)
    _shown.update(parts)
    for name, child in children.items():
        if _pids.get(name) != child.pid:
            forget(_pids.get(name))
            _pids[name] = child.pid
        metrics.CHILD_RESTARTS.labels(name).set(child.restarts)
    if workers is not None:
        metrics.WORKERS.set(workers)
    if queue is not None:
        metrics.QUEUE_AGE_SECONDS.set(queue.age_s)
        for stage in STAGES:
            for state in STATES:
                metrics.QUEUE_DOCUMENTS.labels(stage, state).set(queue.documents.get((stage, state), 0))
