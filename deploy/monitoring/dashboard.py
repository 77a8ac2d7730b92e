"""The Grafana dashboard, as code; what this prints is `grafana/dashboard.json`.

Source: https://grafana.com/docs/grafana/latest/visualizations/dashboards/build-dashboards/view-dashboard-json-model/
"""

from __future__ import annotations

import json
import sys
from typing import Any, NamedTuple

SOURCE = {"type": "prometheus", "uid": "prometheus"}
WIDTH, HEIGHT = 8, 8
"""Of a panel, in Grafana's grid of 24 columns."""


class Panel(NamedTuple):
    title: str
    unit: str
    """Grafana's name of it: `s`, `short`, `ops`, `percentunit`, `bytes`."""
    queries: dict[str, str]
    """The legend of each (`{{label}}`) and its PromQL."""
    says: str = ""
    kind: str = "timeseries"


def rate(metric: str, by: str = "", where: str = "") -> str:
    selector = f"{metric}{{{where}}}" if where else metric
    grouped = f" by ({by})" if by else ""
    return f"sum{grouped} (rate({selector}[$__rate_interval]))"


def quantile(of: float, histogram: str, by: str = "", where: str = "") -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({of}, {rate(f'{histogram}_bucket', labels, where)})"


def per(metric: str, other: str, where: str = "") -> str:
    """How many of the one for each of the other."""
    return f"{rate(metric, where=where)} / {rate(other)}"


STAGES, INGEST, ANSWERS = (
    "collections_stage_seconds",
    "collections_ingest_stage_seconds",
    "collections_answer_rounds_count",
)
CACHED, EMBEDDED = "collections_cached_rounds_total", "collections_query_embeddings_total"
HIT = 'result="hit"'
MEMORY = "collections_proxy_memory_bytes > 0 or process_resident_memory_bytes"
FILES = "collections_proxy_open_fds > 0 or process_open_fds"
"""Of proxies, whose processes may be several; and of workers."""
ROWS: dict[str, list[Panel]] = {
    "Is it well": [
        Panel("Parts that answer", "short", {"{{part}}": "min by (part) (collections_up)"}, kind="stat"),
        Panel("Workers", "short", {"workers": "max(collections_workers)"}, kind="stat"),
        Panel(
            "Oldest document that waits",
            "s",
            {"age": "max(collections_queue_age_seconds)"},
            "How long the document whose turn is next has been due.",
            kind="stat",
        ),
    ],
    "Answers": [
        Panel(
            "Requests to LiteLLM",
            "reqps",
            {
                "all": rate("litellm_proxy_total_requests_metric_total"),
                "failed": rate("litellm_proxy_failed_requests_metric_total"),
            },
            "Of LiteLLM, all of its routes.",
        ),
        Panel(
            "Time of a call of a model",
            "s",
            {
                "p50": quantile(0.5, "litellm_request_total_latency_metric"),
                "p95": quantile(0.95, "litellm_request_total_latency_metric"),
            },
            "Of each call of a model, as LiteLLM measures it.",
        ),
        Panel(
            "Why was it slow: stages, p95",
            "s",
            {"{{stage}}": quantile(0.95, STAGES, "stage")},
            "A stage within another counts for both.",
        ),
        Panel(
            "Rounds of an answer",
            "short",
            {
                "mean": per("collections_answer_rounds_sum", ANSWERS),
                "p95": quantile(0.95, "collections_answer_rounds"),
            },
        ),
        Panel(
            "Passages of an answer",
            "short",
            {
                "given": per("collections_passages_given_total", ANSWERS),
                "cited": per("collections_passages_cited_total", ANSWERS),
            },
        ),
        Panel(
            "Answers whose budget was spent",
            "ops",
            {"{{limit}}": rate("collections_answers_limited_total", "limit")},
        ),
    ],
    "Search and tools": [
        Panel("Searches", "ops", {"{{result}}": rate("collections_searches_total", "result")}),
        Panel(
            "Runs of tools",
            "ops",
            {"{{tool}} {{result}}": rate("collections_tool_runs_total", "tool, result")},
        ),
        Panel(
            "Hits of caches",
            "percentunit",
            {"answers": per(CACHED, CACHED, HIT), "questions' embeddings": per(EMBEDDED, EMBEDDED, HIT)},
        ),
    ],
    "Who may": [
        Panel("Requests by source", "ops", {"{{source}}": rate("collections_sign_ins_total", "source")}),
        Panel(
            "Refused sign-ins",
            "ops",
            {
                "{{source}} {{result}}": rate(
                    "collections_sign_ins_total", "source, result", 'result!~"ok|handed_back"'
                ),
                "{{source}} password {{result}}": rate(
                    "collections_passwords_total", "source, result", 'result!="ok"'
                ),
                "too many passwords": rate("collections_sign_ins_limited_total"),
            },
        ),
        Panel(
            "Refusals by right",
            "ops",
            {"{{right}} {{code}}": rate("collections_refusals_total", "right, code")},
        ),
    ],
    "Documents": [
        Panel(
            "Not done",
            "short",
            {"{{stage}} {{state}}": "max by (stage, state) (collections_queue_documents) > 0"},
        ),
        Panel("Done", "ops", {"{{result}}": rate("collections_documents_total", "result")}),
        Panel("Tried again", "ops", {"{{code}}": rate("collections_documents_delayed_total", "code")}),
        Panel("Stages of a document, p95", "s", {"{{stage}}": quantile(0.95, INGEST, "stage")}),
        Panel(
            "Conversion by format, p95",
            "s",
            {"{{format}}": quantile(0.95, INGEST, "format", 'stage="convert"')},
        ),
        Panel("Uploaded", "Bps", {"bytes": rate("collections_uploaded_bytes_total")}),
    ],
    "Processes": [
        Panel("Memory", "bytes", {"{{job}} {{instance}}": MEMORY}),
        Panel("File descriptors", "short", {"{{job}} {{instance}}": FILES}),
        Panel(
            "Restarts and configurations",
            "short",
            {
                "{{instance}} {{child}}": "collections_child_restarts",
                "configuration {{result}}": "sum by (result) (collections_reloads_total)",
                "mistakes": "max(collections_configuration_mistakes)",
            },
        ),
    ],
}


