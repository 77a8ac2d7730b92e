"""(c), (e) What we add to the way of a streamed chunk from the model to the client."""

from __future__ import annotations

import asyncio
import json
import time
from statistics import median

import aiohttp

from bench.figures import MeasurementFailed, Row, milliseconds, p50_p95
from bench.models import CHUNKS
from bench.proxies import STREAMED, Sides, with_documents

STREAMS = (1, 4)
"""At the same time."""
AIM_S = 0.005


async def streams(sides: Sides, rounds: int) -> list[Row]:
    """Stock, ours without documents, ours with a search before: in turn, in changing order."""
    rows = []
    async with sides.stock.session() as stock, sides.ours.session() as ours:
        ways = [(stock, STREAMED), (ours, STREAMED), (ours, with_documents(STREAMED))]
        for session, model in ways:  # to warm up
            await delays(session, model)
        for at_once in STREAMS:
            found: list[list[float]] = [[] for _ in ways]
            first: list[list[float]] = [[] for _ in ways]
            for number in range(rounds):
                for index in sorted(range(len(ways)), key=lambda i: (i + number) % len(ways)):
                    some = await asyncio.gather(*(delays(*ways[index]) for _ in range(at_once)))
                    found[index] += [delay for one in some for delay in one]
                    first[index] += [one[0] for one in some]
            base, plain, searched = found
            what = f"delay of a chunk, {at_once} stream{'s' if at_once > 1 else ''}"
            rows.append(compare(f"(c) {what}: p50 / p95", base, plain))
            rows.append(compare(f"(e) {what}, after a search: p50 / p95", base, searched))
            rows.append(compare(f"(e) {what}, after a search, the first: p50 / p95", first[0], first[2]))
    return rows


def compare(what: str, stock: list[float], ours: list[float]) -> Row:
    added = [mine - theirs for theirs, mine in zip(p50_p95(stock), p50_p95(ours), strict=True)]
    return Row(
        what,
        milliseconds(stock),
        milliseconds(ours),
        f"{added[0] * 1000:+.1f} / {added[1] * 1000:+.1f} ms",
        f"both <= {AIM_S * 1000:.0f} ms",
        max(added) <= AIM_S,
    )


async def delays(session: aiohttp.ClientSession, model: str) -> list[float]:
    """Seconds between when the model made each chunk and when it was here."""
    body = {"model": model, "stream": True, "messages": [{"role": "user", "content": "What is the time?"}]}
    found = []
    async with session.post("/v1/chat/completions", json=body) as response:
        if response.status != 200:
            raise MeasurementFailed(f"a stream was answered {response.status}: {await response.text()}")
        async for line in response.content:
            now = time.monotonic()
            if not line.startswith(b"data: {"):
                continue
            for choice in json.loads(line.removeprefix(b"data: ")).get("choices") or ():
                if content := (choice["delta"].get("content") or "").strip():
                    found.append(now - float(content))
    if len(found) != CHUNKS:
        raise MeasurementFailed(f"a stream of {CHUNKS} chunks came as {len(found)}, median {median(found)} s")
    return found
