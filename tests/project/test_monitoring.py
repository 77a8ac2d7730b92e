"""The dashboard, the alerts and their page name metrics that there are."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from typing import Any, get_args

import pytest
import yaml
from litellm.types.integrations.prometheus import DEFINED_PROMETHEUS_METRICS
from prometheus_client import Counter, Histogram

from deploy.monitoring.dashboard import dashboard
from tests.support.metrics_table import name_of, ours, table
from tests.support.proxy import ROOT

FOLDER = ROOT / "deploy" / "monitoring"
PAGE = ROOT / "docs" / "monitoring.md"
ALERTS = yaml.safe_load((FOLDER / "alerts.yaml").read_text(encoding="utf-8"))
RULES: list[dict[str, Any]] = [rule for group in ALERTS["groups"] for rule in group["rules"]]
ENDINGS = ("_bucket", "_sum", "_count")
METRIC = re.compile(r"\b(?:collections|litellm|process)_[a-z_]+\b|\bup\b")
PROCESS = {"up", "process_resident_memory_bytes", "process_open_fds"}
"""Prometheus's own, and those of each Python process."""


def expressions() -> list[str]:
    panels = json.loads((FOLDER / "grafana" / "dashboard.json").read_text(encoding="utf-8"))["panels"]
    shown = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [*shown, *(rule["expr"] for rule in RULES)]


def known() -> set[str]:
    """Names of samples."""
    found = set(PROCESS)
    for metric in ours():
        name = name_of(metric)
        found |= {f"{name}{ending}" for ending in ENDINGS} if isinstance(metric, Histogram) else {name}
    for name in get_args(DEFINED_PROMETHEUS_METRICS):
        found |= {name, f"{name}_total", *(f"{name}{ending}" for ending in ENDINGS)}
    return found


def test_dashboard_and_alerts_name_metrics_that_exist() -> None:
    named = {name for expr in expressions() for name in METRIC.findall(expr)}
    assert len(named) > 20
    assert named <= known()


def test_dashboard_and_alerts_name_labels_that_the_metrics_have() -> None:
    labels = {name_of(metric): {*metric._labelnames, "le"} for metric in ours()}
    for expr in expressions():
        for name, selector in re.findall(r"\b(collections_[a-z_]+)\{([^}]*)\}", expr):
            base = next(n for n in labels if name in (n, *(f"{n}{ending}" for ending in ENDINGS)))
            assert set(re.findall(r"(\w+)\s*[=!]", selector)) <= labels[base], expr


def test_all_our_metrics_are_shown_or_make_an_alert() -> None:
    text = "\n".join(expressions())
    unused = {name for metric in ours() if (name := name_of(metric)) not in text}
    assert unused == {"collections_uploads_total"}, "their bytes are shown"


def test_the_dashboard_is_the_one_that_its_code_makes() -> None:
    written = json.loads((FOLDER / "grafana" / "dashboard.json").read_text(encoding="utf-8"))
    assert written == dashboard(), "python deploy/monitoring/dashboard.py > .../grafana/dashboard.json"


def test_the_page_has_the_table_of_all_metrics_and_says_of_each_alert_what_to_do() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert table() in page, "python -m tests.support.metrics_table"
    told = re.findall(r"^\| `(\w+)` \|.*\| .{20,} \|$", page, re.MULTILINE)
    assert {rule["alert"] for rule in RULES} <= set(told)


def test_names_follow_the_conventions_of_prometheus() -> None:
    """https://prometheus.io/docs/practices/naming/"""
    for metric in ours():
        name = name_of(metric)
        assert re.fullmatch(r"collections(_[a-z]+)+", name)
        assert name.endswith("_total") == isinstance(metric, Counter)


def test_promtool_accepts_the_rules_and_each_alert_is_raised_when_it_should_be() -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package `prometheus`)")
    for command in (["check", "rules", "alerts.yaml"], ["test", "rules", "alerts_test.yaml"]):
        done = subprocess.run(
            [promtool, *command], cwd=FOLDER, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_reads_each_expression_of_the_dashboard(tmp_path: Any) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        pytest.skip("promtool is not installed (Debian's package `prometheus`)")
    rules = [
        {"record": f"expression:{index}", "expr": expr.replace("$__rate_interval", "5m")}
        for index, expr in enumerate(expressions())
    ]
    path = tmp_path / "rules.yaml"
    path.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": rules}]}), encoding="utf-8")
    done = subprocess.run(
        [promtool, "check", "rules", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
