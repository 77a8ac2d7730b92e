"""A proxy with `tests.support.allowances_entry`, and callers whose requests stay open as long as wanted."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.proxy import MASTER_KEY

WAIT_S = 30.0
PRICED = {"input_cost_per_token": 0.01, "output_cost_per_token": 0.01}


def mocked(name: str, **params: Any) -> dict[str, Any]:
    return {"model_name": name, "litellm_params": {"model": "openai/x", "api_key": "x", **params}}


LITELLM: dict[str, Any] = {
    "model_list": [
        mocked("open", mock_response="hi"),
        mocked("secret", mock_response="hi"),
        mocked("dear", mock_response="hi", **PRICED),
        {"model_name": "scripted", "litellm_params": {"model": "scripted/one"}, "model_info": {"rag": True}},
        {"model_name": "plain", "litellm_params": {"model": "scripted/two"}},
    ],
    "litellm_settings": {
        "callbacks": ["tests.support.allowances_entry.hooks", "tests.support.allowances_entry.payloads"],
    },
    "general_settings": {
        "master_key": MASTER_KEY,
        "custom_auth": "tests.support.allowances_entry.authenticate",
        "custom_auth_run_common_checks": True,
    },
}


@dataclass(frozen=True)
class Chats:
    """Who asks which proxy, in plain HTTP: no client that retries, so that each answer is seen."""

    url: str
    key: str

    def get(self, path: str) -> httpx.Response:
        return httpx.get(f"{self.url}{path}", headers=self._headers, timeout=WAIT_S, trust_env=False)

    def post(self, path: str, body: Any) -> httpx.Response:
        return httpx.post(
            f"{self.url}{path}", json=body, headers=self._headers, timeout=WAIT_S, trust_env=False
        )

    def ask(self, model: str, rounds: Sequence[Any] = ({"text": ["hi"]},), **options: Any) -> httpx.Response:
        """A plain chat completion; ``rounds`` is what a scripted model plays."""
        return self.post("/v1/chat/completions", question(model, rounds) | options)

    @contextlib.contextmanager
    def streamed(self, model: str, rounds: Sequence[Any]) -> Iterator[httpx.Response]:
        """A streamed one; leaving the block early is a client that goes away."""
        with httpx.stream(
            "POST",
            f"{self.url}/v1/chat/completions",
            json=question(model, rounds) | {"stream": True},
            headers=self._headers,
            timeout=WAIT_S,
            trust_env=False,
        ) as answer:
            yield answer

    @contextlib.contextmanager
    def held(self, folder: Path, count: int, model: str, go: str = "go") -> Iterator[None]:
        """So many requests in the model, which a scripted one answers when the block ends."""
        begun = [folder / f"{go}-begun-{number}" for number in range(count)]
        scripts = [[{"text": [f"touch:{path}", f"pause:{folder / go}", "done"]}] for path in begun]
        with ThreadPoolExecutor(count) as pool:
            asked = [pool.submit(self.ask, model, script) for script in scripts]
            try:
                until(lambda: all(path.exists() for path in begun))
                yield
            finally:
                (folder / go).touch()
        assert [answer.result().status_code for answer in asked] == [200] * count

    @property
    def _headers(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.key}"}


def question(model: str, rounds: Sequence[Any]) -> dict[str, Any]:
    return {"model": model, "messages": [{"role": "user", "content": json.dumps(list(rounds))}]}


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def in_the_tool(begun: Path, go: Path) -> list[dict[str, Any]]:
    """Rounds whose tool says that it has begun, and then waits."""
    query = f"touch:{begun};pause:{go}"
    call = {"name": "search_documents", "arguments": {"query": query}}
    return [{"calls": [call]}, {"text": ["done"]}]


def is_listening(port: int) -> bool:
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0
