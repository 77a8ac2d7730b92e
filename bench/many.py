"""(g) Many streams at the same time, and (h) the memory of many chats, in one process of the proxy."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from statistics import median

import aiohttp

from bench.figures import MeasurementFailed, Row
from bench.models import STEADY_CHUNKS
from bench.proxies import FAST, STEADY, Side, Sides, with_documents
from bench.search import RESULTS, Filled
from bench.search_chat import QUESTION, chat

STREAMS = 200
STARVED = 2.0
"""A stream starves whose chunks are so many times as far apart as the median stream's."""
FLAT = 1.05
CONNECTIONS = 8
WARM_UP = 0.2
"""Of the chats: the memory after them is what the rest is compared with."""


async def many_streams(sides: Sides) -> list[Row]:
    stock = await _streams(sides.stock, STEADY)
    ours = await _streams(sides.ours, with_documents(STEADY))
    what = f"(g) {STREAMS} streams of {STEADY_CHUNKS} chunks"
    slowest = [max(gaps) / median(gaps) for gaps, _ in (stock, ours)]
    return [
        Row(
            f"{what}: gap between chunks, median and slowest stream",
            f"{median(stock[0]) * 1000:.0f} / {max(stock[0]) * 1000:.0f} ms",
            f"{median(ours[0]) * 1000:.0f} / {max(ours[0]) * 1000:.0f} ms",
            f"slowest {slowest[1]:.2f} of the median (stock {slowest[0]:.2f})",
            f"<= {STARVED:.1f}",
            slowest[1] <= STARVED,
        ),
        Row(
            f"{what}: memory of the proxy for each stream",
            f"{stock[1] / 1024:.0f} KiB",
            f"{ours[1] / 1024:.0f} KiB",
            f"{(ours[1] - stock[1]) / 1024:+.0f} KiB",
        ),
    ]


async def _streams(side: Side, model: str) -> tuple[list[float], float]:
    """Mean seconds between the chunks of each stream, and bytes for each."""
    async with side.session() as session:
        await _gap(session, model)
        before = side.memory_bytes()
        peak = before
        running = [asyncio.create_task(_gap(session, model)) for _ in range(STREAMS)]
        while any(not task.done() for task in running):
            await asyncio.wait(running, timeout=0.5)
            peak = max(peak, side.memory_bytes())
        return [task.result() for task in running], (peak - before) / STREAMS


async def _gap(session: aiohttp.ClientSession, model: str) -> float:
    body = {"model": model, "stream": True, "messages": [QUESTION]}
    arrived = []
    timeout = aiohttp.ClientTimeout(total=600)
    async with session.post("/v1/chat/completions", json=body, timeout=timeout) as response:
        if response.status != 200:
            raise MeasurementFailed(f"a stream was answered {response.status}: {await response.text()}")
        async for line in response.content:
            if b'"content":"' in line:
                arrived.append(time.monotonic())
    if len(arrived) < STEADY_CHUNKS:
        raise MeasurementFailed(f"a stream of {STEADY_CHUNKS} chunks came as {len(arrived)}")
    return (arrived[-1] - arrived[0]) / (len(arrived) - 1)


async def memory(sides: Sides, found: Filled, chats: int) -> list[Row]:
    """The memory of our proxy after the first of the chats, each with a search, and after all."""
    body = {
        "model": with_documents(FAST),
        "messages": [QUESTION],
        "rag": {"collections": [found.name], "max_num_results": RESULTS},
    }
    begun = 0

    async def one(session: aiohttp.ClientSession, until: int) -> None:
        nonlocal begun
        while begun < until:
            begun += 1
            await chat(session, body)

    sizes: list[int] = []
    async with sides.ours.session() as session:
        for until in (int(chats * WARM_UP), chats):
            await asyncio.gather(*(one(session, until) for _ in range(CONNECTIONS)))
            sizes.append(sides.ours.memory_bytes())
    return [_flat(sizes, chats)]


def _flat(sizes: Sequence[int], chats: int) -> Row:
    first, last = sizes
    return Row(
        f"(h) memory of the proxy after {int(chats * WARM_UP):,} and {chats:,} chats with a search",
        "",
        f"{first / 2**20:.0f} / {last / 2**20:.0f} MiB",
        f"{last / first:.3f}",
        f"<= {FLAT}",
        last / first <= FLAT,
    )
