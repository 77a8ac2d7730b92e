"""`python -m bench`: what we add to the stock proxy and to the store, side by side in one run.

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
from pathlib import Path

from bench.chat import plain_chat
from bench.figures import MeasurementFailed, Row, table
from bench.many import many_streams, memory
from bench.proxies import Sides, sides
from bench.search import filled, search
from bench.search_chat import search_chat
from bench.stream import streams
from bench.verification import verification

ROUNDS = 10
SEARCHES_PER_ROUND = 15
VERIFICATIONS_PER_ROUND = 500
CHATS_PER_ROUND = 1000


async def measure(both: Sides, rounds: int) -> list[Row]:
    async with filled(both) as collections:
        rows = await plain_chat(both, rounds)
        for collection in collections:
            rows += await search(both, collection, rounds * SEARCHES_PER_ROUND)
        rows += await streams(both, rounds)
        rows += await search_chat(both, collections[0], rounds)
        rows += await many_streams(both)
        rows += await memory(both, collections[0], rounds * CHATS_PER_ROUND)
        return rows + await verification(rounds * VERIFICATIONS_PER_ROUND)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="of each measurement (%(default)s)")
    rounds = parser.parse_args().rounds
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the proxies end as well
    begin = time.monotonic()
    load = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="collections-bench-") as folder, sides(Path(folder)) as both:
        try:
            rows = asyncio.run(measure(both, rounds))
        except MeasurementFailed as error:
            raise SystemExit(f"FAILED: {error}") from error
    print(table(rows))
    print(
        f"\n{rounds} rounds in {time.monotonic() - begin:.0f} s, {os.cpu_count()} cores; "
        f"load of the machine before: {load:.1f}"
    )
    if load > 1:
        print("The machine was busy: run it again when nothing else runs.")


if __name__ == "__main__":
    main()
