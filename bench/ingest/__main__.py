"""`python -m bench.ingest`: what ingestion takes, and what it does to the proxy beside it.

Exit status 0 also where an aim is missed, which the table says; 1 when a measurement failed.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from bench.figures import MeasurementFailed, Row, table
from bench.ingest.beside import beside
from bench.ingest.endpoint import endpoint
from bench.ingest.rates import KINDS, pipeline, two_workers
from bench.ingest.scale import scale


async def rates(folder: Path) -> list[Row]:
    with endpoint() as url:
        rows = []
        for number, kind in enumerate(KINDS):
            rows += await pipeline(folder / str(number), url, kind)
        return rows + await two_workers(folder / "two", url)


PARTS: dict[str, Callable[[Path], Awaitable[list[Row]]]] = {"rates": rates, "beside": beside, "scale": scale}


async def measure(folder: Path, parts: list[str]) -> list[Row]:
    rows = []
    for name in parts:
        rows += await PARTS[name](folder / name)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m bench.ingest", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("--part", choices=sorted(PARTS), action="append", help="only these; all by default")
    parts = parser.parse_args().part or list(PARTS)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the proxies end as well
    begin, load = time.monotonic(), os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="collections-bench-") as folder:
        try:
            rows = asyncio.run(measure(Path(folder), parts))
        except MeasurementFailed as error:
            raise SystemExit(f"FAILED: {error}") from error
    print(table(sorted(rows, key=lambda row: row.what.partition(")")[0])))
    print(
        f"\n{time.monotonic() - begin:.0f} s, {os.cpu_count()} cores; load of the machine before: {load:.1f}"
    )
    if load > 1:
        print("The machine was busy: run it again when nothing else runs.")


if __name__ == "__main__":
    main()
