"""(v) Search in 100,000 passages against 10,000, in the embedded store."""

from __future__ import annotations

import random
import time
from collections.abc import Sequence
from pathlib import Path
from statistics import median

from bench.figures import MeasurementFailed, Row, milliseconds, p50_p95
from bench.ingest.documents import WORDS
from bench.ingest.site import Site, site
from crawler.contracts import Chunk, Document
from crawler.store import Query

SIZES = (10_000, 100_000)
DIMENSION = 384
PER_DOCUMENT = 2_000
QUERIES = 40
RARE = [f"{a}{b}" for a in ("quartz", "maple", "falcon", "harbor", "copper") for b in range(400)]
"""Words that only some passages have, so that keyword search has something to tell apart."""


async def scale(folder: Path) -> list[Row]:
    times = []
    async with site(folder, "http://127.0.0.1:9", concurrency=1) as made:
        for size in SIZES:
            await fill(made, f"bench_{size}", size)
        for size in SIZES:
            times.append(await search(made, f"bench_{size}"))
    small, large = times
    slower = [median(large) / median(small), p50_p95(large)[1] / p50_p95(small)[1]]
    return [
        Row(
            f"(v) hybrid search, {SIZES[0]:,} and {SIZES[1]:,} passages: p50 / p95",
            milliseconds(small),
            milliseconds(large),
            f"{slower[0]:.1f} / {slower[1]:.1f} times as slow",
        )
    ]


async def fill(made: Site, name: str, size: int) -> None:
    store = made.world.store
    chance = random.Random(size)  # noqa: S311 - the same each time
    await store.create(name, dimension=DIMENSION, metric="COSINE", retrieval="hybrid")
    for number in range(size // PER_DOCUMENT):
        chunks = tuple(chunk(chance, index) for index in range(PER_DOCUMENT))
        document = Document(
            collection=name, document_id=f"d{number}", revision="1", source="bench.md", chunks=chunks
        )
        await store.write(document)


def chunk(chance: random.Random, index: int) -> Chunk:
    words = [*chance.choices(WORDS, k=60), *chance.choices(RARE, k=2)]
    return Chunk(index=index, start=0, end=0, content=" ".join(words), dense=vector(chance))


def vector(chance: random.Random) -> tuple[float, ...]:
    return tuple(chance.gauss(0, 1) for _ in range(DIMENSION))


async def search(made: Site, name: str) -> Sequence[float]:
    chance, seconds = random.Random(1), []  # noqa: S311 - the same queries in each run
    for number in range(QUERIES + 5):
        text = " ".join([*chance.choices(WORDS, k=3), *chance.choices(RARE, k=1)])
        began = time.monotonic()
        query = Query(text=text, vector=vector(chance), limit=10)
        found = await made.world.store.search(name, query, frozenset({"everyone"}))
        if len(found) != 10:
            raise MeasurementFailed(f"a search in {name} found {len(found)} passages")
        if number >= 5:  # the first ones load the collection
            seconds.append(time.monotonic() - began)
    return seconds
