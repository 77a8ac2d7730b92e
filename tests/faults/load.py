"""Clients of every kind that go on asking while something is gone, and what became of each request."""

from __future__ import annotations

import json
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import count
from typing import Any

import httpx

from tests.support.upstream import ANSWER, IGNORANT

ANSWERED, WITHOUT = "answered", "answered without documents"
CUT, NOTHING, UNREADABLE = "cut off", "no answer", "unreadable"
QUESTION = [{"role": "user", "content": "How long is the notice period?"}]
PAUSE_S = 0.5
UPLOAD_PAUSE_S = 2.0
"""So that the workers keep up with them on a small machine."""
LIMIT_S = 90.0
"""After which a client gives up: no request may take so long."""
INSIDE = re.compile(r"Traceback|127\.0\.0\.1|localhost|asyncpg|sqlalchemy|pymilvus|grpc|redis|File \"", re.I)
"""What no error may show."""

Ask = Callable[[httpx.Client], str]
Token = Callable[[], str | None]


@dataclass(frozen=True)
class Sample:
    kind: str
    began: float
    """Seconds of the monotonic clock, as `ended`."""
    ended: float
    outcome: str
    """One of the above, or status and code of the error."""
    text: str
    """Of the error."""


class Load:
    """What is asked of each proxy by one client of each kind, one request after another, none tried again."""

    def __init__(self, urls: Sequence[str], known: str) -> None:
        self.samples: list[Sample] = []
        self.asked: set[str] = set()
        """Kinds that are asked at the moment."""
        self.acknowledged: dict[str, str] = {}
        """Jobs of uploads, by the document's name."""
        self._urls = urls
        self._stop = threading.Event()
        self._numbers = count()
        self._threads: list[threading.Thread] = []
        kinds: dict[str, Ask] = {
            "chat": self._chat,
            "chat, streamed": self._stream,
            "chat, plain": self._plain,
            "search": self._search,
            "upload": self._upload,
            "job": self._job,
            "readiness": self._readiness,
        }
        for kind, ask in kinds.items():
            self._add(kind, ask, lambda: known, self._stop)

    def _add(self, kind: str, ask: Ask, token: Token, stop: threading.Event) -> None:
        self.asked.add(kind)
        for url in self._urls:
            thread = threading.Thread(target=self._run, args=(kind, ask, token, url, stop), daemon=True)
            self._threads.append(thread)
            thread.start()

    @contextmanager
    def searching(self, kind: str, token: Token) -> Iterator[None]:
        """Searches with other tokens meanwhile; none where there is no token."""
        stop = threading.Event()
        self._add(kind, self._search, token, stop)
        try:
            yield
        finally:
            stop.set()
            self.asked.discard(kind)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(LIMIT_S + 10)

    def since(self, moment: float) -> list[Sample]:
        """What was over after that."""
        return [sample for sample in list(self.samples) if sample.ended >= moment]

    def missing(self, moment: float) -> set[str]:
        """Kinds that have had no right answer to what was asked after that."""
        good = {s.kind for s in list(self.samples) if s.outcome == ANSWERED and s.began >= moment}
        return self.asked - good

    def _run(self, kind: str, ask: Ask, token: Token, url: str, stop: threading.Event) -> None:
        with httpx.Client(base_url=url, timeout=LIMIT_S, trust_env=False) as client:
            pause_s = UPLOAD_PAUSE_S if kind == "upload" else PAUSE_S
            while not self._stop.wait(pause_s) and not stop.is_set():
                if (bearer := token()) is None:
                    continue
                client.headers["Authorization"] = f"Bearer {bearer}"
                began, text = time.monotonic(), ""
                try:
                    outcome = ask(client)
                except Refused as error:
                    outcome, text = error.outcome, error.text
                except httpx.TimeoutException:
                    outcome = NOTHING
                except httpx.HTTPError as error:
                    outcome, text = CUT, type(error).__name__
                self.samples.append(Sample(kind, began, time.monotonic(), outcome, text))

    def _chat(self, client: httpx.Client) -> str:
        answer = client.post("/v1/chat/completions", json={"model": "chat", "messages": QUESTION})
        return said(checked(answer).json()["choices"][0]["message"]["content"])

    def _plain(self, client: httpx.Client) -> str:
        answer = client.post("/v1/chat/completions", json={"model": "plain", "messages": QUESTION})
        return ANSWERED if checked(answer).json()["choices"][0]["message"]["content"] else UNREADABLE

    def _stream(self, client: httpx.Client) -> str:
        body = {"model": "chat", "messages": QUESTION, "stream": True}
        text, ended = "", False
        with client.stream("POST", "/v1/chat/completions", json=body) as answer:
            if answer.status_code != 200:
                answer.read()
                checked(answer)
            for line in answer.iter_lines():
                ended = ended or line == "data: [DONE]"
                if line.startswith("data: {"):
                    event = json.loads(line.removeprefix("data: "))
                    if "error" in event:
                        raise Refused(answer.status_code, line.removeprefix("data: "))
                    for choice in event.get("choices", ()):
                        text += choice["delta"].get("content") or ""
        return said(text) if ended else CUT

    def _search(self, client: httpx.Client) -> str:
        answer = client.post("/v1/collections/handbook/search", json={"query": "notice period"})
        return ANSWERED if "ninety days" in checked(answer).text else WITHOUT

    def _upload(self, client: httpx.Client) -> str:
        name = f"upload-{next(self._numbers)}"
        document = {"id": name, "filename": f"{name}.md", "markdown": f"The code of {name} is in the safe."}
        answer = client.post("/v1/collections/uploads/add", json={"documents": [document]})
        self.acknowledged[name] = checked(answer, 202).json()["data"][0]["job"]["id"]
        return ANSWERED

    def _job(self, client: httpx.Client) -> str:
        job = next(iter(self.acknowledged.values()), None)
        if job is None:
            return ANSWERED  # nothing was uploaded yet
        checked(client.get(f"/v1/jobs/{job}"))
        return ANSWERED

    def _readiness(self, client: httpx.Client) -> str:
        checked(client.get("/health/readiness"))
        return ANSWERED


class Refused(Exception):
    """An error that the proxy answered."""

    def __init__(self, status: int, text: str) -> None:
        self.text = text
        try:
            error: Any = json.loads(text)["error"]
            code, self.message = str(error["code"]), str(error["message"])
        except (ValueError, KeyError, TypeError):
            code, self.message = UNREADABLE, text
        self.outcome = f"{status} {code}"
        super().__init__(self.outcome)


def checked(answer: httpx.Response, status: int = 200) -> httpx.Response:
    if answer.status_code != status:
        raise Refused(answer.status_code, answer.text)
    return answer


def said(text: str) -> str:
    if text == "".join(ANSWER):
        return ANSWERED
    return WITHOUT if text == "".join(IGNORANT) else UNREADABLE
