"""(b) Our search against the same search on the store directly."""

from __future__ import annotations

import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import median

import aiohttp

from bench.figures import MeasurementFailed, Row, milliseconds, p50_p95
from bench.models import DIMENSION, VECTOR
from bench.proxies import GROUP, SOURCE, Sides
from crawler.store import Audience, Query
from plugins.collections.records import audiences
from plugins.collections.search import FRESH_S, Searcher
from plugins.collections.storage import open_store
from plugins.core.identity import Principal
from plugins.core.shapes import SearchRequest
from tests.support.collections import World, a_config

DOCUMENTS = 50
SECTIONS = (40, 200)
"""Of a document, for each collection that is measured; each section is a passage."""
RESULTS = 10
AIM = 1.1
WORDS = [
    f"{a}{b}{c}" for a in "bdfglmnprst" for b in ("a", "e", "i", "o") for c in ("ran", "tel", "mus", "k")
]


@dataclass(frozen=True)
class Filled:
    """A collection with passages in our proxy's store, as this process reaches it."""

    world: World
    name: str
    store_name: str
    audience: Audience
    """The audiences that admit the one who searches."""
    chunks: int
    written_at: float


@asynccontextmanager
async def filled(sides: Sides) -> AsyncIterator[list[Filled]]:
    """Upload documents by the services of the product, into the store that our proxy serves."""
    config = a_config(sides.folder)
    world = World(config, open_store(config.storage))
    world.model.dimension = DIMENSION
    try:
        yield [await fill(world, f"papers-{sections}", sections) for sections in SECTIONS]
    finally:
        await world.store.close()
        await world.database.close()


async def fill(world: World, name: str, sections: int) -> Filled:
    collection = await world.collection(name)
    chance = random.Random(1)  # noqa: S311 - the same text in each run
    for number in range(DOCUMENTS):
        # Of five documents one is for a group that the searcher is in, one for another.
        acl = {0: [f"group:{SOURCE}/{GROUP}"], 1: [f"group:{SOURCE}/board"]}.get(number % 5)
        await world.add(collection.id, text(chance, sections), filename=f"{number}.md", acl=acl)
        await world.work()
    view = await world.catalogue.get(world.alice, collection.id)
    async with world.database.read() as connection:
        admitted = await audiences(connection, world.alice, [collection.id])
    store_name = f"c_{collection.id.removeprefix('vs_')}"
    return Filled(world, name, store_name, admitted[collection.id], view.chunks, time.time())


def text(chance: random.Random, sections: int) -> str:
    written = []
    for number in range(sections):
        words = " ".join(chance.choices(WORDS, k=70))
        written.append(f"## Section {number} {chance.choice(WORDS)}\n\n{words}.")
    return "\n\n".join(written)


async def constant(model: str, texts: Sequence[str], principal: Principal) -> list[list[float]]:
    """In the place of an embedding model, whose time is not to count."""
    return [VECTOR for _ in texts]


async def search(sides: Sides, found: Filled, pairs: int) -> list[Row]:
    """Each query three ways, one after the other, in changing order."""
    world = found.world
    searcher = Searcher(
        world.database, world.rights, world.store, constant, world.config.collections, lambda name: True
    )
    fields = world.config.collections.fields

    async def directly(words: str) -> list[str]:
        fresh = time.time() - found.written_at < FRESH_S
        query = Query(text=words, vector=tuple(VECTOR), limit=RESULTS, fields=fields, fresh=fresh)
        return [hit.content for hit in await world.store.search(found.store_name, query, found.audience)]

    async def ours(words: str) -> list[str]:
        request = SearchRequest(query=words, max_num_results=RESULTS)
        return [passage.text for passage in await searcher.search(world.alice, [found.name], request)]

    async with sides.ours.session() as session:

        async def over_http(words: str) -> list[str]:
            return await post(session, found.name, words)

        ways = (directly, ours, over_http)
        times = await timed(ways, pairs)
    store, domain, http = (times[way.__name__] for way in ways)
    what = f"(b) search, {found.chunks:,} passages"
    compared = [median(domain) / median(store), p50_p95(domain)[1] / p50_p95(store)[1]]
    return [
        Row(
            f"{what}: p50 / p95",
            milliseconds(store),
            milliseconds(domain),
            f"{compared[0]:.2f} / {compared[1]:.2f}",
            f"p50 <= {AIM:.1f}",
            compared[0] <= AIM,
        ),
        Row(
            f"{what}, over HTTP with a token: p50 / p95",
            milliseconds(store),
            milliseconds(http),
            f"{(median(http) - median(store)) * 1000:+.1f} ms at p50",
        ),
    ]


async def timed(ways: Sequence[Callable[[str], Awaitable[list[str]]]], pairs: int) -> dict[str, list[float]]:
    """Seconds of each way by its name; the same passages must come by each."""
    times: dict[str, list[float]] = {way.__name__: [] for way in ways}
    chance = random.Random(2)  # noqa: S311 - the same queries in each run
    for number in range(pairs + 5):
        words = " ".join(chance.choices(WORDS, k=4))
        answers = []
        for way in [*ways[number % len(ways) :], *ways[: number % len(ways)]]:
            begin = time.monotonic()
            answers.append(sorted(await way(words)))
            if number >= 5:  # the first ones warm up
                times[way.__name__].append(time.monotonic() - begin)
        if not answers[0] or any(answer != answers[0] for answer in answers):
            raise MeasurementFailed("search found other passages than the store itself")
    return times


async def post(session: aiohttp.ClientSession, collection: str, words: str) -> list[str]:
    body = {"query": words, "max_num_results": RESULTS}
    async with session.post(f"/v1/collections/{collection}/search", json=body) as response:
        if response.status != 200:
            raise MeasurementFailed(f"search was answered {response.status}: {await response.text()}")
        content = await response.json()
    return [hit["content"][0]["text"] for hit in content["data"]]
