"""The table of metrics in `docs/monitoring.md`, from the code: `python -m tests.support.metrics_table`."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import Counter, Gauge, Histogram

from plugins.core import metrics

Metric = Counter | Gauge | Histogram


def ours() -> Iterator[Metric]:
    """In the order of the code."""
    return (value for value in vars(metrics).values() if isinstance(value, Metric))


def name_of(metric: Metric) -> str:
    """As it is on the page; a histogram's parts have endings of their own."""
    name: str = next(iter(metric.describe())).name
    return f"{name}_total" if isinstance(metric, Counter) else name


def table() -> str:
    rows = ["| metric | kind | labels | |", "|---|---|---|---|"]
    for metric in ours():
        found = next(iter(metric.describe()))
        labels = ", ".join(f"`{label}`" for label in metric._labelnames)
        rows.append(f"| `{name_of(metric)}` | {found.type} | {labels} | {found.documentation} |")
    return "\n".join(rows)


if __name__ == "__main__":
    print(table())  # noqa: T201
