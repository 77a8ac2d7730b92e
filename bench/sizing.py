"""`python -m bench.sizing --users 1000`: what runs for so many people, by the figures of the benchmarks."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

BENCHMARKS = Path(__file__).parents[1] / "docs" / "benchmarks.md"
KIB, MIB, GIB = 2**10, 2**20, 2**30

PEAK = 3
"""The busiest minute over the mean of the busy hour."""
ANSWER_S = 20
"""How long an answer streams."""
TOKENS = 300
"""Of an answer."""
LOAD = 0.5
"""How much of what was measured a process is planned for."""
PASSAGES_PER_PAGE = 3
"""Of a full page; `tests/project/test_docs_sizing.py` counts them."""
DIMENSION = 384
FIRST_LOAD_S = 24 * 3600
"""In which time all documents are to be read for the first time."""
EMBEDDED_PASSAGES = 10_000
"""Up to which the embedded store is comfortable."""
ONE_MACHINE_BYTES = 64 * GIB
"""Of the machine with a Milvus standalone; half of it for twice the vectors."""
POOL = 15
"""Connections to the database that a process opens at most (SQLAlchemy's 5, and 10 more under load)."""


@dataclass(frozen=True)
class Figures:
    """What was measured, for one process on two cores."""

    chats_per_s: float
    streams: int
    stream_bytes: float
    proxy_bytes: float
    worker_bytes: float
    pages_per_s: float


class Assumed(NamedTuple):
    """What an installation has to know of its people."""

    users: int
    chats: float = 1.0
    """Of each person in the busy hour."""
    pages: int = 100
    """Of each person in all collections together."""


def measured(page: str) -> Figures:
    """The figures from the tables of the benchmarks' page.

    Raises:
        ValueError: A row is not there.
    """
    return Figures(
        chats_per_s=_ours(page, "(f) chat with a search, 8 connections: requests/s"),
        streams=200,
        stream_bytes=_ours(page, "(g) 200 streams of 100 chunks: memory of the proxy for each stream") * KIB,
        proxy_bytes=_ours(page, "(iii) memory of the proxy") * MIB,
        worker_bytes=_ours(page, "(iii) memory of the worker") * MIB,
        pages_per_s=_ours(page, "(i) local/minilm: pages/s"),
    )


def _ours(page: str, row: str) -> float:
    """The first number in the column `Ours` of the row that begins so."""
    found = re.search(rf"^\| {re.escape(row)}[^|]*\|[^|]*\| *([\d.,]+)", page, re.MULTILINE)
    if not found:
        raise ValueError(f"docs/benchmarks.md has no row `{row}`")
    return float(found[1].replace(",", ""))


@dataclass(frozen=True)
class Plan:
    """What runs, and why so much of it."""

    chats_per_s: float
    streams: int
    proxies: int
    proxies_bytes: float
    passages: int
    vectors_bytes: float
    store: str
    workers: int
    workers_bytes: float
    first_load_s: float
    database: str
    connections: int
    redis: bool
    tokens_per_s: float


def plan(assumed: Assumed, figures: Figures) -> Plan:
    """The formulae of docs/sizing.md."""
    chats_per_s = assumed.users * assumed.chats / 3600 * PEAK
    streams = math.ceil(chats_per_s * ANSWER_S)
    by_load = max(chats_per_s / (LOAD * figures.chats_per_s), streams / figures.streams)
    passages = assumed.users * assumed.pages * PASSAGES_PER_PAGE
    small = by_load <= 1 and passages <= EMBEDDED_PASSAGES
    proxies = 1 if small else math.ceil(by_load) + 1  # one may be missing
    vectors_bytes = passages * DIMENSION * 4.0
    load_s = assumed.users * assumed.pages / figures.pages_per_s
    workers = max(1 if small else 2, math.ceil(load_s / FIRST_LOAD_S))
    return Plan(
        chats_per_s=chats_per_s,
        streams=streams,
        proxies=proxies,
        proxies_bytes=proxies * figures.proxy_bytes + streams * figures.stream_bytes,
        passages=passages,
        vectors_bytes=vectors_bytes,
        store=_store(small, vectors_bytes),
        workers=workers,
        workers_bytes=workers * figures.worker_bytes,
        first_load_s=load_s / workers,
        database="SQLite" if small else "Postgres",
        connections=0 if small else (proxies + workers) * POOL,
        redis=proxies > 1,
        tokens_per_s=chats_per_s * TOKENS,
    )


def _store(small: bool, vectors_bytes: float) -> str:
    if small:
        return "embedded"
    return "Milvus standalone" if 2 * vectors_bytes <= ONE_MACHINE_BYTES / 2 else "Milvus distributed"


def table(plans: Sequence[tuple[Assumed, Plan]]) -> str:
    """The plans beside each other, as Markdown."""
    rows = [
        ("users", [f"{assumed.users:,}" for assumed, _ in plans]),
        ("chats/s in the busiest minute", [f"{plan.chats_per_s:.3g}" for _, plan in plans]),
        ("answers that stream at once", [f"{plan.streams:,}" for _, plan in plans]),
        ("proxy processes (two cores each)", [str(plan.proxies) for _, plan in plans]),
        ("their memory", [f"{plan.proxies_bytes / GIB:.1f} GiB" for _, plan in plans]),
        ("passages", [f"{plan.passages:,}" for _, plan in plans]),
        ("their vectors", [_size(plan.vectors_bytes) for _, plan in plans]),
        ("vector store", [plan.store for _, plan in plans]),
        ("workers (two cores each)", [_workers(plan) for _, plan in plans]),
        ("their memory", [f"{plan.workers_bytes / GIB:.1f} GiB" for _, plan in plans]),
        ("all documents for the first time", [_hours(plan.first_load_s) for _, plan in plans]),
        ("database", [plan.database for _, plan in plans]),
        ("its connections, at most", [str(plan.connections or "") for _, plan in plans]),
        ("Redis", ["yes" if plan.redis else "no" for _, plan in plans]),
        ("tokens/s of the models", [f"{plan.tokens_per_s:,.0f}" for _, plan in plans]),
    ]
    (what, heads), *others = rows
    lines = [f"| {what} | {' | '.join(heads)} |", "|---" * (len(plans) + 1) + "|"]
    return "\n".join([*lines, *(f"| {name} | {' | '.join(cells)} |" for name, cells in others)])


def _size(count: float) -> str:
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / MIB:.0f} MiB"


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{max(1, round(seconds / 60))} min"


def _workers(plan: Plan) -> str:
    return "1, the proxy's child" if plan.workers == 1 else str(plan.workers)


def example() -> str:
    """The table of docs/sizing.md."""
    figures = measured(BENCHMARKS.read_text(encoding="utf-8"))
    assumed = [Assumed(users) for users in (10, 1_000, 100_000)]
    return table([(each, plan(each, figures)) for each in assumed])


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.sizing", description=__doc__)
    parser.add_argument("--users", type=int, nargs="+", default=[10, 1_000, 100_000])
    parser.add_argument("--chats", type=float, default=Assumed(0).chats, help="of each in the busy hour")
    parser.add_argument("--pages", type=int, default=Assumed(0).pages, help="of each, in all collections")
    args = parser.parse_args()
    figures = measured(BENCHMARKS.read_text(encoding="utf-8"))
    assumed = [Assumed(users, args.chats, args.pages) for users in args.users]
    print(table([(each, plan(each, figures)) for each in assumed]))


if __name__ == "__main__":
    main()
