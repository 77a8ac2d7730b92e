"""What the worker measures, and where Prometheus finds it."""

from __future__ import annotations

import functools
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import PurePath

from prometheus_client import start_http_server

from crawler import registry
from crawler.contracts import Stage
from plugins.core.config import WorkerConfig
from plugins.core.metrics import INGEST_STAGE_SECONDS, OTHER

log = logging.getLogger(__name__)

CLOSE_S = 5.0
SAME = {"md": "markdown", "txt": "text", "htm": "html", "jpg": "image", "jpeg": "image", "png": "image"}
"""Usual endings of files that are not their format's name."""


@contextmanager
def shown(worker: WorkerConfig) -> Iterator[None]:
    """Answer `/metrics` meanwhile, where the settings say so. A port that is taken costs the metrics only."""
    if worker.metrics_port is None:
        yield
        return
    try:
        server, thread = start_http_server(worker.metrics_port, worker.metrics_host)
    except OSError as error:
        log.error("worker.metrics_port: %s; there are no metrics of this worker", error.strerror)
        yield
        return
    try:
        yield
    finally:
        server.shutdown()
        server.server_close()
        thread.join(CLOSE_S)


class StageTimes:
    """How long each stage of one document takes, by its format.

    Args:
        filename: Its ending is the format, or `other`.
    """

    def __init__(self, filename: str) -> None:
        self._format = format_of(filename)
        self._stage: Stage = "queued"
        self._began = time.monotonic()

    def at(self, stage: Stage) -> None:
        """The document is in this stage now; the one before is over."""
        if stage == self._stage:
            return
        moment = time.monotonic()
        if self._stage != "queued":
            INGEST_STAGE_SECONDS.labels(self._stage, self._format).observe(moment - self._began)
        self._stage, self._began = stage, moment


def format_of(filename: str) -> str:
    """The format's name by the file's; names that say none of ours are `other`."""
    ending = PurePath(filename).suffix.lower().removeprefix(".")
    name = SAME.get(ending, ending)
    return name if name in _formats() else OTHER


@functools.cache
def _formats() -> frozenset[str]:
    return frozenset(registry.available("crawler.formats"))
