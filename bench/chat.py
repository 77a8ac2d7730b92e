"""(a) Plain chat: us with a token against the stock proxy with its key."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from statistics import median

import aiohttp

from bench.figures import MeasurementFailed, Row, milliseconds, p50_p95, spread
from bench.proxies import PLAIN, Sides

CONNECTIONS = (1, 8)
BLOCK_S = 1.5
AIM = 0.95
BODY = {"model": PLAIN, "messages": [{"role": "user", "content": "Say hello."}]}


@dataclass
class Side:
    session: aiohttp.ClientSession
    rates: list[float] = field(default_factory=list)
    """Requests per second, one for each round."""
    latencies: list[float] = field(default_factory=list)
    """Seconds, of all rounds."""

    async def block(self, connections: int, seconds: float) -> None:
        """Send one request after the other on each connection for so long."""
        begin = time.monotonic()
        found = await asyncio.gather(*(self._one(begin + seconds) for _ in range(connections)))
        latencies = [latency for some in found for latency in some]
        self.rates.append(len(latencies) / (time.monotonic() - begin))
        self.latencies += latencies

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
    """Rounds of A B, B A, A B, ... so that a drift of the machine hits both alike."""
    rows = []
    async with sides.stock.session() as stock_session, sides.ours.session() as our_session:
        for connections in CONNECTIONS:
            stock, ours = Side(stock_session), Side(our_session)
            for side in (Side(stock_session), Side(our_session)):  # to warm up
                await side.block(connections, BLOCK_S / 2)
            for number in range(rounds):
                for side in (stock, ours) if number % 2 else (ours, stock):
                    await side.block(connections, BLOCK_S)
            rows += compare(connections, stock, ours)
    return rows


def compare(connections: int, stock: Side, ours: Side) -> list[Row]:
    ratios = [mine / theirs for theirs, mine in zip(stock.rates, ours.rates, strict=True)]
    what = f"(a) plain chat, {connections} connection{'s' if connections > 1 else ''}"
    slower = [
        mine / theirs for theirs, mine in zip(p50_p95(stock.latencies), p50_p95(ours.latencies), strict=True)
    ]
    return [
        Row(
            f"{what}: requests/s",
            f"{median(stock.rates):.0f}",
            f"{median(ours.rates):.0f}",
            spread(ratios),
            f">= {AIM:.2f}",
            median(ratios) >= AIM,
        ),
        Row(
            f"{what}: p50 / p95",
            milliseconds(stock.latencies),
            milliseconds(ours.latencies),
            f"{slower[0]:.2f} / {slower[1]:.2f}",
        ),
    ]
