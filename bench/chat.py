"""(a) Plain chat: us with a token against the stock proxy with its key."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from statistics import median

import aiohttp

from bench.figures import MeasurementFailed, Row, milliseconds, p50_p95, quartiles
from bench.proxies import PLAIN, Side, Sides

CONNECTIONS = (1, 8)
BLOCK_S = 0.5
"""Short, so that whatever else the machine does hits both sides alike."""
BLOCKS_PER_ROUND = 8
"""So many that no side has the one seldom and long collection of all its garbage by accident."""
WARM_UP_S = 1.0
AIM = 0.95
BODY = {"model": PLAIN, "messages": [{"role": "user", "content": "Say hello."}]}


@dataclass
class Load:
    """What one side is sent, and how it took it."""

    side: Side
    session: aiohttp.ClientSession
    rates: list[float] = field(default_factory=list)
    """Requests per second, one for each block."""
    latencies: list[float] = field(default_factory=list)
    """Seconds, of all blocks."""
    cpu_s: float = 0.0
    """Processor time of the proxy, of all blocks."""

    async def block(self, connections: int, seconds: float) -> None:
        """Send one request after the other on each connection for so long."""
        begin, cpu_s = time.monotonic(), self.side.cpu_s()
        found = await asyncio.gather(*(self._one(begin + seconds) for _ in range(connections)))
        latencies = [latency for some in found for latency in some]
        self.rates.append(len(latencies) / (time.monotonic() - begin))
        self.latencies += latencies
        self.cpu_s += self.side.cpu_s() - cpu_s

    async def _one(self, end: float) -> list[float]:
        latencies = []
        while (begin := time.monotonic()) < end:
            async with self.session.post("/v1/chat/completions", json=BODY) as response:
                content = await response.read()
                if response.status != 200:
                    raise MeasurementFailed(f"plain chat was answered {response.status}: {content[:500]!r}")
            latencies.append(time.monotonic() - begin)
        return latencies


async def plain_chat(sides: Sides, rounds: int) -> list[Row]:
    """Blocks of A B, B A, A B, ... so that a drift of the machine hits both alike."""
    rows = []
    async with sides.stock.session() as stock_session, sides.ours.session() as our_session:
        for connections in CONNECTIONS:
            stock, ours = Load(sides.stock, stock_session), Load(sides.ours, our_session)
            for warmed in (Load(sides.stock, stock_session), Load(sides.ours, our_session)):
                await warmed.block(connections, WARM_UP_S)
            for number in range(rounds * BLOCKS_PER_ROUND):
                for load in (stock, ours) if number % 2 else (ours, stock):
                    await load.block(connections, BLOCK_S)
            rows += compare(connections, stock, ours)
    return rows


def compare(connections: int, stock: Load, ours: Load) -> list[Row]:
    ratios = [mine / theirs for theirs, mine in zip(stock.rates, ours.rates, strict=True)]
    what = f"(a) plain chat, {connections} connection{'s' if connections > 1 else ''}"
    slower = [
        mine / theirs for theirs, mine in zip(p50_p95(stock.latencies), p50_p95(ours.latencies), strict=True)
    ]
    stock_cpu, our_cpu = (load.cpu_s / len(load.latencies) for load in (stock, ours))
    return [
        Row(
            f"{what}: requests/s",
            f"{median(stock.rates):.0f}",
            f"{median(ours.rates):.0f}",
            quartiles(ratios),
            f">= {AIM:.2f}",
            median(ratios) >= AIM,
        ),
        Row(
            f"{what}: p50 / p95",
            milliseconds(stock.latencies),
            milliseconds(ours.latencies),
            f"{slower[0]:.2f} / {slower[1]:.2f}",
        ),
        Row(
            f"{what}: processor time of the proxy per request",
            f"{stock_cpu * 1000:.2f} ms",
            f"{our_cpu * 1000:.2f} ms",
            f"{our_cpu / stock_cpu:.2f}",
        ),
    ]
