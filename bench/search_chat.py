"""(f) A chat with one search, against the same two calls of the model and the search made by hand.

By hand are three requests to the same process, with the same token: one process has one core.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable
from statistics import median
from typing import Any

import aiohttp

from bench.figures import MeasurementFailed, Row, milliseconds, p50_p95, quartiles
from bench.models import QUERY
from bench.proxies import FAST, Sides, with_documents
from bench.search import RESULTS, Filled, post

CONNECTIONS = (1, 8)
BLOCK_S = 1.0
BLOCKS_PER_ROUND = 2
AIM = 1.1
QUESTION = {"role": "user", "content": "How long is the notice period?"}
TOOL = {
    "type": "function",
    "function": {
        "name": "search_documents",
        "description": "Search the user's documents and get the best matching passages.",
        "parameters": {"type": "object", "properties": {"query": {"type": "string"}}, "required": ["query"]},
    },
}


async def search_chat(sides: Sides, found: Filled, rounds: int) -> list[Row]:
    """By hand and by us in short turns, in changing order."""
    async with sides.ours.session() as ours:

        async def by_hand() -> None:
            asked = await chat(ours, {"model": FAST, "messages": [QUESTION], "tools": [TOOL]})
            call = asked["tool_calls"][0]
            passages = await post(ours, found.name, json.loads(call["function"]["arguments"])["query"])
            result = {"role": "tool", "tool_call_id": call["id"], "content": "\n\n".join(passages)}
            called = {"role": "assistant", "content": None, "tool_calls": asked["tool_calls"]}
            await chat(ours, {"model": FAST, "messages": [QUESTION, called, result], "tools": [TOOL]})

        async def by_us() -> None:
            rag = {"collections": [found.name], "max_num_results": RESULTS}
            model = with_documents(FAST)
            answer = await chat(ours, {"model": model, "messages": [QUESTION], "rag": rag})
            if not answer["annotations"]:
                raise MeasurementFailed(f"the answer to {QUERY!r} cites nothing")

        rows = []
        for connections in CONNECTIONS:
            rates: dict[Any, list[float]] = {by_hand: [], by_us: []}
            latencies: dict[Any, list[float]] = {by_hand: [], by_us: []}
            for way in rates:  # to warm up
                await block(way, connections)
            for number in range(rounds * BLOCKS_PER_ROUND):
                for way in (by_hand, by_us) if number % 2 else (by_us, by_hand):
                    rate, some = await block(way, connections)
                    rates[way].append(rate)
                    latencies[way] += some
            rows += compare(
                connections, (rates[by_hand], latencies[by_hand]), (rates[by_us], latencies[by_us])
            )
    return rows


def compare(
    connections: int, hand: tuple[list[float], list[float]], ours: tuple[list[float], list[float]]
) -> list[Row]:
    what = f"(f) chat with a search, {connections} connection{'s' if connections > 1 else ''}"
    slower = [theirs / mine for theirs, mine in zip(hand[0], ours[0], strict=True)]
    late = [mine / theirs for theirs, mine in zip(p50_p95(hand[1]), p50_p95(ours[1]), strict=True)]
    return [
        Row(
            f"{what}: requests/s",
            f"{median(hand[0]):.0f}",
            f"{median(ours[0]):.0f}",
            f"{quartiles(slower)} times as slow",
            f"<= {AIM}",
            median(slower) <= AIM,
        ),
        Row(
            f"{what}: p50 / p95",
            milliseconds(hand[1]),
            milliseconds(ours[1]),
            f"{late[0]:.2f} / {late[1]:.2f}",
            f"p95 <= {AIM}",
            late[1] <= AIM,
        ),
    ]


async def block(way: Callable[[], Awaitable[None]], connections: int) -> tuple[float, list[float]]:
    """Chats per second, and the seconds of each, for so many at the same time."""

    async def one() -> list[float]:
        latencies = []
        while (start := time.monotonic()) < begin + BLOCK_S:
            await way()
            latencies.append(time.monotonic() - start)
        return latencies

    begin = time.monotonic()
    found = [
        latency for some in await asyncio.gather(*(one() for _ in range(connections))) for latency in some
    ]
    return len(found) / (time.monotonic() - begin), found


async def chat(session: aiohttp.ClientSession, body: dict[str, Any]) -> dict[str, Any]:
    """The message that answers."""
    async with session.post("/v1/chat/completions", json=body) as response:
        if response.status != 200:
            raise MeasurementFailed(f"a chat was answered {response.status}: {await response.text()}")
        message: dict[str, Any] = (await response.json())["choices"][0]["message"]
    return message
