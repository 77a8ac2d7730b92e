"""(i) The pipeline against its slowest stage alone, and (ii) two workers against one."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from bench.figures import Row
from bench.ingest.documents import note, report
from bench.ingest.site import LOCAL, REMOTE, Site, collection, site
from crawler import conversion
from crawler.contracts import Chunk, Converted, Document, Embedder, Services, Source
from crawler.crawler import CrawlerConfig, Preparer
from crawler.formats import choose
from plugins.worker.crawlers import Crawlers

DOCUMENTS, PAGES = 60, 10
"""Of each kind of embedding."""
CONCURRENCY = 2
"""Documents at once, in the worker as in each stage alone."""
PIPELINE_AIM = 0.9
NOTES, SECTIONS = 24, 63
"""One passage more than sections: two requests of the endpoint for each note."""
WORKERS_AIM = 1.8


async def pipeline(folder: Path, url: str, model: str) -> list[Row]:
    """All stages by a worker, against each stage for itself."""
    files = [(f"report-{seed}.pdf", report(seed, PAGES)) for seed in range(DOCUMENTS)]
    pages = DOCUMENTS * PAGES
    async with site(folder, url, concurrency=CONCURRENCY) as made:
        rates = {name: pages / seconds for name, seconds in (await stages(made, files, model)).items()}
        with made.workers(1):
            await made.ready(1)
            await ingest(made, "warm", model, files[:2])
            ours = pages / await ingest(made, "reports", model, files)
    slowest = min(rates, key=lambda name: rates[name])
    alone = ", ".join(f"{name} {rate:.0f}" for name, rate in rates.items())
    return [
        Row(
            f"(i) {model}: pages/s; each stage alone: {alone}",
            f"{rates[slowest]:.1f} ({slowest})",
            f"{ours:.1f}",
            f"{ours / rates[slowest]:.2f}",
            f">= {PIPELINE_AIM}",
            ours / rates[slowest] >= PIPELINE_AIM,
        )
    ]


async def ingest(made: Site, name: str, model: str, files: Sequence[tuple[str, bytes]]) -> float:
    """Seconds from the upload until all is searchable."""
    identifier = await collection(made.world, name, model)
    began = time.monotonic()
    await made.upload(identifier, files)
    await made.done(identifier, len(files))
    return time.monotonic() - began


async def stages(made: Site, files: Sequence[tuple[str, bytes]], model: str) -> dict[str, float]:
    """Seconds of each stage for all files, so many at once as the worker does."""
    preparer = Preparer(CrawlerConfig())
    seconds: dict[str, float] = {}
    converted: list[Converted] = []
    chunked: list[list[Chunk]] = []

    async def convert(file: tuple[str, bytes]) -> None:
        source = Source(filename=file[0], content=file[1])
        chosen = choose(preparer.formats, source)
        converted.append(await conversion.convert(chosen, source, preparer.config.limits))

    async def chunk(given: Converted) -> None:
        chunked.append(await preparer.chunker.chunk(given.markdown, given.pages, "Report", Services()))

    seconds["convert"] = await timed([partial(convert, file) for file in files])
    await preparer.chunker.chunk("# Warm\n\nup", (), None, Services())
    seconds["chunk"] = await timed([partial(chunk, given) for given in converted])
    embedded: list[tuple[Chunk, ...]] = []
    identifier = await collection(made.world, "stages", model)
    embedder = await embedder_of(made, identifier)
    await embedder.embed(["warm up"])

    async def embed(given: Sequence[Chunk]) -> None:
        size, vectors = CrawlerConfig().embedding_batch_size, list[list[float]]()
        for start in range(0, len(given), size):
            vectors += await embedder.embed([c.indexed_text("Report") for c in given[start : start + size]])
        made_of = zip(given, vectors, strict=True)
        embedded.append(tuple(c.model_copy(update={"dense": tuple(v)}) for c, v in made_of))

    seconds["embed"] = await timed([partial(embed, given) for given in chunked])
    store_name = f"c_{identifier.removeprefix('vs_')}"

    async def store(number: int, given: tuple[Chunk, ...]) -> None:
        document = Document(
            collection=store_name,
            document_id=f"stage-{number}",
            revision="1",
            source="report.pdf",
            metadata={"title": "Report"},
            chunks=given,
        )
        await made.world.store.write(document)

    seconds["store"] = await timed([partial(store, n, given) for n, given in enumerate(embedded)])
    return seconds


async def embedder_of(made: Site, identifier: str) -> Embedder:
    async with made.world.database.read() as connection:
        record = await made.world.documents._gate.find(connection, identifier)
    crawlers = Crawlers(made.world.config, made.world.store)
    return (await asyncio.to_thread(crawlers.get, record, "kc/alice")).embedder


async def timed(work: Sequence[Callable[[], Awaitable[None]]]) -> float:
    """Seconds for all of it, ``CONCURRENCY`` at once."""
    slots = asyncio.Semaphore(CONCURRENCY)

    async def one(task: Callable[[], Awaitable[None]]) -> None:
        async with slots:
            await task()

    began = time.monotonic()
    await asyncio.gather(*(one(task) for task in work))
    return time.monotonic() - began


async def two_workers(folder: Path, url: str) -> list[Row]:
    """Notes, whose time is that of the endpoint, by one worker and by two."""
    files = [(f"note-{seed}.md", note(seed, SECTIONS)) for seed in range(NOTES)]
    seconds = []
    async with site(folder, url, concurrency=1) as made:
        for count in (1, 2):
            with made.workers(count):
                await made.ready(count)
                await ingest(made, f"warm-{count}", REMOTE, files[: 2 * count])
                seconds.append(await ingest(made, f"notes-{count}", REMOTE, files))
    one, two = (NOTES / each for each in seconds)
    return [
        Row(
            "(ii) one worker and two, an endpoint that waits: documents/s",
            f"{one:.2f}",
            f"{two:.2f}",
            f"{two / one:.2f}",
            f">= {WORKERS_AIM}",
            two / one >= WORKERS_AIM,
        )
    ]


KINDS = (LOCAL, REMOTE)
