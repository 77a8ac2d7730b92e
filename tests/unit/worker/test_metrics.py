"""What a worker measures, and its page."""

from __future__ import annotations

import socket

import httpx
import pytest
from prometheus_client import REGISTRY

from plugins.core.config import WorkerConfig
from plugins.worker.metrics import StageTimes, format_of, shown
from tests.support.proxy import free_port


def count(stage: str, kind: str) -> float:
    name = "collections_ingest_stage_seconds_count"
    return REGISTRY.get_sample_value(name, {"stage": stage, "format": kind}) or 0.0


@pytest.mark.parametrize(
    ("filename", "found"),
    [
        ("Report.PDF", "pdf"),
        ("notes.md", "markdown"),
        ("photo.jpeg", "image"),
        ("page.htm", "html"),
        ("a.secret-project", "other"),
        ("pdf", "other"),
        ("__init__", "other"),
    ],
)
def test_the_format_is_one_of_ours_whatever_the_file_is_called(filename: str, found: str) -> None:
    assert format_of(filename) == found


def test_each_stage_is_measured_once_when_the_next_one_begins() -> None:
    before = {stage: count(stage, "epub") for stage in ("queued", "convert", "chunk")}
    times = StageTimes("book.epub")
    for stage in ("convert", "convert", "chunk"):
        times.at(stage)
    assert count("convert", "epub") == before["convert"] + 1
    assert count("chunk", "epub") == before["chunk"], "it is not over"
    assert count("queued", "epub") == before["queued"], "waiting is no work"


def test_the_page_is_there_as_long_as_the_worker_works() -> None:
    port = free_port()
    url = f"http://127.0.0.1:{port}/metrics"
    with shown(WorkerConfig(metrics_port=port)):
        assert "collections_documents_total" in httpx.get(url, trust_env=False).text
    with pytest.raises(httpx.ConnectError):
        httpx.get(url, trust_env=False)


def test_a_port_that_is_taken_costs_the_page_and_not_the_work(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        with shown(WorkerConfig(metrics_port=taken.getsockname()[1])):
            worked = True
    assert worked
    assert "worker.metrics_port" in caplog.text
