"""`python -m bench.load`: a steady mix of chats, searches and uploads for minutes: what it does to latencies,
errors, memory and file descriptors.

First as much as there is room for, minute by minute; the least of these is the capacity. Then at shares of
it, each request at its own time (a Poisson process), whether or not the ones before it are answered. The
clients are on the same machine.
Exit status 0 also where an aim is missed, which the table says; 1 when a measurement failed.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import os
import random
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median, quantiles

import aiohttp

from bench.figures import MeasurementFailed, Row, table
from bench.ingest.beside import Busy, one_proxy
from bench.ingest.documents import note
from bench.proxies import FAST, with_documents

MIX = {"chat": 50, "search": 45, "upload": 5}
"""In a hundred requests. A chat is streamed and searches once; an upload replaces a note."""
NOTES = 200
"""Uploads replace them by turns: what is stored does not grow."""
SHARES = (0.5, 0.9)
AT_ONCE = 8
CAPACITY_S, CAPACITY_TIMES = 60.0, 5
WARM_UP_S, WARM_UP_AT_ONCE = 15.0, 64
"""More at once than are measured: all pools of connections are full before anything is counted."""
SAMPLE_S = 2.0
REST_S = 45.0
"""Longer than the ends of a connection keep it open when nothing is asked."""
MOST_AT_ONCE = 400
FLAT = 1.05
FEW = 5
"""So many more descriptors may be open after a load than before it, each time at rest."""
QUESTION = "What is in the notes?"


@dataclass
class Seen:
    """What happened to the requests of one load."""

    seconds: dict[str, list[float]] = field(default_factory=lambda: {kind: [] for kind in MIX})
    """By kind: from when each was due to its whole answer."""
    errors: list[str] = field(default_factory=list)
    memory: list[int] = field(default_factory=list)
    """Samples in bytes: the proxy, its worker and its store together."""

    @property
    def answered(self) -> int:
        return sum(len(values) for values in self.seconds.values())


class Load:
    """The requests."""

    def __init__(self, busy: Busy, seed: int) -> None:
        self._busy = busy
        self._random = random.Random(seed)  # noqa: S311 - the same load each time
        self._numbers = itertools.count(NOTES)
        self._kinds: dict[str, Callable[[], Awaitable[None]]] = {
            "chat": self._chat,
            "search": self._search,
            "upload": self._upload,
        }

    def pause(self, rate: float) -> float:
        """Seconds until the next request of a Poisson process of so many requests a second."""
        return self._random.expovariate(rate)

    async def one(self, seen: Seen, due: float) -> None:
        [kind] = self._random.choices(list(MIX), weights=list(MIX.values()))
        try:
            await self._kinds[kind]()
        except (MeasurementFailed, aiohttp.ClientError, TimeoutError) as error:
            seen.errors.append(f"{kind}: {type(error).__name__}: {error}")
        else:
            seen.seconds[kind].append(time.monotonic() - due)

    async def _chat(self) -> None:
        body = {
            "model": with_documents(FAST),
            "rag": {"collections": ["notes"]},
            "messages": [{"role": "user", "content": QUESTION}],
            "stream": True,
        }
        async with self._busy.session.post("/v1/chat/completions", json=body) as response:
            answer = await response.text()
        if response.status != 200 or not answer.rstrip().endswith("[DONE]") or '"error"' in answer:
            raise MeasurementFailed(f"{response.status}: {answer[-300:]}")

    async def _search(self) -> None:
        query = f"note{self._random.randrange(NOTES)} and what it says"
        found = await self._busy.post("/v1/collections/notes/search", {"query": query})
        if not found["data"]:
            raise MeasurementFailed("nothing was found")

    async def _upload(self) -> None:
        await self.put(next(self._numbers))

    async def put(self, number: int) -> None:
        form = aiohttp.FormData()
        name = f"note-{number % NOTES}"
        form.add_field("files", note(number, 2, 200), filename=f"{name}.md")
        form.add_field("ids", f'["{name}"]')
        async with self._busy.session.post("/v1/collections/notes/add", data=form) as response:
            if response.status != 202:
                raise MeasurementFailed(f"{response.status}: {await response.text()}")


async def capacity(
    load: Load, seconds: float, ingested: Callable[[], Awaitable[None]], at_once: int = AT_ONCE
) -> float:
    """Requests a second that are answered, and their uploads ingested, when some are always asked at once."""
    began = time.monotonic()
    seen, end = Seen(), began + seconds

    async def client() -> None:
        while time.monotonic() < end:
            await load.one(seen, time.monotonic())

    await asyncio.gather(*(client() for _ in range(at_once)))
    if seen.errors:
        raise MeasurementFailed(f"{len(seen.errors)} errors, the first: {seen.errors[0]}")
    await ingested()
    return seen.answered / (time.monotonic() - began)


async def steady(load: Load, folder: Path, rate: float, seconds: float) -> Seen:
    """So many requests a second for so long, each at its time."""
    seen, running = Seen(), set[asyncio.Task[None]]()
    sampling = asyncio.create_task(_sample(seen, folder))
    due = time.monotonic()
    end = due + seconds
    while (due := due + load.pause(rate)) < end:
        await asyncio.sleep(due - time.monotonic())
        if len(running) >= MOST_AT_ONCE:
            seen.errors.append(f"{MOST_AT_ONCE} requests were not answered yet")
            continue
        task = asyncio.create_task(load.one(seen, due))
        running.add(task)
        task.add_done_callback(running.discard)
    if running:
        await asyncio.wait(running)
    sampling.cancel()
    return seen


async def _sample(seen: Seen, folder: Path) -> None:
    while True:
        await asyncio.sleep(SAMPLE_S)
        seen.memory.append(sum(map(pss_bytes, processes(folder))))


async def descriptors_at_rest(folder: Path) -> int:
    """Those that the proxy, its worker and its store have open when nothing has been asked for a while."""
    await asyncio.sleep(REST_S)
    return sum(map(descriptors, processes(folder)))


def processes(folder: Path) -> Iterator[int]:
    """The proxy and its children: all that have its data directory in their environment."""
    mark = f"DATA_DIR={folder / 'data'}".encode()
    for entry in Path("/proc").iterdir():
        try:
            if entry.name.isdigit() and mark in (entry / "environ").read_bytes().split(b"\0"):
                yield int(entry.name)
        except OSError:
            continue  # it ended meanwhile


def pss_bytes(pid: int) -> int:
    """What it has of its own and its share of what it has with others (proc_pid_smaps(5), Pss)."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return int(next(line for line in lines if line.startswith("Pss:")).split()[1]) * 1024


