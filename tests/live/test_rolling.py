"""A rolling restart under load: every proxy is stopped and started anew, and no request is lost."""

from __future__ import annotations

import json
import statistics
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import httpx
import pytest

from tests.live.cluster import Cluster, add, cluster, collection
from tests.support.limits import until
from tests.support.upstream import ANSWER

ANSWERED = "".join(ANSWER)
QUESTION = [{"role": "user", "content": "How long is the notice period?"}]
PAUSE_S = 0.2
"""Between two requests of one client, and between two chunks of the model: a stream lasts for seconds."""
CLIENTS = {"chat": 3, "stream": 3, "search": 2, "upload": 1}
BEFORE = 5
"""Answers of each kind before the first restart, between two, and after the last."""


@dataclass
class Kind:
    """What became of the requests of one kind."""

    seconds: list[float] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)

    def line(self, name: str) -> str:
        taken = sorted(self.seconds)
        p50, p99 = statistics.median(taken), taken[int(len(taken) * 0.99)]
        return (
            f"{name:<8} {len(taken):>6} answered, {len(self.lost):>3} lost; "
            f"p50 {p50:5.2f} s, p99 {p99:5.2f} s, longest {taken[-1]:5.2f} s"
        )


class Load:
    """Clients that ask one request after another, none of which is tried again."""

    def __init__(self, running: Cluster) -> None:
        self._stop = threading.Event()
        self.kinds = {name: Kind() for name in CLIENTS}
        self.uploaded: list[str] = []
        asks: dict[str, Callable[[httpx.Client], None]] = {
            "chat": self._chat,
            "stream": self._stream,
            "search": self._search,
            "upload": self._upload,
        }
        self._threads = [
            threading.Thread(target=self._run, args=(name, ask, running.client("alice")))
            for name, ask in asks.items()
            for _ in range(CLIENTS[name])
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(120)

    def go_on(self) -> None:
        """Wait for some more answers of each kind."""
        begun = {name: len(kind.seconds) for name, kind in self.kinds.items()}
        until(
            lambda: all(
                len(kind.seconds) >= begun[name] + BEFORE or kind.lost for name, kind in self.kinds.items()
            )
        )

    def _run(self, name: str, ask: Callable[[httpx.Client], None], client: httpx.Client) -> None:
        kind = self.kinds[name]
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                ask(client)
                kind.seconds.append(time.monotonic() - began)
            except (AssertionError, httpx.HTTPError) as error:
                kind.lost.append(f"{time.strftime('%H:%M:%S')} {type(error).__name__}: {str(error)[:300]}")
            self._stop.wait(PAUSE_S)

    def _chat(self, client: httpx.Client) -> None:
        answer = client.post("/v1/chat/completions", json={"model": "chat", "messages": QUESTION})
        assert answer.status_code == 200, answer.text
        assert answer.json()["choices"][0]["message"]["content"] == ANSWERED

    def _stream(self, client: httpx.Client) -> None:
        body = {"model": "chat", "messages": QUESTION, "stream": True}
        text, ended = "", False
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            assert answer.status_code == 200, answer.read()
            for line in answer.iter_lines():
                ended = ended or line == "data: [DONE]"
                if line.startswith("data: {"):
                    for choice in json.loads(line.removeprefix("data: "))["choices"]:
                        text += choice["delta"].get("content") or ""
        assert (text, ended) == (ANSWERED, True)

    def _search(self, client: httpx.Client) -> None:
        answer = client.post("/v1/collections/handbook/search", json={"query": "notice period"})
        assert answer.status_code == 200, answer.text
        assert "ninety days" in answer.text

    def _upload(self, client: httpx.Client) -> None:
        name = f"upload-{len(self.kinds['upload'].seconds) + len(self.kinds['upload'].lost)}"
        document = {"id": name, "filename": f"{name}.md", "markdown": f"The code of {name} is in the safe."}
        answer = client.post("/v1/collections/uploads/add", json={"documents": [document]})
        assert answer.status_code == 202, answer.text
        self.uploaded.append(name)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    with cluster(tmp_path_factory.mktemp("rolling"), proxies=2, workers=2) as made:
        yield made


def completed(running: Cluster) -> set[str]:
    return {row[0] for row in running.rows("SELECT id FROM documents WHERE status = 'completed'")}


def test_a_rolling_restart_under_load_loses_no_request(running: Cluster) -> None:
    alice = running.client("alice")
    for name in ("handbook", "uploads"):
        collection(alice, name)
    add(alice, "handbook", [{"markdown": "The notice period is ninety days.", "filename": "n.md"}], wait=True)
    running.model.pause_s = PAUSE_S
    load = Load(running)
    load.start()
    statuses = []
    try:
        load.go_on()
        for number in range(len(running.proxies)):
            statuses.append(running.restart(number))
            load.go_on()
    finally:
        load.stop()
    print(*("", *(kind.line(name) for name, kind in load.kinds.items())), sep="\n")  # noqa: T201 - the figures
    assert {name: kind.lost for name, kind in load.kinds.items()} == {name: [] for name in CLIENTS}
    assert set(statuses) == {-15}  # of SIGTERM, to which uvicorn hands itself over when all is done
    until(lambda: set(load.uploaded) <= completed(running))