def dashboard() -> dict[str, Any]:
    panels: list[dict[str, Any]] = []
    top = 0
    for title, row in ROWS.items():
        panels.append(
            {
                "type": "row",
                "title": title,
                "id": len(panels) + 1,
                "gridPos": place(0, top, 24, 1),
                "panels": [],
            }
        )
        top += 1
        for index, panel in enumerate(row):
            left, down = index * WIDTH % 24, index * WIDTH // 24 * HEIGHT
            panels.append(_panel(panel, len(panels) + 1, place(left, top + down, WIDTH, HEIGHT)))
        top += -(-len(row) * WIDTH // 24) * HEIGHT
    return {
        "uid": "collections",
        "title": "Collections",
        "tags": ["litellm"],
        "timezone": "browser",
        "schemaVersion": 39,
        "refresh": "30s",
        "time": {"from": "now-6h", "to": "now"},
        "panels": panels,
    }


def place(x: int, y: int, w: int, h: int) -> dict[str, int]:
    return {"x": x, "y": y, "w": w, "h": h}


def _panel(panel: Panel, number: int, where: dict[str, int]) -> dict[str, Any]:
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.says,
        "id": number,
        "gridPos": where,
        "datasource": SOURCE,
        "fieldConfig": {"defaults": {"unit": panel.unit, "min": 0}, "overrides": []},
        "targets": [
            {"refId": chr(ord("A") + index), "datasource": SOURCE, "expr": expr, "legendFormat": legend}
            for index, (legend, expr) in enumerate(panel.queries.items())
        ],
    }


if __name__ == "__main__":
    json.dump(dashboard(), sys.stdout, indent=2)
    print()