def descriptors(pid: int) -> int:
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except OSError:
        return 0


def rows_of(share: float, rate: float, seen: Seen, few: int, many: int) -> list[Row]:
    """The table's part of one load; descriptors are those before and after it."""
    what = f"{share:.0%} of the capacity ({rate:.1f} requests/s)"
    rows = []
    for kind, seconds in seen.seconds.items():
        cut = quantiles(seconds, n=100)
        figures = " / ".join(f"{value * 1000:.0f}" for value in (cut[49], cut[94], cut[98]))
        rows.append(
            Row(f"{what}: {kind}, p50 / p95 / p99", "", f"{figures} ms", f"{len(seconds):,} requests")
        )
    rows.append(Row(f"{what}: errors", "", str(len(seen.errors)), "", "0", not seen.errors))
    early, late = _early_and_late(seen.memory)
    ratio = late / early
    before, after = f"{early / 2**20:.0f} MiB", f"{late / 2**20:.0f} MiB"
    rows.append(Row(f"{what}: memory", before, after, f"{ratio:.3f}", f"<= {FLAT}", ratio <= FLAT))
    more = many - few
    what = f"{what}: file descriptors at rest"
    rows.append(Row(what, str(few), str(many), f"{more:+}", f"<= +{FEW}", more <= FEW))
    return rows


def _early_and_late(values: Sequence[int]) -> tuple[float, float]:
    """The medians of the second and of the last fifth."""
    part = max(1, len(values) // 5)
    return median(values[part : 2 * part]), median(values[-part:])


async def measure(folder: Path, seconds: float, seed: int) -> list[Row]:
    with one_proxy(folder) as (side, worker):
        async with side.session() as session:
            busy = Busy(side, worker, session)
            await busy.create("notes")
            load = Load(busy, seed)
            for number in range(NOTES):
                await load.put(number)

            async def ingested() -> None:
                await busy.until_done("notes")

            await ingested()
            await capacity(load, WARM_UP_S, ingested, WARM_UP_AT_ONCE)
            rates = [await capacity(load, CAPACITY_S, ingested) for _ in range(CAPACITY_TIMES)]
            most = min(rates)
            what = f"the capacity, {AT_ONCE} requests at once"
            rows = [Row(what, "", f"{most:.1f} requests/s", f"at best {max(rates):.1f}")]
            open_before = await descriptors_at_rest(folder)
            for share in SHARES:
                seen = await steady(load, folder, share * most, seconds)
                for error in seen.errors[:5]:
                    print(error, file=sys.stderr)
                await ingested()
                open_after = await descriptors_at_rest(folder)
                rows += rows_of(share, share * most, seen, open_before, open_after)
                open_before = open_after
            return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.load", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--seconds", type=float, default=600.0, help="at each share of the capacity")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the proxy ends as well
    before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="collections-bench-") as folder:
        try:
            rows = asyncio.run(measure(Path(folder) / "load", arguments.seconds, arguments.seed))
        except MeasurementFailed as error:
            raise SystemExit(f"FAILED: {error}") from error
    print(table(rows))
    print(f"\n{os.cpu_count()} cores, with the clients on them; load of the machine before: {before:.1f}")
    if before > 1:
        print("The machine was busy: run it again when nothing else runs.")


if __name__ == "__main__":
    main()
