"""Ingestion beside a proxy: (iii) memory, (iv) chats meanwhile, (vi) how soon a note is found."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import aiohttp

from bench.figures import MeasurementFailed, Row, milliseconds, p50_p95
from bench.ingest.documents import note, report
from bench.ingest.site import LOCAL
from bench.proxies import ENVIRONMENT, FAST, OURS, PLAIN, Side, with_documents
from tests.support.proxy import MASTER_KEY, ROOT, proxy
from tests.support.quickstart import WORKER

MEMORY_DOCUMENTS, WARM_UP = 1000, 200
FLAT = 1.05
CHATS, BLOCKS = 150, 3
CHAT_AIM = 1.2
BUSY = (6, 60)
"""Reports and their pages that keep the worker at work during a block."""
NOTES = 15
LIMIT_S = 1800.0
FILES_PER_REQUEST = 50
KEY = "sk-bench-alice-0123456789abcdef"


@dataclass(frozen=True)
class Busy:
    """A proxy whose own worker ingests."""

    side: Side
    worker: Side
    session: aiohttp.ClientSession

    async def create(self, name: str) -> None:
        await self.post("/v1/collections/new", {"name": name})

    async def post(self, path: str, body: dict[str, Any]) -> Any:
        async with self.session.post(path, json=body) as response:
            if response.status >= 300:
                raise MeasurementFailed(f"{path} was answered {response.status}: {await response.text()}")
            return await response.json()

    async def upload(self, name: str, files: Sequence[tuple[str, bytes]]) -> None:
        for start in range(0, len(files), FILES_PER_REQUEST):
            form = aiohttp.FormData()
            for filename, content in files[start : start + FILES_PER_REQUEST]:
                form.add_field("files", content, filename=filename)
            async with self.session.post(f"/v1/collections/{name}/add", data=form) as response:
                if response.status != 202:
                    raise MeasurementFailed(f"an upload was answered {response.status}")

    async def waiting(self, name: str) -> int:
        """Documents of the collection that are not done yet."""
        path = f"/v1/collections/{name}/documents?status=in_progress&limit=1000"
        async with self.session.get(path) as response:
            return len((await response.json())["data"])

    async def until_done(self, name: str, at_most: int = 0) -> None:
        deadline = time.monotonic() + LIMIT_S
        while await self.waiting(name) > at_most:
            if time.monotonic() > deadline:
                raise MeasurementFailed("ingestion did not end")
            await asyncio.sleep(0.25)


@contextmanager
def one_proxy(folder: Path) -> Iterator[tuple[Side, Side]]:
    """Started with its own worker; both are ended in any case."""
    folder.mkdir()
    prompts = folder / "config" / "prompts"
    prompts.parent.mkdir()
    prompts.symlink_to(ROOT / "config" / "prompts")
    config: dict[str, dict[str, Any]] = {
        "identity": {
            "identity": {
                "sources": [
                    {"use": "api_keys", "name": "kc", "keys": [{"key": KEY, "user": "alice"}]},
                    {"use": "litellm"},
                ]
            }
        },
        "collections": {
            "collections": {"embedding_model": LOCAL, "create": [{"subjects": ["user:kc/alice"]}]}
        },
        "storage": {"storage": {"data_dir": str(folder / "data")}},
        "tools": {"tools": [{"use": "search_documents", "allow": ["*"]}]},
        "limits": {"worker": {"embedded": True}},
    }
    models = [*OURS["model_list"], local_model()]
    with proxy(folder, {**OURS, "model_list": models}, config, ENVIRONMENT) as running:
        deadline = time.monotonic() + 60
        while (worker := worker_of(folder)) is None:
            if time.monotonic() > deadline:
                raise MeasurementFailed("the proxy has no worker")
            time.sleep(0.1)
        yield Side(running.url, KEY, running.process.pid), Side(running.url, MASTER_KEY, worker)


def local_model() -> dict[str, Any]:
    params = {"model": LOCAL, "additional_drop_params": ["encoding_format", "user"]}
    return {"model_name": LOCAL, "litellm_params": params, "model_info": {"mode": "embedding"}}


def worker_of(folder: Path) -> int | None:
    mark = f"DATA_DIR={folder / 'data'}".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                if WORKER in command:
                    return int(entry.name)
        except OSError:
            continue  # it ended meanwhile
    return None


async def beside(folder: Path) -> list[Row]:
    with one_proxy(folder) as (side, worker):
        async with side.session() as session:
            busy = Busy(side, worker, session)
            rows = await soon(busy)
            rows += await chats(busy)
            return await memory(busy) + rows


async def memory(busy: Busy) -> list[Row]:
    """After the first of the documents and after all."""
    await busy.create("many")
    before: list[int] = []
    for part in (range(WARM_UP), range(WARM_UP, MEMORY_DOCUMENTS)):
        files = [(f"{n}.pdf", report(n, 1)) if n % 4 == 0 else (f"{n}.md", note(n)) for n in part]
        await busy.upload("many", files)
        await busy.until_done("many")
        before += [busy.worker.memory_bytes(), busy.side.memory_bytes()]
    rows = []
    for name, first, last in (("worker", before[0], before[2]), ("proxy", before[1], before[3])):
        rows.append(
            Row(
                f"(iii) memory of the {name} after {WARM_UP} and {MEMORY_DOCUMENTS:,} documents",
                f"{first / 2**20:.0f} MiB",
                f"{last / 2**20:.0f} MiB",
                f"{last / first:.2f}",
                f"<= {FLAT}",
                last / first <= FLAT,
            )
        )
    return rows


async def chats(busy: Busy) -> list[Row]:
    """Blocks of chats with nothing else to do, and while reports are ingested, by turns."""
    await busy.create("shelf")
    await busy.upload("shelf", [("shelf.md", note(0, 20))])
    await busy.until_done("shelf")
    await busy.create("reports")
    asked: dict[str, dict[str, Any]] = {
        "plain": {"model": PLAIN},
        "with a search": {"model": with_documents(FAST), "rag": {"collections": ["shelf"]}},
    }
    times: dict[tuple[str, bool], list[float]] = {}
    for block in range(BLOCKS):
        for ingesting in (False, True):
            if ingesting:
                files = [(f"{block}-{n}.pdf", report(1000 * block + n, BUSY[1])) for n in range(BUSY[0])]
                await busy.upload("reports", files)
                await busy.until_done("reports", at_most=len(files) - 1)  # all stages have been at work
            for kind, body in asked.items():
                times.setdefault((kind, ingesting), []).extend([await chat(busy, body) for _ in range(CHATS)])
            if ingesting and not await busy.waiting("reports"):
                raise MeasurementFailed("ingestion ended before the chats did: give it more reports")
            await busy.until_done("reports")
    rows = []
    for kind in asked:
        idle, meanwhile = times[kind, False], times[kind, True]
        ratio = p50_p95(meanwhile)[1] / p50_p95(idle)[1]
        rows.append(
            Row(
                f"(iv) chat {kind}, idle and while ingesting: p50 / p95",
                milliseconds(idle),
                milliseconds(meanwhile),
                f"{median(meanwhile) / median(idle):.2f} / {ratio:.2f}",
                f"p95 <= {CHAT_AIM}",
                ratio <= CHAT_AIM,
            )
        )
    return rows


async def chat(busy: Busy, body: dict[str, Any]) -> float:
    began = time.monotonic()
    question = {"role": "user", "content": "What is in the notes?"}
    await busy.post("/v1/chat/completions", {**body, "messages": [question]})
    return time.monotonic() - began


async def soon(busy: Busy) -> list[Row]:
    """From sending a note of one page until a search finds it."""
    await busy.create("notes")
    seconds = []
    for number in range(NOTES + 2):
        began = time.monotonic()
        await busy.upload("notes", [(f"{number}.md", note(5000 + number, 2, 200))])
        body = {"query": f"note{5000 + number}end", "ranking_options": {"ranker": "bm25"}}
        while not (await busy.post("/v1/collections/notes/search", body))["data"]:  # noqa: ASYNC110 - it asks
            await asyncio.sleep(0.02)
        if number >= 2:  # the first ones load the model
            seconds.append(time.monotonic() - began)
    return [Row("(vi) from upload to found, a note of one page: p50 / p95", "", milliseconds(seconds), "")]
