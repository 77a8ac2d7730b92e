"""SIGTERM of a proxy, on a real uvicorn in a process of its own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from tests.support.limits import is_listening, until
from tests.support.proxy import ROOT, STOP_S, free_port

LONG_S = 300.0
"""Longer than any test lasts."""


@dataclass(frozen=True)
class App:
    url: str
    folder: Path
    process: subprocess.Popen[bytes]

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", timeout=STOP_S, trust_env=False)

    def stop(self) -> None:
        """Send SIGTERM, and wait until it has been heard."""
        self.process.send_signal(signal.SIGTERM)
        until(lambda: self.get("/stopping").json() is True)

    @contextmanager
    def stream(self) -> Iterator[Iterator[str]]:
        """One that has begun, and ends when there is the file `go`."""
        with httpx.stream("GET", f"{self.url}/stream", timeout=STOP_S, trust_env=False) as answer:
            texts = answer.iter_text()
            assert next(texts) == "begun "
            yield texts


Run = Callable[[float, float], App]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    with ExitStack() as stack:

        def start(drain_s: float, grace_s: float) -> App:
            port = free_port()
            arguments = (str(port), str(drain_s), str(grace_s), str(tmp_path))
            process = subprocess.Popen(
                [sys.executable, "-m", "tests.support.draining_app", *arguments],
                cwd=ROOT,
                env=os.environ | {"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
            )
            stack.callback(process.wait, STOP_S)
            stack.callback(process.kill)
            until(lambda: is_listening(port))
            return App(f"http://127.0.0.1:{port}", tmp_path, process)

        yield start


def test_whoever_is_told_to_stop_says_that_it_is_not_ready_and_still_answers(run: Run) -> None:
    app = run(LONG_S, LONG_S)
    with httpx.Client(base_url=app.url, timeout=STOP_S, trust_env=False) as client:
        before = client.get("/health/readiness")
        assert (before.status_code, before.headers.get("connection")) == (200, None)
        app.stop()
        after = client.get("/health/readiness")
        assert (after.status_code, after.headers["connection"]) == (503, "close")
        assert client.get("/stopping").status_code == 200
    assert app.process.poll() is None


def test_a_second_sigterm_does_not_wait_for_load_balancers(run: Run) -> None:
    app = run(LONG_S, LONG_S)
    app.stop()
    app.process.send_signal(signal.SIGTERM)
    app.process.wait(STOP_S)


def test_a_stream_that_has_begun_ends_whole_and_what_must_close_is_closed(run: Run) -> None:
    app = run(0.0, LONG_S)
    with app.stream() as texts:
        app.process.send_signal(signal.SIGTERM)
        until((app.folder / "closed").exists)
        until(lambda: not is_listening(int(app.url.rsplit(":", 1)[1])))
        (app.folder / "go").touch()
        assert "".join(texts) == "done"
    assert app.process.wait(STOP_S) == -signal.SIGTERM
    assert (app.folder / "finished").read_text(encoding="utf-8") == "stream", "last of all"


def test_a_stream_that_outlasts_the_grace_is_cut_off(run: Run) -> None:
    app = run(0.0, 0.1)
    with app.stream() as texts:
        app.process.send_signal(signal.SIGTERM)
        with pytest.raises(httpx.RemoteProtocolError):
            list(texts)
    app.process.wait(STOP_S)
    assert (app.folder / "finished").read_text(encoding="utf-8") == "stream"
