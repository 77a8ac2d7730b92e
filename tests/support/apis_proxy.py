"""A proxy for the journeys of `/v1/responses` and `/v1/messages`: the scripted model, the extractive one, and
providers that speak these APIs themselves."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai

from tests.support.native_upstream import Native, native_upstream
from tests.support.proxy import MASTER_KEY, Proxy, proxy

SEARCH = {"name": "search_documents", "arguments": {"query": "notice"}}
WEATHER = {"name": "weather", "arguments": {"city": "Bonn"}}
CITED = [{"calls": [SEARCH]}, {"text": ["It is ", "30 days [", "1]."]}]
"""Rounds of the scripted model. Its script is the question: a number in brackets there would be foreign."""
TEXT = "It is 30 days [1]."
WAIT_S = 30.0


def model(name: str, served_by: str, *, rag: bool = True, **params: Any) -> dict[str, Any]:
    return {
        "model_name": name,
        "litellm_params": {"model": served_by, **params},
        "model_info": {"mode": "chat", "rag": rag},
    }


def configuration(upstream: str) -> dict[str, Any]:
    native: Any = {"api_base": upstream, "api_key": "sk-upstream", "num_retries": 0}
    nobody: Any = {"api_base": "http://127.0.0.1:9", "num_retries": 0}  # the discard port: nobody listens
    guardrail = {"guardrail": "tests.support.chat_entry.BlockSecret", "mode": "post_call", "default_on": True}
    return {
        "model_list": [
            model("scripted", "scripted/one"),
            model("plain", "scripted/two", rag=False),
            model("extractive", "local/extractive"),
            model("down", "ollama_chat/none", **nobody),
            model("openai", "openai/native", **native),
            model("anthropic", "anthropic/claude-sonnet-4-5", **native),
        ],
        "router_settings": {"disable_cooldowns": True, "fallbacks": [{"down": ["extractive"]}]},
        "litellm_settings": {
            "callbacks": ["tests.support.chat_entry.hooks", "tests.support.chat_entry.spend"],
            "sse_keepalive_ping_interval_seconds": 1,
        },
        "general_settings": {
            "master_key": MASTER_KEY,
            "custom_auth": "tests.support.chat_entry.authenticate",
            "custom_auth_run_common_checks": True,
        },
        "guardrails": [{"guardrail_name": "block", "litellm_params": guardrail}],
    }


@dataclass(frozen=True)
class Apis:
    proxy: Proxy
    client: openai.OpenAI
    http: httpx.Client
    native: Native
    folder: Path

    def respond(self, question: Any, name: str = "scripted", **options: Any) -> Any:
        text = question if isinstance(question, str) else json.dumps(question)
        return self.client.responses.create(model=name, input=text, **options)

    def message(self, question: Any, name: str = "scripted", **body: Any) -> httpx.Response:
        text = question if isinstance(question, str) else json.dumps(question)
        messages = [{"role": "user", "content": text}]
        given = {"model": name, "max_tokens": 500, "messages": messages, **body}
        return self.http.post("/v1/messages", json=given)

    def upstream(self) -> dict[str, Any]:
        """What the scripted model got last."""
        seen: dict[str, Any] = json.loads((self.folder / "seen.log").read_text().splitlines()[-1])
        return seen

    def cancelled(self) -> bool:
        """Whether a call of the scripted model was cancelled since this was last so."""
        try:
            (self.folder / "seen.log.cancelled").unlink()
        except FileNotFoundError:
            return False
        return True

    def spend(self) -> list[dict[str, Any]]:
        log = self.folder / "spend.log"
        return [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []


@contextmanager
def apis_proxy(folder: Path) -> Iterator[Apis]:
    environment = {"SCRIPTED_LOG": str(folder / "seen.log"), "SPEND_LOG": str(folder / "spend.log")}
    with (
        native_upstream() as native,
        proxy(folder, configuration(native.url), {}, environment) as running,
        openai.OpenAI(
            base_url=f"{running.url}/v1", api_key="sk-alice", max_retries=0, timeout=WAIT_S
        ) as client,
        httpx.Client(
            base_url=running.url, headers={"x-api-key": "sk-alice"}, timeout=WAIT_S, trust_env=False
        ) as http,
    ):
        yield Apis(running, client, http, native, folder)


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline, "it did not come about in time"
        time.sleep(0.02)


def events(response: httpx.Response) -> list[dict[str, Any]]:
    """The JSON of each frame of a stream."""
    lines = [line for line in response.text.split("\n") if line.startswith("data: {")]
    return [json.loads(line.removeprefix("data: ")) for line in lines]
