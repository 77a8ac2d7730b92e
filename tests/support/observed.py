"""`make run` with all that there is to see: traces to a collector, lines as JSON, exchanges kept."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx

from tests.support.otlp import Collector, Seen, collector
from tests.support.proxy import free_port
from tests.support.quickstart import Quickstart, change, copy, quickstart, until

LEAVE = "How many days of paid annual leave are there?"
PLAIN = {
    "model_name": "plain",
    "litellm_params": {"model": "local/extractive"},
    "model_info": {"mode": "chat"},
}
"""A model that no tool of ours takes part in."""
EMBEDDER = {
    "model_name": "embedder",
    "litellm_params": {"model": "local/minilm", "additional_drop_params": ["encoding_format", "user"]},
    "model_info": {"mode": "embedding", "output_vector_size": 384, "max_input_tokens": 256},
}
"""One that the worker asks through the proxy."""


@dataclass(frozen=True)
class Observed:
    running: Quickstart
    collector: Collector

    def lines(self) -> list[dict[str, Any]]:
        """Of our log."""
        lines = self.running.log.splitlines()
        found = [json.loads(line) for line in lines if line.startswith('{"timestamp"')]
        return [line for line in found if str(line.get("logger", "")).startswith("plugins.")]

    def line(self, request_id: str) -> dict[str, Any]:
        """The one line of the request, as soon as it is there."""

        def ended() -> list[dict[str, Any]]:
            return [
                line for line in self.lines() if line.get("request_id") == request_id and "status" in line
            ]

        [line] = until(ended, f"the line of request {request_id}")
        return dict(line)

    def trace(self, answer: httpx.Response, *last: str) -> list[Seen]:
        """The spans of the request's trace, as soon as these are among them."""
        trace_id = self.line(answer.headers["x-litellm-call-id"])["trace_id"]

        def whole() -> bool:
            spans = self.collector.trace(trace_id)
            ids = {span.span_id for span in spans} | {""}
            names = {span.name for span in spans}
            return names.issuperset(last) and all(span.parent_id in ids for span in spans)

        until(whole, f"a whole trace with {last}")
        return self.collector.trace(trace_id)

    def paths(self, spans: list[Seen]) -> list[list[str]]:
        """Ours, each with what it lies in, without LiteLLM's and FastAPI's around them."""
        known = [[*self.collector.above(span), span.name] for span in spans]
        return [
            [name.removeprefix("collections.") for name in path if name.startswith("collections.")]
            for path in known
            if path[-1].startswith("collections.")
        ]

    def exchange(self, request_id: str) -> dict[str, Any]:
        """What was kept of the request, as soon as it is there."""

        def kept() -> list[dict[str, Any]]:
            answer = self.running.http("master").get("/v1/audit/exchanges", params={"limit": 100})
            answer.raise_for_status()
            return [row for row in answer.json()["data"] if row["request_id"] == request_id]

        [row] = until(kept, f"the exchange of request {request_id}")
        return dict(row)


@contextmanager
def observed(folder: Path) -> Iterator[Observed]:
    copy(folder)
    port = free_port()
    worker = {"proxy_url": f"http://127.0.0.1:{port}", "api_key": "os.environ/LITELLM_MASTER_KEY"}
    change(folder / "config" / "limits.yaml", lambda config: config["worker"].update(worker))
    change(folder / "litellm_config.yaml", _with_traces)
    change(folder / "config" / "audit.yaml", _with_exchanges)
    with (
        collector() as found,
        quickstart(folder, {**found.environment, "JSON_LOGS": "true"}, port) as running,
    ):
        yield Observed(running, found)


def _with_traces(config: dict[str, Any]) -> None:
    callbacks = config["litellm_settings"]["callbacks"]
    config["litellm_settings"]["callbacks"] = ["otel", *callbacks]
    config["model_list"].extend([PLAIN, EMBEDDER])


def _with_exchanges(config: dict[str, Any]) -> None:
    config["audit"]["exchanges"] = {"enabled": True, "redact": [r"\b28 days\b", r"DE\d{20}"]}
